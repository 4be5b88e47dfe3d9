"""Docstrings name one parameter a line, so that parsers of Google's style find all of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import holitom

PACKAGE = Path(holitom.__file__).parent
SECTION = re.compile(r"^(Args|Attributes|Class attributes|Returns|Raises|Yields|Example|Examples):\s*$")
ENTRY = re.compile(r"^([*\w]+(?:, [*\w]+)*):(?:\s|$)")
SEVERAL = re.compile(r"[.;] ([a-z_]\w*(?:, [a-z_]\w*)*): ")  # a second parameter on the line of the first


def entries(doc: str) -> Iterator[tuple[str, str]]:
    """The names and the text of each entry under ``Args:`` and ``Attributes:``."""
    inside, name, text = False, "", list[str]()
    lines = doc.splitlines()
    indent = 0
    for line in [*lines, "Args:"]:
        stripped = line.strip()
        if SECTION.match(stripped) and len(line) - len(line.lstrip()) <= indent:
            if name:
                yield name, " ".join(text)
            name, text, inside = "", [], stripped in ("Args:", "Attributes:")
            continue
        depth = len(line) - len(line.lstrip())
        found = ENTRY.match(stripped) if inside and depth == indent + 4 else None
        if found:
            if name:
                yield name, " ".join(text)
            name, text = found[1], [stripped[found.end() :].strip()]
        elif name:
            text.append(stripped)


def documented(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (doc := ast.get_docstring(node)):
            yield node, doc


def parameters(node: ast.AST) -> set[str]:
    """The parameters of a function; the fields of a class, and the parameters of its constructor."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        return {argument.arg for argument in every if argument is not None} - {"self", "cls"}
    assert isinstance(node, ast.ClassDef)
    found: set[str] = set()
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            found.add(each.target.id)
        if isinstance(each, ast.FunctionDef):
            found |= parameters(each) if each.name == "__init__" else {each.name}
    return found


def faults(path: Path) -> list[str]:
    tree, found = ast.parse(path.read_text("utf-8")), []
    for node, doc in documented(tree):
        known, where = parameters(node), f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno} {node.name}"
        for name, text in entries(doc):
            if "," in name:
                found.append(f"{where}: {name} share a line")
            also = [more for match in SEVERAL.finditer(text) for more in match[1].split(", ") if more in known]
            if also:
                found.append(f"{where}: {', '.join(also)} on the line of {name}")
            if isinstance(node, ast.FunctionDef) and not {part.strip("* ") for part in name.split(",")} <= known:
                found.append(f"{where}: {name} is no parameter")
    return found


def test_one_parameter_a_line():
    wrong = [fault for path in sorted(PACKAGE.rglob("*.py")) for fault in faults(path)]
    assert wrong == []


def test_the_check_sees_what_it_forbids(tmp_path, monkeypatch):
    monkeypatch.setattr("test_docstrings.PACKAGE", tmp_path)
    path = tmp_path / "a.py"
    path.write_text(
        'def f(a, b, c, d):\n    """Does.\n\n    Args:\n        a: one. b: two.\n'
        '        c, d: three.\n        e: x.\n    """\n'
    )
    assert [fault.partition(": ")[2] for fault in faults(path)] == [
        "b on the line of a",
        "c, d share a line",
        "e is no parameter",
    ]
