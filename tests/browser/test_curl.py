"""Copy as curl: the command does what the button does."""

import json
import shutil
import subprocess

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.stage import Stage
from tests.requirements import require

pytestmark = pytest.mark.browser

REVIEWS = [
    "Superb.",
    "It's \"great\", isn't it? '; rm -rf $HOME; echo `id` $(id) !! \\n \\\\",
    "Two\nlines\tand a tab\n",
    "@/etc/passwd",
    "-X DELETE %00 %s",
    "é 🎬 \u202e \u200b \u2028 \x1b[2J \x7f",
]


def copied(page: Page, text: str) -> str:
    page.get_by_label("Film review").fill(text)
    page.evaluate("navigator.clipboard.writeText('')")
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("status").filter(has_text="Copied")).to_have_count(1)
    command = page.evaluate(
        """async () => {
            let command = "";
            while (command === "") command = await navigator.clipboard.readText();
            return command;
        }"""
    )
    assert isinstance(command, str)
    return command


def test_pasted_command_asks_the_same(open_page: OpenPage, stage: Stage) -> None:
    """Pasted into a POSIX shell the command sends the very same question, whatever the review holds."""
    require("curl", lambda: shutil.which("curl") is not None, "no curl is on the PATH")
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    for number, text in enumerate(REVIEWS):
        run = subprocess.run(["sh", "-c", copied(page, text)], capture_output=True, text=True, timeout=20, check=True)
        assert stage.asked[number:] == [{"text": text, "explain": True}]
        assert json.loads(run.stdout)["label"] in {"positive", "negative"}


def test_command_hides_nothing(open_page: OpenPage, stage: Stage) -> None:
    """It is one line of visible characters, and goes to the host the page came from."""
    command = copied(open_page(permissions=["clipboard-read", "clipboard-write"]), REVIEWS[-1])
    assert command.startswith(f"curl -sS --fail-with-body '{stage.url}predict'")
    assert command.isprintable()


def test_without_clipboard(open_page: OpenPage) -> None:
    """Where the browser refuses to copy, the command is shown, selected, to be copied by hand."""
    page = open_page(init_script="Object.defineProperty(navigator, 'clipboard', { value: undefined });")
    page.get_by_label("Film review").fill("It's superb.")
    page.get_by_role("button", name="Copy as curl").click()
    command = page.get_by_label("did not allow copying")
    expect(command).to_be_focused()
    assert "It'\\''s superb." in command.input_value()
    assert page.evaluate("document.activeElement.selectionEnd") == len(command.input_value())
