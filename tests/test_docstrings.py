"""Docstrings are of Google's style: its parsers find every parameter, attribute and error."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import holitom

PACKAGE = Path(holitom.__file__).parent
SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields", "Examples")
HEADING = re.compile(r"^([A-Z][\w ]*):$")
ENTRY = re.compile(r"^\*{0,2}([\w.]+): \S")
SEVERAL = re.compile(r"[.;] ([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*): ")  # a second entry on the line of the first


def sections(doc: str) -> Iterator[tuple[str, list[str]]]:
    """The name of each section, and its entries, each in one line; an entry's further lines are indented deeper."""
    name, entries = "", list[str]()
    for line in [*doc.splitlines(), "End:"]:
        stripped, depth = line.strip(), len(line) - len(line.lstrip())
        if depth == 0 and (heading := HEADING.match(stripped)):
            if name:
                yield name, entries
            name, entries = heading[1], []
        elif name and stripped and depth == 0:
            yield name, entries  # text behind a section
            name, entries = "", []
        elif name and stripped and depth == 4:
            entries.append(stripped)
        elif name and stripped and entries:
            entries[-1] += f" {stripped}"


def documented(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (doc := ast.get_docstring(node)):
            yield node, doc


def parameters(node: ast.AST) -> set[str]:
    """Those of a function or of a class's constructor; without one the fields of a class. No private ones."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        names = {argument.arg for argument in every if argument is not None} - {"self", "cls"}
    else:
        assert isinstance(node, ast.ClassDef)
        made = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
        names = set(attributes(node)) if made is None else parameters(made)
    return {name for name in names if not name.startswith("_")}


def attributes(node: ast.ClassDef) -> dict[str, bool]:
    """The annotated names in a class's body, and whether each is one of its constructor."""
    found = {}
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            value = ast.unparse(each.value) if each.value else ""
            found[each.target.id] = "ClassVar" not in ast.unparse(each.annotation) and "init=False" not in value
    return found


def faults(path: Path) -> list[str]:
    found = []
    for node, doc in documented(ast.parse(path.read_text("utf-8"))):
        where = f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno} {node.name}"
        fields = attributes(node) if isinstance(node, ast.ClassDef) else {}
        known = {name for name in parameters(node) if fields.get(name, True)}
        told = list(sections(doc))
        elsewhere = {text.split(":")[0] for section, entries in told if section == "Attributes" for text in entries}
        for section, entries in told:
            if section not in SECTIONS:
                found.append(f"{where}: {section} is no section")
            if section not in ("Args", "Attributes", "Raises"):
                continue
            named = [entry[1] for text in entries if (entry := ENTRY.match(text))]
            found += [f"{where}: {text.split(':')[0]} is no entry" for text in entries if not ENTRY.match(text)]
            names = known | set(fields) | set(named)
            for name, text in zip(named, filter(ENTRY.match, entries), strict=True):
                also = [more for match in SEVERAL.finditer(text) for more in match[1].split(", ")]
                also = [more for more in also if more in names or section == "Raises"]
                found += [f"{where}: {', '.join(also)} on the line of {name}"] if also else []
            if section == "Args":
                inherited = isinstance(node, ast.ClassDef) and any(True for _ in node.bases)
                found += [f"{where}: {name} is no parameter" for name in named if name not in known and not inherited]
                found += [f"{where}: {name} is left out" for name in sorted(known - elsewhere - set(named))]
    return found


def test_parsers_find_every_entry():
    wrong = [fault for path in sorted(PACKAGE.rglob("*.py")) for fault in faults(path)]
    assert wrong == []


def test_the_check_sees_what_it_forbids(tmp_path, monkeypatch):
    monkeypatch.setattr("test_docstrings.PACKAGE", tmp_path)
    path = tmp_path / "a.py"
    path.write_text(
        'def f(a, b, c, d, g):\n    """Does.\n\n    Args:\n        a: one. b: two.\n'
        "        c, d: three.\n        e: x,\n            and more.\n\n    Raises:\n        A, B: never.\n"
        '        C: at times. D: too.\n\n    Class attributes:\n        x: y.\n    """\n'
    )
    assert [fault.partition(": ")[2] for fault in faults(path)] == [
        "c, d is no entry",
        "b on the line of a",
        "e is no parameter",
        "b is left out",
        "c is left out",
        "d is left out",
        "g is left out",
        "A, B is no entry",
        "D on the line of C",
        "Class attributes is no section",
    ]
