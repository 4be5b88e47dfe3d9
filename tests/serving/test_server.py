"""``holitom serve`` for real: vLLM's server on loopback, asked by the official OpenAI client.

The bundled model is served twice, compressed and by plain vLLM.
"""

from __future__ import annotations

import base64
import io
import random
import re
import runpy
import shlex
import shutil
import sys
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from holitom.cli.loading import TINY
from holitom.video.synthetic import suite
from holitom.video.synthetic.files import write_mp4

if find_spec("vllm") is None:
    pytest.skip("needs vLLM: make serving", allow_module_level=True)

import openai
from engines import engine, said
from vllm import SamplingParams

from holitom.integrations.vllm import ServingConfig
from holitom.integrations.vllm.launch import find_launcher

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
from faulty_requests import by_url, chat, local, picture, sent, text  # noqa: E402
from vllm_server import ENVIRONMENT, Server  # noqa: E402

RETENTION = 0.2
GRID = (7, 7)  # of the bundled model
FRAMES = (16, 12, 8, 4)
CLIPS = 24
REQUESTS, IN_FLIGHT = 200, 16
ONE_FRAME_FILES = not find_launcher().version.startswith("0.32.")  # since vLLM 0.33 they are read
SETTINGS = ("--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--served-model-name", "tiny")


