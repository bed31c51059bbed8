"""Results: the scale tells the truth, and the words are shown without relying on colour."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.acts import expect_state, send
from tests.browser.stage import Stage, reply, verdict

pytestmark = pytest.mark.browser


def width_of(page: Page, selector: str) -> float:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["width"]


SCALE = [
    (0, "negative", "0.0%"),
    (0.00001, "negative", "under 0.1%"),
    (0.07, "negative", "7.0%"),
    (0.3994, "negative", "39.9%"),
    (0.3996, "unsure", "40.0%"),
    (0.5, "unsure", "50.0%"),
    (0.6004, "unsure", "60.0%"),
    (0.6006, "positive", "60.1%"),
    (0.9312, "positive", "93.1%"),
    (0.99999, "positive", "over 99.9%"),
    (1, "positive", "100.0%"),
]


def test_scale_is_true(page: Page, stage: Stage) -> None:
    """The bar is P(positive) of the whole track, the number is rounded once, and the zone follows the number."""
    for probability, zone, told in SCALE:
        stage.says(reply(verdict("Superb.", probability)))
        send(page, "Superb.")
        expect_state(page, zone)
        expect(page.locator("#verdict")).to_have_text(zone.capitalize())
        expect(page.locator(".flag")).to_have_text(told)
        meter = page.get_by_role("meter", name="Chance that the review is positive")
        assert meter.get_attribute("aria-valuetext") == f"{told}, {zone}"
        limits = meter.get_attribute("aria-valuemin"), meter.get_attribute("aria-valuemax")
        assert limits == ("0", "100")
        assert float(meter.get_attribute("aria-valuenow") or "nan") == pytest.approx(100 * probability, abs=0.05)
        assert width_of(page, ".fill") == pytest.approx(probability * width_of(page, ".track"), abs=1)


def test_marker_stands_at_the_probability(page: Page, stage: Stage) -> None:
    """The marker's middle is where the fill ends, and the zones meet at 40% and 60%."""
    stage.says(reply(verdict("Superb.", 0.725)))
    send(page, "Superb.")
    expect_state(page, "positive")
    left, width, marker, unsure = page.evaluate(
        """() => {
            const box = (selector) => document.querySelector(selector).getBoundingClientRect();
            const [track, marker, unsure] = [".track", ".marker", ".zone.unsure"].map(box);
            return [track.left, track.width, marker.left + marker.width / 2, [unsure.left, unsure.right]];
        }"""
    )
    assert (marker - left) / width == pytest.approx(0.725, abs=0.005)
    assert [(edge - left) / width for edge in unsure] == pytest.approx([0.4, 0.6], abs=0.006)


def test_unsure_says_why(page: Page, stage: Stage) -> None:
    """Between 40% and 60% the page takes no side, says which way it leans and what pulled."""
    stage.says(reply(verdict("Excellent, but a mess.", 0.46)))
    send(page, "Excellent, but a mess.")
    expect_state(page, "unsure")
    doubt = page.locator("#doubt")
    expect(doubt).to_contain_text("leans negative, but barely")
    expect(doubt).to_contain_text("Words for positive add up to +0.90, words against to \u22120.87")


def test_result_is_announced(page: Page) -> None:
    """A screen reader hears verdict and chance once, politely."""
    send(page, "Superb and lovely.")
    expect(page.get_by_role("status").filter(has_text="Positive. Chance that it is positive:")).to_have_count(1)


def test_words_are_marked_by_line(page: Page) -> None:
    """Side is a straight or a wavy line, weight its thickness; the marked text is the review, letter for letter."""
    text = "Superb,  lovely.\n\nSimply dull — and no  film."
    send(page, text)
    expect_state(page, "positive")
    assert page.locator("#reading").evaluate("node => node.textContent") == text
    lines = page.locator("#reading mark").evaluate_all(
        "marks => marks.map(mark => [mark.textContent, getComputedStyle(mark).textDecorationStyle,"
        " parseFloat(getComputedStyle(mark).textDecorationThickness)])"
    )
    assert lines == [
        ["Superb", "solid", 3.5],
        ["lovely", "solid", 2],
        ["Simply", "solid", 1],
        ["dull", "wavy", 2.5],
        ["no", "wavy", 1],
    ]


def test_words_are_listed_too(page: Page) -> None:
    """What the lines say stands beside it as text: the words of each side, summed, heaviest first."""
    send(page, "Lovely, superb, LOVELY, lovely. No mess.")
    expect_state(page, "positive")
    assert page.locator("#spoke-for").inner_text().split() == [
        "Spoke",
        "for",
        "positive",
        "lovely",
        "\u00d73",
        "+1.50",
        "superb",
        "+0.94",
    ]
    assert page.locator("#spoke-against").inner_text().split() == [
        "Spoke",
        "against",
        "mess",
        "\u22120.75",
        "no",
        "\u22120.30",
    ]
    expect(page.locator("#sum")).to_contain_text("+0.03, words for +2.44, words against \u22121.05: together +1.42")


def test_a_review_without_weighty_words(page: Page) -> None:
    """Nothing is marked where nothing weighs; both lists say so."""
    send(page, "Hm.")
    expect_state(page, "unsure")
    expect(page.locator("mark")).to_have_count(0)
    expect(page.get_by_text("No word did.")).to_have_count(2)


UNFIT: list[object] = [
    None,
    "Superb.",
    [],
    [{"text": "Awful.", "weight": 1.0}],
    [{"text": "Superb", "weight": 1.0}],
    [{"text": "Superb.", "weight": "1"}],
    [{"text": "Superb."}],
    [None],
]


def test_words_that_do_not_fit_are_not_shown(page: Page, stage: Stage) -> None:
    """Weights that do not spell this very review are left out, and the page says so; the verdict stands."""
    for words in UNFIT:
        stage.says(reply(verdict("Superb.") | {"words": words}))
        send(page, "Superb.")
        expect_state(page, "positive")
        expect(page.locator("#glass"), str(words)).to_contain_text("no word weights that fit")
        expect(page.locator("mark, .tallies")).to_have_count(0)
