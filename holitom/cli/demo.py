"""``holitom demo``: a page to try holitom on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from holitom.cli.console import err, out
from holitom.cli.loading import load, recommended


def demo(
    model: Annotated[str, typer.Option(help="Path or hub id of a checkpoint, or `tiny`, the one inside.")] = "tiny",
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 opens the demo to the network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port.  [default: a free one from 7860]")
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Open it to strangers, through Gradio's servers.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, auto.  [default: a GPU if any]")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    attention: Annotated[str | None, typer.Option(help="sdpa, eager, flash_attention_2, ...")] = None,
) -> None:
    """Serve a page where people upload a clip, ask, and see both answers. Needs the extra `holitom[demo]`."""
    from holitom.demo.app import app, launch, require, samples

    require()
    with tempfile.TemporaryDirectory(prefix="holitom-demo-") as folder:
        clips = samples(Path(folder))
        pipeline = load(model, device, dtype, attention)
        blocks = app(pipeline, clips, model, recommended(model))
        with err.status("warming up ..."):
            pipeline.warm_up(next(iter(clips.values()))[0])
        address = launch(blocks, host, port, share, wait=False)
        out.print(f"open {address} (Ctrl-C ends it)", markup=False, highlight=False, soft_wrap=True)
        blocks.block_thread()
