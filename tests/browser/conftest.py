"""One Chromium for the whole run; a fresh stage, and so a fresh origin, for each test; every page is watched."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    ViewportSize,
    expect,
)

from tests.browser.stage import Stage, open_stage

# Chromium writes this itself for every answer that is not 2xx; the page cannot prevent it.
EXPECTED_ON_FAILURE = "Failed to load resource"

VIEWPORT: ViewportSize = {"width": 1200, "height": 900}

OpenPage = Callable[..., Page]


@dataclass
class Watch:
    """Collects what the browser complains of while a test runs."""

    stage: Stage = field(default_factory=Stage)
    complaints: list[str] = field(default_factory=list)

    def follow(self, context: BrowserContext) -> None:
        """Listen to every page of *context*."""
        context.on("console", self._note_console)
        context.on("weberror", lambda error: self._note_error(error.error))
        context.on("request", self._note_request)

    def _note_console(self, message: ConsoleMessage) -> None:
        is_expected = self.stage.expects_failures and message.text.startswith(EXPECTED_ON_FAILURE)
        if message.type in {"error", "warning"} and not (is_expected or self.stage.expects_violations):
            self.complaints.append(f"console {message.type}: {message.text}")

    def _note_error(self, error: Error) -> None:
        self.complaints.append(f"uncaught: {error}")

    def _note_request(self, request: Request) -> None:
        if not (request.url.startswith(self.stage.url) or self.stage.expects_violations):
            self.complaints.append(f"request to another host: {request.url}")


@pytest.fixture(scope="session")
def session_watch() -> Watch:
    return Watch()


@pytest.fixture
def watch(session_watch: Watch, stage: Stage) -> Iterator[Watch]:
    """Fail the test on any console error, uncaught exception, CSP violation or request to another host."""
    session_watch.stage = stage
    session_watch.complaints.clear()
    yield session_watch
    assert session_watch.complaints == []


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage() as stage:
        yield stage


@pytest.fixture
def open_page(browser: Browser, watch: Watch) -> Iterator[OpenPage]:
    """Open the page in a browser profile of its own, with a script that runs before it and other options."""
    contexts: list[BrowserContext] = []

    def open_page(*, init_script: str = "", **options: object) -> Page:
        context = browser.new_context(**{"viewport": VIEWPORT, **options})  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(10_000)
        watch.follow(context)
        if init_script:
            context.add_init_script(init_script)
        page = context.new_page()
        page.goto(watch.stage.url)
        if options.get("java_script_enabled", True):
            expect(page.locator("#backend")).not_to_have_text("Asking…")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def session_page(browser: Browser, session_watch: Watch) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(10_000)
    session_watch.follow(context)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(session_page: Page, watch: Watch) -> Page:
    """Open the page in the profile the tests share; a stage of its own is an origin, and a storage, of its own."""
    session_page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    session_page.set_viewport_size(VIEWPORT)
    session_page.goto(watch.stage.url)
    expect(session_page.locator("#backend")).not_to_have_text("Asking…")
    return session_page