@dataclass(frozen=True)
class Asked:
    """A request: the parts of its one message, and further arguments of the client."""

    label: str
    parts: list[dict[str, Any]]
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Films:
    """Clips of different lengths on disk, with what was asked about each."""

    folder: Path
    paths: list[Path]
    frames: list[int]
    questions: list[str]
    other: Path
    """A good one that only refused requests hold."""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    folder = tmp_path_factory.mktemp("films")
    paths, frames, questions = [], [], []
    *clips, other = suite("test", CLIPS + 1)
    for number, clip in enumerate(clips):
        length = FRAMES[number % len(FRAMES)]
        write_mp4(clip.frames[:length], folder / f"{number}.mp4")
        paths.append(folder / f"{number}.mp4")
        frames.append(length)
        questions.append(clip.questions[0].text)
    whole = paths[0].read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    write_mp4(other.frames[:1], folder / "one.mp4")
    write_mp4(other.frames, folder / "other.mp4")
    return Films(folder, paths, frames, questions, folder / "other.mp4")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with the names of weights that checkpoints on the hub have, which plain vLLM expects."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(TINY, path)
    weights = load_file(path / "model.safetensors")
    renamed = {
        re.sub(r"vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", k): v for k, v in weights.items()
    }
    save_file(renamed, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.fixture(scope="module")
def servers(films: Films, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The compressed server and the plain one; they start side by side."""
    logs = tmp_path_factory.mktemp("logs")
    local = ("--allowed-local-media-path", str(films.folder))
    holitom = Path(sysconfig.get_path("scripts")) / "holitom"
    ours = Server(
        [str(holitom), "serve", "tiny", "--retention", str(RETENTION), "--", *SETTINGS, *local],
        logs / "holitom.log", environment={**ENVIRONMENT, "VLLM_SERVER_DEV_MODE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    plain = Server(
        [*find_launcher().words, str(checkpoint), *SETTINGS, *local],
        logs / "plain.log", environment={**ENVIRONMENT, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        ours.start()
        plain.start()
        ours.wait()
        plain.wait()
        yield ours, plain
    finally:
        ours.stop()
        plain.stop()


@pytest.fixture(scope="module")
def ours(servers: tuple[Any, Any]) -> Any:
    return servers[0]


def client(server: Any, retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=retries, timeout=300)


def ask(server: Any, asked: Asked, api: openai.OpenAI | None = None) -> Any:
    return (api or client(server)).chat.completions.create(**chat(asked.parts, **asked.more))


def one_frame(shade: int) -> dict[str, Any]:
    """A video of one frame, as a sequence of pictures: before vLLM 0.33 a file of one frame cannot be read."""
    file = io.BytesIO()
    Image.fromarray(np.full((112, 112, 3), shade, np.uint8)).save(file, "JPEG")
    return by_url(f"data:video/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}")


def good_requests(films: Films) -> list[Asked]:
    """Of every kind, no two alike."""
    found = []
    for number, (path, question) in enumerate(zip(films.paths, films.questions, strict=True)):
        found.append(Asked(f"{number} sent", [sent(path), text(question)]))
        found.append(Asked(f"{number} local", [local(path), text(films.questions[number - 1])]))
        if number % 3 == 0:
            found.append(Asked(f"{number} text", [text(question)]))
            found.append(Asked(f"{number} picture", [picture(9 * number), text(question)]))
            two = [sent(path), picture(9 * number), local(films.paths[number - 1]), text(question)]
            found.append(Asked(f"{number} two videos and a picture", two))
        if number % 8 == 0:
            found.append(Asked(f"{number} one frame", [one_frame(9 * number), text(question)]))
    if ONE_FRAME_FILES:
        found.append(Asked("a file of one frame", [sent(films.folder / "one.mp4"), text(films.questions[0])]))
    return found


def bad_requests(films: Films) -> list[Asked]:
    question = text(films.questions[0])
    good = sent(films.other)
    names = ("empty", "cut", "noise", *(() if ONE_FRAME_FILES else ("one",)))
    files = [films.folder / f"{name}.mp4" for name in names]
    return [
        *(Asked(f"{path.stem} sent", [sent(path), question]) for path in files),
        *(Asked(f"{path.stem} local", [local(path), question]) for path in files),
        Asked("no base64", [by_url("data:video/mp4;base64,@@@@"), question]),
        Asked("no file of ours", [by_url("file:///etc/passwd"), question]),
        Asked("unknown scheme", [by_url("ftp://127.0.0.1/film.mp4"), question]),
        Asked("no address", [by_url(""), question]),
        Asked("a corrupt video beside a good one", [good, sent(files[2]), question]),
        Asked("huge retention", [good, question], {"extra_body": {"mm_processor_kwargs": {"retention": 1e9}}}),
        Asked("huge frame rate", [good, question], {"extra_body": {"media_io_kwargs": {"video": {"fps": 1e9}}}}),
        Asked("top_p out of range", [good, question], {"top_p": 7}),
        Asked("more than fits", [*[good] * 24, question]),
    ]  # fmt: skip


def answer_of(response: Any) -> tuple[Any, ...]:
    [choice] = response.choices
    return choice.message.content, choice.finish_reason, response.usage.prompt_tokens


def logprobs_of(response: Any) -> np.ndarray:
    return np.array([token.logprob for token in response.choices[0].logprobs.content])


def forget(server: Any) -> None:
    """Empties all caches of media and of prefixes."""
    for cache in ("prefix", "mm", "encoder"):
        with urllib.request.urlopen(f"{server.url}/reset_{cache}_cache", data=b"", timeout=60) as answer:
            assert b"false" not in answer.read()


def counters(server: Any) -> dict[str, float]:
    found = re.findall(r"^(holitom_\w+_total) (\S+)$", server.get("metrics"), re.MULTILINE)
    return {name: float(value) for name, value in found}


class TestTokens:
    """What ``usage`` says is what the exact count promises."""

    @pytest.mark.parametrize("send", [sent, local], ids=["base64", "local file"])
    def test_prompt_tokens_fall_as_promised(
        self, servers: tuple[Any, Any], films: Films, send: Callable[[Path], dict[str, Any]]
    ):
        retained = ServingConfig.of("holitom", retention=RETENTION).token_count
        for number in range(len(FRAMES)):
            asked = Asked("", [send(films.paths[number]), text(films.questions[number])])
            compressed, full = (ask(server, asked).usage.prompt_tokens for server in servers)
            frames = films.frames[number]
            assert full - compressed == 49 * frames - retained(frames, GRID)
            assert retained(frames, GRID) == round(49 * frames * RETENTION)

    def test_a_video_of_one_frame(self, servers: tuple[Any, Any]):
        asked = Asked("", [one_frame(90), text("Which shape is red?")])
        compressed, full = (ask(server, asked).usage.prompt_tokens for server in servers)
        assert full - compressed == 49 - 10

    def test_text_and_images_stay_as_they_are(self, servers: tuple[Any, Any]):
        for parts in ([text("Which shape is red?")], [picture(80), text("Which shape is red?")]):
            one, other = (ask(server, Asked("", parts)) for server in servers)
            assert answer_of(one) == answer_of(other)
            np.testing.assert_allclose(logprobs_of(one), logprobs_of(other), atol=1e-5)

    def test_the_counters(self, ours: Any, films: Films):
        ask(ours, Asked("", [sent(films.paths[0]), text("Which shape is red?")]))
        before = counters(ours)
        assert len(before) == 3
        ask(ours, Asked("", [sent(films.paths[0]), picture(1), local(films.paths[1]), text("Which shape is red?")]))
        ask(ours, Asked("", [picture(2), text("Which shape is red?")]))
        after = counters(ours)
        frames = films.frames[0] + films.frames[1]
        assert {name: after[name] - before[name] for name in after} == {
            "holitom_videos_total": 2,
            "holitom_video_tokens_before_total": 49 * frames,
            "holitom_video_tokens_after_total": sum(round(49 * f * RETENTION) for f in films.frames[:2]),
        }
        assert "vllm:prompt_tokens_total" in ours.get("metrics")


class TestManyAtOnce:
    def test_good_ones_are_answered_as_alone_and_bad_ones_refused(self, ours: Any, films: Films):
        good, bad = good_requests(films), bad_requests(films)
        order = random.Random(0)
        asked = [(each, True) for each in good + order.choices(good, k=REQUESTS - len(good) - 2 * len(bad))]
        asked += [(each, False) for each in bad * 2]
        order.shuffle(asked)
        assert len(asked) == REQUESTS
        api = client(ours)
        forget(ours)

        def send(one: tuple[Asked, bool]) -> Any:
            try:
                return ask(ours, one[0], api)
            except openai.APIError as error:
                return error

        with ThreadPoolExecutor(IN_FLIGHT) as threads:
            answers = list(threads.map(send, asked))
        assert ours.alive

        forget(ours)
        alone = {each.label: ask(ours, each, api) for each in good}
        for (each, fine), answer in zip(asked, answers, strict=True):
            if fine:
                assert not isinstance(answer, openai.APIError), f"{each.label}: {answer}"
                assert answer_of(answer) == answer_of(alone[each.label]), each.label
                np.testing.assert_allclose(logprobs_of(answer), logprobs_of(alone[each.label]), atol=1e-3)
            else:
                assert isinstance(answer, openai.APIStatusError), f"{each.label}: {answer}"
                assert 400 <= answer.status_code < 500, f"{each.label}: {answer}"
                assert isinstance(answer.body, dict)
                assert len(answer.body["message"]) > 10, f"{each.label}: {answer}"
        contents = {answer_of(answer)[0] for answer in alone.values()}
        assert len(contents) > 5, "answers depend on what was asked"
        assert ours.alive

    def test_a_refused_request_does_not_spoil_its_video(self, ours: Any, films: Films):
        """vLLM notes a video as known before it refuses; whoever sends it next may have to ask twice, as clients do."""
        asked = Asked("", [sent(films.paths[3]), text(films.questions[3])])
        before = ask(ours, asked)
        forget(ours)
        with pytest.raises(openai.BadRequestError, match="top_p"):
            ask(ours, Asked("", asked.parts, {"top_p": 7}))
        assert answer_of(ask(ours, asked, client(ours, openai.DEFAULT_MAX_RETRIES))) == answer_of(before)
        assert answer_of(ask(ours, asked)) == answer_of(before)

    def test_streams(self, ours: Any, films: Films):
        asked = Asked("", [sent(films.paths[2]), text(films.questions[2])])
        whole = ask(ours, asked)
        parts = ask(ours, Asked("", asked.parts, {"stream": True, "stream_options": {"include_usage": True}}))
        chunks = list(parts)
        assert (
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
        )
        assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


class TestSettingsOfARequest:
    """Without --trust-request-mm-kwargs: holitom's own settings are no options of the processor."""

    def test_each_is_answered_as_by_a_server_with_that_setting(self, ours: Any, films: Films):
        content = [local(films.paths[0]), text(films.questions[0])]
        for asked, config in (  # spread is what the bundled model recommends, and so the server's method
            ({"retention": 0.1}, ServingConfig.of("spread", retention=0.1)),
            ("uniformframes:retention=0.15", ServingConfig.of("uniformframes", retention=0.15)),
        ):
            got = ask(ours, Asked("", content, {"extra_body": {"mm_processor_kwargs": {"holitom": asked}}}))
            alone = {"allowed_local_media_path": str(films.folder), "limit_mm_per_prompt": {"video": 1, "image": 0}}
            with engine(TINY, "llava_onevision", config, **alone) as llm:
                wanted = SamplingParams(max_tokens=6, temperature=0, logprobs=1)
                [want] = llm.chat([{"role": "user", "content": content}], wanted, use_tqdm=False)
            assert got.usage.prompt_tokens == len(want.prompt_token_ids)
            assert got.choices[0].message.content == want.outputs[0].text
            likely = [by[token].logprob for token, by in zip(said(want)[0], want.outputs[0].logprobs, strict=True)]
            np.testing.assert_allclose(logprobs_of(got), likely[: len(logprobs_of(got))], atol=1e-3)

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"holitom": {"retention": 0.5}}, "this server keeps"),
            ({"holitom": {"retention": 1e9}}, "got 1000000000"),
            ({"holitom": {"colour": "red"}}, "cannot set 'colour'"),
            ({"holitom": "fastv"}, "inside the LLM"),
            ({"size": {"height": 57, "width": 57}}, "trust-request-mm-kwargs"),
            ({"holitom": "spread", "do_resize": False}, "trust-request-mm-kwargs"),
        ],
    )
    def test_what_cannot_be_had_is_refused(self, ours: Any, films: Films, options: dict[str, Any], complaint: str):
        parts = [local(films.other), text(films.questions[0])]
        with pytest.raises(openai.BadRequestError, match=complaint):
            ask(ours, Asked("", parts, {"extra_body": {"mm_processor_kwargs": options}}))
        assert ours.alive


