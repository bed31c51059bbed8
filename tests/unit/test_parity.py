"""What counts as the same answer of two backends."""

import pytest

from sentiment.parity import alike


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("same", "same"),
        ('{"p": 0.5, "l": ["x", 1]}', '{ "l": ["x", 1.0000001], "p": 0.5 }'),
        ('{"p": 1}\n{"p": 2}\n', '{"p": 1}\n{"p": 2.0000001}\n'),
        ('positive,"0.5"\n', "positive,0.5000001\n"),
    ],
)
def test_alike(here: str, there: str) -> None:
    """Spelling and a little arithmetic make no difference."""
    assert alike(here, there, 1e-6)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ('{"p": 0.5}', '{"p": 0.6}'),
        ('{"p": 0.5}', '{"p": "0.5"}'),
        ('{"p": 1}', '{"p": true}'),
        ('{"p": null}', '{"p": 0}'),
        ('{"p": 0.5}', '{"p": 0.5, "q": 1}'),
        ("[1, 2]", "[1]"),
        ("positive,0.5\n", "negative,0.5\n"),
        ("nan", "0.5"),
    ],
)
def test_not_alike(here: str, there: str) -> None:
    """Another value, another type, another member."""
    assert not alike(here, there, 1e-6)
