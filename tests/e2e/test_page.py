"""The page in a real browser, in front of the real gateway, handler, runtime API and model."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser, page_url: str) -> Iterator[Page]:
    """The page, whose complaints are failures."""
    complaints: list[str] = []
    context = browser.new_context()
    context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    opened = context.new_page()
    opened.goto(page_url)
    yield opened
    context.close()
    assert complaints == []


@pytest.mark.parametrize(
    ("review", "verdict"),
    [
        ("A wonderful, moving film; I loved every minute of it.", "Positive"),
        ("Boring, badly acted and far too long. A waste of time.", "Negative"),
    ],
)
def test_a_review_gets_the_models_verdict(page: Page, review: str, verdict: str) -> None:
    """Typed, sent by Ctrl+Enter, answered by the model, its words marked."""
    page.get_by_label("Film review").fill(review)
    page.get_by_label("Film review").press("Control+Enter")
    expect(page.get_by_role("meter")).to_have_count(1)
    expect(page.locator("#mirror")).to_contain_text(verdict)
    expect(page.locator("#mirror mark").first).to_be_visible()


def test_the_badge_names_what_answers(page: Page, first_run: Any) -> None:
    """Backend and endpoint are known before the first question."""
    expect(page.locator("#endpoint")).to_have_text(first_run["endpoint"])
    expect(page.locator("#backend")).to_contain_text("this machine")


def test_hostile_text_stays_text(page: Page) -> None:
    """Markup in a review is shown, never obeyed (case S23)."""
    review = "<img src=x onerror=alert(1)> a wonderful <script>film</script>"
    page.get_by_label("Film review").fill(review)
    page.get_by_label("Film review").press("Control+Enter")
    expect(page.get_by_role("meter")).to_have_count(1)
    expect(page.locator("#mirror")).to_contain_text(review)
    assert page.locator("#mirror img, #mirror script").count() == 0
