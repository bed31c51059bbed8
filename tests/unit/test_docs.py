"""What the documents say exists, and what exists is said."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from backends.config import BackendConfig
from sentiment.cli import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]


def test_every_setting_is_documented() -> None:
    """Each key of the configuration, with its variable, stands in docs/cli.md."""
    text = (ROOT / "docs" / "cli.md").read_text()
    missing = [name for name in BackendConfig.model_fields if f"GREENROOM_{name.upper()}" not in text]
    assert missing == []


def test_every_command_and_global_option_is_documented() -> None:
    """The README shows each command, docs/cli.md each option that stands before it."""
    command = get_command(app)
    readme, cli = (ROOT / "README.md").read_text(), (ROOT / "docs" / "cli.md").read_text()
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    assert [option for option in options if option != "--help" and option not in cli] == []
    assert [name for name in command.commands if name not in readme] == []  # type: ignore[attr-defined]


def test_every_variable_of_the_stack_is_in_its_example() -> None:
    """What a compose file reads from .env stands in .env.example, with the same default."""
    used = [
        found
        for path in ROOT.glob("docker-compose*.yml")
        for found in re.findall(r"\$\{(\w+):-(.*?)\}", path.read_text())
    ]
    example = (ROOT / ".env.example").read_text().splitlines()
    assert [f"#{name}={default}" for name, default in used if f"#{name}={default}" not in example] == []
    assert used


SHOWN = [ROOT / "docs" / name for name in ("laptop-to-aws.md", "aws.md", "aws-web.md", "examples/github-actions.yml")]


@pytest.mark.parametrize("document", SHOWN, ids=lambda path: path.name)
def test_the_commands_shown_are_understood(document: Path) -> None:
    """Each line that runs ``sentiment`` names a command and options that exist."""
    lines = re.findall(r"^(?:\s*-?\s*run: )?(sentiment .*)$", document.read_text(), re.MULTILINE)
    assert lines
    for line in lines:
        program, *words = shlex.split(line.partition(" > ")[0], comments=True)
        _understand(get_command(app), program, words)


def _understand(command: Any, name: str, words: list[str], parent: Any = None) -> None:
    context = command.make_context(name, words, parent=parent)
    if hasattr(command, "resolve_command"):
        name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        _understand(inner, name, rest, context)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """A link to a file of the project names one that exists."""
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_paths_named_in_the_architecture_exist() -> None:
    """The map shows what is there."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    found = re.findall(r"`((?:backends|containers|lambda|sentiment|tests|web)/[\w/{},.]*)`", text)
    assert found
    for path in found:
        names = re.sub(r"\{(.*?)\}", "*", path)
        assert list(ROOT.glob(names.rstrip("/"))), path


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Your own container, as written there, with the test's probe in the place of yours."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name in ("GREENROOM_HOME", "GREENROOM_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    assert blocks
    for block in blocks:
        code = block.replace("path/to/folder/with/train/and/serve", str(ROOT / "tests" / "images" / "probe"))
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102  our own text
    assert (tmp_path / ".greenroom" / "state.db").exists()
