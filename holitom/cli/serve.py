"""``holitom serve``: vLLM's own OpenAI server, with a method in it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from holitom.cli import options
from holitom.cli.choices import served
from holitom.cli.console import note, say, warn
from holitom.cli.loading import resolve


def serve(
    model: Annotated[str, typer.Argument(help="Path or hub id of a checkpoint, or `tiny`, the one inside.")],
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- VLLM ARGUMENTS", help="After `--`: any of vLLM's own, as `--port 8000`."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="A method of `holitom methods` with an exact count, as name:key=value,...  [default: what the "
            "checkpoint recommends, else holitom]"
        ),
    ] = None,
    retention: options.Retention = None,
    positions: options.Positions = None,
    untested: Annotated[
        bool, typer.Option("--untested", help="Go on with a version of vLLM that was not tested.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plain vLLM command and stop.")] = False,
) -> None:
    """Serve a model with vLLM, behind the OpenAI API, its videos compressed.

    The plain vLLM command that does the same is printed first. This process then becomes vLLM's server: signals and
    the exit code are its own.
    """
    from holitom.integrations.vllm.architectures import ONE_AXIS
    from holitom.integrations.vllm.launch import check_start, check_version, command, find_launcher, printed

    config = served(method, retention, model, positions)
    launcher = find_launcher()
    if not untested:
        check_version(launcher)
    words = command(launcher, resolve(model), config, more or [])
    counted_on = config.method.positions == "original" and any(name in word for word in words for name in ONE_AXIS)
    if counted_on and positions == "original":
        raise typer.BadParameter(
            "vLLM counts the positions of this model on without gaps: say compact", param_hint="--positions"
        )
    if dry_run:
        say(printed(words))
        return
    if counted_on:
        note("vLLM counts the positions of this model on: the method's tokens do not keep their places there")
    check_start(more or [])
    if not launcher.tested:
        warn(f"vLLM {launcher.version} was not tested with this holitom")
    note(printed(words))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(words[0], words)
