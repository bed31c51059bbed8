"""Failures: whatever goes wrong, the page says so and shows nothing that could be taken for a verdict."""

import json
import threading

import pytest
from playwright.sync_api import Page, expect

from tests.browser.acts import expect_no_result, expect_state, send
from tests.browser.conftest import OpenPage
from tests.browser.stage import CUT_OFF, HANG_UP, Reply, Stage, raw, reply, verdict

pytestmark = pytest.mark.browser


def refused(code: str, message: str, status: int) -> Reply:
    return reply({"error": {"code": code, "message": message}}, status)


def malformed(**changes: object) -> Reply:
    return reply(verdict("Superb.") | changes)


def without(key: str) -> Reply:
    return reply({name: value for name, value in verdict("Superb.").items() if name != key})


FAILURES = {
    "EmptyReview": (
        refused("EmptyReview", "The review is empty.", 400),
        "The review was refused",
        "The review is empty.",
    ),
    "unrouted": (reply({"message": "Not Found"}, 404), "Nothing answers there", "Not Found"),
    "too-long": (refused("ReviewTooLong", "Too long.", 413), "The review is too long", "HTTP 413 · ReviewTooLong"),
    "throttled": (reply({"message": "Too Many Requests"}, 429), "Too many requests", "HTTP 429"),
    "teapot": (raw(b"short and stout", 418), "The request was refused", "The server gave no reason."),
    "crash": (raw(b"<h1>positive</h1>", 500, "text/html"), "The server failed", "The server gave no reason."),
    "bad-model": (refused("BadModelReply", "No label.", 502), "did not answer properly", "HTTP 502 · BadModelReply"),
    "creating": (
        refused("EndpointUnavailable", "It is Creating.", 503),
        "The model is not available",
        "It is Creating.",
    ),
    "slow": (refused("Timeout", "29 s went by.", 504), "The model took too long", "HTTP 504 · Timeout"),
    "odd-code": (reply({"error": {"code": 7, "message": ["positive"]}}, 500), "The server failed", "gave no reason"),
    "a-verdict-with-500": (reply(verdict("Superb."), 500), "The server failed", "HTTP 500"),
    "cut-off": (CUT_OFF, "The server cannot be reached", "Network error"),
    "hang-up": (HANG_UP, "The server cannot be reached", "Network error"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failure_is_no_result(page: Page, stage: Stage, case: str) -> None:
    """A refusal replaces the earlier result, in words, with the server's own reason where it gave one."""
    send(page, "Superb.")
    expect_state(page, "positive")
    answer, title, said = FAILURES[case]
    # Chromium asks again by itself for every idle connection of its pool that is closed without a word.
    stage.says(*[answer] * (8 if answer is HANG_UP else 1))
    send(page, "Lovely.")
    expect_state(page, "error")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(title)
    expect(alert).to_contain_text(said)
    expect(alert).to_contain_text("There is no verdict for this review.")
    expect(page.locator("#latency")).to_have_text("\u2013")
    expect(page.locator("#history li")).to_have_count(1)
    expect_no_result(page)


MALFORMED = {
    "empty": raw(b""),
    "html": raw(b"<!doctype html>positive", content_type="text/html"),
    "null": reply(None),
    "list": reply([verdict("Superb.")]),
    "word": reply("positive"),
    "error-with-200": reply({"error": {"code": "ModelError", "message": "positive"}}),
    "cut-off": raw(json.dumps(verdict("Superb.")).encode()[:-9]),
    "no-label": without("label"),
    "no-probability": without("probability"),
    "label-in-capitals": malformed(label="POSITIVE"),
    "unknown-label": malformed(label="neutral"),
    "label-is-a-number": malformed(label=1),
    "probability-nan": raw(json.dumps(verdict("Superb.") | {"probability": float("nan")}).encode()),
    "probability-infinite": raw(b'{"label": "positive", "probability": 1e999}'),
    "probability-over-1": malformed(probability=1.0001),
    "probability-in-percent": malformed(probability=93.1),
    "probability-negative": malformed(label="negative", probability=-0.1),
    "probability-text": malformed(probability="0.93"),
    "probability-null": malformed(probability=None),
    "probability-true": malformed(probability=True),
    "contradiction": malformed(label="negative", probability=0.93),
    "other-contradiction": malformed(label="positive", probability=0.49),
}


def test_malformed_answer_is_no_result(page: Page, stage: Stage) -> None:
    """A reply with status 200 is a verdict only if its label and its probability are beyond doubt."""
    for case, answer in MALFORMED.items():
        stage.says(answer)
        send(page, "Superb.")
        expect(page.get_by_role("alert"), case).to_contain_text("The answer makes no sense")
        expect_no_result(page)
    assert len(stage.asked) == len(MALFORMED)
    expect(page.locator("#history li")).to_have_count(0)


def test_silence_ends(open_page: OpenPage, stage: Stage) -> None:
    """After 35 seconds without an answer the page stops waiting and says so."""
    page = open_page()
    page.clock.install()
    released = threading.Event()
    stage.says(reply(verdict("Superb."), released=released))
    send(page, "Superb.")
    expect_state(page, "loading")
    page.clock.fast_forward(36_000)
    expect(page.get_by_role("alert")).to_contain_text("No answer in time")
    released.set()
    expect_no_result(page)


def test_try_again_asks_again(page: Page, stage: Stage) -> None:
    """The button in the refusal repeats the question; the focus is not lost."""
    stage.says(refused("EndpointUnavailable", "It is Creating.", 503))
    send(page, "Superb.")
    page.get_by_role("button", name="Try again").press("Enter")
    expect_state(page, "positive")
    assert [question["text"] for question in stage.asked] == ["Superb.", "Superb."]
    expect(page.get_by_role("button", name="Read the review")).to_be_focused()


def test_nothing_to_read(page: Page, stage: Stage) -> None:
    """An empty review is not sent; the page says what to do, and the box is marked as the place to do it."""
    send(page, "Superb.")
    expect_state(page, "positive")
    for text in ("", "  \n\t ", "\u3000\u00a0\ufeff"):
        send(page, text)
        expect(page.get_by_role("alert")).to_contain_text("Nothing to read yet")
        expect(page.get_by_label("Film review")).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_role("button", name="Try again")).to_have_count(0)
        expect_no_result(page)
    assert len(stage.asked) == 1


def test_empty_example_shows_the_empty_state(page: Page, stage: Stage) -> None:
    """The example called Empty is honest about being empty."""
    page.get_by_role("button", name="Empty").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing to read yet")
    assert stage.asked == []


def test_server_words_are_bounded(page: Page, stage: Stage) -> None:
    """A server that talks for a megabyte is quoted in brief, as text."""
    stage.says(refused("X" * 9_000, "<img src=x onerror=alert(1)>" * 40_000, 500))
    send(page, "Superb.")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("<img src=x")
    assert len(alert.inner_text()) < 600
    expect(page.locator("#glass img")).to_have_count(0)


def test_without_javascript(open_page: OpenPage) -> None:
    """Without scripts the page says that it needs them."""
    page = open_page(java_script_enabled=False)
    expect(page.locator("#glass")).to_have_text("Setting the stage. This page needs JavaScript.")
    expect(page.get_by_role("button", name="Read the review")).to_be_disabled()
