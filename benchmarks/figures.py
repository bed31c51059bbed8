"""What a benchmark returns: one row of the table in docs/performance.md."""

from typing import TypedDict


class Figure(TypedDict):
    """What was measured, beside a peer or a limit from the same run, and the target."""

    what: str
    ours: str
    peer: str
    ratio: str
    target: str
