"""Telling a person what goes on: headings and progress bars on a terminal, plain lines elsewhere; never on stdout."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

_PLAIN_EVERY_SECONDS = 2.0

# Called with the fraction done, 0 to 1.
Advance = Callable[[float], None]


class Reporter(Protocol):
    """Where the pipeline says what it does."""

    def step(self, number: str, title: str) -> None:
        """Begin a step; *number* is its place among the seven, or several."""
        ...

    def say(self, text: str) -> None:
        """One line about the present step, or of a program's output."""
        ...

    def progress(self, what: str) -> AbstractContextManager[Advance]:
        """A context in which something long goes on; it yields an Advance."""
        ...


class Silent:
    """Says nothing."""

    def step(self, number: str, title: str) -> None:
        """Say nothing."""

    def say(self, text: str) -> None:
        """Say nothing."""

    @contextmanager
    def progress(self, what: str) -> Iterator[Advance]:  # noqa: ARG002  the face is the Reporter's
        """Say nothing."""
        yield lambda fraction: None  # noqa: ARG005


class PlainLines:
    """Lines on stderr, for logs and pipes."""

    def step(self, number: str, title: str) -> None:
        self.say(f"[{number}] {title}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    @contextmanager
    def progress(self, what: str) -> Iterator[Advance]:
        last = time.monotonic()

        def advance(fraction: float) -> None:
            nonlocal last
            if time.monotonic() - last >= _PLAIN_EVERY_SECONDS:
                last = time.monotonic()
                self.say(f"    {what}: {fraction:.0%}")

        yield advance


class Terminal:
    """Rich output on stderr."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  loading it takes as long as --help may

        self._console = Console(stderr=True, highlight=False)

    def step(self, number: str, title: str) -> None:
        self._console.print(f"\n[bold green]{number}[/] [bold]{_escaped(title)}[/]")

    def say(self, text: str) -> None:
        self._console.print(f"  {_escaped(text)}", style="dim")

    @contextmanager
    def progress(self, what: str) -> Iterator[Advance]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.fields[share]}")
        with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as progress:
            # Without a total the bar moves to and fro: something goes on, nobody knows how long.
            task = progress.add_task(_escaped(what), total=None, share="")
            yield lambda fraction: progress.update(task, total=1.0, completed=fraction, share=f"{fraction:.0%}")


def make_reporter() -> Reporter:
    """The reporter that fits where stderr goes."""
    return Terminal() if sys.stderr.isatty() else PlainLines()


def _escaped(text: str) -> str:
    """*text* with nothing in it that rich or a terminal would obey (case S23)."""
    from rich.markup import escape  # noqa: PLC0415

    return escape("".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text))
