"""The page as its readers meet it: opened from disk, on screens small and large, by pointer, touch and keyboard."""

from __future__ import annotations

import base64
import itertools
import re

import pytest
from report_traces import large, pipeline, small, sources_of
from selenium_names import ActionChains, By, Keys

from holitom.report.page import write_page
from holitom.report.trace import stages_of

METHODS = ("holitom:retention=0.3", "visionzip:retention=0.3|fastv:inner_retention=0.5", "fastvid:retention=0.3")
EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
DRAWN = "return [...document.querySelectorAll('#strip canvas')].filter((c) => c.width > 1).length"


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    return small(pipeline(tmp_path_factory.mktemp("browser")), *METHODS, question=EVIL)


@pytest.fixture(scope="module")
def address(traced, tmp_path_factory):
    return write_page(traced, tmp_path_factory.mktemp("page") / "report.html").as_uri()


@pytest.fixture(scope="module")
def long_address(traced, tmp_path_factory):
    return write_page(large(traced, 256, (14, 14), (180, 320)), tmp_path_factory.mktemp("long") / "long.html").as_uri()


def show_strip(browser) -> None:
    """Scrolls to the film strip and waits until what is in sight is drawn."""
    browser.run("document.getElementById('strip-title').scrollIntoView({behavior: 'instant'})")
    browser.wait(DRAWN)


@pytest.fixture
def page(browser, address):
    browser.open(address)
    show_strip(browser)
    return browser


def canvas(page, frame: int, run: int = 0):
    element = page.driver.find_elements(By.CSS_SELECTOR, "#strip canvas")[frame * len(METHODS) + run]
    page.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    return element


def point(page, source: int, run: int, grid=(4, 4)) -> None:
    frame, place = divmod(source, grid[0] * grid[1])
    row, column = divmod(place, grid[1])
    element = canvas(page, frame, run)
    box = element.size
    dx = (column + 0.5) * box["width"] / grid[1] - box["width"] / 2
    dy = (row + 0.5) * box["height"] / grid[0] - box["height"] / 2
    ActionChains(page.driver, duration=0).move_to_element_with_offset(element, round(dx), round(dy)).perform()


def lit(page, run: int) -> dict[int, float]:
    """What is highlighted in a run, as the page says."""
    marks = page.run(
        "return [...document.querySelectorAll('#strip canvas')].map((c) => [c.dataset.sources, c.dataset.weights])"
    )[run :: len(METHODS)]
    return {
        int(source): float(weight)
        for sources, weights in marks
        if sources
        for source, weight in zip(sources.split(), weights.split(), strict=True)
    }


def pixels(page, element) -> str:
    return page.run("return arguments[0].toDataURL()", element)


def test_it_opens_from_disk_and_asks_for_nothing(browser, address):
    browser.open(address)
    show_strip(browser)
    browser.run("scrollTo(0, document.body.scrollHeight)")
    requests, messages = browser.logs()
    assert [url for url in requests if not url.startswith("data:")] == [address]
    assert messages == []
    browser.run("scrollTo(0, 0)")
    browser.shot("page_light")


def test_the_policy_forbids_what_it_does_not_need(page):
    """The test above could not fail if a request were impossible to see: here is one, and it is refused."""
    page.run("fetch('https://example.org/').catch(() => 0); const i = new Image(); i.src = 'https://example.org/a.png'")
    assert page.wait("return true")
    assert any("Content Security Policy" in message for message in page.logs()[1])


