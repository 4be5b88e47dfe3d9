"""A page that shows what methods made of one clip: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from numpy.typing import NDArray

from holitom import __version__
from holitom.merge import Merge
from holitom.report.colours import FILL, PALETTE, SCALE, colour_tokens
from holitom.report.reprs import outcomes_of
from holitom.report.steps import steps_of
from holitom.report.trace import Run, Stage, Trace, some

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SIDES = ((48, 256), (128, 176))  # up to so many frames, so many pixels on the long side
_SIDE = 128


def write_page(trace: Trace, path: Path | str) -> Path:
    """Writes the page. For 32 frames of 196 patches: under 5 MB, in under 5 s.

    Raises:
        ValueError: for more methods than the alphabet has letters.
        OSError: when the file cannot be written.
    """
    path = Path(path)
    text = page(trace)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # a name may be no UTF-8
    return path


def page(trace: Trace) -> str:
    """The page's text. Everything that a user gave (names, questions, answers) is escaped."""
    if len(trace.runs) > len(LETTERS):
        raise ValueError(f"a page shows at most {len(LETTERS)} methods, got {len(trace.runs)}")
    assets = files("holitom.report") / "assets"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(si=si, percent=percent, ms=lambda seconds: f"{seconds * 1e3:,.1f}")
    template = environment.from_string((assets / "page.html").read_text("utf-8"))
    return template.render(
        trace=trace,
        name=Path(trace.clip.source).name or trace.clip.source,
        lanes=[_Lane(letter, run, trace.frames) for letter, run in zip(LETTERS, trace.runs, strict=False)],
        css=Markup((assets / "page.css").read_text("utf-8")),
        js=Markup("".join((assets / name).read_text("utf-8") for name in ("page.js", "steps.js"))),
        steps=steps_of(trace),
        data=Markup(_script(page_data(trace))),
        patches=trace.grid[0] * trace.grid[1],
        links=_links(trace),
        peaks=_peaks(trace),
        any_spans=any(run.record.merge.spans for run in trace.runs),
        version=__version__,
    )


def page_data(trace: Trace) -> dict[str, Any]:
    """What the page's script draws, as plain numbers and lists."""
    steps, tower = steps_of(trace), trace.tower
    return {
        "frames": trace.frames,
        "grid": list(trace.grid),
        "times": [round(time, 3) for time in trace.times],
        "pictures": pictures(trace.pictures),
        "similarity": _rounded(trace.similarity.flatten().numpy(), 3),
        "scores": None if trace.scores is None else _rounded(_relative(trace.scores.flatten().numpy()), 3),
        "palette": PALETTE,
        "fill": FILL,
        "scale": SCALE,
        "steps": steps and {"run": steps.run, "segment": steps.segment, "static": steps.static},
        "tower": _tower(trace),
        "runs": [
            {
                "letter": letter,
                "name": run.name,
                "threshold": run.threshold,
                "spans": run.record.merge.spans,
                "stages": [_stage(stage, trace.frames, trace.grid) for stage in some(run.stages)],
                "tower": None if run.tower is None or tower is None else _map(run.tower, trace.frames, tower.grid),
            }
            for letter, run in zip(LETTERS, trace.runs, strict=False)
        ],
    }


def pictures(frames: NDArray[np.uint8]) -> list[str]:
    """Frames (T, H, W, 3) as small JPEG pictures in data addresses; the more frames, the smaller."""
    from PIL import Image

    most = next((side for count, side in _SIDES if len(frames) <= count), _SIDE)
    found = []
    for frame in frames:
        picture = Image.fromarray(frame)
        picture.thumbnail((most, most), Image.Resampling.BILINEAR)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=82)
        found.append("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii"))
    return found


def si(value: float | None) -> str:
    """``1234567`` as ``1.23 M``."""
    if value is None:
        return ""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value / size < 999.5 else f"{value / size:.0f} {unit}"
    return f"{value:g}"


def percent(part: float | None, whole: float | None) -> str:
    """``0.05, 1`` as ``5 %``."""
    if part is None or not whole:
        return ""
    share = 100 * part / whole
    return f"{share:.0f} %" if share >= 9.95 else f"{share:.1f} %"


