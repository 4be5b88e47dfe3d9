"""What became of a video's patches, as a matplotlib figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from holitom.report.overlay import BAR, Picture, paint
from holitom.report.plots import new_figure
from holitom.report.trace import shown_frames, stages_of
from holitom.runtime.records import VideoRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLANK = 150  # grey, where there are no frames to paint on


def plot(
    record: VideoRecord,
    frames: Picture | None = None,
    *,
    late: bool = False,
    tower: bool = False,
    per_row: int = 8,
) -> Figure:
    """Draws one small picture for each frame that the LLM sees.

    Patches that share a token share a colour, dropped ones fade, and an outline shows where a token stands.

    Args:
        record: of a session, as ``session.videos[0]``.
        frames: (F, H, W, 3) uint8, the sampled frames, as ``clip.frames``; None: grey ones.
        late: after the last stage inside the LLM, instead of on entering it.
        tower: what the vision tower computed (outlined) and reused, on its own grid of patches.
        per_row: pictures in a row.

    Raises:
        ImportError: without matplotlib, which the extra ``holitom[plot]`` installs.
        ValueError: when ``frames`` are no pictures, or nothing is known of the tower.
    """
    stage, grid = stages_of(record)[-1 if late else 0], record.grid
    merge, counted = stage.merge, f"tokens {stage.label}"
    if tower:
        if record.tower is None:
            raise ValueError("nothing is known of what the vision tower did with this video: leave tower=True out")
        merge, grid, counted = record.tower.patches, record.tower.grid, "computed in the vision tower"
    count, (rows, columns) = record.frames, grid
    if frames is None:
        frames = np.full((count, 8 * rows, 8 * columns, 3), _BLANK, dtype=np.uint8)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames must be (F, H, W, 3) uint8, got {frames.shape} {frames.dtype}")
    painted = paint(frames[shown_frames(len(frames), count)], merge, grid, side=224)
    per_row = min(per_row, count)
    lines = -(-count // per_row)
    high, wide = painted.shape[1:3]
    figure = new_figure(1.5 * per_row, (1.5 * high / wide + 0.25) * lines + 0.4)
    axes = list(figure.subplots(lines, per_row, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for number, (axis, picture) in enumerate(zip(axes, painted, strict=False)):
        axis.imshow(picture if merge.spans else picture[BAR:])
        axis.set_title(f"{number + 1}", fontsize=8, pad=2)
    cut = f", {len(merge.spans)} segments" if merge.spans else ""
    figure.suptitle(f"{merge.inputs:,} patches, {merge.outputs:,} {counted}{cut}", fontsize=10)
    return figure
