"""The rooms of the package and the rules of the house, read from its source."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import holitom

PACKAGE = Path(holitom.__file__).parent
ROOT = PACKAGE.parent
ROOMS = (
    "merge",
    "tokens",
    "ops",
    "methods",
    "models",
    "cost",
    "runtime",
    "video",
    "long_video",
    "pipeline",
    "evaluation",
    "bench",
    "report",
    "corpus",
    "integrations",
    "demo",
    "cli",
    "__main__",
)
MODULES = sorted(PACKAGE.rglob("*.py"))
UPWARD = {
    ("methods/base.py", "runtime"),  # a method meets a model: imported inside __call__, at the last moment
    ("merge.py", "report"),  # pictures of objects, imported when somebody asks for one
    ("runtime/records.py", "report"),
    ("runtime/session.py", "report"),
}
SETS_ENVIRONMENT = "cli/threads.py"  # OpenMP listens to nothing else
LONGEST = 320  # lines


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, package: list[str]) -> list[list[str]]:
    """All imported names as dotted paths, also inside functions; what is for type checkers alone is left out."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name.split(".") for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            found += [[*above, *(node.module or "").split("."), alias.name] for alias in node.names]
    return [[part for part in name if part] for name in found]


def test_every_module_stands_in_a_known_room():
    assert {room_of(path) for path in MODULES} - {"__init__"} <= set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
class TestModule:
    def test_imports_go_down_only(self, path: Path):
        if room_of(path) == "__init__":
            return  # the facade takes the public names from everywhere
        package = [*path.relative_to(PACKAGE.parent).parent.parts]
        here = ROOMS.index(room_of(path))
        for name in imports(ast.parse(path.read_text("utf-8")), package):
            if name[0] != "holitom":
                continue
            assert len(name) > 1, "import rooms, not the facade"
            if name[1] == "__version__":
                continue
            assert name[1] in ROOMS, f"{'.'.join(name)}: import names from their rooms, not through the facade"
            allowed = ROOMS.index(name[1]) <= here or (str(path.relative_to(PACKAGE)), name[1]) in UPWARD
            assert allowed, f"{ROOMS[here]} imports {'.'.join(name)}, a room above it"

    def test_torchvision_is_never_imported(self, path: Path):
        assert all(name[0] != "torchvision" for name in imports(ast.parse(path.read_text("utf-8")), []))

    def test_it_is_short_and_says_what_it_is(self, path: Path):
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= LONGEST
        assert ast.get_docstring(ast.parse(text))

    def test_it_neither_prints_nor_reads_the_environment(self, path: Path):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "builtins.print"), f"line {node.lineno}"
            if isinstance(node, ast.Attribute) and str(path.relative_to(PACKAGE)) != SETS_ENVIRONMENT:
                assert node.attr not in ("environ", "environb", "getenv", "putenv"), f"line {node.lineno}"
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                assert not {alias.name for alias in node.names} & {"environ", "getenv"}, f"line {node.lineno}"


NEED_VLLM = {f"integrations/vllm/{name}.py" for name in ("llava_onevision", "processing", "qwen_vl", "start")} | {
    "integrations/vllm/qwen2_5_vl.py",
    "integrations/vllm/qwen3_vl.py",
}


def test_vllm_is_imported_in_its_room_only_and_never_by_what_works_without():
    """Settings, the launcher and the arithmetic are used where vLLM is not installed."""
    importers = set()
    for path in MODULES:
        at_the_top = ast.Module(ast.parse(path.read_text("utf-8")).body, [])
        for node in ast.walk(at_the_top):
            if isinstance(node, ast.FunctionDef):
                node.body = [ast.Pass()]  # what a function imports when it is called is another matter
        if any(name[0] == "vllm" for name in imports(at_the_top, [])):
            importers.add(str(path.relative_to(PACKAGE)))
    assert importers == NEED_VLLM


def test_the_exception_is_still_needed():
    """A rule with exceptions that nobody uses any more is a weaker rule."""
    for file, room in UPWARD:
        path = PACKAGE / file
        names = imports(ast.parse(path.read_text("utf-8")), ["holitom", path.parent.name])
        assert any(name[:2] == ["holitom", room] for name in names)
    assert "environ" in (PACKAGE / SETS_ENVIRONMENT).read_text("utf-8")


def test_the_checks_see_what_they_forbid():
    source = "def f():\n    from ..runtime import Session\n    import torchvision.io\n"
    names = imports(ast.parse(source), ["holitom", "ops"])
    assert names == [["holitom", "runtime", "Session"], ["torchvision", "io"]]


def test_the_version_is_the_changelogs_latest():
    latest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert latest is not None
    assert latest[1] == holitom.__version__


def test_what_is_imported_is_declared():
    """In the dependencies or an extra of pyproject.toml, so that an installed package finds what it imports.

    Integrations run inside their hosts, which bring what they need.
    """
    declared = set(re.findall(r'"([A-Za-z][\w-]*)(?:[><=~!\[][^"]*)?"', (ROOT / "pyproject.toml").read_text("utf-8")))
    declared |= {name.lower().replace("-", "_") for name in declared}
    known = {*sys.stdlib_module_names, *declared, "holitom"}
    for path in MODULES:
        if room_of(path) == "integrations":
            continue
        for name in imports(ast.parse(path.read_text("utf-8")), [*path.relative_to(ROOT).parent.parts]):
            package = {"PIL": "pillow"}.get(name[0], name[0])
            assert package in known, f"{path.relative_to(ROOT)} imports {name[0]}, which pyproject.toml does not name"


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
