"""Hostile reviews, and the walls that hold even if the page had a hole."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.acts import expect_no_result, expect_state, send
from tests.browser.conftest import OpenPage
from tests.browser.stage import Stage, reply, verdict

pytestmark = pytest.mark.browser

HOSTILE = {
    "img": "<img src=x onerror=\"document.title='owned'\"> superb",
    "script": "</textarea></div><script>document.title='owned'</script> superb",
    "template": "{{constructor.constructor('document.title=1')()}} ${document.title=1} superb",
    "rtl-override": "superb \u202egnirob yllaer\u202c but \u2066isolated",
    "bidi-unclosed": "superb \u202e\u2067 no end",
    "emoji": "superb 👩‍👩‍👧‍👦🎬 \U0001f1e9\U0001f1ea e\u0301",
    "controls": "superb \x01\x02\x1b[31m red \x7f \u2028 line \ufeff",
    "one-long-word": "superb " + "a" * 5_000,
    "other-scripts": "superb " + "وقت رائع " * 3 + "とても良い映画",
}


def test_review_is_only_text(page: Page, stage: Stage) -> None:
    """Whatever a review holds arrives unchanged, comes back as text, moves nothing and runs nothing."""
    title = page.title()
    for number, (case, text) in enumerate(HOSTILE.items()):
        send(page, text)
        expect_state(page, "positive")
        assert stage.asked[number]["text"] == text
        assert page.locator("#reading").evaluate("node => node.textContent") == text
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), case
    page.reload()
    expect(page.locator("#history li")).to_have_count(len(HOSTILE))
    expect(page.locator("main img, main script")).to_have_count(0)
    assert page.title() == title


def test_server_text_is_only_text(open_page: OpenPage, stage: Stage) -> None:
    """Endpoint names and words from the server are text too."""
    hostile = "<img src=x onerror=alert(1)>"
    stage.about = reply({"endpoint": hostile, "backend": hostile})
    page = open_page()
    expect(page.locator("#endpoint")).to_have_text(hostile)
    words = [{"text": hostile, "weight": 2.0}]
    stage.says(reply(verdict(hostile, 0.9) | {"words": words, "variant": hostile}))
    send(page, hostile)
    expect(page.locator("#reading")).to_have_text(hostile)
    expect(page.locator("#latency")).to_contain_text(hostile)
    expect(page.locator("img")).to_have_count(1)


def test_right_to_left_stays_in_its_place(page: Page) -> None:
    """An override that is never closed does not turn the words around it."""
    send(page, "superb \u202eevil")
    expect_state(page, "positive")
    bounds = page.locator("#reading, #spoke-for bdi, .excerpt").evaluate_all(
        "nodes => nodes.map(node => getComputedStyle(node).unicodeBidi)"
    )
    assert set(bounds) == {"isolate"}


def test_longest_review(page: Page, stage: Stage) -> None:
    """100,000 bytes are accepted, counted in UTF-8, and shown."""
    text = ("superb dull é " * 7_000)[:85_000]
    text += "x" * (100_000 - len(text.encode()))
    page.get_by_label("Film review").fill(text)
    expect(page.locator("#counter")).to_have_text("100,000 of 100,000 bytes")
    page.get_by_label("Film review").press("Control+Enter")
    expect(page.get_by_role("meter")).to_have_count(1, timeout=10_000)
    assert stage.asked[0]["text"] == text


@pytest.mark.parametrize("text", ["x" * 100_001, "é" * 50_001, "🎬" * 262_144])
def test_too_long_is_refused_here(page: Page, stage: Stage, text: str) -> None:
    """One byte too many, or a megabyte, is counted and refused by the page; nothing is cut off or sent."""
    page.get_by_label("Film review").fill(text)
    expect(page.locator("#counter")).to_contain_text("too long")
    page.get_by_label("Film review").press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("The review is too long")
    expect_no_result(page)
    assert stage.asked == []


def test_half_a_character_is_refused(page: Page, stage: Stage) -> None:
    """A lone surrogate cannot be sent as UTF-8; it is refused rather than replaced behind the reader's back."""
    page.get_by_label("Film review").evaluate("box => { box.value = 'superb \\ud83c'; }")
    page.get_by_role("button", name="Read the review").click()
    expect(page.get_by_role("alert")).to_contain_text("A character is broken")
    assert stage.asked == []


@pytest.mark.parametrize("sends_csp", [True, False])
def test_inline_code_is_dead(open_page: OpenPage, stage: Stage, sends_csp: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Had markup got in, its scripts, handlers, styles and requests would be refused, with or without the header."""
    stage.sends_csp = sends_csp
    stage.expects_violations = True
    page = open_page()
    refused = page.evaluate(
        """async () => {
            const refused = [];
            document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
            const attempt = (act) => { try { act(); } catch (error) { refused.push(error.name); } };
            const node = document.createElement("p");
            attempt(() => { document.body.innerHTML = "<b>x</b>"; });
            attempt(() => { node.setAttribute("onclick", "alert(1)"); });
            attempt(() => { node.setAttribute("style", "color: red"); document.body.append(node); });
            await fetch("https://example.invalid/").catch((error) => refused.push(error.name));
            const expected = ["style-src-attr", "connect-src"];
            const isMissing = (directive) => !refused.includes(directive);
            while (expected.some(isMissing)) await new Promise(requestAnimationFrame);
            return refused;
        }"""
    )
    assert refused.count("TypeError") == 3