class _Lane:
    """One method's row of the page."""

    def __init__(self, letter: str, run: Run, frames: int) -> None:
        self.letter, self.run, self.name = letter, run, run.name
        self.summary, self.answer = run.answer.summary, run.answer
        self.full, self.entering, self.leaving = self.summary.visual_tokens
        share = None if self.summary.cost is None else self.summary.cost.ratios["vision_flops"]
        self.tower = None if share is None or share == 1 else share
        self.layers = [stage.layer for stage in run.stages if stage.layer is not None]
        self.outcomes = outcomes_of(run.stages[0].merge, frames)
        spans = run.record.merge.spans or ()
        gains: Sequence[int | None] = run.gains or [None] * len(spans)
        widest = max((gain or 0 for gain in gains), default=0)
        self.segments = [
            {
                "number": number,
                "first": first + 1,
                "last": last + 1,
                "length": last - first + 1,
                "gain": gain,
                "share": (gain or 0) / widest if widest else 0,
                "outcomes": [sum(column) for column in zip(*self.outcomes[first : last + 1], strict=True)],
            }
            for number, ((first, last), gain) in enumerate(zip(spans, gains, strict=True), 1)
        ]
        self.gain = sum(gain or 0 for gain in gains) if run.gains is not None else None
        self.totals = [sum(column) for column in zip(*self.outcomes, strict=True)]


def _tower(trace: Trace) -> dict[str, Any] | None:
    """The vision tower's grid, and of a frame's patches those that become each place of the LLM's."""
    if trace.tower is None:
        return None
    patch, place, _ = trace.tower.pooled(trace.grid)
    return {"grid": list(trace.tower.grid), "patch": patch.tolist(), "place": place.tolist()}


def _stage(stage: Stage, frames: int, grid: tuple[int, int]) -> dict[str, Any]:
    attention = None
    if stage.attention is not None:
        attention = _rounded(_relative(np.nan_to_num(stage.attention.numpy(), nan=-1.0)), 3)
    return {"label": stage.label, "layer": stage.layer, **_map(stage.merge, frames, grid), "attention": attention}


def _map(merge: Merge, frames: int, grid: tuple[int, int]) -> dict[str, Any]:
    more = merge.shares
    return {
        "target": merge.target.tolist(),
        "weight": [float(f"{value:.4g}") for value in merge.weight.tolist()],
        "anchor": merge.anchor.tolist(),
        "shares": None
        if more is None
        else [more.source.tolist(), more.output.tolist(), [float(f"{value:.4g}") for value in more.weight.tolist()]],
        "colour": colour_tokens(merge, frames, grid).tolist(),
    }


def _relative(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values over the largest; negative ones, which stand for none, become -1."""
    largest = float(values.max(initial=0.0))
    return np.where(values < 0, -1.0, values / largest if largest > 0 else 0.0).astype(np.float32)


def _rounded(values: NDArray[np.float32], digits: int) -> list[float]:
    return [round(value, digits) if math.isfinite(value) else 0.0 for value in values.tolist()]


def _links(trace: Trace) -> list[tuple[float, float, float]]:
    """By link, the lowest decile, the mean and the highest decile of the similarity."""
    return [
        (float(np.quantile(row, 0.1)), float(row.mean()), float(np.quantile(row, 0.9)))
        for row in trace.similarity.numpy()
    ]


def _peaks(trace: Trace) -> list[float]:
    """By frame, the share of its attention that its strongest tenth of patches receives."""
    if trace.scores is None:
        return []
    scores = np.sort(np.nan_to_num(trace.scores.numpy()), 1)[:, ::-1]
    tenth = max(1, round(scores.shape[1] / 10))
    shares: list[float] = (scores[:, :tenth].sum(1) / np.maximum(scores.sum(1), 1e-12)).tolist()
    return shares


def _script(data: dict[str, Any]) -> str:
    """JSON that can stand inside a script element, whatever strings it holds."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
