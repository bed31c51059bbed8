"""Every test here runs once on each backend, and knows nothing but the four rooms."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.conformance.rigs import BUCKET, RIGS, Rig

_NUMBERS = count(1)


@pytest.fixture(scope="session", params=sorted(RIGS))
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A started backend; one for all tests, as a user's would be."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    with RIGS[request.param](folder) as started:
        started.backend.store.ensure_bucket(BUCKET)
        yield started


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"test-{next(_NUMBERS)}"


@pytest.fixture
def prefix(name: str) -> str:
    """A place in the store that no other test uses."""
    return f"s3://{BUCKET}/{name}"
