"""Predicting a file of reviews through an endpoint: CSV in, CSV out, streamed."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from sentiment import data
from sentiment.model import replacing
from sentiment.pipeline import Pipeline
from sentiment.reporter import Reporter

_BATCH = 200
# A serverless endpoint takes 4 MB at once; in JSON a byte of a review can become six.
_BATCH_BYTES = 512 * 1024
# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def predict_file(pipeline: Pipeline, endpoint: str, source: Path, target: Path, reporter: Reporter) -> int:
    """Write text, label and probability of each review in *source* to *target*; returns how many there were.

    *source* is a UTF-8 CSV with a header that names a column ``text``. *target* is replaced when all is done.

    Raises:
        ValueError: no such column, or a row without a review; the text names the row.
    """
    if not target.parent.is_dir() or target.is_dir():
        raise ValueError(f"{target} cannot be written: {_why_not(target)}")
    count = 0
    with (
        replacing(target) as draft,
        draft.open("w", encoding="utf-8", newline="") as file,
        reporter.progress(f"predicting {source.name}") as advance,
    ):
        writer = csv.writer(file)
        writer.writerow(["text", "label", "probability"])
        for batch in _batches(data.csv_texts(source, advance)):
            for text, prediction in zip(batch, pipeline.predict(endpoint, batch), strict=True):
                writer.writerow([_harmless(text), prediction["label"], f"{prediction['probability']:.6f}"])
            count += len(batch)
    return count


def _why_not(target: Path) -> str:
    return "it is a folder." if target.is_dir() else f"there is no folder {target.parent}."


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """*texts* by as many as one request holds; what is too long for that goes alone."""
    batch: list[str] = []
    size = 0
    for text in texts:
        text_bytes = len(text.encode())
        if batch and (len(batch) == _BATCH or size + text_bytes > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += text_bytes
    if batch:
        yield batch


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell
