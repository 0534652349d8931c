"""A real browser without a window, and what it says of a page: errors, images that do not show, and
whatever is fetched from elsewhere."""

import contextlib
import json
import shutil
import time
from urllib.parse import quote

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SWITCHES = [
    "--headless=new",
    "--no-sandbox",  # a container's root has none
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--window-size=1300,1000",
]
IMAGES = """
const images = [...document.querySelectorAll('.md-content img, body > img')];
const done = arguments[arguments.length - 1];
for (const image of images) image.loading = 'eager';
const shown = images.filter((image) => image.src && !image.hidden);
Promise.all(shown.map((image) => image.decode().catch(() => 0))).then(() =>
  done(shown.filter((image) => !image.naturalWidth).map((image) => image.src)));
"""


@contextlib.contextmanager
def opened():
    """A driver of the browser that is installed; skips where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no chromium with its driver (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in SWITCHES:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.set_script_timeout(120)
        yield browser
    finally:
        browser.quit()


def show(browser, path):
    """Open a file; a link within it too."""
    file, _, part = str(path).partition("#")
    browser.get(f"file://{quote(file)}" + (f"#{part}" if part else ""))


def fetched(browser):
    """Addresses that were asked for since the last call."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            yield message["params"]["request"]["url"]


def complaints(browser, path):
    """What is wrong with a page: errors of its scripts, images that do not show, and what it
    fetches from elsewhere."""
    browser.get_log("browser"), browser.get_log("performance")
    show(browser, path)
    blank = browser.execute_async_script(IMAGES)
    errors = [entry["message"] for entry in browser.get_log("browser")]
    far = [url for url in fetched(browser) if not url.startswith(("file:", "data:", "blob:"))]
    return [*errors, *blank, *far]


def until(seen, seconds=60):
    """The first true value of a function; fails when there is none in time."""
    end = time.monotonic() + seconds
    while not (value := seen()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value
