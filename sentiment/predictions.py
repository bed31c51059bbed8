"""Predicting a file of reviews through an endpoint: CSV in, CSV out, streamed."""

import csv
import io
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sentiment.pipeline import Pipeline
from sentiment.reporter import Reporter

_BATCH = 200
_MAX_CELL_CHARS = 2**31 - 1
# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def predict_file(pipeline: Pipeline, endpoint: str, source: Path, target: Path, reporter: Reporter) -> int:
    """Write text, label and probability of each review in *source* to *target*; returns how many there were.

    *source* is a UTF-8 CSV with a header that names a column ``text``. *target* is replaced when all is done.

    Raises:
        ValueError: no such column, or a row without a review; the text names the row.
    """
    size = max(1, source.stat().st_size)
    with (
        source.open("rb") as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file,
        tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=target.parent, delete=False) as draft,
        reporter.progress(f"predicting {source.name}") as advance,
    ):
        try:
            count = 0
            writer = csv.writer(draft)
            writer.writerow(["text", "label", "probability"])
            reviews = _reviews(csv.DictReader(file), source)
            while batch := list(islice(reviews, _BATCH)):
                for text, prediction in zip(batch, pipeline.predict(endpoint, batch), strict=True):
                    writer.writerow([_harmless(text), prediction["label"], f"{prediction['probability']:.6f}"])
                count += len(batch)
                advance(min(1.0, raw.tell() / size))
        except BaseException:
            Path(draft.name).unlink()
            raise
    Path(draft.name).replace(target)
    return count


def _reviews(rows: "csv.DictReader[str]", source: Path) -> Iterator[str]:
    csv.field_size_limit(_MAX_CELL_CHARS)
    if "text" not in (rows.fieldnames or ()):
        raise ValueError(f"{source}: no column 'text' in the header (found: {rows.fieldnames}).")
    for row in rows:
        if not (row["text"] or "").strip():
            raise ValueError(f"{source}, line {rows.line_num}: the review is empty. Remove the row or fill it in.")
        yield row["text"]


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell
