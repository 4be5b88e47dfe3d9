"""The demo as its users meet it, on the model inside the package."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from selenium_names import By, Keys

from holitom.cli.loading import TINY, recommended
from holitom.pipeline import Pipeline

STATE = """
    const value = (id) => (document.querySelector(`#${id} textarea, #${id} input`) || {}).value || '';
    return {status: value('status'), full: value('answer-full'), compressed: value('answer-compressed'),
            tookFull: value('took-full'), tookCompressed: value('took-compressed')};
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    from holitom.demo.app import samples

    return samples(tmp_path_factory.mktemp("samples"), 2)


@pytest.fixture(scope="module")
def served(clips):
    from holitom.demo.app import app, launch
    from holitom.demo.work import QuestionQueue

    queue = QuestionQueue(Pipeline.from_pretrained(TINY, device="cpu"), "tiny")
    blocks = app(queue, clips, recommended("tiny"))
    yield launch(blocks, queue.limits.megabytes)
    blocks.close()
    queue.close()


@pytest.fixture
def demo(browser, served):
    browser.open(served)
    browser.wait("return document.querySelector('#ask') && document.querySelector('#question textarea')?.value", 30)
    return browser


def press(demo) -> None:
    demo.wait("return !document.querySelector('#ask').disabled")
    demo.driver.find_element(By.ID, "ask").click()


def settled(demo, beginning: str, other_than: str | None = None) -> dict[str, str]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        state = demo.run(STATE)
        if state["status"].startswith(beginning) and state["tookCompressed"] != other_than:
            return state
        time.sleep(0.1)
    raise AssertionError(f"still {demo.run(STATE)}")


def upload(demo, path: Path) -> None:
    """Puts a file where the video was."""
    demo.run('document.querySelector(\'#video [aria-label="Clear"], #video button[title="Clear"]\')?.click()')
    demo.wait("return document.querySelector('#video input[type=file]')")
    demo.driver.find_element(By.CSS_SELECTOR, "#video input[type=file]").send_keys(str(path))


def test_a_sample_is_asked_about_and_the_slider_moved(demo, served):
    press(demo)
    state = settled(demo, "done")
    assert state["full"]
    assert state["compressed"]
    assert "785 of 785 visual tokens" in state["tookFull"]
    assert "tokens/s" in state["tookCompressed"]
    picture = demo.wait("return document.querySelector('#picture iframe')?.srcdoc")
    assert "spread:retention=0.25" in picture  # what the bundled model recommends
    demo.driver.switch_to.frame(demo.driver.find_element(By.CSS_SELECTOR, "#picture iframe"))
    demo.wait("return document.querySelectorAll('#strip canvas').length === 16")
    demo.driver.switch_to.default_content()
    demo.shot("demo")

    slider = demo.driver.find_element(By.CSS_SELECTOR, "#retention input[type=range]")
    slider.send_keys(*[Keys.ARROW_RIGHT] * 20)
    for event in ("pointerup", "mouseup", "change"):
        demo.run("arguments[0].dispatchEvent(new Event(arguments[1], {bubbles: true}))", slider, event)
    again = settled(demo, "done", other_than=state["tookCompressed"])
    assert tokens(again["tookCompressed"]) > tokens(state["tookCompressed"])
    requests, messages = demo.logs()
    elsewhere = [url for url in requests if not url.startswith((served, "data:", "blob:"))]
    assert elsewhere == []
    assert [message for message in messages if "SEVERE" in message] == []


def tokens(numbers: str) -> int:
    return int(numbers.split(" of 785")[0].split("; ")[-1].replace(",", ""))


def test_an_upload_is_asked_about(demo, clips):
    path, question = clips["sample 2"]
    upload(demo, Path(path))
    demo.wait("return document.querySelector('#video video')", 20)
    field = demo.driver.find_element(By.CSS_SELECTOR, "#question textarea")
    field.clear()
    field.send_keys(question)
    time.sleep(1)
    press(demo)
    state = settled(demo, "done")
    assert state["full"]
    assert state["compressed"]
    assert Path(path).name in demo.wait("return document.querySelector('#picture iframe')?.srcdoc")