@pytest.mark.parametrize("late", [False, True], ids=["entering", "after the inner stage"])
@pytest.mark.parametrize("run", range(len(METHODS)), ids=METHODS)
def test_pointing_lights_what_the_merge_says(page, traced, run, late):
    if late:
        page.run("document.querySelector('input[name=stage][value=\"1\"]').click()")
    stage = stages_of(traced.runs[run].record)[-1 if late else 0].merge
    by_size = sorted(range(stage.inputs), key=lambda source: len(sources_of(stage, source)))
    for source in (by_size[0], by_size[stage.inputs // 2], by_size[-1]):
        point(page, source, run)
        assert lit(page, run) == pytest.approx(sources_of(stage, source), rel=1e-3), source
        words = page.driver.find_element(By.ID, "panel").text
        assert f"frame {source // 16 + 1}, row {source % 16 // 4 + 1}, column {source % 4 + 1}" in words
    assert len(sources_of(stage, by_size[-1])) > 1, "the clip must have something to merge"


def test_the_same_patch_lights_up_in_every_method(page, traced):
    point(page, 5, 0)
    for run, each in enumerate(traced.runs):
        assert lit(page, run) == pytest.approx(sources_of(stages_of(each.record)[0].merge, 5), rel=1e-3)


def test_the_steps_draw_each_step_of_this_clip(page):
    page.wait("return [...document.querySelectorAll('canvas.mini')].every((canvas) => canvas.width > 1)")
    minis = page.driver.find_elements(By.CSS_SELECTOR, "canvas.mini")
    assert [each.get_attribute("data-step") for each in minis] == ["cut", "time", "space", "inside"]
    drawn = [pixels(page, each) for each in minis]
    blank = page.run(
        "const c = document.createElement('canvas'); [c.width, c.height] = arguments; return c.toDataURL()",
        *[int(minis[0].get_property(side)) for side in ("width", "height")],
    )
    assert len({*drawn, blank}) == 5


def test_the_film_stands_above_what_became_of_it(page, traced):
    film = page.driver.find_elements(By.CSS_SELECTOR, "#strip .film")
    assert len(film) == traced.frames
    assert "data:image/jpeg" in page.wait("return document.querySelector('#strip .film').style.backgroundImage")
    assert film[0].size == canvas(page, 0).size
    page.run("document.querySelector('input[value=picture]').click()")
    assert not film[0].is_displayed()


def test_the_light_is_seen_and_goes_out(page, traced):
    element = canvas(page, 1)
    page.wait("return document.querySelectorAll('#strip canvas')[3].width > 1")
    before = pixels(page, element)
    point(page, 16 + 5, 0)
    assert pixels(page, element) != before
    page.shot("page_pointing")
    ActionChains(page.driver, duration=0).move_to_element(page.driver.find_element(By.ID, "keys")).perform()
    assert pixels(page, element) == before
    assert lit(page, 0) == {}


def test_a_click_holds_a_token_until_escape(page):
    point(page, 5, 0)
    ActionChains(page.driver).click().perform()
    held = lit(page, 0)
    point(page, 60, 0)
    assert lit(page, 0) == held
    assert "Held" in page.driver.find_element(By.ID, "panel").text
    page.driver.find_element(By.ID, "strip").send_keys(Keys.ESCAPE)
    assert lit(page, 0) == {}


def test_every_view_is_another_picture(page):
    element = canvas(page, 2)
    seen = []
    for view in ("outcome", "picture", "similarity", "scores", "attention"):
        page.run(f"document.querySelector('input[value={view}]').click()")
        seen.append(pixels(page, element))
    assert len(set(seen)) == len(seen)


def test_the_keyboard_reaches_every_patch_and_says_what_it_is(page, traced):
    body = page.driver.find_element(By.TAG_NAME, "body")
    for _ in range(12):
        body.send_keys(Keys.TAB) if page.run("return document.activeElement === document.body") else (
            page.driver.switch_to.active_element.send_keys(Keys.TAB)
        )
        if page.run("return document.activeElement.id") == "strip":
            break
    strip = page.driver.switch_to.active_element
    assert strip.get_attribute("id") == "strip"
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"

    def said() -> str:
        return page.driver.find_element(By.ID, "live").get_attribute("textContent")

    strip.send_keys(Keys.ARROW_RIGHT)
    assert said().startswith("A: frame 1, row 1, column 1")
    strip.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.PAGE_DOWN)
    assert said().startswith("A: frame 2, row 2, column 2")
    merge = traced.runs[0].record.merge
    assert lit(page, 0) == pytest.approx(sources_of(merge, 16 + 5), rel=1e-3)
    strip.send_keys("b")
    assert said().startswith("B: frame 2, row 2, column 2")
    strip.send_keys(Keys.END, Keys.ARROW_RIGHT)
    assert said().startswith("B: frame 8, row 4, column 4")
    strip.send_keys(Keys.HOME, Keys.ARROW_LEFT)
    assert said().startswith("B: frame 1, row 1, column 1")


def test_a_screen_reader_finds_names_for_everything(page):
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    unnamed = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored")
        and node.get("role", {}).get("value")
        in ("image", "img", "radio", "slider", "link", "application", "region", "table")
        and not node.get("name", {}).get("value")
        and node["role"]["value"] != "table"
    ]
    assert unnamed == []
    labels = page.run("return [...document.querySelectorAll('#strip canvas')].map((c) => c.getAttribute('aria-label'))")
    assert len(labels) == 8 * len(METHODS)
    for label in labels:
        assert sum(map(int, re.findall(r"(\d+) (?:stay|merged|dropped)", label))) == 16
    levels = page.run("return [...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", ["light", "dark", "printed", "printed from dark"])
