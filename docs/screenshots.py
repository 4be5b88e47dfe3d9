"""Photographs the page of `holitom show` and the demo for the README and docs/pictures.md.

    python docs/screenshots.py

Needs the extra `browser`, and from the system: apt-get install chromium chromium-driver.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from holitom.cli.loading import TINY, recommended
from holitom.demo.app import app, launch, samples
from holitom.demo.work import QuestionQueue
from holitom.methods.registry import parse
from holitom.pipeline import Pipeline
from holitom.report.page import write_page
from holitom.report.trace import trace

IMAGES = Path(__file__).parent / "images"
NUMBER = "sample 3"  # one cut, four shapes


def open_browser(width: int, height: int) -> Any:
    """Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    screen(driver, width, height)
    return driver


def screen(driver: Any, width: int, height: int) -> None:
    """Makes the window so large."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def save(driver: Any, name: str) -> None:
    """A screenshot in 256 colours: small enough for a repository."""
    with Image.open(io.BytesIO(driver.get_screenshot_as_png())) as picture:
        few = picture.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(IMAGES / name, optimize=True)


def main() -> None:
    """Writes page.png and demo.png."""
    with tempfile.TemporaryDirectory() as folder:
        clips = samples(Path(folder))
        pipeline = Pipeline.from_pretrained(TINY, device="cpu")
        clip, question = clips[NUMBER]
        methods = [parse("holitom"), parse("visionzip")]
        page = write_page(trace(pipeline, clip, question, methods, model="tiny"), Path(folder) / "page.html")
        driver = open_browser(1280, 1440)
        try:
            driver.get(page.as_uri())
            driver.execute_script("document.getElementById('steps-title').scrollIntoView({behavior: 'instant'})")
            time.sleep(1)
            patch = driver.find_elements(By.CSS_SELECTOR, "#strip canvas")[6]
            ActionChains(driver).move_to_element_with_offset(patch, -10, -10).perform()
            time.sleep(1)
            save(driver, "page.png")

            queue, own = QuestionQueue(pipeline, "tiny"), recommended("tiny")
            list(queue.ask(clip, question, own.method.name, own.method.retention, 32, 64))  # to warm up
            blocks = app(queue, {NUMBER: clips[NUMBER]}, own)
            screen(driver, 1200, 1250)
            driver.get(launch(blocks, queue.limits.megabytes, wait=False))
            time.sleep(4)
            driver.find_element(By.ID, "ask").click()
            while not driver.execute_script("return document.querySelector('#picture iframe')"):
                time.sleep(0.2)
            time.sleep(2)
            save(driver, "demo.png")
            blocks.close()
            queue.close()
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
