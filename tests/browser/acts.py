"""What a reader does with the page, in a word each."""

from playwright.sync_api import Page, expect


def send(page: Page, text: str) -> None:
    """Put *text* in the box and send it."""
    box = page.get_by_label("Film review")
    box.fill(text)
    box.press("Control+Enter")


def expect_state(page: Page, state: str) -> None:
    """Wait until the pane shows *state*."""
    expect(page.locator("#mirror")).to_have_attribute("data-state", state)


def expect_no_result(page: Page) -> None:
    """Check that nothing on the page can be taken for a verdict on the review in the box."""
    expect(page.get_by_role("meter")).to_have_count(0)
    expect(page.locator("#verdict, mark, .flag, #reading, .tallies")).to_have_count(0)
    pane = page.locator("#glass").inner_text().lower()
    assert "chance" not in pane
    assert not pane.startswith(("positive", "negative", "unsure"))
