"""The screenshots of the README, of what ``run_scripts/quickstart.sh`` has made.

    python docs/images/make.py --run runs/quickstart

Writes report.png, boxes.png and demo.png here, reduced to 160 colors so that they stay small. The
browser is that of the tests (``tests/browser.py``).
"""

import argparse
import io
import logging
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1100, 700  # pixels
QUESTION = "the blue arrow"  # of the example below
EXAMPLE = 1
COLORS = 160
logger = logging.getLogger(__name__)


def save(page: Any, name: str, height: int = HEIGHT, folder: Path = HERE) -> None:
    """A screenshot of the top of the page."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.wait_for_timeout(500)  # for images to be decoded
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(COLORS, dither=Image.Dither.NONE).save(folder / name, optimize=True)
    logger.info("%s: %d kB", name, (folder / name).stat().st_size // 1024)


def ask_demo(page: Any, url: str) -> None:
    """Let the model point at a shape of an example."""
    page.goto(url)
    page.locator("#task").get_by_label("Find", exact=True).check()
    page.locator("#examples img").nth(EXAMPLE).click()
    page.wait_for_timeout(1500)  # it fills in a text of its own
    page.fill("#text-ground :is(textarea, input)", QUESTION)
    page.press("#text-ground :is(textarea, input)", "Enter")
    page.locator("#result-ground").wait_for()
    page.wait_for_timeout(1500)
    page.evaluate("scrollTo(0, 0)")


def shoot_pages(browser: Any, run: Path, folder: Path = HERE) -> Any:
    """Screenshots of the pages of a run. Returns: the tab."""
    page = browser.new_page()
    page.goto((run / "pages/captions.html").as_uri())
    save(page, "report.png", folder=folder)
    page.goto((run / "pages/boxes.html").as_uri())
    page.locator("select").last.select_option(index=1)  # not the worst ones first
    page.evaluate("document.querySelector('article').scrollIntoView()")
    page.mouse.wheel(0, -90)  # from below the controls
    save(page, "boxes.png", 560, folder)
    return page


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    run = parser.parse_args().run.resolve()

    sys.path.append(str(HERE.parents[1] / "tests"))
    from browser import QUIET, browser_path

    from ofa import OFA
    from ofa.demo.app import serve
    from ofa.demo.service import Demo

    demo = serve(Demo(OFA.load(run / "joint/checkpoint_last.pt", device="cpu")))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path(), args=list(QUIET))
        page = shoot_pages(browser, run)
        ask_demo(page, demo.local_url)
        save(page, "demo.png", 800)
        browser.close()
    demo.close()


if __name__ == "__main__":
    main()
