"""What a vLLM server gains: requests per second and time to first token, plain and with methods at equal counts.

    python benchmarks/serving.py --out benchmarks/results/serving-cpu
    python benchmarks/serving.py --model small-qwen3-vl --method "plain vLLM" --method vllm:evs --method vllm:vidcom2 \\
        --method spread --method holitom --rounds 5 --out benchmarks/results/serving-cpu-qwen3-vl
    python benchmarks/serving.py --device cuda --model qwen3-vl-8b --out benchmarks/results/serving-gpu
    python benchmarks/serving.py --device cuda --model llava-onevision-7b --dry-run

Needs `make serving`, or holitom[vllm] and openai. One server for each method runs the whole time, and only one is asked
at a time: at each number of requests in flight all take their turn with the same videos, round after round (A B C A B
C). No video comes twice, so no cache helps. Time to first token is measured in the client, from sending the request
(with the video in it, base64) to the first event of the stream. A run that was interrupted is continued by starting it
again with the same --out. On a GPU the servers do not fit beside each other: --one-at-a-time starts them in turns, in
each round anew.

`vllm:evs` and `vllm:vidcom2` are vLLM's own pruning, for architectures that have it; other names are holitom's methods.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from clip import clip
from serving_models import SHAPES, Shape, write
from vllm_server import Server

from holitom.bench.machine import machine
from holitom.bench.pixels import frames
from holitom.bench.presets import config
from holitom.cost import interleave
from holitom.integrations.vllm import ServingConfig, command_line, engine_arguments
from holitom.integrations.vllm.launch import find_launcher, printed
from holitom.tokens import VideoTokens
from holitom.video.synthetic.files import FPS, write_mp4

STOCK = "plain vLLM"
OWN = "vllm:"  # before the names of vLLM's own methods
QUESTION = "Describe what happens in this video, from the beginning to the end."


def main(arguments: Sequence[str] | None = None) -> None:
    """Starts the servers, asks, and writes serving.json after every round."""
    given = parse(arguments)
    shape = SHAPES[given.model]
    if given.dry_run:
        for method in given.method:
            print(printed(words(method, given, "CHECKPOINT")))
        return
    with tempfile.TemporaryDirectory(prefix="holitom-serving-") as work:
        folder = Path(work)
        dtype = getattr(torch, given.dtype)
        checkpoint = write(given.model, given.checkpoint or folder / "model", given.device, dtype)
        report = fresh(given, shape)
        path = given.out / "serving.json"
        if path.exists():
            found = json.loads(path.read_text("utf-8"))
            if found["settings"] != report["settings"]:
                raise SystemExit(f"{path} was measured with other settings: {found['settings']}")
            report = found
        with running(given.method, given, checkpoint, folder) as start:
            for number in range(len(report["rounds"]), given.rounds):
                report["rounds"].append(one_round(given, shape, number, start, folder))
                check_counts(report["rounds"][-1], report["video"]["tokens"])
                given.out.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
                print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
    print(path)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, help="default: small-llava-onevision, on a GPU llava-onevision-7b")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", help="default: float32, on a GPU bfloat16")
    parser.add_argument("--method", action="append", help=f"default: {STOCK!r}, evs, vidcom2, spread, holitom; repeat")
    parser.add_argument("--retention", type=float, default=0.125, help="of all methods; at least one frame for EVS")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, nargs="+", help="at each concurrency; default: 4 8 16")
    parser.add_argument("--answer-tokens", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one-at-a-time", action="store_true", help="servers that do not fit beside each other")
    parser.add_argument("--checkpoint", type=Path, help="a folder to keep the model in; default: a temporary one")
    parser.add_argument("--dry-run", action="store_true", help="print the servers' commands and stop")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/serving"))
    parser.add_argument("vllm", nargs="*", help="after --: further arguments of all servers")
    given = parser.parse_args(arguments)
    gpu = given.device == "cuda"
    given.model = given.model or ("llava-onevision-7b" if gpu else "small-llava-onevision")
    given.dtype = given.dtype or ("bfloat16" if gpu else "float32")
    given.method = given.method or [STOCK, "evs", "vidcom2", "spread", "holitom"]
    given.requests = given.requests or [max(4, each * (1 if each > 4 else 2)) for each in given.concurrency]
    given.one_at_a_time = given.one_at_a_time or gpu
    if len(given.requests) != len(given.concurrency):
        parser.error("--requests takes one number for each of --concurrency")
    return given


def words(method: str, given: argparse.Namespace, checkpoint: str) -> list[str]:
    """The command of one server."""
    media = {"video": {"num_frames": -1, "fps": FPS}}  # all frames of the file; Qwen takes two a second by itself
    more = ["--dtype", given.dtype, "--media-io-kwargs", json.dumps(media), "--limit-mm-per-prompt"]
    more += [json.dumps({"image": 0, "video": 1}), "--served-model-name", "model"]
    if given.device == "cpu":
        more += ["--enforce-eager", "--max-model-len", "4096", "--max-num-batched-tokens", "4096"]
    return [*launcher(given), checkpoint, *how(method, given), *more, *given.vllm]


def launcher(given: argparse.Namespace) -> tuple[str, ...]:
    """What starts vLLM here; a dry run does without vLLM."""
    try:
        return find_launcher().words
    except ImportError:
        if not given.dry_run:
            raise
        return ("vllm", "serve")


def how(method: str, given: argparse.Namespace) -> list[str]:
    """The arguments that make a server use a method."""
    if method == STOCK:
        return []
    if method.startswith(OWN):
        rate = f"{1 - given.retention:.6g}"
        return ["--video-pruning-rate", rate, "--video-pruning-method", method.removeprefix(OWN)]
    served = ServingConfig.parse(method, retention=given.retention)
    return command_line(engine_arguments(served, SHAPES[given.model].architecture))


@contextmanager
def running(methods: Sequence[str], given: argparse.Namespace, checkpoint: Path, folder: Path) -> Iterator[Any]:
    """A function from a method to its server: all of them run until the end, or each only while it is asked."""
    made = {}
    for number, method in enumerate(methods):
        made[method] = Server(words(method, given, str(checkpoint)), folder / f"server-{number}.log")
    with ExitStack() as stack:
        if given.one_at_a_time:
            yield lambda method: made[method]
            return
        for server in made.values():
            stack.callback(server.stop)
            server.start()
        for server in made.values():
            server.wait()

        @contextmanager
        def there(method: str) -> Iterator[Server]:
            yield made[method]

        yield there


def one_round(given: argparse.Namespace, shape: Shape, number: int, start: Any, folder: Path) -> dict[str, Any]:
    """For each method and concurrency: what each request took; all methods with the same videos, in turns."""
    levels = list(zip(given.concurrency, given.requests, strict=True))
    total = sum(requests for _, requests in levels)
    films = [film(folder, shape, number * (total + 1) + each) for each in range(total + 1)]
    found: dict[str, Any] = {method: {} for method in given.method}
    turns = [(method, level) for level in range(len(levels)) for method in given.method]
    if given.one_at_a_time:
        turns.sort(key=lambda turn: given.method.index(turn[0]))
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for method, level in turns:
            if method not in servers:
                if given.one_at_a_time:
                    stack.close()
                servers[method] = stack.enter_context(start(method))
                asyncio.run(load(servers[method], films[-1:], 1, given.answer_tokens))  # to warm up
            concurrency, requests = levels[level]
            first = sum(requests for _, requests in levels[:level])
            since, spent = time.monotonic(), processor_seconds(servers[method])
            done = asyncio.run(load(servers[method], films[first : first + requests], concurrency, given.answer_tokens))
            found[method][str(concurrency)] = {
                "seconds": time.monotonic() - since,
                "processor_seconds": processor_seconds(servers[method]) - spent,
                "requests": done,
            }
    return found


def processor_seconds(server: Server) -> float:
    """What all processes of a server have used of the processor so far; others change that little. Needs /proc."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == server.process.pid:  # its session
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def load(server: Server, films: list[str], concurrency: int, answer: int) -> list[dict[str, float]]:
    """Sends all videos with so many requests in flight."""
    from openai import AsyncOpenAI

    gate = asyncio.Semaphore(concurrency)
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=600) as client:

        async def one(url: str) -> dict[str, float]:
            async with gate:
                return await ask(client, url, answer)

        return list(await asyncio.gather(*(one(url) for url in films)))