class TestTheProgram:
    def test_the_example_sends_a_file_and_a_base64_video(
        self, ours: Any, films: Films, capsys: pytest.CaptureFixture[str]
    ):
        example = runpy.run_path(str(ROOT / "examples" / "openai_client.py"), run_name="example")
        example["main"]([str(films.paths[0]), films.questions[0], "--url", f"{ours.url}/v1", "--local"])
        [inside, opened] = [line for line in capsys.readouterr().out.splitlines() if "prompt tokens" in line]
        usage = ask(ours, Asked("", [sent(films.paths[0]), text(films.questions[0])])).usage.prompt_tokens
        assert f"{usage} prompt tokens" in inside
        assert f"{usage} prompt tokens" in opened

    def test_the_printed_command_is_the_one_that_runs(self, ours: Any):
        lines = ours.log.read_text("utf-8", "replace").splitlines()
        words = shlex.split(next(line for line in lines if "--hf-overrides" in line))
        running = Path(f"/proc/{ours.process.pid}/cmdline")
        if not running.exists():
            pytest.skip("no /proc on this system")
        assert running.read_text().rstrip("\0").split("\0") == words
        assert Path(words[0]).parent == Path(sys.executable).parent

    def test_wrong_settings_end_the_plain_command_with_a_message(self, checkpoint: Path, tmp_path: Path):
        """Who writes the command by hand gets the same checks, from the plugin."""
        overrides = (
            '{"architectures": ["HoliTomLlavaOnevisionForConditionalGeneration"], '
            '"holitom": {"method": "holitom", "retention": 3}}'
        )
        server = Server([*find_launcher().words, str(checkpoint), "--hf-overrides", overrides], tmp_path / "log")
        server.start()
        assert server.process.wait(300) != 0
        assert "(0, 1], got 3" in server.tail(100_000)

    def test_it_ends_when_it_is_told(self, ours: Any):
        """The last test of this server."""
        assert ours.stop() == 0
        assert not ours.alive
