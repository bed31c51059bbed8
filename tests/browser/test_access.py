"""Access: axe finds nothing in any state, light or dark; small screens, still pictures, steady layout."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, expect

from tests.browser.acts import expect_state, send
from tests.browser.stage import Stage, reply, verdict

pytestmark = pytest.mark.browser

AXE = Path(__file__).with_name("vendor") / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
Scheme = Literal["light", "dark"]
SCHEMES: list[Scheme] = ["light", "dark"]
LONG = "Superb acting, a lovely score and an excellent cast; but the ending is a mess, and the film is dull at last."


def violations(page: Page) -> list[Any]:
    found: list[Any] = page.evaluate(
        """async (runOnly) => (await axe.run({ runOnly })).violations
           .map(({ id, nodes }) => [id, nodes.map((node) => node.html + node.failureSummary)])""",
        RULES,
    )
    return found


def idle(page: Page, _stage: Stage) -> None:
    expect_state(page, "idle")


def positive(page: Page, stage: Stage) -> None:
    stage.says(reply(verdict(LONG, 0.97)))
    send(page, LONG)
    expect_state(page, "positive")


def negative(page: Page, stage: Stage) -> None:
    stage.says(reply(verdict(LONG, 0.03)))
    send(page, LONG)
    expect_state(page, "negative")


def unsure(page: Page, stage: Stage) -> None:
    stage.says(reply(verdict(LONG, 0.52)))
    send(page, LONG)
    expect_state(page, "unsure")


def error(page: Page, stage: Stage) -> None:
    stage.says(reply({"error": {"code": "Timeout", "message": "Too slow."}}, 504))
    send(page, LONG)
    expect_state(page, "error")


def empty(page: Page, _stage: Stage) -> None:
    send(page, " ")
    expect_state(page, "error")


def too_long_with_command(page: Page, _stage: Stage) -> None:
    send(page, "x" * 100_001)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#command")).to_be_visible()


def loading(page: Page, stage: Stage) -> None:
    stage.says(reply(verdict(LONG), released=threading.Event()))
    send(page, LONG)
    expect_state(page, "loading")


STATES: list[Callable[[Page, Stage], None]] = [
    idle,
    positive,
    negative,
    unsure,
    error,
    empty,
    too_long_with_command,
    loading,
]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing(page: Page, stage: Stage, scheme: Scheme) -> None:
    """Every state passes axe's WCAG 2.2 AA and best-practice rules in both colour schemes."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.evaluate(AXE.read_text())
    for state in STATES:
        state(page, stage)
        assert violations(page) == [], state.__name__


def test_colours_follow_the_system(page: Page) -> None:
    """The system's colour scheme is followed, at once."""
    shades = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        shades.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert shades == ["rgb(243, 239, 230)", "rgb(17, 22, 20)"]


def test_motion_is_optional(page: Page, stage: Stage) -> None:
    """The bulbs glow while waiting, but stand still for those who asked for calm."""
    loading(page, stage)
    assert page.evaluate("document.getAnimations().length") == 1
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate("document.getAnimations().length") == 0


def test_fits_the_screen(page: Page, stage: Stage) -> None:
    """Nothing is cut off or scrolls sideways, from the smallest telephone to a desktop; targets can be touched."""
    for state in (unsure, error):
        state(page, stage)
        for width in (320, 390, 768, 1440):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            heights = page.locator("button:visible").evaluate_all("all => all.map((one) => one.offsetHeight)")
            assert min(heights) >= 24


def test_answer_comes_into_view(page: Page, stage: Stage) -> None:
    """On a telephone the answer lies below the form; the page brings it up."""
    page.set_viewport_size({"width": 390, "height": 700})
    positive(page, stage)
    expect(page.locator("#verdict")).to_be_in_viewport()


@pytest.mark.parametrize("width", [390, 1200])
def test_answer_comes_into_view_from_below(page: Page, width: int) -> None:
    """Choosing a past review shows its verdict, which stands above the list or beside its beginning."""
    page.set_viewport_size({"width": width, "height": 500})
    for number in range(12):
        send(page, f"Superb {number}.")
        expect(page.locator("#history li")).to_have_count(number + 1)
    page.get_by_role("button", name="Superb 0. Positive").press("Enter")
    expect(page.locator("#history li").first).to_contain_text("Superb 0.")
    expect(page.locator("#verdict")).to_be_in_viewport()


def test_layout_holds_still(page: Page, stage: Stage) -> None:
    """From idle through loading to error and verdict, form, pane and badge stay where they are."""

    def places() -> object:
        return page.evaluate(
            """() => ["#review", "#send", "#examples", "#history-title", "#mirror", "#badge"].map((selector) => {
                const { left, top, width } = document.querySelector(selector).getBoundingClientRect();
                return [selector, left, top, width];
            })"""
        )

    before = places()
    for state in (positive, error, unsure, loading):
        state(page, stage)
        assert places() == before
