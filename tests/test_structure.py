"""How the package is layered and the rules of its style, read from its source. One test a rule, over all files."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import holitom

PACKAGE = Path(holitom.__file__).parent
ROOT = PACKAGE.parent
LAYERS = (
    "extras",
    "resume",
    "kernels",
    "edges",
    "merge",
    "tokens",
    "ops",
    "methods",
    "recommendation",
    "models",
    "cost",
    "runtime",
    "video",
    "long_video",
    "generation",
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
UPWARD = {
    ("methods/base.py", "runtime"),  # a method meets a model: imported inside __call__, at the last moment
    ("merge.py", "report"),  # pictures of objects, imported when somebody asks for one
    ("runtime/records.py", "report"),
    ("runtime/session.py", "report"),
}
SETS_ENVIRONMENT = "cli/threads.py"  # OpenMP listens to nothing else
LONGEST = 320  # lines
TREES = {path: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def layer_of(path: Path) -> str:
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


IMPORTS = {path: imports(tree, [*path.relative_to(ROOT).parent.parts]) for path, tree in TREES.items()}


def upward(path: Path) -> Iterator[str]:
    """What a module imports that it must not: from a layer above it, or through the package's own front."""
    if layer_of(path) == "__init__":
        return  # the front takes the public names from everywhere
    for name in IMPORTS[path]:
        if name[0] != "holitom" or name[1:] == ["__version__"]:
            continue
        if len(name) == 1 or name[1] not in LAYERS:
            yield f"{'.'.join(name)}: import it from the module that defines it"
        elif LAYERS.index(name[1]) > LAYERS.index(layer_of(path)) and (name_of(path), name[1]) not in UPWARD:
            yield f"{'.'.join(name)}, which is above {layer_of(path)}"


def test_every_module_belongs_to_a_known_layer():
    assert {layer_of(path) for path in TREES} - {"__init__"} <= set(LAYERS)


def test_imports_go_down_only():
    assert [f"{name_of(path)} imports {what}" for path in TREES for what in upward(path)] == []


def test_torchvision_is_never_imported():
    assert [name_of(path) for path, names in IMPORTS.items() if any(n[0] == "torchvision" for n in names)] == []


FLOATING = {"zeros", "ones", "empty", "eye", "rand", "randn", "linspace"}  # what torch.NAME makes by default


@pytest.mark.parametrize(
    ("given", "makers"),
    [("dtype", FLOATING), ("device", FLOATING | {"tensor", "as_tensor", "full", "arange", "randint", "randperm"})],
)
def test_tensors_get_their_dtype_and_their_device(given, makers):
    """Whatever torch.set_default_dtype and torch.set_default_device say."""
    calls = [
        f"{name_of(path)}:{node.lineno}: {ast.unparse(node)}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"torch.{name}" for name in makers}
        if given not in {keyword.arg for keyword in node.keywords}
    ]
    assert calls == []


def test_modules_are_short():
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in TREES}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_modules_say_what_they_are():
    assert [name_of(path) for path, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_every_parameter_has_a_line_of_its_own():
    """So that parsers of Google's style find it, wherever there is an ``Args:`` section in the packages named here."""
    inherited = {"positions", "mass"}  # told by Method
    paths = [path for path in TREES if name_of(path).startswith(("merge", "tokens", "ops", "methods"))]
    nodes = [(path, node) for path in paths for node in ast.walk(TREES[path])]
    assert [f"{name_of(path)}: {node.name} {lost}" for path, node in nodes if (lost := untold(node) - inherited)] == []


def untold(node: ast.AST) -> set[str]:
    """The parameters of a function, or the fields of a class, that its ``Args:`` section does not name."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return set()
    _, found, section = (ast.get_docstring(node) or "").partition("\nArgs:\n")
    if not found:
        return set()
    if isinstance(node, ast.FunctionDef):
        names = {argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]} - {"self", "cls"}
    else:
        fields = [part for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
        names = {part.target.id for part in fields if "ClassVar" not in ast.unparse(part.annotation)}
    section = re.split(r"\n\S", section)[0]
    return {name for name in names if not name.startswith("_")} - set(
        re.findall(r"^    (\w+): ", section, re.MULTILINE)
    )


def test_nothing_prints():
    calls = [(path, node) for path, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    printing = ("print", "builtins.print")
    assert [f"{name_of(path)}:{node.lineno}" for path, node in calls if ast.unparse(node.func) in printing] == []


def test_nothing_reads_the_environment():
    assert [place for path, tree in TREES.items() for place in environment(path, tree)] == []


def environment(path: Path, tree: ast.AST) -> Iterator[str]:
    if name_of(path) == SETS_ENVIRONMENT:
        return
    for node in ast.walk(tree):
        names = {node.attr} if isinstance(node, ast.Attribute) else set()
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names}
        if names & {"environ", "environb", "getenv", "putenv"}:
            yield f"{name_of(path)}:{node.lineno}"


NEED_VLLM = {
    f"integrations/vllm/{name}.py" for name in ("cosmos3", "llava_onevision", "placed", "processing", "start")
} | {
    "integrations/vllm/qwen2_5_vl.py",
    "integrations/vllm/qwen3_5.py",
    "integrations/vllm/qwen3_vl.py",
    "integrations/vllm/transformers_backend.py",
}


def test_only_vllms_integration_imports_vllm_and_never_what_works_without():
    """Settings, the launcher and the arithmetic are used where vLLM is not installed."""
    importers = set()
    for path in TREES:
        at_the_top = ast.Module(ast.parse(path.read_text("utf-8")).body, [])
        for node in ast.walk(at_the_top):
            if isinstance(node, ast.FunctionDef):
                node.body = [ast.Pass()]  # what a function imports when it is called is another matter
        if any(name[0] == "vllm" for name in imports(at_the_top, [])):
            importers.add(name_of(path))
    assert importers == NEED_VLLM


def test_every_exception_is_needed():
    """A rule with exceptions that nobody uses any more is a weaker rule."""
    for file, layer in UPWARD:
        assert any(name[:2] == ["holitom", layer] for name in IMPORTS[PACKAGE / file]), file
    assert "environ" in (PACKAGE / SETS_ENVIRONMENT).read_text("utf-8")


def test_the_checks_see_what_they_forbid():
    source = "def f():\n    from ..runtime import Session\n    import torchvision.io\n"
    names = imports(ast.parse(source), ["holitom", "ops"])
    assert names == [["holitom", "runtime", "Session"], ["torchvision", "io"]]
    tree = ast.parse("from os import getenv\nos.environ['A']")
    assert list(environment(PACKAGE / "merge.py", tree)) == ["merge.py:1", "merge.py:2"]


def test_the_version_is_the_changelogs_latest():
    latest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert latest is not None
    assert latest[1] == holitom.__version__


def test_what_is_imported_is_declared():
    """In the dependencies or an extra of pyproject.toml, so that an installed package finds what it imports.

    Integrations run inside their hosts, which bring what they need; torch's builds for GPUs bring Triton.
    """
    declared = set(re.findall(r'"([A-Za-z][\w-]*)(?:[><=~!\[][^"]*)?"', (ROOT / "pyproject.toml").read_text("utf-8")))
    declared |= {name.lower().replace("-", "_") for name in declared}
    known = {*sys.stdlib_module_names, *declared, "holitom", "triton"}
    for path, names in IMPORTS.items():
        if layer_of(path) == "integrations":
            continue
        for name in names:
            package = {"PIL": "pillow"}.get(name[0], name[0])
            assert package in known, f"{name_of(path)} imports {name[0]}, which pyproject.toml does not name"


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
