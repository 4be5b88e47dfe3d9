"""What it costs to have everything attached while nothing is merged.

    python benchmarks/overhead.py [--tokens 2000] [--rounds 25] [--json FILE]
    python benchmarks/overhead.py --host [--rounds 25] [--json FILE]

A LLaVA-OneVision with a decoder of 4 layers, 512 wide, on one thread: prefill of a prompt of about 2,000 tokens, nearly
all of one video, and decoding after it, with HoliTom attached and without, in turns. "outer" is the stage before the
LLM at retention 1, "both" also has the stage inside it, which keeps everything. The vision tower's work is done
beforehand. Times are processor time, medians of ratios of the same round; on a noisy machine the ratio of the
fastest rounds says more, as noise only adds. Target: at most 3 % longer.

--host: what Python and torch's dispatch take between vision tower and LLM, which a fast GPU waits for. 32 frames of
14 x 14 tokens with 8 channels, so that there is little to compute: from the model's call, its videos encoded, to that
of its decoder, with a method and without; and the methods by themselves (map and merging). They take the path of a CPU,
so clustering computes all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from clip import clip

from holitom import HoliTom
from holitom.cost import interleave
from holitom.methods import parse
from holitom.models.transformers_names import cache_argument
from holitom.video.torchvision import hide_broken_torchvision

VIDEO = 990
METHODS = {"outer": HoliTom(retention=1.0, layer=None), "both": HoliTom(retention=1.0, inner_retention=1.0)}


def build(layers: int = 4, width: int = 512, heads: int = 8, kv_heads: int = 8, side: int = 4) -> Any:
    """The model, with random weights."""
    hide_broken_torchvision()
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        Qwen2Config,
        SiglipVisionConfig,
    )

    torch.manual_seed(0)
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28 * side,
        patch_size=14,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=1376,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), video_token_id=VIDEO, image_token_id=991
    )
    return LlavaOnevisionForConditionalGeneration(config).eval()


def prompt(tokens: int, side: int = 4) -> dict[str, torch.Tensor]:
    """Ids with one video of side x side positions a frame, and its frames."""
    frames = (tokens - 33) // side**2
    text = torch.randint(1, 900, (32,))
    ids = torch.cat([text[:16], torch.full((frames * side**2 + 1,), VIDEO), text[16:]])[None]
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values_videos": torch.randn(1, frames, 3, 28 * side, 28 * side),
    }


def encoded_by(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What the model's forward needs so that its vision tower has no more to do."""
    with torch.no_grad():
        videos = model.model.get_video_features(inputs["pixel_values_videos"], return_dict=True)
    kept = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    return {**kept, "mm_encoder_outputs": {"video": videos}}


def prefill(model: Any, inputs: dict[str, Any]) -> Any:
    """One forward over the whole prompt; returns its cache."""
    from transformers import DynamicCache

    with torch.no_grad():
        cache = DynamicCache(config=model.get_decoder().config)
        model(**inputs, **{cache_argument(model.forward): cache}, use_cache=True, logits_to_keep=1)
    return cache


class Decoding:
    """Goes on with a cache, a few tokens at each call."""

    def __init__(self, model: Any, inputs: dict[str, Any], steps: int = 8) -> None:
        self.model, self.steps = model, steps
        self.cache, self.mask = prefill(model, inputs), inputs["attention_mask"]
        self.name = cache_argument(model.forward)

    def __call__(self) -> None:
        """Decodes; the cache grows alike with and without a method."""
        for _ in range(self.steps):
            self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
            with torch.no_grad():
                self.model(input_ids=torch.tensor([[5]]), attention_mask=self.mask, **{self.name: self.cache})


class DecoderReached(Exception):
    """Ends a call of the model in front of its decoder."""


def until_decoder(model: Any, inputs: dict[str, Any]) -> None:
    """A call of the model without what its decoder does."""

    def stop(*_: object) -> None:
        raise DecoderReached

    handle = model.get_decoder().register_forward_pre_hook(stop, with_kwargs=True)
    with contextlib.suppress(DecoderReached), torch.no_grad():
        model(**inputs)
    handle.remove()


def report_host(options: argparse.Namespace) -> None:
    """The table of the host's time."""
    video, names = clip(width=8), ("holitom", "spread", "visionzip", "vcast", "evs")
    methods = {name: parse(f"{name}:retention=0.1") for name in names}
    tasks: dict[str, Callable[[], object]] = {}
    for name in (None, *names):
        model = build(layers=28, width=8, heads=2, kv_heads=2, side=14)
        session = None if name is None else methods[name].attach(model)
        given = encoded_by(model, prompt(32 * 196 + 33, side=14))
        features = given["mm_encoder_outputs"]["video"].pooler_output
        features[0, : 32 * 196] = video.features.flatten(0, 1)
        tasks[f"call {name or 'without'}"] = functools.partial(until_decoder, model, given)
        if session is not None:
            tasks[f"method {name}"] = lambda method=methods[name]: method.merge_video(video).apply(
                video.features.flatten(0, 1)
            )
    samples = interleave(tasks, repeats=options.rounds, warmup=3, clock=time.process_time)
    print(f"ms of the processor until the decoder, median (fastest) of {options.rounds} rounds in turns")
    for name, sample in samples.items():
        print(f"{name:<18}{1e3 * sample.median:>8.2f} ({1e3 * sample.minimum:.2f})")
    if options.json:
        options.json.write_text(json.dumps({name: sample.as_dict() for name, sample in samples.items()}, indent=1))


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--host", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.host:
        report_host(options)
        return
    inputs = prompt(options.tokens)
    plain = build()
    attached = {name: build() for name in METHODS}
    sessions = [METHODS[name].attach(model) for name, model in attached.items()]
    models = {"without": plain, **attached}
    given = {name: encoded_by(model, inputs) for name, model in models.items()}
    runs: dict[str, dict[str, Callable[[], object]]] = {
        "prefill": {name: functools.partial(prefill, model, given[name]) for name, model in models.items()},
        "decode": {name: Decoding(model, given[name]) for name, model in models.items()},
    }
    found: dict[str, Any] = {"tokens": inputs["input_ids"].shape[1], "threads": 1, "machine": platform.machine()}
    print(f"{found['tokens']} tokens, 4 layers, 512 wide, 1 thread, {options.rounds} rounds in turns")
    for stage, timed in runs.items():
        samples = interleave(timed, repeats=options.rounds, warmup=3, clock=time.process_time)
        base = samples["without"]
        print(f"{stage}: {base.median * 1e3:.1f} ms without")
        for name in attached:
            rounds = [own / plain for own, plain in zip(samples[name].seconds, base.seconds, strict=True)]
            low, middle, high = statistics.quantiles(rounds, n=4)
            fastest = samples[name].minimum / base.minimum
            found[f"{stage} {name}"] = {"ratio": middle, "quartiles": [low, high], "fastest": fastest}
            print(f"  {name}: {middle:.3f} times as long (quartiles {low:.3f} to {high:.3f}), fastest {fastest:.3f}")
    for session in sessions:
        session.remove()
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
