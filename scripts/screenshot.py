"""Take the picture of the page that stands in the README: ``python scripts/screenshot.py [URL]``.

With a URL (``make demo`` prints one) the picture shows what the real model says; without, the tests' stage answers.
"""

import argparse
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "page.png"
REVIEWS = [
    "The acting is excellent and the camera work is lovely, but the story makes no sense and the ending is a mess.",
    "Dull, badly lit and far too long. The jokes fall flat and the villain is laughable.",
    "A quiet, beautiful film. The two leads are superb, the score is haunting. Not a dull minute, and no tricks.",
]


def ask(page: Page, review: str) -> None:
    """Send *review* and wait for its verdict."""
    page.get_by_label("Film review").fill(review)
    page.get_by_label("Film review").press("Control+Enter")
    expect(page.get_by_role("meter")).to_have_count(1)


def take(url: str) -> None:
    """Ask a few reviews of the page at *url* and write the picture of the last."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
        page.goto(url)
        for review in REVIEWS:
            ask(page, review)
        page.get_by_label("Film review").blur()
        page.screenshot(path=PICTURE)
        browser.close()


def main() -> None:
    """Read the command line and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", help="a running page; without it the tests' stage answers")
    url = parser.parse_args().url
    sys.path.insert(0, str(ROOT))
    from tests.browser.stage import Stage, open_stage  # noqa: PLC0415 - importable only once the root is on the path

    with nullcontext(Stage(url=url)) if url else open_stage() as stage:
        take(stage.url)
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
