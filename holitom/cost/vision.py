"""FLOPs of the vision tower and the projector, two operations per multiply-add."""

from __future__ import annotations

from .flops import Flops
from .shape import ModelShape, VisionShape

__all__ = ["vision_flops"]


def vision_flops(shape: ModelShape, frames: int, grid: tuple[int, int] | None = None) -> Flops:
    """FLOPs of encoding one video (or image): tower and projector. Compression does not change them.

    Args:
        shape: the model.
        frames: T, the number of frames; a tower that takes two at a time runs ceil(T / 2) steps.
        grid: patches (rows, columns) of one frame, before squares of patches merge. None where the tower has a fixed
            resolution.

    Returns:
        The count by part. Pooling by average or interpolation costs no FLOPs here, as in torch's counter; the patch
        embedding is a convolution and does.
    """
    vision = shape.vision
    if vision is None:
        raise ValueError(f"the shape of {shape.family} has no vision tower: build it with ModelShape.from_config")
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise ValueError(f"frames must be an int of at least 1, got {frames!r}")
    rows, columns = _patch_grid(vision, shape.family, grid)
    steps = -(-frames // vision.frames_per_step)
    patches = rows * columns
    positions = patches + vision.class_tokens
    inner = vision.heads * vision.head_dim
    keys = (vision.kv_heads or vision.heads) * vision.head_dim
    layers = vision.layers - vision.conv_layers
    matrices = 3 if vision.gated else 2
    full = sum(layer in vision.full_layers for layer in range(layers)) if vision.window else layers
    pairs = full * positions**2 + (layers - full) * _window_pairs(vision, rows, columns)
    total = Flops(
        projections=layers * 2 * positions * 2 * vision.hidden * (inner + keys)
        + vision.conv_layers * 2 * positions * 4 * vision.hidden**2,
        attention=4 * pairs * inner + vision.conv_layers * 2 * positions * vision.hidden * vision.conv_kernel**2,
        mlp=vision.layers * 2 * positions * matrices * vision.hidden * vision.intermediate,
        embedding=2 * patches * vision.patch_inputs * vision.hidden,
        projector=_projector_flops(vision, rows, columns),
    )
    if vision.pooling_head:
        total += _pooling_head_flops(vision, positions)
    return Flops(**{part: steps * count for part, count in total.as_dict().items() if part != "total"})


def _patch_grid(vision: VisionShape, family: str, grid: tuple[int, int] | None) -> tuple[int, int]:
    """The patch grid of a frame: the given one, or the tower's own; errors say which one is needed."""
    rows_columns = grid or vision.grid
    if rows_columns is None:
        raise ValueError(f"{family} takes frames of any size: give grid=(rows, columns), the patches of one frame")
    rows, columns = rows_columns
    if rows < vision.merge or columns < vision.merge:
        raise ValueError(f"grid must have at least {vision.merge} rows and columns, got {rows} x {columns}")
    return rows, columns


def _window_pairs(vision: VisionShape, rows: int, columns: int) -> int:
    """Sum over the windows of a frame of their squared size; windows at the border are smaller."""
    side = vision.window
    if side is None:
        return 0

    def squares(length: int) -> int:
        return length // side * side**2 + (length % side) ** 2

    return squares(rows) * squares(columns)


def _projector_flops(vision: VisionShape, rows: int, columns: int) -> int:
    merged = (rows // vision.merge) * (columns // vision.merge)
    positions = {"merged": merged, "patches": rows * columns, "all": rows * columns + vision.class_tokens}
    weights = sum(inputs * outputs for inputs, outputs in vision.projector)
    projected = (1 + vision.deepstack) * 2 * positions[vision.projector_input] * weights
    pooled = 2 * merged * rows * columns * vision.hidden if vision.pooling_matmul else 0
    return projected + pooled


def _pooling_head_flops(vision: VisionShape, positions: int) -> Flops:
    # One learned query attends to all positions; then an MLP on its single result.
    width = vision.hidden
    return Flops(
        projections=2 * width * width * (2 + 2 * positions),
        attention=4 * positions * width,
        mlp=2 * 2 * width * vision.intermediate,
    )
