"""How objects look in notebooks: small tables and bars, without scripts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from holitom.merge import Merge

if TYPE_CHECKING:
    from holitom.runtime.records import VideoRecord
    from holitom.runtime.session import Session

_OUTCOMES = (("stay", "#d55e00"), ("merged", "#4477aa"), ("dropped", "#b9c0c8"))


def outcomes_of(merge: Merge, parts: int = 1) -> list[list[int]]:
    """Of each of ``parts`` equal parts of the sources: how many are a token alone, are merged, are dropped."""
    target = merge.target.detach().cpu().numpy()
    source, output, _ = (part.detach().cpu().numpy() for part in merge.edges())
    sizes = np.bincount(output, minlength=merge.outputs)
    shared = np.zeros(len(target), dtype=bool)
    shared[source[sizes[output] > 1]] = True
    dropped = target < 0
    counts: list[list[int]] = np.stack(
        [part.reshape(parts, -1).sum(1) for part in (~dropped & ~shared, shared, dropped)], 1
    ).tolist()
    return counts


def merge_html(merge: Merge) -> str:
    """A map as a line of numbers and a bar."""
    [counts] = outcomes_of(merge)
    words = ", ".join(f"{count:,} {name}" for count, (name, _) in zip(counts, _OUTCOMES, strict=True))
    return (
        f"<div><b>Merge</b> {merge.inputs:,} &rarr; {merge.outputs:,} tokens ({merge.retention:.1%})"
        f"{_bars([counts], 240, 10)}<small>of the sources {words}{_cut(merge)}</small></div>"
    )


def video_html(video: VideoRecord) -> str:
    """A video's way through the model, and its frames as bars."""
    ways = " &rarr; ".join(f"{count:,}" for count in video.tokens_by_stage)
    layers = ", ".join(str(stage.layer) for stage in video.inner)
    inner = f", merged inside the LLM in front of layer {layers}" if layers else ""
    height, width = video.grid
    share = 1.0 if video.tower is None else video.tower.share
    computed = "" if share == 1 else f"; {share:.1%} of the patches computed in the vision tower"
    return (
        f"<div>{video.frames} frames of {height} &times; {width}: {ways} tokens{inner}{_cut(video.merge)}{computed}"
        f"{_bars(outcomes_of(video.merge, video.frames), min(640, 24 * video.frames), 48)}</div>"
    )


def session_html(session: Session) -> str:
    """A session: the method, and what it did to the latest prompt."""
    title = f"<b>{escape(type(session.method).__name__)}</b> on {escape(type(session.model).__name__)}"
    if not session.prompts:
        return f"<div>{title}: no video yet</div>"
    summary = session.summary()
    whole, entering, leaving = summary.visual_tokens
    figures = [("visual tokens into the LLM", entering, whole), ("visual tokens leaving it", leaving, whole)]
    if summary.cost is not None:
        part, full = summary.cost.compressed, summary.cost.full
        if summary.cost.vision is not None:
            tower = summary.cost.vision
            figures.append(("vision tower FLOPs", tower.total, (summary.cost.full_vision or tower).total))
        figures += [
            ("prefill FLOPs (causal)", part.prefill_flops, full.prefill_flops),
            ("prefill FLOPs (paper's formula)", part.paper_flops, full.paper_flops),
            ("KV cache, bytes", part.kv_cache_bytes, full.kv_cache_bytes),
        ]
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th><td>{some:,}</td><td>{all_:,}</td><td>{some / all_:.1%}</td></tr>"
        for name, some, all_ in figures
    )
    key = " ".join(f"<span style='color:{colour}'>&#9632;</span> {name}" for name, colour in _OUTCOMES)
    settings = escape(
        ", ".join(f"{name}={value!r}" for name, value in session.method.settings().items() if name != "method")
    )
    return (
        f"<div>{title}<br><small>{settings}</small><table><tr><th></th><th>compressed</th><th>full</th><th></th></tr>"
        f"{rows}</table>{''.join(map(video_html, session.videos))}<small>patches by frame: {key}</small></div>"
    )


def _bars(parts: list[list[int]], width: int, height: int) -> str:
    """Stacked bars, one for each part; a lone one lies."""
    whole = max(1, *map(sum, parts))
    shapes = []
    for place, counts in enumerate(parts):
        passed = 0
        for (name, colour), count in zip(_OUTCOMES, counts, strict=True):
            if len(parts) > 1:
                box = f"x='{place + 0.04:.2f}' width='0.92' y='{whole - passed - count}' height='{count}'"
            else:
                box = f"x='{passed / whole:.5f}' width='{count / whole:.5f}' y='0' height='{whole}'"
            shapes.append(f"<rect {box} fill='{colour}'><title>{count} {name}</title></rect>")
            passed += count
    return (
        f"<svg viewBox='0 0 {len(parts)} {whole}' width='{width}' height='{height}' preserveAspectRatio='none' "
        f"style='display:block' role='img' aria-label='patches that stay, are merged, are dropped'>"
        f"{''.join(shapes)}</svg>"
    )


def _cut(merge: Merge) -> str:
    return f"; {len(merge.spans)} segments" if merge.spans else ""
