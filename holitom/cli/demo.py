"""``holitom demo``: a page to try holitom on."""

from __future__ import annotations

import signal
import sys
from contextlib import closing
from typing import Annotated

import typer

from holitom.cli import options
from holitom.cli.console import err, say
from holitom.cli.loading import chosen_model, load, recommended
from holitom.extras import require


def demo(
    model: options.Model = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 opens the demo to the network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port.  [default: a free one from 7860]")
    ] = None,
    share: Annotated[bool, typer.Option("--share", help="Open it to the internet, through Gradio's servers.")] = False,
    device: options.Device = None,
    dtype: options.Dtype = "auto",
    attention: options.Attention = None,
) -> None:
    """Serve a page where people upload a clip, ask, and see both answers. Needs the extra `holitom[demo]`."""
    from holitom.corpus import Scratch

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what follows is cleared away
    with Scratch() as scratch:  # uploads and samples lie here, and go with this process
        from holitom.demo.app import GRADIO, app, launch, samples
        from holitom.demo.work import QuestionQueue

        require(*GRADIO)

        model = chosen_model(model)
        clips = samples(scratch.path / "samples")
        with closing(QuestionQueue(load(model, device, dtype, attention), model)) as queue:
            blocks = app(queue, clips, recommended(model))
            with err.status("warming up ..."):
                queue.pipeline.ask(next(iter(clips.values()))[0], "?", max_new_tokens=2)
            address = launch(blocks, queue.limits.megabytes, host, port, share)
            say(f"open {address} (Ctrl-C ends it)")
            blocks.block_thread()