def test_text_is_legible(browser, address, mode):
    browser.device(1280, 900, dark="dark" in mode)
    browser.open(address)
    show_strip(browser)
    if "printed" in mode:
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    paper = luminance(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert paper < 0.2 if mode == "dark" else paper > 0.95
    found = browser.run("""
        const texts = [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility()
            && !e.closest('svg, .hidden, .skip')
            && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
        return texts.map((e) => {
            let below = e;
            while (below && getComputedStyle(below).backgroundColor === 'rgba(0, 0, 0, 0)') below = below.parentElement;
            return [e.tagName + '.' + e.className + ': ' + e.textContent.trim().slice(0, 30), getComputedStyle(e).color,
                getComputedStyle(below || document.body).backgroundColor];
        });
    """)
    assert len(found) > 40
    for text, ink, paper in found:
        high, low = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ink, paper)
    if mode == "dark":
        browser.shot("page_dark")


def test_it_fits_a_phone_and_answers_to_touch(browser, address, traced):
    browser.device(375, 740, touch=True)
    browser.open(address)
    show_strip(browser)
    assert browser.run("return document.documentElement.scrollWidth") <= 375
    browser.shot("page_phone")
    element = canvas(browser, 1)
    box = browser.run("const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width, b.height]", element)
    spot = {"x": box[0] + box[2] * 1.5 / 4, "y": box[1] + box[3] * 1.5 / 4}
    browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [spot]})
    browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    browser.wait("return document.querySelector('#strip canvas[data-sources]')")
    assert lit(browser, 0) == pytest.approx(sources_of(traced.runs[0].record.merge, 16 + 5), rel=1e-3)
    browser.shot("page_phone_touched")


def test_256_frames_open_and_scroll(browser, long_address):
    browser.open(long_address)
    show_strip(browser)
    drawn = browser.wait(DRAWN)
    assert drawn < 256, "frames far off are not drawn"
    browser.run("document.getElementById('frame-256').scrollIntoView({behavior: 'instant'})")
    last = "const c = document.querySelector('#frame-256 canvas'); return c.width > 1"
    assert browser.wait(last)
    assert browser.wait("return document.querySelector('#frame-1 canvas').width === 1"), "and are given up again"
    took = browser.run("""
        const canvas = document.querySelector('#frame-250 canvas'), box = canvas.getBoundingClientRect();
        const times = [1, 2, 3, 4, 5].map((n) => {
            const start = performance.now(), at = {clientX: box.x + 16 * n, clientY: box.y + 5, pointerType: 'mouse'};
            canvas.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, ...at}));
            return performance.now() - start;
        });
        return times.sort((one, other) => one - other)[2];
    """)
    assert took < 250, "milliseconds until what is pointed at lights up"
    assert browser.logs()[1] == []
    browser.shot("page_256_frames")


def test_it_prints_with_every_frame(page):
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    pdf = base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"])
    assert pdf.startswith(b"%PDF")
    page.keep("page_printed.pdf", pdf)
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run(DRAWN) == 8 * len(METHODS)
    assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("return getComputedStyle(document.getElementById('panel')).display") == "none"


def test_a_question_is_text_and_never_a_script(page):
    assert page.driver.find_element(By.CSS_SELECTOR, ".question").text.endswith(EVIL)
    assert page.run("return document.querySelectorAll('img').length") == 0