async def ask(client: Any, url: str, answer: int) -> dict[str, float]:
    """Seconds to the first event and to the last, and the tokens of the prompt."""
    since = time.monotonic()
    first, tokens = None, 0
    # The question first: with less text before a video of Qwen3-VL, vLLM 0.32's own pruning ends the engine.
    content = [{"type": "text", "text": QUESTION}, {"type": "video_url", "video_url": {"url": url}}]
    stream = await client.chat.completions.create(
        model="model",
        messages=[{"role": "user", "content": content}],
        max_completion_tokens=answer,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    async for event in stream:
        first = first or time.monotonic() - since  # vLLM sends it when there is a first token
        if event.usage:
            tokens = event.usage.prompt_tokens
    assert first is not None
    return {"first": first, "last": time.monotonic() - since, "prompt_tokens": tokens}


def film(folder: Path, shape: Shape, seed: int) -> str:
    """A video as a data URL; other seeds give other videos."""
    pixels = frames(shape.frames, shape.side, seed=seed).permute(0, 2, 3, 1)
    path = folder / "film.mp4"
    write_mp4(((pixels + 1) * 127.5).clamp(0, 255).byte().numpy(), path)
    return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"


def check_counts(found: dict[str, Any], whole: int) -> None:
    """Every request of a method has as many tokens, all methods the same number, and plain vLLM the whole video."""
    counts = {
        method: {request["prompt_tokens"] for cell in cells.values() for request in cell["requests"]}
        for method, cells in found.items()
    }
    compressed = set().union(*(tokens for method, tokens in counts.items() if method != STOCK))
    if any(len(tokens) != 1 for tokens in counts.values()) or len(compressed) > 1:
        raise SystemExit(f"the counts are not equal: {counts}")
    if min(counts.get(STOCK, {whole})) < whole:
        raise SystemExit(f"a video has {whole} tokens, the prompts have {counts}: vLLM left frames out")


def fresh(given: argparse.Namespace, shape: Shape) -> dict[str, Any]:
    """The report before its first round: settings, machine, and what the methods cost by themselves."""
    names = ("model", "device", "dtype", "method", "retention", "concurrency", "requests", "answer_tokens", "rounds")
    settings = {name: getattr(given, name) for name in names}
    where = machine(torch.device(given.device))
    found = find_launcher()
    where |= {found.distribution: found.version, "openai": version("openai")}
    width = int(config(shape.preset).text_config.hidden_size)
    made = clip(shape.groups, shape.grid[0], width, getattr(torch, given.dtype))
    tensors = {name: value.to(given.device) for name, value in vars(made).items() if isinstance(value, torch.Tensor)}
    tokens = VideoTokens(**tensors, grid=made.grid)
    mergers = {
        method: ServingConfig.parse(method, retention=given.retention).method.merge_video
        for method in given.method
        if method != STOCK and not method.startswith(OWN)
    }
    runs = {name: functools.partial(merge, tokens) for name, merge in mergers.items()}
    samples = interleave(runs, repeats=21, warmup=3, device=given.device) if runs else {}
    return {
        "settings": settings,
        "video": {"frames": shape.frames, "side": shape.side, "tokens": shape.groups * shape.grid[0] * shape.grid[1]},
        "machine": where,
        "merge_seconds": {name: sample.median for name, sample in samples.items()},
        "rounds": [],
    }


if __name__ == "__main__":
    main()
