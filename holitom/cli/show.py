"""``holitom show``: a page, or pictures, of what methods make of a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holitom.cli.ask import choose
from holitom.cli.console import err, out
from holitom.cli.loading import load


def show(
    video: Annotated[str, typer.Argument(help="A video file, an animated GIF, or a folder of images.")],
    question: Annotated[str, typer.Option(help="What to ask about it; the merging inside the LLM depends on it.")] = (
        "What happens in the video?"
    ),
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method of `holitom methods`, with settings; several times: side by side.  [default: holitom]"
        ),
    ] = None,
    retention: Annotated[
        float | None, typer.Option(help="Share of the visual tokens that may enter the LLM, for each --method.")
    ] = None,
    path: Annotated[Path | None, typer.Option("--out", help="The page to write.  [default: report.html]")] = None,
    png: Annotated[Path | None, typer.Option(help="Also write all frames with the overlay as one picture.")] = None,
    gif: Annotated[Path | None, typer.Option(help="Also write an animation of them.")] = None,
    mp4: Annotated[Path | None, typer.Option(help="Also write a film of them.")] = None,
    model: Annotated[str, typer.Option(help="Path or hub id of a checkpoint, or `tiny`, the one inside.")] = "tiny",
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames to sample.  [default: what the model was made for, else 32]")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, auto.  [default: a GPU if any]")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    attention: Annotated[str | None, typer.Option(help="sdpa, eager, flash_attention_2, ...")] = None,
) -> None:
    """See what was merged: a page that opens in any browser, without a network.

    Pictures hold the first method. Without --out, and with one of them, no page is written.
    """
    from holitom.report.trace import trace

    methods = [chosen for name in method or ["holitom"] if (chosen := choose(name, retention)) is not None]
    if len(methods) < len(method or [1]):
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
            tell=lambda text: status.update(f"{text} ..."),
        )
    if found.clip.warning:
        err.print(f"[yellow]warning:[/] {found.clip.warning}", soft_wrap=True)
    written = []
    if path is not None or not (png or gif or mp4):
        from holitom.report.page import write_page

        written.append(write_page(found, path or Path("report.html")))
    if png or gif or mp4:
        from holitom.report import overlay

        pictures = overlay.overlays(found)
        written += [overlay.write_png(pictures, png)] if png else []
        written += [overlay.write_gif(pictures, gif)] if gif else []
        written += [overlay.write_mp4(pictures, mp4)] if mp4 else []
    for file in written:
        out.print(f"{file} ({file.stat().st_size / 1e6:.2f} MB)", markup=False, highlight=False, soft_wrap=True)
