"""The local history: short, private, and never in the way."""

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.acts import expect_state, send
from tests.browser.conftest import OpenPage
from tests.browser.stage import Stage

pytestmark = pytest.mark.browser

KEY = "greenroom.history"
DENIED = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
FULL = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"


def plant(page: Page, stored: str) -> None:
    """Leave *stored* where the page keeps its history, and open the page anew."""
    page.evaluate("([key, stored]) => localStorage.setItem(key, stored)", [KEY, stored])
    page.reload()


def test_history_is_kept_newest_first(page: Page, stage: Stage) -> None:
    """A verdict survives a reload, and choosing it asks again rather than showing an old answer as new."""
    send(page, "Superb.")
    expect(page.locator("#history li")).to_have_count(1)
    send(page, "Dull.")
    expect(page.locator("#history li")).to_have_count(2)
    page.reload()
    expect_state(page, "idle")
    items = page.locator("#history li")
    expect(items).to_have_text(["Dull. Negative 19.4%", "Superb. Positive 82.5%"])
    items.nth(1).get_by_role("button").click()
    expect_state(page, "positive")
    assert [question["text"] for question in stage.asked] == ["Superb.", "Dull.", "Superb."]
    expect(items).to_have_text(["Superb. Positive 82.5%", "Dull. Negative 19.4%"])


def test_history_is_capped(page: Page) -> None:
    """Twelve reviews stay; the oldest makes room."""
    stored = [{"text": f"Number {number}", "label": "positive", "probability": 0.9} for number in range(12)]
    plant(page, json.dumps(stored))
    expect(page.locator("#history li")).to_have_count(12)
    send(page, "Superb.")
    expect(page.locator("#history li").first).to_contain_text("Superb.")
    expect(page.locator("#history li")).to_have_count(12)
    expect(page.locator("#history li").filter(has_text="Number 11")).to_have_count(0)


def test_the_keyboard_keeps_its_place(page: Page) -> None:
    """The review that was chosen moves to the top of the list, and the focus with it."""
    send(page, "Superb.")
    expect(page.locator("#history li")).to_have_count(1)
    send(page, "Dull.")
    expect(page.locator("#history li")).to_have_count(2)
    page.get_by_role("button", name="Superb. Positive").press("Enter")
    expect(page.locator("#history li").first).to_contain_text("Superb.")
    expect(page.get_by_role("button", name="Superb. Positive")).to_be_focused()


def test_clear_empties_it(page: Page) -> None:
    """Clear removes the list from page and browser, and keeps the keyboard's place."""
    send(page, "Superb.")
    page.get_by_role("button", name="Clear").press("Enter")
    expect(page.locator("#history li")).to_have_count(0)
    expect(page.get_by_role("heading", name="Recent reviews")).to_be_focused()
    expect(page.get_by_role("button", name="Clear")).to_be_hidden()
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize("script", [DENIED, FULL])
def test_storage_is_a_luxury(open_page: OpenPage, script: str) -> None:
    """Where storage is denied or full, everything works and the page says what is different."""
    page = open_page(init_script=script)
    send(page, "Superb.")
    expect_state(page, "positive")
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#history-note")).to_contain_text("forgotten when the page closes")
    send(page, "Dull.")
    expect(page.locator("#history li")).to_have_count(2)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#history li")).to_have_count(0)


FOREIGN = [
    "{",
    "null",
    "7",
    '"x"',
    '{"text": "x"}',
    '[null, 1, [], {"text": 1}, {"text": "x", "label": "good", "probability": 0.5}]',
    '[{"text": "x", "label": "positive", "probability": 9}]',
]


def test_foreign_entries_are_ignored(page: Page) -> None:
    """What another program left under the name is not shown and does no harm."""
    for stored in FOREIGN:
        plant(page, stored)
        expect(page.locator("#history-note"), stored).to_contain_text("Nothing yet.")
        expect(page.locator("#history li"), stored).to_have_count(0)
    send(page, "Superb.")
    expect(page.locator("#history li")).to_have_count(1)


def test_two_tabs_share_it(page: Page, stage: Stage) -> None:
    """A second tab adds to the list of the first instead of replacing it."""
    other = page.context.new_page()
    other.goto(stage.url)
    send(page, "Superb.")
    expect(page.locator("#history li")).to_have_count(1)
    send(other, "Dull.")
    expect(other.locator("#history li")).to_have_count(2)
