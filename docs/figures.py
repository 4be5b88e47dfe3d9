"""Draws docs/images/patches.png: what HoliTom makes of the patches of one synthetic clip. Needs the extra `plot`.

python docs/figures.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from holitom import HoliTom
from holitom.cli.loading import TINY
from holitom.pipeline import Pipeline
from holitom.runtime import VideoRecord
from holitom.video import Clip
from holitom.video.synthetic import SyntheticClip, suite

IMAGES = Path(__file__).parent / "images"
STAYS, CENTRE, MERGED = "#e8590c", "#fff3bf", "#868e96"
NUMBER = 2  # of the clip in the test split: one cut, four shapes
PER_ROW = 8


def compress(clip: SyntheticClip, method: HoliTom) -> VideoRecord:
    """Asks the bundled model once and returns what became of the video."""
    pipeline = Pipeline.from_pretrained(TINY, device="cpu")
    with method(pipeline.model) as session:
        inputs = pipeline.preprocessor(clip.questions[0].text, Clip.from_frames(clip.frames))
        pipeline.model.generate(**inputs, max_new_tokens=1)
        return session.videos[0]


def draw(clip: SyntheticClip, video: VideoRecord) -> Figure:
    """One picture for each frame: orange what stays, cream where merged tokens stand, pale what is dropped."""
    rows, columns = video.grid
    height, width = clip.frames.shape[1] / rows, clip.frames.shape[2] / columns
    merge = video.merge
    target = merge.target.view(video.frames, rows, columns).numpy()
    sources = np.bincount(merge.target[merge.target >= 0].numpy(), minlength=merge.outputs)
    anchor = np.full(merge.inputs, -1)
    anchor[merge.anchor.numpy()] = np.arange(merge.outputs)
    anchor = anchor.reshape(target.shape)
    spans = merge.spans or ()

    lines = -(-video.frames // PER_ROW)
    figure, axes = plt.subplots(lines, PER_ROW, figsize=(PER_ROW * 1.25, lines * 1.55 + 0.45), dpi=110)
    for frame, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if frame >= video.frames:
            continue
        axis.imshow(clip.frames[frame], interpolation="nearest")
        number = next(number for number, (first, last) in enumerate(spans) if first <= frame <= last)
        first, last = spans[number]
        title = f"segment {number + 1}: frames {first + 1}–{last + 1}" if frame == first else ""
        axis.set_title(title, fontsize=7, loc="left", pad=9)
        bar = Rectangle((0, -10), clip.frames.shape[2], 6, color="#495057" if number % 2 else "#adb5bd", clip_on=False)
        axis.add_patch(bar)
        for row in range(rows):
            for column in range(columns):
                out, own = target[frame, row, column], anchor[frame, row, column]
                box = ((column * width - 0.5, row * height - 0.5), width, height)
                if out < 0:
                    axis.add_patch(Rectangle(*box, color="white", alpha=0.82, linewidth=0))
                    continue
                if own >= 0:
                    colour = STAYS if sources[out] == 1 else CENTRE
                    axis.add_patch(Rectangle(*box, fill=False, edgecolor=colour, linewidth=1.3))
    legend = [
        Patch(facecolor=MERGED, edgecolor=STAYS, linewidth=1.5, label="stays as it is"),
        Patch(facecolor=MERGED, label="merges over time and space ..."),
        Patch(facecolor=MERGED, edgecolor=CENTRE, linewidth=2, label="... into the token that stands here"),
        Patch(facecolor="white", edgecolor="#ced4da", label="dropped"),
    ]
    figure.legend(handles=legend, loc="lower center", ncol=4, fontsize=7, frameon=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.09, wspace=0.06, hspace=0.25)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a small PNG of 256 colours."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


if __name__ == "__main__":
    clip = suite("test", NUMBER + 1)[NUMBER]
    record = compress(clip, HoliTom(retention=0.10))
    save(draw(clip, record), IMAGES / "patches.png")
    print(f"{clip.name}: {record.merge}, segments {record.merge.spans}")
