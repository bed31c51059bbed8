"""What tests of several folders share."""

import functools
import shutil
from collections.abc import Iterator

import botocore.loaders
import botocore.session
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.requirements import require

CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session", autouse=True)
def _models_are_read_once() -> Iterator[None]:
    """Once in all, for each new session would read the same files, a tenth of a second for each service."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.loaders.create_loader))
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for the whole run."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    require("chromium", lambda: chromium is not None, "no chromium is on the PATH")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield started
        started.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in the browser come last: playwright keeps an event loop in this thread, beside which none can run."""
    items.sort(key=lambda item: "browser" in getattr(item, "fixturenames", ()))
