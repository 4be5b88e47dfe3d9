"""Makes docstrings as they stand in the code into what the site's reference can typeset.

The code names several arguments in one line where that is short (``a: this. b: that.``, ``a, b: both``) and other
functions in Sphinx's roles. Here each argument gets an entry of its own, and a role becomes code.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`~?([^`]+)`")
ARGUMENTS = re.compile(r"^(?P<indent> *)Args:\n(?P<body>(?:(?P=indent)    .*\n|\n)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """See the module."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Of a function, its parameters."""
        rewrite(func, [parameter.name for parameter in func.parameters])

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Of a class, the fields of a dataclass or the parameters of its constructor."""
        fields = [name for name, member in cls.members.items() if member.is_attribute]
        made = cls.members.get("__init__")
        rewrite(cls, [*fields, *([each.name for each in made.parameters] if made and made.is_function else [])])

    def on_module(self, *, mod: griffe.Module, **_: Any) -> None:
        """Of a module, the roles alone."""
        rewrite(mod, [])


def rewrite(thing: griffe.Object, names: list[str]) -> None:
    """Changes a docstring in place."""
    if thing.docstring is None:
        return
    text = ROLE.sub(r"`\1`", thing.docstring.value)
    thing.docstring.value = ARGUMENTS.sub(lambda found: split(found, names), text + "\n").rstrip() if names else text


def split(found: re.Match[str], names: list[str]) -> str:
    """A section of arguments with one entry for each."""
    indent = found["indent"] + "    "
    one = "|".join(map(re.escape, names))
    lines = []
    for line in found["body"].splitlines():
        parts = re.split(rf"(?<=[.;]) (?=(?:{one})(?:, (?:{one}))*: )", line)
        lines += [parts[0], *(indent + part for part in parts[1:])]
    entries: list[list[str]] = []
    for line in lines:
        starts = line.startswith(indent) and not line.startswith(indent + " ")
        if starts or not entries:
            entries.append([line])
        else:
            entries[-1].append(line)
    text = []
    for entry in entries:
        head, colon, said = entry[0].strip().partition(": ")
        for name in head.split(", ") if colon else [head]:
            text += [f"{indent}{name}{colon}{said}", *entry[1:]]
    return f"{found['indent']}Args:\n" + "\n".join(text) + "\n\n"
