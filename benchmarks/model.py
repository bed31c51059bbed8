"""The sentiment model in this process: training, size, loading, one review, many reviews. CPU seconds, not wall time.

The accuracy is that of a fifth of the reviews held back, from the same split as the pipeline's.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.figures import Figure
from sentiment import data, model, training
from sentiment.evaluation import measure as judge

T = TypeVar("T")
_SINGLE = 2000


def figures() -> list[Figure]:
    """Train once on 20,000 reviews and judge on 5,000."""
    with tempfile.TemporaryDirectory() as folder:
        parts = data.prepare(data.package_reviews(), folder).parts
        train_cpu, trained = _cpu_seconds(lambda: _train(parts["train"].csv_path))
        test = list(data.csv_reviews(parts["test"].csv_path))
        texts = [review.text for review in test]
        batch_cpu, probabilities = _cpu_seconds(lambda: trained.predict(texts))
        single_cpu, _ = _cpu_seconds(lambda: [trained.predict([text]) for text in texts[:_SINGLE]])
        place = Path(folder) / "model"
        trained.save(place)
        size = sum(path.stat().st_size for path in place.iterdir())
        started = time.perf_counter()
        model.load(place)
        load_seconds = time.perf_counter() - started
    judged = judge(zip(texts, [review.is_positive for review in test], probabilities.tolist(), strict=True))
    return [
        _row("accuracy on 5,000 reviews held back", f"{judged.accuracy:.2%}", "≥ 92 % on the official test half"),
        _row("calibration error (ECE) there", f"{judged.ece:.2%}", "≤ 1 %"),
        _row("training on 20,000 reviews, reading included", f"{train_cpu:.1f} CPU-s", "≤ 8 CPU-s for 25,000"),
        _row("model files", f"{size / 1e6:.1f} MB", "≤ 20 MB"),
        _row("loading the model", f"{load_seconds * 1e3:.0f} ms", "≤ 300 ms"),
        _row("one review", f"{single_cpu / _SINGLE * 1e6:.0f} µs CPU", "≤ 150 µs"),
        _row("batches", f"{len(texts) / batch_cpu:,.0f} reviews per CPU-s", "≥ 10,000"),
    ]


def _train(path: Path) -> model.SentimentModel:
    reviews = list(data.csv_reviews(path))
    return training.train([review.text for review in reviews], [int(review.is_positive) for review in reviews])


def _cpu_seconds(work: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def _row(what: str, ours: str, target: str) -> Figure:
    return Figure(what=what, ours=ours, peer="-", ratio="-", target=target)
