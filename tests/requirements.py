"""Tests that need something of the machine: they skip where it is missing, and fail where it was promised."""

import os
from collections.abc import Callable

import pytest


def require(name: str, present: Callable[[], bool], missing: str) -> None:
    """Go on if *present*; else skip, or fail if ``GREENROOM_REQUIRE`` names *name*."""
    if present():
        return
    if name in os.environ.get("GREENROOM_REQUIRE", "").split(","):
        pytest.fail(f"{name} is required here, but {missing}")
    pytest.skip(missing)
