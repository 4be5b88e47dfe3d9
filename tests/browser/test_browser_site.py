"""The documentation site as `make docs` has built it: complete, and loading nothing from elsewhere."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "site"
LOADING = {"src", "srcset", "data", "poster", "action"}
RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "prefetch", "dns-prefetch", "manifest"}
ELSEWHERE = re.compile(r"^(?:[a-z]+:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)")


class Loads(HTMLParser):
    """What a page makes a browser load from other hosts; plain links are not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        wanted = [named[name] for name in LOADING & named.keys()]
        if tag == "link" and RELATIONS & set((named.get("rel") or "").split()):
            wanted.append(named.get("href"))
        self.found += [each for each in wanted if each and ELSEWHERE.match(each)]
        self.found += IN_STYLES.findall(named.get("style") or "")

    def handle_data(self, data):
        self.found += IN_STYLES.findall(data)


def loads(text: str) -> list[str]:
    parser = Loads()
    parser.feed(text)
    return parser.found


@pytest.fixture(scope="module")
def address():
    if not (SITE / "index.html").exists():
        pytest.fail("there is no site: run `make docs`")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=SITE)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_no_page_names_anything_to_load_from_elsewhere(address):
    pages = sorted(SITE.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        assert loads(page.read_text("utf-8")) == [], page
    for style in SITE.rglob("*.css"):
        assert IN_STYLES.findall(style.read_text("utf-8")) == [], style


def test_the_check_sees_what_it_forbids():
    for text in (
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img src="https://a.example/b.png">',
        "<style>@import 'https://a.example/b.css'</style>",
        '<p style="background: url(https://a.example/b.png)">',
    ):
        assert loads(text), text
    assert loads('<a href="https://arxiv.org/abs/2505.21334">the paper</a><img src="images/page.png">') == []


def test_links_between_pages_lead_somewhere(address):
    """mkdocs checks those of Markdown; here also those of the navigation and the reference, with their anchors."""
    ids = {page: set(re.findall(r'\bid="([^"]+)"', page.read_text("utf-8"))) for page in SITE.rglob("*.html")}
    checked = 0
    for page in ids:
        if page.name == "404.html":
            continue
        for target in re.findall(r'\bhref="([^"]+)"', page.read_text("utf-8")):
            path, _, anchor = target.partition("#")
            if ":" in path or path.startswith("//"):
                continue
            to = (page.parent / path).resolve() if path else page
            assert to.exists(), f"{page.relative_to(SITE)} links to {target}"
            if anchor and to in ids:
                assert anchor in ids[to] or anchor == "__tabbed", f"{page.relative_to(SITE)} links to {target}"
            checked += 1
    assert checked > 1000


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_open_without_errors_or_strangers(browser, address, dark):
    browser.device(1280, 900, dark=dark)
    browser.open(f"{address}images/page.png")  # the same site, without its scripts
    browser.run("localStorage.clear()")  # a theme that was shown before is remembered
    for page in ("index", "how_it_works", "pictures", "benchmarks", "reference/commands", "reference/holitom"):
        browser.open(f"{address}{page}.html")
        browser.wait("return document.readyState === 'complete'")
        requests, messages = browser.logs()
        assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
        assert messages == [], page
        broken = "return [...document.images].filter((i) => i.complete && !i.naturalWidth).map((i) => i.src)"
        assert browser.run(broken) == []
        assert browser.wait(f"return document.body.dataset.mdColorScheme === '{'slate' if dark else 'default'}'")
    browser.open(f"{address}index.html")
    browser.shot(f"site_{'dark' if dark else 'light'}")


def test_it_fits_a_phone(browser, address):
    browser.device(375, 740, touch=True)
    for page in ("index", "how_it_works", "methods", "benchmarks", "reference/commands", "reference/holitom"):
        browser.open(f"{address}{page}.html")
        assert browser.run("return document.documentElement.scrollWidth") <= 375, page
    browser.open(f"{address}how_it_works.html")
    browser.shot("site_phone")


@pytest.mark.parametrize("served", [True, False], ids=["served", "from disk"])
def test_search_finds_a_name_of_the_reference(browser, address, served):
    browser.open(f"{address}index.html" if served else (SITE / "reference" / "commands.html").as_uri())
    field = "document.querySelector('.md-search__input')"
    browser.run(f"{field}.focus(); {field}.value = 'density peaks'; {field}.dispatchEvent(new Event('keyup'))")
    found = browser.wait("return document.querySelector('.md-search-result__item')?.textContent")
    assert "ensity" in found
    assert browser.logs()[1] == []


def test_the_first_page_shows_the_picture_and_the_table_of_the_readme(browser, address):
    browser.open(f"{address}index.html")
    assert browser.run("return document.querySelector('article img').src").endswith("images/patches.png")
    table = browser.run("return document.querySelector('article table').textContent")
    for row in ("first token", "LLM's prefill", "KV cache", "accuracy on the testbed"):
        assert row in table


def test_pages_longer_than_three_screens_have_a_list_of_contents(browser, address):
    pages = [page for page in sorted(SITE.glob("*.html")) if page.name != "404.html"]
    assert len(pages) > 15
    for page in pages:
        browser.open(f"{address}{page.name}")
        if browser.run("return document.querySelector('article').offsetHeight") > 3 * 900:
            links = "[...document.querySelectorAll('.md-sidebar--secondary a')]"
            assert browser.run(f"return {links}.filter((link) => link.offsetHeight).length") > 1, page.name
