"""Draws docs/images/methods.png: what every method keeps of one clip. Needs the extra `plot`.

    python docs/method_figures.py

The clip goes through the bundled model, so that scores and attention are those of a trained one.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from holitom.cli.loading import TINY
from holitom.merge import Merge
from holitom.methods import BUILTIN, Method, method_class, parse, spell
from holitom.pipeline import Pipeline
from holitom.runtime import VideoRecord, question_ids
from holitom.video import Clip
from holitom.video.synthetic import SyntheticClip, suite

IMAGE = Path(__file__).parent / "images" / "methods.png"
NUMBER = 3  # of the clip in the test suite
RETENTION = 0.25
STAYS, MERGED = (0.91, 0.35, 0.05), (0.30, 0.67, 0.97)
SHOWN = 8  # frames


def settings() -> list[Method]:
    """Every method at one budget, as far as it has one, and without a second stage."""
    special = {"fastv": "fastv:inner_retention=0.25", "framefusion": "framefusion:cost=0.5", "dycoke": "dycoke"}
    found = []
    for name in BUILTIN:
        fields = method_class(name).__dataclass_fields__
        text = special.get(name, f"{name}:retention={RETENTION}" if "retention" in fields else name)
        found.append(parse(text + (",layer=none" if {"retention", "layer"} <= set(fields) else "")))
    return found


def through(video: VideoRecord) -> Merge:
    """From a video's patches to what is left of them in the last layer, without newlines (its last tokens)."""
    merge = video.merge
    for stage in video.inner:
        patches = merge.outputs  # an earlier stage may have dropped the newlines behind them
        kept = stage.merge.anchor < patches
        number = torch.cat([kept.cumsum(0) - 1, torch.tensor([-1])])
        target = torch.where(kept[stage.merge.target], number[stage.merge.target], -1)[:patches]
        merge = merge.compose(Merge(target, stage.merge.weight[:patches], stage.merge.anchor[kept]))
    return merge


def draw(clip: SyntheticClip, rows: list[tuple[str, VideoRecord, Merge]]) -> Figure:
    """A line for each method: in full colour with an orange frame what stays, blue what merges, pale what goes."""
    figure, axes = plt.subplots(len(rows), SHOWN, figsize=(SHOWN * 1.05, len(rows) * 1.05 + 0.4), dpi=84)
    for line, (name, video, merge) in zip(axes, rows, strict=True):
        source, output, _ = merge.edges()
        joined = np.bincount(output.numpy(), minlength=merge.outputs)
        state = np.zeros(merge.inputs, dtype=np.int64)  # 0 goes, 1 merges, 2 stays as it is
        state[source.numpy()] = np.where(joined[output.numpy()] > 1, 1, 2)
        anchored = np.zeros(merge.inputs, dtype=bool)
        anchored[merge.anchor.numpy()] = True
        state, anchored = (a.reshape(video.frames, *video.grid) for a in (state, anchored))
        step = video.frames / SHOWN
        for number, axis in enumerate(line):
            axis.set_axis_off()
            frame = int(number * step)
            axis.imshow(tint(clip.frames[int(frame * len(clip.frames) / video.frames)], state[frame], anchored[frame]))
        line[0].set_title(f"{name}: {merge.outputs} of {merge.inputs}", fontsize=7.5, loc="left", pad=3)
    legend = [
        Patch(facecolor="none", edgecolor=STAYS, linewidth=1.4, label="stays as it is"),
        Patch(facecolor=(*MERGED, 0.5), label="merges with others"),
        Patch(facecolor=(*MERGED, 0.5), edgecolor=STAYS, linewidth=1.4, label="where the merged token stands"),
        Patch(facecolor="white", edgecolor="#ced4da", label="goes"),
    ]
    figure.legend(handles=legend, loc="lower center", ncol=4, fontsize=7.5, frameon=False)
    bottom = 0.3 / figure.get_figheight()
    figure.subplots_adjust(left=0.005, right=0.995, top=1 - bottom / 1.5, bottom=bottom, wspace=0.04, hspace=0.2)
    return figure


def tint(frame: np.ndarray, state: np.ndarray, anchored: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) with its patches coloured by what becomes of them."""
    picture = np.array(Image.fromarray(frame).resize((84, 84), Image.Resampling.NEAREST)) / 255.0
    rows, columns = state.shape
    for row, column in np.ndindex(rows, columns):
        box = picture[row * 84 // rows : (row + 1) * 84 // rows, column * 84 // columns : (column + 1) * 84 // columns]
        if state[row, column] == 0:
            box[:] = 0.18 * box + 0.82
        elif state[row, column] == 1:
            box[:] = 0.55 * box + 0.45 * np.array(MERGED)
        if anchored[row, column]:
            for edge in (box[:1], box[-1:], box[:, :1], box[:, -1:]):
                edge[:] = STAYS
    return picture


def main() -> None:
    """Runs every method once and draws the result."""
    clip = suite("test", NUMBER + 1)[NUMBER]
    pipeline = Pipeline.from_pretrained(TINY, device="cpu")
    inputs = pipeline.preprocessor(clip.questions[0].text, Clip.from_frames(clip.frames))
    asked = question_ids(pipeline.preprocessor.tokenizer, inputs["input_ids"], clip.questions[0].text)
    rows = []
    for method in settings():
        with method(pipeline.model, question=asked) as session:
            pipeline.model.generate(**inputs, max_new_tokens=1)
        rows.append((spell(method), session.videos[0], through(session.videos[0])))
        print(f"{rows[-1][0]:<40}{rows[-1][2]}")
    figure = draw(clip, rows)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    IMAGE.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        IMAGE, optimize=True
    )


if __name__ == "__main__":
    main()
