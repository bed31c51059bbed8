"""One run of the whole pipeline over the real reviews, in a network namespace where that is possible."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LIMIT_SECONDS = 180


@dataclass(frozen=True)
class Shell:
    """Runs ``sentiment`` as a user would, with a state folder of its own."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The finished command; its stderr is shown when it was expected to succeed and did not."""
        command = [str(Path(sys.executable).with_name("sentiment")), *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr}")
        return done

    def json(self, *arguments: str) -> Any:
        """What the command printed with ``--json``: one object and nothing else."""
        return json.loads(self(*arguments, "--json").stdout)


@pytest.fixture(scope="session")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The command line on a fresh place, which is destroyed afterwards."""
    with opened_shell(tmp_path_factory.mktemp("e2e")) as shell:
        yield shell


@contextmanager
def opened_shell(folder: Path, **variables: str) -> Iterator[Shell]:
    """The command line on a fresh place, with *variables* beside the user's; the place is destroyed afterwards."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GREENROOM_"))}
    # Live-looking credentials: nothing may use or show them.
    environment |= {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "never-to-be-seen"}
    shell = Shell(folder, environment | variables)
    try:
        yield shell
    finally:
        shell("destroy", "--yes")


@pytest.fixture(scope="session")
def first_run(sentiment: Shell) -> Any:
    """What ``sentiment run --json`` printed the first time."""
    return sentiment.json("run")


@pytest.fixture(scope="session")
def page_url(sentiment: Shell, first_run: Any) -> Iterator[str]:
    """The page in front of the deployed model, until the tests end."""
    with served_page(sentiment) as url:
        yield url


@contextmanager
def served_page(shell: Shell, *options: str, here: bool = False) -> Iterator[str]:
    """``sentiment web`` until the block ends, *options* before it; the page's URL."""
    command = [str(Path(sys.executable).with_name("sentiment")), *options, "web", "--port", "0", "--json"]
    command += ["--here"] if here else []
    with subprocess.Popen(
        command, cwd=shell.folder, env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"]
        server.terminate()
        server.wait(20)
