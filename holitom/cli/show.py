"""``holitom show``: a page, or pictures, of what methods make of a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holitom.cli import options
from holitom.cli.checks import check_file, check_question, check_video
from holitom.cli.choices import choose, in_tower
from holitom.cli.console import err, say, warn
from holitom.cli.loading import chosen_model, load


def show(
    video: options.Video,
    question: Annotated[str, typer.Option(help="What to ask about it; the merging inside the LLM depends on it.")] = (
        "What happens in the video?"
    ),
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method of `holitom methods`, with settings; several times: side by side.  [default: what the "
            "checkpoint recommends, else holitom]"
        ),
    ] = None,
    retention: options.Retention = None,
    positions: options.Positions = None,
    tower: options.Tower = None,
    path: Annotated[Path | None, typer.Option("--out", help="The page to write.  [default: report.html]")] = None,
    png: Annotated[Path | None, typer.Option(help="Also write all frames with the overlay as one picture.")] = None,
    gif: Annotated[Path | None, typer.Option(help="Also write an animation of them.")] = None,
    mp4: Annotated[Path | None, typer.Option(help="Also write a film of them.")] = None,
    model: options.Model = None,
    frames: options.Frames = None,
    max_new_tokens: options.MaxNewTokens = 32,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    attention: options.Attention = None,
) -> None:
    """See what was merged: a page that opens in any browser, without a network.

    Pictures hold the first method. Without --out, and with one of them, no page is written.
    """
    check_question(question)
    check_video(video)
    page = path or (None if png or gif or mp4 else Path("report.html"))
    check_file("--out", page)
    check_file("--png", png, (".png",))
    check_file("--gif", gif, (".gif",))
    check_file("--mp4", mp4, (".mp4",))
    from holitom.report.trace import trace

    model = chosen_model(model)
    chosen = [in_tower(choose(name, retention, model, positions), tower) for name in method or (None,)]
    methods = [each for each in chosen if each is not None]
    if len(methods) < len(chosen):
        raise typer.BadParameter(
            "the page always holds the uncompressed answer: leave `none` out", param_hint="--method"
        )
    pipeline = load(model, device, dtype, attention)
    with err.status("reading the video ...") as status:
        found = trace(
            pipeline,
            video,
            question,
            methods,
            frames=frames,
            max_new_tokens=max_new_tokens,
            model=model,
            on_status=lambda text: status.update(f"{text} ..."),
        )
    if found.clip.warning:
        warn(found.clip.warning)
    written = []
    if page is not None:
        from holitom.report.page import write_page

        written.append(write_page(found, page))
    if png or gif or mp4:
        from holitom.report import overlay

        pictures = overlay.overlays(found)
        written += [overlay.write_png(pictures, png)] if png else []
        written += [overlay.write_gif(pictures, gif)] if gif else []
        written += [overlay.write_mp4(pictures, mp4)] if mp4 else []
    for file in written:
        say(f"{file} ({file.stat().st_size / 1e6:.2f} MB)")
