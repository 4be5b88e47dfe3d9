"""Draws docs/images/steps.png and cut.png: what each step of HoliTom does to a synthetic clip. Needs the extra `plot`.

python docs/step_figures.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch, Rectangle

sys.path.insert(0, str(Path(__file__).parent))
from figures import IMAGES, NUMBER, save

from holitom import HoliTom
from holitom.cli.loading import TINY
from holitom.pipeline import Pipeline
from holitom.report.trace import Trace, trace
from holitom.video import Clip
from holitom.video.synthetic import suite

MERGED, STAYS, LINKED = "#4477aa", "#d55e00", "#88ccee"


def follow() -> Trace:
    """HoliTom on the clip of the other figures, in the bundled model."""
    clip = suite("test", NUMBER + 1)[NUMBER]
    pipeline = Pipeline.from_pretrained(TINY, device="cpu")
    film = Clip.from_frames(clip.frames, source=clip.name)
    return trace(pipeline, film, clip.questions[0].text, [HoliTom(retention=0.10)], max_new_tokens=1)


def steps(found: Trace) -> Figure:
    """A column for each frame, a row for each step; gaps where the video is cut."""
    run, (rows, columns) = found.runs[0], found.grid
    entering, leaving = run.stages[0], run.stages[-1]
    spans = run.record.merge.spans or ()
    links = (found.similarity > (run.threshold or 0)).numpy()
    sizes = np.bincount(entering.merge.target[entering.merge.target >= 0].numpy(), minlength=entering.merge.outputs)
    shared = {int(anchor) for anchor, size in zip(entering.merge.anchor, sizes, strict=True) if size > 1}
    stands = [set(stage.merge.anchor.tolist()) for stage in (entering, leaving)]
    attention = np.zeros(found.frames * rows * columns) if leaving.attention is None else leaving.attention.numpy()
    heat = plt.get_cmap("cividis")(np.sqrt(attention / np.nanmax(attention)))

    titles = (
        f"the video: {found.frames * rows * columns} patches",
        "1  linked to the next frame (blue): the features hardly change",
        f"2 to 5  cut, merged and thinned out: {entering.merge.outputs} tokens enter the LLM",
        f"inside  attention of the question to each of them, before layer {leaving.layer}",
        f"inside  merged once more: {len(stands[1] - {-1})} tokens go on",
    )
    widths: list[float] = []
    for first, last in spans:
        widths += [1.0] * (last - first + 1) + [0.25]
    figure = plt.figure(figsize=(11, 5.1), dpi=110)
    areas = GridSpec(
        5, len(widths) - 1, figure, width_ratios=widths[:-1], left=0.01, right=0.99, top=0.955, bottom=0.05
    )
    areas.update(wspace=0.06, hspace=0.34)
    places = [place for place, width in enumerate(widths) if width == 1.0]
    for row, title in enumerate(titles):
        for frame, place in enumerate(places):
            axis = figure.add_subplot(areas[row, place])
            axis.set_axis_off()
            axis.imshow(found.pictures[frame], extent=(0, columns, rows, 0), interpolation="nearest")
            if not frame:
                axis.set_title(title, fontsize=8, loc="left", pad=3)
            for n in range(rows * columns):
                source, box = frame * rows * columns + n, ((n % columns, n // columns), 1, 1)
                if row == 1 and frame < found.frames - 1 and links[frame, n]:
                    axis.add_patch(Rectangle(*box, color=LINKED, alpha=0.65, linewidth=0))
                if row < 2:
                    continue
                if source not in stands[int(row == 4)]:
                    axis.add_patch(Rectangle(*box, color="white", alpha=0.85, linewidth=0))
                elif row == 3:
                    axis.add_patch(Rectangle(*box, color=heat[source], linewidth=0))
                else:
                    colour = MERGED if source in shared else STAYS
                    axis.add_patch(Rectangle(*box, facecolor=(*mpl.colors.to_rgb(colour), 0.45), edgecolor=colour))
    legend = [
        Patch(facecolor=LINKED, label="linked"),
        Patch(facecolor=MERGED, label="a token of several patches"),
        Patch(facecolor=STAYS, label="a patch that stays as it is"),
        Patch(facecolor=heat[int(np.nanargmax(attention))], label="much attention"),
        Patch(facecolor=plt.get_cmap("cividis")(0.0), label="little"),
    ]
    figure.legend(handles=legend, loc="lower center", ncol=5, fontsize=8, frameon=False)
    return figure


def cut(found: Trace) -> Figure:
    """What merging frames i to j over time saves, for all i and j, and the cut that saves most."""
    run = found.runs[0]
    links = (found.similarity > (run.threshold or 0)).numpy()
    gains = np.full((found.frames, found.frames), np.nan)
    for i in range(found.frames):
        for j in range(i, found.frames):
            gains[i, j] = (j - i) * links[i:j].all(0).sum()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), dpi=110, width_ratios=(1.5, 1))
    number = np.arange(1, found.frames) + 0.5
    left.fill_between(
        number, *np.quantile(found.similarity.numpy(), (0.1, 0.9), 1), color=MERGED, alpha=0.3, linewidth=0
    )
    left.plot(
        number, found.similarity.mean(1).numpy(), color=MERGED, label="mean, and from the lowest to the highest tenth"
    )
    left.axhline(run.threshold or 0, color=STAYS, linestyle="--", label=f"τ = {run.threshold}")
    spans = run.record.merge.spans or ()
    for first, _ in spans[1:]:
        left.axvline(first + 0.5, color="black", linewidth=1, label="cut" if first == spans[1][0] else None)
    left.set(xlabel="frame", ylabel="similarity to the next frame", xlim=(1, found.frames), ylim=(0, 1.02))
    left.legend(fontsize=8, loc="lower left")
    shown = right.imshow(gains, cmap="cividis", extent=(0.5, found.frames + 0.5, found.frames + 0.5, 0.5))
    for (first, last), gain in zip(spans, run.gains or (), strict=False):
        right.add_patch(
            Rectangle(
                (first + 0.5, first + 0.5), last - first + 1, last - first + 1, fill=False, edgecolor=STAYS, linewidth=2
            )
        )
        right.text(first + 0.8, last + 1.2, f"{gain}", color=STAYS, fontsize=9, va="bottom", weight="bold")
    right.set(xlabel="last frame j", ylabel="first frame i", title="tokens saved by one segment i..j")
    right.title.set_fontsize(9)
    figure.colorbar(shown, ax=right)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    clip = follow()
    save(steps(clip), IMAGES / "steps.png")
    save(cut(clip), IMAGES / "cut.png")
    print(f"{clip.clip.source}: gains {clip.runs[0].gains}, {clip.runs[0].record.tokens_by_stage} tokens by stage")
