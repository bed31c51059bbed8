"""One prepared data set: when it is found again, and when it is prepared anew."""

from pathlib import Path

import pytest

from sentiment import dataset
from sentiment.data import DataError
from sentiment.dataset import Dataset
from tests.reviews import few_reviews


def prepared(source: Path, folder: Path) -> Dataset:
    return dataset.prepare(str(source), folder, test_share=0.2, advance=lambda _: None)


def test_the_same_file_is_read_once(tmp_path: Path) -> None:
    """What was prepared of it is found again, and not written anew."""
    source = few_reviews(tmp_path / "reviews.tar.gz")
    first = prepared(source, tmp_path / "data")
    written = first.train_csv.stat().st_mtime_ns
    assert prepared(source, tmp_path / "data") == first
    assert first.train_csv.stat().st_mtime_ns == written


def test_another_file_at_the_same_path_is_read(tmp_path: Path) -> None:
    """What was prepared of the one before does not stand for it."""
    source = few_reviews(tmp_path / "reviews.tar.gz")
    prepared(source, tmp_path / "data")
    source.write_bytes(b"no archive any more")
    with pytest.raises(DataError, match=r"no readable \.tar\.gz"):
        prepared(source, tmp_path / "data")
