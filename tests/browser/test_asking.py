"""Asking: what is sent, what is shown while waiting, and whose answer counts."""

import threading

import pytest
from playwright.sync_api import Page, expect

from tests.browser.acts import expect_no_result, expect_state, send
from tests.browser.conftest import OpenPage
from tests.browser.stage import Stage, reply, verdict

pytestmark = pytest.mark.browser


def test_keys_send_the_review(page: Page, stage: Stage) -> None:
    """Ctrl+Enter and Cmd+Enter in the box send the review as it was typed, with a wish for word weights."""
    box = page.get_by_label("Film review")
    box.fill("  Superb.\nReally. ")
    for number, keys in enumerate(["Control+Enter", "Meta+Enter"]):
        box.press(keys)
        expect_state(page, "positive")
        assert stage.asked[number:] == [{"text": "  Superb.\nReally. ", "explain": True}]
    expect(box).to_have_value("  Superb.\nReally. ")


def test_enter_alone_writes_a_line(page: Page, stage: Stage) -> None:
    """Enter belongs to the writer."""
    box = page.get_by_label("Film review")
    box.fill("Superb.")
    box.press("Enter")
    expect(box).to_have_value("Superb.\n")
    assert stage.asked == []


def test_everything_is_reached_by_tab(page: Page) -> None:
    """The keyboard walks box, button, curl, examples, in the order they are read."""
    page.get_by_label("Film review").focus()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
    assert reached == ["Read the review", "Copy as curl", "Rave", "Pan", "Negation", "Sarcasm", "Mixed", "Empty"]


def test_waiting_is_visible(page: Page, stage: Stage) -> None:
    """While the model reads, the pane is busy, the button is off and the last result is gone."""
    send(page, "Superb.")
    expect_state(page, "positive")
    released = threading.Event()
    stage.says(reply(verdict("Dull."), released=released))
    send(page, "Dull.")
    expect(page.locator("#mirror")).to_have_attribute("aria-busy", "true")
    expect(page.get_by_role("button", name="Read the review")).to_be_disabled()
    expect(page.get_by_role("status").filter(has_text="Reading the review")).to_have_count(1)
    expect_no_result(page)
    released.set()
    expect_state(page, "negative")
    expect(page.locator("#mirror")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("button", name="Read the review")).to_be_enabled()


def test_the_button_keeps_the_focus(page: Page) -> None:
    """Whoever pressed the button with the keyboard finds it under the finger again."""
    page.get_by_label("Film review").fill("Superb.")
    page.get_by_role("button", name="Read the review").focus()
    page.keyboard.press("Enter")
    expect_state(page, "positive")
    expect(page.get_by_role("button", name="Read the review")).to_be_focused()


def test_a_new_question_cancels_the_old_one(page: Page, stage: Stage) -> None:
    """The first answer, arriving late, neither replaces the second nor enters the history."""
    released = threading.Event()
    stage.says(reply(verdict("Dull."), released=released))
    with page.expect_event("requestfailed") as cancelled:
        send(page, "Dull.")
        expect_state(page, "loading")
        page.get_by_label("Film review").fill("Superb.")
        page.get_by_label("Film review").press("Control+Enter")
    assert cancelled.value.failure == "net::ERR_ABORTED"
    expect_state(page, "positive")
    released.set()
    send(page, "Lovely.")
    expect(page.locator("#history li")).to_have_count(2)
    expect(page.locator("#history li").filter(has_text="Dull")).to_have_count(0)


def test_a_slow_model_is_explained(open_page: OpenPage, stage: Stage) -> None:
    """After five seconds the page says what may take so long."""
    page = open_page()
    page.clock.install()
    released = threading.Event()
    stage.says(reply(verdict("Superb."), released=released))
    send(page, "Superb.")
    expect_state(page, "loading")
    page.clock.fast_forward(5_100)
    expect(page.locator("#glass")).to_contain_text("have to wake the model")
    released.set()
    expect_state(page, "positive")


def test_examples_are_asked_at_once(page: Page, stage: Stage) -> None:
    """An example fills the box and is sent."""
    for number, name in enumerate(["Rave", "Pan", "Negation", "Sarcasm", "Mixed"]):
        page.get_by_role("group", name="Or try one of these").get_by_role("button", name=name).click()
        expect(page.locator("#history li")).to_have_count(number + 1)
        assert stage.asked[number]["text"] == page.get_by_label("Film review").input_value()


def test_badge_tells_what_answers(page: Page) -> None:
    """Backend and endpoint are known before the first answer; then come its latency and variant."""
    badge = page.locator("#badge")
    expect(badge).to_contain_text("Rehearsal, on this machine")
    expect(badge).to_contain_text("imdb-sentiment")
    send(page, "Superb.")
    expect_state(page, "positive")
    expect(page.locator("#latency")).to_contain_text("ms · AllTraffic")
    assert int(page.locator("#latency").inner_text().split()[0]) >= 1


def test_badge_admits_not_knowing(open_page: OpenPage, stage: Stage) -> None:
    """Where `about` fails, the badge says so; a later answer fills it in."""
    stage.about = reply({"message": "Not Found"}, 404)
    stage.expects_failures = True
    page = open_page()
    expect(page.locator("#backend")).to_have_text("Not reached")
    stage.says(reply(verdict("Superb.") | {"backend": "aws"}))
    send(page, "Superb.")
    expect(page.locator("#backend")).to_have_text("Live, on AWS")
    expect(page.locator("#endpoint")).to_have_text("imdb-sentiment")