def test_it_fits_a_phone(demo):
    demo.device(375, 740, touch=True)
    demo.wait("return document.documentElement.scrollWidth <= 375")
    demo.shot("demo_phone")


def test_a_corrupt_file_gives_a_sentence(demo, tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + np.random.default_rng(0).bytes(20_000))
    upload(demo, path)
    time.sleep(2)
    press(demo)
    state = settled(demo, "Error")
    assert state["status"].startswith("Error: broken.mp4: ")
    assert "/" not in state["status"].replace("ffmpeg -i FILE", "")
    assert "Traceback" not in state["status"]
    demo.shot("demo_corrupt_file")


def fetch(address: str, data: bytes | None = None, kind: str = "application/json") -> tuple[int, bytes]:
    request = urllib.request.Request(address, data, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def join(served, number: int, session: str, video: str) -> tuple[int, bytes]:
    """Asks as the page does, without waiting for the answer."""
    data = [{"path": video, "meta": {"_type": "gradio.FileData"}}, "What?", "holitom", 0.1, 4, 4, ""]
    body = json.dumps({"data": data, "fn_index": number, "session_hash": session}).encode()
    return fetch(f"{served}gradio_api/queue/join", body)


def question_of(served) -> int:
    """The number by which the server knows the function that asks."""
    config = json.loads(fetch(f"{served}config")[1])
    return next(each["id"] for each in config["dependencies"] if len(each["inputs"]) == 7)


def test_a_few_wait_in_a_queue_and_more_are_told_to_come_back(served, clips):
    from holitom.demo.app import WAITING

    content = Path(clips["sample 1"][0]).read_bytes()
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    status, names = fetch(
        f"{served}gradio_api/upload", head + content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
    )
    assert status == 200
    number, [video] = question_of(served), json.loads(names)
    answers = [join(served, number, f"visitor{visitor}", video) for visitor in range(WAITING + 12)]
    taken = [visitor for visitor, (status, _) in enumerate(answers) if status == 200]
    refused = [text.decode().lower() for status, text in answers if status != 200]
    assert len(taken) >= WAITING
    assert refused
    assert all("queue is full" in text and "traceback" not in text for text in refused)
    news = fetch(f"{served}gradio_api/queue/data?session_hash=visitor{taken[-1]}")[1]  # it comes to its turn
    assert b"visual tokens enter the LLM" in news


@pytest.mark.parametrize("path", ["/etc/passwd", str(Path(__file__).parents[2] / "pyproject.toml"), "../../etc/passwd"])
def test_files_of_the_host_are_not_served(served, path):
    assert fetch(f"{served}gradio_api/file={path}")[0] in (403, 404)


def test_files_of_the_host_cannot_be_asked_about(served, tmp_path):
    """A client that speaks to the server without the page names a file it has not uploaded."""
    secret = Path(__file__).parents[2] / "holitom" / "assets" / "tiny" / "config.json"
    status, text = join(served, question_of(served), "stranger", str(secret))
    if status == 200:
        text = fetch(f"{served}gradio_api/queue/data?session_hash=stranger")[1]
        assert b'"success":false' in text.replace(b" ", b"")
    assert b"done" not in text


def test_an_upload_that_is_too_large_is_refused(served):
    from holitom.demo.reading import Limits

    content = b"\0" * (int(Limits().megabytes) * 1_000_000 + 1_000_000)
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + content + b"\r\n--x--\r\n"
    try:
        status = fetch(f"{served}gradio_api/upload", body, "multipart/form-data; boundary=x")[0]
    except urllib.error.URLError:  # the server hung up before the end
        return
    assert status == 413
