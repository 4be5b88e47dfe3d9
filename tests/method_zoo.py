"""All methods with the settings that the property tests run them in, and videos to run them on."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from official import OfficialFlashVID, OfficialVCast, OfficialVisionZip

from holitom.methods.base import Method
from holitom.methods.baselines import AveragePool, RandomDrop, UniformFrames
from holitom.methods.cdpruner import CDPruner
from holitom.methods.cells import CellMean, CellSample
from holitom.methods.divprune import DivPrune
from holitom.methods.dycoke import DyCoke
from holitom.methods.echoprune import EchoPrune
from holitom.methods.evs import EVS
from holitom.methods.fastvid import FastVID
from holitom.methods.flashvid import FlashVID
from holitom.methods.forestprune import ForestPrune
from holitom.methods.holitom import HoliTom
from holitom.methods.prunevid import PruneVid
from holitom.methods.spread import Spread
from holitom.methods.unifiedst import UnifiedST
from holitom.methods.vcast import VCast
from holitom.methods.vidcom2 import VidCom2
from holitom.methods.visionzip import VisionZip
from holitom.tokens import VideoTokens

OUTER: tuple[type[Method], ...] = (
    HoliTom,
    Spread,
    VisionZip,
    DyCoke,
    PruneVid,
    FastVID,
    EVS,
    VidCom2,
    DivPrune,
    CDPruner,
    EchoPrune,
    FlashVID,
    UnifiedST,
    VCast,
    ForestPrune,
    UniformFrames,
    RandomDrop,
    AveragePool,
)
VARIANTS: tuple[Method, ...] = (
    *(method() for method in OUTER),
    FastVID(variant="video", scenes="embeddings"),
    FastVID(segments=1, tau=-1.0, retention=0.5),
    PruneVid(retention=0.2),
    PruneVid(tau=0.0, scene_ratio=1.0),
    FlashVID(selection="div", segment_threshold=None),
    FlashVID(selection="attn", alpha=0.2, tau=0.0),
    FlashVID(selection="attn_div", retention=0.9),
    VisionZip(compare="features", retention=0.6),
    EVS(pruning_rate=0.7),
    VidCom2(pruning_rate=0.7),
    VCast(min_tokens=3, retention=0.05),
    CellSample(),
    CellMean(),
    CellMean(side=3),
    Spread(pick="rounds", retention=0.2),
    CDPruner(relevant="like", retention=0.6),
    EchoPrune(temperature=0.01, retention=0.6),
    UnifiedST(tau=0.0, cluster_ratio=0.0, retention=0.6),
    Spread(step=0.0, join=1.0, width=4),
    HoliTom(sink=1.0),
    HoliTom(change=0.1, retention=0.5),
    Spread(change=0.2, retention=0.5),
    EVS(change=0.05, retention=0.3),
    HoliTom(sink=2.0, similarity="auto", layer=None),
    VisionZip(sink=1.0),
    FastVID(sink=1.0),
    FlashVID(sink=1.0),
)
OFFICIAL: tuple[Method, ...] = (
    OfficialVisionZip(),
    OfficialFlashVID(),
    OfficialFlashVID(retention=0.7, min_segments=1),
    OfficialVCast(),
)


def make_video(
    frames: int, grid: tuple[int, int], width: int, seed: int, motion: float, dtype: torch.dtype = torch.float32
) -> VideoTokens:
    """Tokens that drift from frame to frame by ``motion`` (0: a still), with scores, keys and frame embeddings."""
    random = torch.Generator().manual_seed(seed)
    positions = grid[0] * grid[1]
    still = torch.randn(1, positions, width, generator=random)
    drift = torch.randn(frames, positions, width, generator=random).cumsum(0)
    features = (still + motion * drift).to(dtype)
    return VideoTokens(
        features,
        grid,
        scores=torch.rand(frames, positions, generator=random),
        keys=torch.randn(frames, positions, 6, generator=random).to(dtype),
        frame_embeddings=torch.randn(frames, 8, generator=random).to(dtype),
        question=torch.randn(3, width, generator=random).to(dtype),
    )


@st.composite
def videos(draw: st.DrawFn) -> VideoTokens:
    return make_video(
        draw(st.integers(1, 12)),
        draw(st.tuples(st.integers(1, 7), st.integers(1, 7))),
        draw(st.integers(1, 12)),
        draw(st.integers(0, 1000)),
        draw(st.sampled_from([0.0, 0.05, 1.0])),
        draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])),
    )
