"""Every method in every family of models that it can work in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from families import FAMILIES, IMAGE, VIDEO, batch, build, model_of, questions, row, three_rows
from matrix import some

from holitom.merge import Merge
from holitom.methods import BUILTIN, Chain, FrameFusion, Method, parse
from holitom.tokens import SpanStates

EVERYTHING = {
    "holitom": "holitom:retention=1.0,inner_retention=1.0,layer=3",
    "fastv": "fastv:inner_retention=1.0",
    "pyramiddrop": "pyramiddrop:layers_at=(2,3),shares=(1.0,1.0)",
    "prunevid": "prunevid:retention=1.0,exact=true,inner_retention=1.0,layer=3",
    "flashvid": "flashvid:retention=1.0,inner_retention=1.0,layer=3",
    "framefusion": "framefusion:cost=1.0,first=2",
    "randominner": "randominner:inner_retention=1.0,layer=3",
    "randomdrop": "randomdrop:retention=1.0|fastv:inner_retention=1.0",
    "unifiedst": "unifiedst:retention=1.0,inner_retention=1.0,layer=3",
    "sttm": "sttm:threshold=1.0,temporal_threshold=none",
    "renewal": "renewal:change=0.0",
    "earlytom": "earlytom:retention=1.0,inner_retention=1.0,max_frames=2,layer=3",
    "tome": "tome:merged=0.001",
    "repeatframes": "repeatframes:every=1",
    "cellsample": "cellsample:side=1",
    "cellmean": "cellmean:side=1",
}
SOME = {
    "holitom": "holitom:retention=0.3,layer=3",
    "pyramiddrop": "pyramiddrop:layers_at=(2,3),shares=(0.5,0.2)",
    "prunevid": "prunevid:layer=3",
    "flashvid": "flashvid:layer=3",
    "unifiedst": "unifiedst:layer=3",
    "framefusion": "framefusion:first=2,similarity=0.9",
    "randominner": "randominner:layer=3,merge=true",
    "randomdrop": "randomdrop:retention=0.5|pyramiddrop:layers_at=(2,3),shares=(0.5,0.2)",
}


def fitting(text: str, family: str) -> Method | None:
    """The method as the family can take it: without its inner stage where there can be none; None for inner ones."""
    method = parse(text)
    if FAMILIES[family].inner:
        return method
    if isinstance(method, Chain):
        return method.before
    if "before" not in method.stages:
        return None
    return parse({"method": method.name, **method.settings(), "layer": None}) if method.layers(4) else method


CASES = [(family, name) for family in FAMILIES for name in BUILTIN if fitting(SOME.get(name, name), family)]


@cache
def plain_logits(name: str) -> torch.Tensor:
    with torch.no_grad():
        return model_of(name)(**batch(name, *three_rows(name))).logits


@pytest.mark.parametrize(("family", "name"), some(CASES, 12, turn=2))
def test_keeping_everything_changes_nothing(family: str, name: str) -> None:
    default = f"{name}:retention=1.0,exact=true"
    method = fitting(EVERYTHING.get(name, default), family)
    asked = questions(*three_rows(family))
    with torch.no_grad(), method(model_of(family), question=asked) as session:
        logits = model_of(family)(**batch(family, *three_rows(family))).logits
    assert session.videos
    assert all(video.merge.outputs == video.merge.inputs for video in session.videos)
    torch.testing.assert_close(logits, plain_logits(family), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("family", "name"), some(CASES, 12, turn=4))
def test_generates_with_fewer_tokens(family: str, name: str) -> None:
    method, model, rows = fitting(SOME.get(name, name), family), model_of(family), three_rows(family)
    with method(model, question=questions(*rows)) as session:
        out = model.generate(**batch(family, *rows), max_new_tokens=3, do_sample=False)
    assert out.shape == (len(rows), max(len(row.ids) for row in rows) + 3)
    assert len(session.videos) == sum(len(row.videos) for row in rows)
    for video in session.videos:
        video.merge.validate()
        if "before" in method.stages:
            assert video.merge.outputs < video.merge.inputs
            if method.exact_count:
                assert video.merge.outputs == method.token_count(video.frames, video.grid)


def test_a_family_without_layer_one_takes_framefusion_from_a_later_layer() -> None:
    model = model_of("qwen3_vl")
    with pytest.raises(ValueError, match="layer 2 or later"):
        FrameFusion()(model)
    FrameFusion(first=2)(model)


@dataclass(frozen=True)
class Probe(Method):
    """Keeps everything and remembers what it was shown."""

    attention: str = "last"  # type: ignore[assignment,misc]
    seen: dict[str, torch.Tensor] = field(default_factory=dict, compare=False)

    def layers(self, depth: int) -> tuple[int, ...]:
        return (2,)

    def merge_span(self, span: SpanStates) -> Merge:
        self.seen["attention"] = span.attention
        return Merge.identity(len(span.hidden))


@pytest.mark.parametrize("family", ["llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl"])
@pytest.mark.parametrize("attention", ["last", "coming", "text"])
def test_inner_methods_see_the_attention_they_ask_for(family: str, attention: str) -> None:
    """What a session shows without computing whole matrices is what eager attention gives when asked for them."""
    one = row(family, ("words", 4), ("video", 6), ("words", 7))
    inputs, columns, model = batch(family, one), one.videos[0], build(family, attention="eager")
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions
        probe = Probe(attention)
        with probe(model_of(family)):
            model_of(family)(**inputs)
    if attention == "text":
        text = max(at for at, token in enumerate(one.ids) if token in (VIDEO, IMAGE)) + 1  # behind newlines too
        wanted = maps[1][0, :, text:].amax((0, 1))
    else:
        wanted = maps[2 if attention == "coming" else 1][0, :, -1].mean(0)
    got = probe.seen["attention"]
    wanted = wanted[columns[0] : columns[-1] + 1]
    if len(got) == len(columns):
        wanted = wanted[torch.tensor(columns) - columns[0]]
    torch.testing.assert_close(got[: len(wanted)], wanted[: len(got)], atol=1e-5, rtol=1e-4)
