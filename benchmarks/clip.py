"""A made-up clip for the benchmarks: scenes that last some frames, still backgrounds, something that moves."""

from __future__ import annotations

import torch

from holitom.tokens import VideoTokens


def clip(frames: int = 32, side: int = 14, width: int = 3584, dtype: torch.dtype = torch.float32) -> VideoTokens:
    """Scenes of 4 to 12 frames; in each, 60 % of the positions hardly change and the others drift."""
    random = torch.Generator().manual_seed(0)
    positions = side * side
    features = torch.empty(frames, positions, width, dtype=dtype)
    start = 0
    while start < frames:
        length = int(torch.randint(4, 13, (1,), generator=random))
        scene = torch.randn(positions, width, generator=random)
        moving = (torch.rand(positions, 1, generator=random) < 0.4).float()
        for t in range(start, min(frames, start + length)):
            noise = torch.randn(positions, width, generator=random)
            scene = scene + moving * 0.5 * noise
            features[t] = (scene + 0.2 * noise).to(dtype)
        start += length
    return VideoTokens(
        features,
        (side, side),
        scores=torch.rand(frames, positions, generator=random),
        keys=torch.randn(frames, positions, 72, generator=random).to(dtype),
        frame_embeddings=torch.stack([frame.float().mean(0) for frame in features]),
        question=torch.randn(24, width, generator=random).to(dtype),
    )
