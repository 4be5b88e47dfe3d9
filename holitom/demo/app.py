"""The demo: a clip, a question, a method, and both answers side by side with the picture of what was merged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from holitom.demo.work import QuestionQueue
from holitom.extras import require
from holitom.methods.registry import names, tower_names
from holitom.recommendation import Recommendation
from holitom.video.synthetic.files import write_clips

GRADIO = ("gradio", "the demo", "'holitom[demo]'")
EMPTY = "<p>The film strip appears here: what stayed, what was merged, what was dropped.</p>"
WAITING = 8  # questions; more are refused


def samples(folder: Path, number: int = 4) -> dict[str, tuple[str, str]]:
    """Sample clips, drawn into ``folder``: by name, the file and a question about it."""
    index = write_clips(folder, number)
    found: dict[str, tuple[str, str]] = {}
    for line in index.read_text("utf-8").splitlines():
        row = json.loads(line)
        name = f"sample {len(found) + 1}"
        if str(folder / row["video"]) not in {path for path, _ in found.values()}:
            found[name] = (str(folder / row["video"]), row["question"])
    return found


def app(queue: QuestionQueue, clips: dict[str, tuple[str, str]], own: Recommendation | None = None) -> Any:
    """The Gradio app.

    Args:
        queue: takes the questions.
        clips: sample clips by name, each a file and a question.
        own: what the checkpoint recommends, where the choice of method and retention begins.

    Raises:
        ImportError: without gradio, which the extra ``holitom[demo]`` installs.
    """
    require(*GRADIO)
    import gradio as gr

    first, limits = next(iter(clips)), queue.limits

    def pick(name: str) -> tuple[str, str]:
        return clips[name]

    def ask(
        video: str | None, question: str, method: str, share: float, frames: float, tokens: float, tower: str
    ) -> Iterator[tuple[Any, ...]]:
        for now in queue.ask(video, question or "", method, share, int(frames), int(tokens), tower):
            picture = EMPTY if now.page is None else frame(now.page)
            yield (
                gr.Textbox(("" if not now.failed else "Error: ") + now.status),
                *now.answers,
                *now.numbers,
                picture,
            )

    with gr.Blocks(title="holitom", analytics_enabled=False, delete_cache=(3600, 3600)) as blocks:
        gr.Markdown(f"# holitom\nAsk about a video, with and without compression. Model: `{escape(queue.model)}`")
        with gr.Row():
            with gr.Column(scale=1):
                video = gr.Video(
                    clips[first][0], label=f"Video, up to {limits.megabytes:g} MB", sources=["upload"],
                    include_audio=True, height=260, elem_id="video",
                )  # fmt: skip
                sample = gr.Dropdown(list(clips), value=first, label="Or a sample clip", elem_id="sample")
            with gr.Column(scale=2):
                question = gr.Textbox(
                    clips[first][1], label="Question", max_length=limits.question, elem_id="question", max_lines=3
                )
                with gr.Row():
                    method = gr.Dropdown(
                        names(), value="holitom" if own is None else own.method.name, label="Method", elem_id="method"
                    )
                    share = gr.Slider(
                        0.02,
                        1.0,
                        value=(own and own.retention) or 0.1,
                        step=0.01,
                        label="Share of the visual tokens that stays",
                        elem_id="retention",
                    )
                with gr.Row():
                    frames = gr.Slider(1, limits.frames, value=queue.frames, step=1, label="Frames")
                    tokens = gr.Slider(1, limits.tokens, value=64, step=1, label="Longest answer, in tokens")
                    tower = gr.Dropdown(
                        [("every patch", ""), *tower_names()],
                        value="",
                        label="The vision tower computes",
                        elem_id="tower",
                    )
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                status = gr.Textbox(label="Status", interactive=False, elem_id="status", lines=1, max_lines=4)
        with gr.Row():
            answers, numbers = [], []
            for title, name in (("Every token", "full"), ("Compressed", "compressed")):
                with gr.Column():
                    answers.append(gr.Textbox(label=title, interactive=False, lines=3, elem_id=f"answer-{name}"))
                    numbers.append(gr.Textbox(label="Took", interactive=False, lines=2, elem_id=f"took-{name}"))
        picture = gr.HTML(EMPTY, elem_id="picture")

        private: dict[str, Any] = {"api_visibility": "private"}
        sample.input(pick, sample, [video, question], **private)
        gr.on(
            [button.click, question.submit, share.release],
            ask,
            [video, question, method, share, frames, tokens, tower],
            [status, *answers, *numbers, picture],
            show_progress="hidden",
            concurrency_limit=limits.readers + 2,  # while clips are read, others are answered
            **private,
        )
    blocks.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return blocks


def frame(page: str) -> str:
    """A page inside another one, where it can reach neither that nor the server."""
    return (
        '<iframe title="What was merged" sandbox="allow-scripts" loading="lazy" '
        f'style="width:100%;height:85vh;border:1px solid #8884" srcdoc="{escape(page)}"></iframe>'
    )


def launch(
    blocks: Any,
    megabytes: float,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
) -> str:
    """Serves the app in threads of its own, by default to this machine alone; returns its address.

    Args:
        blocks: from :func:`app`.
        megabytes: that an upload may have.
        host: the address to listen on.
        port: None: a free one from 7860.
        share: opens it to the internet, through Gradio's servers.

    Raises:
        OSError: when the port is taken.
    """
    import gradio as gr

    _, local, public = blocks.launch(
        server_name=host,
        server_port=port,
        share=share,
        quiet=True,
        prevent_thread_lock=True,
        allowed_paths=[],
        max_file_size=int(megabytes * 1_000_000),
        footer_links=[],
        ssr_mode=False,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
    return str(public or local)
