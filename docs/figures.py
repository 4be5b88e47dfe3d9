"""Draws docs/images/patches.png: a clip as a model reads it without compression and with it. Needs the extra `plot`.

python docs/figures.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from holitom import Method, Pipeline, Spread
from holitom.cli.loading import TINY
from holitom.runtime import VideoRecord
from holitom.video import Clip
from holitom.video.synthetic import SyntheticClip, suite

IMAGES = Path(__file__).parent / "images"
NUMBER = 2  # of the clip in the test split: one cut, four shapes
PER_ROW = 8


def compress(clip: SyntheticClip, method: Method) -> tuple[VideoRecord, str, str]:
    """What became of the video in the bundled model, and the answers without compression and with it."""
    pipeline = Pipeline.from_pretrained(TINY, device="cpu")
    frames, question = Clip.from_frames(clip.frames), clip.questions[0].text
    full = pipeline.ask(frames, question).text
    with method(pipeline.model) as session:
        inputs = pipeline.preprocessor(question, frames)
        ids = pipeline.model.generate(**inputs, max_new_tokens=8)
        said = pipeline.preprocessor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return session.videos[0], full, said.strip()


def draw(clip: SyntheticClip, video: VideoRecord, answers: tuple[str, str]) -> Figure:
    """The frames, and below them the same frames with nothing but the patches at which tokens stand."""
    rows, columns = video.grid
    height, width = clip.frames.shape[1] // rows, clip.frames.shape[2] // columns
    anchors = np.zeros(video.merge.inputs, dtype=bool)
    anchors[video.merge.anchor.numpy()] = True
    stays = anchors.reshape(video.frames, rows, columns).repeat(height, 1).repeat(width, 2)
    lines = -(-video.frames // PER_ROW)
    figure = plt.figure(figsize=(PER_ROW * 1.25, 2 * (lines * 1.3 + 0.45)), dpi=110)
    parts = figure.subfigures(2, 1, hspace=0)
    whole, left = video.merge.inputs, video.merge.outputs
    told = (
        f"Before: {whole} visual tokens, one for each patch",
        f"With spread at {left / whole:.0%}: {left} tokens, each of which holds the patches around it that are like it",
    )
    for part, title, answer, reduced in zip(parts, told, answers, (False, True), strict=True):
        part.suptitle(
            f'{title}. "{clip.questions[0].text}" {answer}', fontsize=8, x=0.01, y=0.97, horizontalalignment="left"
        )
        axes = part.subplots(lines, PER_ROW).flat
        part.subplots_adjust(left=0.01, right=0.99, top=0.88, bottom=0.02, wspace=0.06, hspace=0.06)
        for axis, frame, seen in zip(axes, clip.frames, stays, strict=False):
            axis.set_xticks([])
            axis.set_yticks([])
            plt.setp(axis.spines.values(), color="#ced4da")
            axis.imshow(np.where(seen[..., None], frame, 248) if reduced else frame, interpolation="nearest")
            for row in range(rows) if reduced else ():
                for column in range(columns):
                    if seen[row * height, column * width]:
                        corner = (column * width - 0.5, row * height - 0.5)
                        axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="#495057", linewidth=0.6))
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
    record, full, said = compress(clip, Spread(retention=0.10))
    save(draw(clip, record, (full, said)), IMAGES / "patches.png")
    print(f"{clip.name}: {record.merge}, {clip.questions[0].text} {full}, {said}")
