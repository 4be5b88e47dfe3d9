"""A real browser: Debian's chromium, driven by selenium. Screenshots go to out/browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium_names import WebDriverWait, webdriver

SHOTS = Path(__file__).parents[2] / "out" / "browser"
INSTALL = (
    "the tests in tests/browser drive a real browser: apt-get install chromium chromium-driver, and "
    "pip install selenium (or leave them out with -m 'not browser')"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


class Browser:
    """What the tests do with a page."""

    def __init__(self, driver) -> None:
        self.driver = driver
        self.run = driver.execute_script

    def device(self, width: int, height: int, dark: bool = False, touch: bool = False) -> None:
        """The screen, and what its owner prefers."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": [scheme]})

    def open(self, address: str) -> None:
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(address)

    def logs(self) -> tuple[list[str], list[str]]:
        """Since the last call: addresses that were asked for, and messages on the console."""
        requests = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                requests.append(message["params"]["request"]["url"])
        return requests, [entry["message"] for entry in self.driver.get_log("browser")]

    def wait(self, script: str, seconds: float = 10):
        """What a script returns, once that is true."""
        return WebDriverWait(self.driver, seconds, 0.05).until(lambda driver: driver.execute_script(script))

    def keep(self, name: str, content: bytes) -> None:
        """Puts a file where screenshots go."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        (SHOTS / name).write_bytes(content)

    def shot(self, name: str) -> None:
        self.keep(f"{name}.png", self.driver.get_screenshot_as_png())


@pytest.fixture(scope="session")
def _driver(tmp_path_factory) -> Iterator:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    helper = shutil.which("chromedriver")
    if not (chromium and helper and webdriver):
        pytest.fail(INSTALL)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(helper))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture
def browser(_driver) -> Browser:
    """A desktop with a light theme and an empty page."""
    found = Browser(_driver)
    found.device(1280, 900)
    return found
