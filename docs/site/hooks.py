"""What mkdocs adds to the pages in docs/ while it builds the site (`make docs`).

The pages are also read where the code is, so their links lead to files of the repository. Here each link that leaves
docs/ is given a page under source/: a Markdown file or a notebook becomes a page, another text its listing, a folder
its README or the list of what is in it, a picture is copied. The navigation is that of docs/index.md, and the home page
is the README.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^(```.*?^```)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
PICTURES = {".png", ".jpg", ".gif", ".svg"}
LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".json": "json", ".jsonl": "json", ".yml": "yaml"}
LONGEST = 60_000  # characters of a listing

origins: dict[str, Path] = {}  # by page: the file in the repository that its links start from


def on_config(config: Any) -> Any:
    """Takes the navigation from docs/index.md."""
    nav: list[Any] = [{"Home": "index.md"}]
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (DOCS / "index.md").read_text("utf-8"), re.M | re.S):
        nav.append({title: [{name: page} for name, page in re.findall(r"^\* \[(.+?)\]\((\S+?\.md)\)", body, re.M)]})
    nav.append({"Reference": [{name: uri} for name, uri in reference.navigation()]})
    nav.append({"Project": [{"Examples": page_of(ROOT / "examples")}, {"Contribute": page_of(ROOT / "CONTRIBUTING.md")},
                            {"Changes": page_of(ROOT / "CHANGELOG.md")}]})  # fmt: skip
    config.nav = nav
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the README, the reference, and a page for all that links lead to outside docs/."""
    origins.clear()
    files.remove(files.get_file_from_path("index.md"))
    add(files, File.generated(config, "index.md", content=(ROOT / "README.md").read_text("utf-8")))
    origins["index.md"] = ROOT / "README.md"
    for uri, text in reference.pages():
        add(files, File.generated(config, uri, content=text))
    for page in DOCS.glob("*.md"):
        if page.name != "index.md":
            origins[page.name] = page
    ahead = [ROOT / "README.md", *origins.values(), ROOT / "examples", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    seen: set[Path] = set()
    while ahead:
        path = front_of(ahead.pop())
        if path in seen:
            continue
        seen.add(path)
        if path != ROOT / "README.md" and not path.is_relative_to(DOCS):
            add(files, file_of(path, config))
        ahead += [target for target in leads_to(path) if target not in seen]
    return files


def add(files: Any, file: File) -> None:
    """A file that mkdocs did not find by itself."""
    if not files.get_file_from_path(file.src_uri):
        files.append(file)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turns links to the repository's files into links to their pages."""
    origin = origins.get(page.file.src_uri)
    if origin is None:
        return markdown
    parts = FENCE.split(markdown)
    return "".join(part if number % 2 else relink(part, origin, page.file.src_uri) for number, part in enumerate(parts))


def relink(text: str, origin: Path, uri: str) -> str:
    """Text without code blocks, its links made for the page ``uri``."""

    def link(match: re.Match[str]) -> str:
        target, mark, anchor = match[2].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        to = page_of((origin.parent / target).resolve())
        return f"{match[1]}{posixpath.relpath(to, posixpath.dirname(uri) or '.')}{mark}{anchor}{match[3]}"

    return LINK.sub(link, text)


def front_of(path: Path) -> Path:
    """A folder's README where it has one; every other path as it is."""
    readme = path / "README.md"
    return readme if path.is_dir() and path != ROOT and readme.exists() else path


def page_of(path: Path) -> str:
    """Where a file or folder of the repository is in the site."""
    path = front_of(path)
    if path == ROOT / "README.md" or path == DOCS / "index.md":
        return "index.md"
    if path.is_relative_to(DOCS) and path.is_file() and path.suffix != ".py":
        return path.relative_to(DOCS).as_posix()
    place = "source" / PurePosixPath(path.relative_to(ROOT).as_posix())
    if path.is_dir():
        return f"{place}/index.md"
    return str(place) if path.suffix in PICTURES | {".md"} else f"{place}.md"


def leads_to(path: Path) -> Iterator[Path]:
    """Files and folders that a page's links name."""
    if path.is_dir():
        yield from contents(path)
    if path.suffix != ".md":
        return
    for part in FENCE.split(path.read_text("utf-8"))[::2]:
        for _, target, _ in LINK.findall(part):
            if "://" not in target and not target.startswith(("#", "mailto:")):
                found = (path.parent / target.partition("#")[0]).resolve()
                if not found.exists():
                    raise PluginError(f"{path.relative_to(ROOT)} links to {target}, which does not exist")
                yield found


def contents(folder: Path) -> list[Path]:
    """What a folder's page lists."""
    known = LANGUAGES.keys() | {".md"}
    found = [path for path in folder.iterdir() if path.suffix in known and path.name != "__init__.py"]
    return sorted(path for path in found if path.is_file() and path.stat().st_size <= LONGEST)


def file_of(path: Path, config: Any) -> File:
    """A page, or a picture, from outside docs/."""
    uri = page_of(path)
    if path.suffix in PICTURES:
        return File.generated(config, uri, abs_src_path=str(path))
    if path.suffix == ".md":
        origins[uri] = path
        return File.generated(config, uri, content=path.read_text("utf-8"))
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        rows = [f"* [`{each.name}`]({posixpath.relpath(page_of(each), posixpath.dirname(uri))})" + about(each)
                for each in contents(path)]  # fmt: skip
        return File.generated(config, uri, content=f"# {name}/\n\n" + "\n".join(rows) + "\n")
    if path.suffix == ".ipynb":
        origins[uri] = path
        return File.generated(config, uri, content=notebook(path))
    text = path.read_text("utf-8")[:LONGEST]
    language = LANGUAGES.get(path.suffix, "text")
    listing = f'# {path.name}\n\n````{language} title="{name}"\n{text}\n````\n'
    return File.generated(config, uri, content=f"---\nsearch:\n  exclude: true\n---\n{listing}")


def notebook(path: Path) -> str:
    """A notebook's text and code, without outputs."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ((cell["cell_type"], "".join(cell["source"])) for cell in cells)
    return "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for kind, text in sources)


def about(path: Path) -> str:
    """The first paragraph of a script's docstring."""
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path.suffix == ".py" else None
    return f": {' '.join(said.split(chr(10) * 2)[0].split())}" if said else ""
