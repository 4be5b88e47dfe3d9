"""The site's reference: of the Python interface, from docstrings, and of the commands, from the command line itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from holitom.cli import app

PACKAGE = Path(__file__).parents[2] / "holitom"
MODULES = {
    "holitom": "The names that most programs need. All others are on the other pages here, module by module.",
    "holitom.methods": "",
    "holitom.pipeline": "",
    "holitom.runtime": "",
    "holitom.cost": "",
    "holitom.video": "",
    "holitom.evaluation": "",
    "holitom.bench": "",
    "holitom.report.trace": "",
    "holitom.report.page": "",
    "holitom.report.overlay": "",
    "holitom.report.figure": "",
    "holitom.models": "What differs between model families.",
    "holitom.ops": "",
}
"""Modules in the order of the navigation, and what stands above those whose docstring says too little."""


def navigation() -> list[tuple[str, str]]:
    """Titles and pages."""
    return [("Commands", "reference/commands.md"), *((name, f"reference/{name}.md") for name in MODULES)]


def pages() -> Iterator[tuple[str, str]]:
    """Pages and their text."""
    yield "reference/commands.md", commands()
    for name, above in MODULES.items():
        yield f"reference/{name}.md", f"# {name}\n\n{above}\n\n::: {name}\n"


def commands() -> str:
    """What `holitom --help` and its commands say, as one page."""
    root = typer.main.get_command(app)
    return "# Commands\n\n" + "\n".join(describe(root, "holitom", 1))


def describe(command: Any, path: str, level: int) -> Iterator[str]:
    """One command, then those below it."""
    if level > 1:
        yield f"{'#' * level} {path}\n"
    yield (command.help or "").strip() + "\n"
    children = getattr(command, "commands", None)
    if children is None:
        wanted = [argument(each) for each in command.params if each.param_type_name == "argument"]
        yield f"```\n{' '.join([path, *wanted, '[OPTIONS]'])}\n```\n"
    rows = [row for row in map(option, command.params) if row]
    if rows:
        yield "| option | meaning | default |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
    for name, child in (children or {}).items():
        yield from describe(child, f"{path} {name}", min(level + 1, 3))


def option(parameter: Any) -> str | None:
    """A row of a command's table."""
    said = getattr(parameter, "help", None) or ""
    if getattr(parameter, "hidden", False) or parameter.name in ("help", "install_completion", "show_completion"):
        return None
    told = re.search(r"\s*\[default: (.*?)\]", said)
    default = told[1] if told else parameter.default
    names = [argument(parameter)] if parameter.param_type_name == "argument" else parameter.opts
    shown = ", ".join(f"`{name}`" for name in names)
    value = "required" if parameter.required else "" if default in (None, False, ()) or callable(default) else default
    said = re.sub(r"\s*\[default: .*?\]", "", said).replace("|", "\\|")
    return f"| {shown} | {said} | {value} |"


def argument(parameter: Any) -> str:
    """How help texts write an argument."""
    name = parameter.name.upper()
    return name if parameter.required else f"[{name}]"
