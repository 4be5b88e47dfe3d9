"""FLOPs of the vision tower and the projector, two operations per multiply-add."""

from __future__ import annotations

from collections.abc import Sequence

from .flops import Flops
from .shape import ModelShape, VisionShape, check_int


def vision_flops(
    shape: ModelShape,
    frames: int,
    grid: tuple[int, int] | None = None,
    *,
    rows: Sequence[int] | None = None,
    pairs: Sequence[int] | None = None,
    projected: int | None = None,
) -> Flops:
    """FLOPs of encoding one video (or image): tower and projector.

    Args:
        shape: the model.
        frames: T, the number of frames; a tower that takes two at a time runs ceil(T / 2) steps.
        grid: patches (rows, columns) of one frame, before squares of patches merge. None where the tower has a fixed
            resolution.
        rows: for a method's stage inside the tower, the states of the video that each block works on; blocks beyond
            the last entry do not run. None: all of all blocks.
        pairs: likewise, the pairs of queries and keys in each block; needed with ``rows``.
        projected: the states that go through the projector, where that works on each for itself. None: all.

    Returns:
        The count by part. Pooling by average or interpolation costs no FLOPs here, as in torch's counter; the patch
        embedding is a convolution and does.
    """
    vision = shape.vision
    if vision is None:
        raise ValueError(f"the shape of {shape.family} has no vision tower: build it with ModelShape.from_config")
    check_int("frames", frames)
    height, width = _patch_grid(vision, shape.family, grid)
    steps = -(-frames // vision.frames_per_step)
    patches = height * width
    positions = patches + vision.class_tokens
    inner = vision.heads * vision.head_dim
    keys = (vision.kv_heads or vision.heads) * vision.head_dim
    layers = vision.layers - vision.conv_layers
    matrices = 3 if vision.gated else 2
    full = sum(layer in vision.full_layers for layer in range(layers)) if vision.window else layers
    pairs_by_frame = full * positions**2 + (layers - full) * _window_pairs(vision, height, width)
    total = Flops(
        projections=layers * 2 * positions * 2 * vision.hidden * (inner + keys)
        + vision.conv_layers * 2 * positions * 4 * vision.hidden**2,
        attention=4 * pairs_by_frame * inner
        + vision.conv_layers * 2 * positions * vision.hidden * vision.conv_kernel**2,
        mlp=vision.layers * 2 * positions * matrices * vision.hidden * vision.intermediate,
        embedding=2 * patches * vision.patch_inputs * vision.hidden,
        projector=_projector_flops(vision, height, width),
    )
    if vision.pooling_head:
        total += _pooling_head_flops(vision, positions)
    counts = {part: steps * count for part, count in total.as_dict().items() if part != "total"}
    if rows is not None:
        counts |= _of_rows(vision, counts, steps * positions, steps * pairs_by_frame, rows, pairs)
    if projected is not None:
        if vision.projector_input == "merged":
            raise ValueError(f"the projector of {shape.family} works on squares of patches: projected= must be None")
        counts["projector"] = counts["projector"] * projected // (steps * positions)
    return Flops(**counts)


def _of_rows(
    vision: VisionShape,
    counts: dict[str, int],
    full: int,
    full_pairs: int,
    rows: Sequence[int],
    pairs: Sequence[int] | None,
) -> dict[str, int]:
    """The parts of the blocks when they work on ``rows`` states each in place of ``full``."""
    if pairs is None or len(pairs) != len(rows) or len(rows) > vision.layers:
        raise ValueError(
            f"rows and pairs have one entry for each of at most {vision.layers} blocks, got {len(rows)} and "
            f"{None if pairs is None else len(pairs)}"
        )
    if vision.conv_layers:  # which blocks are convolutions is not known: every block counts as their mean
        mixing = counts["attention"] - 4 * full_pairs * vision.heads * vision.head_dim
        attention = 4 * sum(pairs) * (vision.layers - vision.conv_layers) // vision.layers
    else:
        mixing, attention = 0, 4 * sum(pairs)
    return {
        "projections": counts["projections"] * sum(rows) // (vision.layers * full),
        "attention": attention * vision.heads * vision.head_dim + mixing,
        "mlp": counts["mlp"] * sum(rows) // (vision.layers * full),
    }


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
