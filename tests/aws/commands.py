"""The command line in this process."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from sentiment.cli import app
from tests.reviews import few_reviews


class Commands:
    """Runs ``sentiment`` with the same options before each command. Its source are a few dozen reviews."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self.source = str(few_reviews(folder / "reviews.tar.gz"))

    def __call__(self, *arguments: str, answer: str = "") -> Result:
        """The result, whichever it is; ``answer`` is typed where it asks."""
        return CliRunner().invoke(app, [*self._options, *arguments], input=answer)

    def done(self, *arguments: str) -> Result:
        """The result of a command that has to succeed."""
        result = self(*arguments)
        assert result.exit_code == 0, f"{arguments}: {result.exception!r}\n{result.output}"
        return result

    def json(self, *arguments: str) -> Any:
        """What the command printed with ``--json``."""
        return json.loads(self.done(*arguments, "--json").stdout)


def user_of_aws(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Credentials that lead nowhere, no settings, an empty working folder."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GREENROOM_"))]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.chdir(folder)
