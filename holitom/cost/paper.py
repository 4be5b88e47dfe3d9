"""The FLOPs of the HoliTom paper (arXiv:2505.21334, evaluation metrics and main results table), as it counts them.

For one decoder layer with n tokens, hidden size d and MLP width m the paper writes ``4 n d^2 + 2 n^2 d + 2 n d m``.
That counts a multiply-add as one operation, visual tokens alone, four square projections (no grouped-query
attention) and an MLP of two matrices (no gate). :func:`holitom.cost.prefill_flops` is what the model computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def paper_layer_flops(tokens: int, hidden: int, intermediate: int) -> int:
    """FLOPs of one decoder layer by the paper's formula, ``4 n d^2 + 2 n^2 d + 2 n d m``.

    Args:
        tokens: n, the number of visual tokens in the layer.
        hidden: d, the width of the residual stream.
        intermediate: m, the width of the MLP.

    Returns:
        The number of multiply-adds, which the paper calls FLOPs.
    """
    if tokens < 0 or hidden < 1 or intermediate < 1:
        raise ValueError(
            f"tokens must be at least 0, hidden and intermediate at least 1, got {tokens}, {hidden} and {intermediate}"
        )
    return 4 * tokens * hidden**2 + 2 * tokens**2 * hidden + 2 * tokens * hidden * intermediate


def paper_flops(tokens_per_layer: Sequence[int], hidden: int, intermediate: int | Sequence[int]) -> int:
    """Prefill FLOPs by the paper's formula: :func:`paper_layer_flops` summed over the layers.

    Args:
        tokens_per_layer: the number of visual tokens in each decoder layer, text tokens left out as in the paper.
        hidden: d, the width of the residual stream.
        intermediate: m, the width of the MLP, or that of each layer.

    Returns:
        The number of multiply-adds, which the paper calls FLOPs.
    """
    if not tokens_per_layer:
        raise ValueError("tokens_per_layer is empty: give one token count for each decoder layer")
    widths = [intermediate] * len(tokens_per_layer) if isinstance(intermediate, int) else intermediate
    return sum(paper_layer_flops(n, hidden, width) for n, width in zip(tokens_per_layer, widths, strict=True))


def paper_schedule(
    frames: int,
    tokens_per_frame: int,
    retention: float,
    layers: int,
    *,
    inner_layer: int | None = None,
    inner_retention: float = 0.5,
) -> tuple[int, ...]:
    """Visual tokens per layer behind the FLOPs column of the paper's main table.

    Of the obvious ways to round, one reproduces all nine figures of the table: each frame keeps
    ``ceil(tokens_per_frame * retention)`` tokens, the layers 0 .. inner_layer - 1 see them all, the rest sees
    ``round(n * inner_retention)``. No text token and no newline token is counted. The real method keeps a little
    more or fewer tokens than this, depending on the video; give the measured counts to :func:`paper_flops` for those.

    Args:
        frames: T, the number of frames (32 in the paper).
        tokens_per_frame: N, tokens of a frame before compression (196 for LLaVA-OneVision).
        retention: the share of the visual tokens that enters the language model, in (0, 1].
        layers: the number of decoder layers.
        inner_layer: the first layer behind the inner merge (18 in the paper); None for the outer stage alone.
        inner_retention: the share kept by the inner merge, in (0, 1].

    Returns:
        One token count for each decoder layer.
    """
    if frames < 1 or tokens_per_frame < 1 or layers < 1:
        raise ValueError(
            f"frames, tokens_per_frame and layers must be at least 1, got {frames}, {tokens_per_frame} and {layers}"
        )
    for name, share in (("retention", retention), ("inner_retention", inner_retention)):
        if not 0 < share <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, got {share}")
    if inner_layer is not None and not 1 <= inner_layer < layers:
        raise ValueError(f"inner_layer must be in 1..{layers - 1} or None, got {inner_layer}")
    # Rounded first, so that 0.15 * 20, a hair above 3 in binary, does not become 4.
    outer = frames * math.ceil(round(tokens_per_frame * retention, 9))
    if inner_layer is None:
        return (outer,) * layers
    return (outer,) * inner_layer + (round(outer * inner_retention),) * (layers - inner_layer)
