import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from sentiment.evaluation import BINS, Confusion, evaluate, interval, measure, report

ROWS = st.lists(
    st.tuples(st.text(max_size=3), st.booleans(), st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]))),
    min_size=1,
    max_size=60,
)
SMALL = [("a", True, 0.9), ("b", True, 0.4), ("c", False, 0.6), ("d", False, 0.1), ("e", False, 0.4)]


def test_figures() -> None:
    """The figures of five reviews, worked out by hand."""
    evaluation = measure(SMALL)
    assert evaluation.reviews == 5
    assert evaluation.accuracy == 0.6
    assert evaluation.confusion == Confusion(true_positive=1, false_negative=1, false_positive=1, true_negative=2)
    # Of the six pairs, the positive review wins in four, and in one it is a tie.
    assert evaluation.auc == pytest.approx(4.5 / 6)
    assert evaluation.log_loss == pytest.approx(-math.log(0.9 * 0.4 * 0.4 * 0.9 * 0.6) / 5)
    assert evaluation.ece == pytest.approx((0.1 + 2 * 0.1 + 0.6 + 0.1) / 5)
    assert [mistake.text for mistake in evaluation.mistakes] == ["b", "c"]


@given(ROWS)
def test_against_definitions(rows: list[tuple[str, bool, float]]) -> None:
    """The quick ways give what the definitions say."""
    evaluation = measure(rows)
    positives = [p for _, label, p in rows if label]
    negatives = [p for _, label, p in rows if not label]
    if positives and negatives:
        wins = sum((a > b) + (a == b) / 2 for a in positives for b in negatives)
        assert evaluation.auc == pytest.approx(wins / len(positives) / len(negatives))
        points = [(point.false_positive_rate, point.true_positive_rate) for point in evaluation.roc]
        assert points == sorted(points)
        assert (points[0], points[-1]) == ((0, 0), (1, 1))
    else:
        assert evaluation.auc is None
        assert evaluation.roc == ()
    assert sum(b.reviews for b in evaluation.calibration) == len(rows)
    assert len(evaluation.calibration) == BINS
    assert 0 <= evaluation.ece <= 1
    wrong = [(text, p) for text, label, p in rows if (p >= 0.5) != label]
    assert len(evaluation.mistakes) == min(20, len(wrong))
    worst = sorted((abs(p - 0.5) for _, p in wrong), reverse=True)[:20]
    assert [abs(mistake.probability - 0.5) for mistake in evaluation.mistakes] == worst


@pytest.mark.parametrize("probability", [math.nan, -0.1, 1.1, math.inf])
def test_no_probability(probability: float) -> None:
    """What is no probability is refused, with its row."""
    with pytest.raises(ValueError, match="row 2"):
        measure([("a", True, 0.5), ("b", True, probability)])


def test_nothing() -> None:
    """No row, no figures."""
    with pytest.raises(ValueError, match="nothing to evaluate"):
        measure([])


def test_mistakes_are_limited() -> None:
    """No text is kept but those of the worst mistakes; of equal ones the earlier come first."""
    rows = ((str(number), False, 0.75) for number in range(100))
    assert [mistake.text for mistake in measure(rows, most_mistakes=3).mistakes] == ["0", "1", "2"]
    assert measure(SMALL, most_mistakes=0).mistakes == ()


def test_many_rows_make_a_small_report(tmp_path: Path) -> None:
    """The curve of a hundred thousand reviews has a few hundred points, and its area is that of all of them."""
    draw = np.random.default_rng(1)
    probabilities = draw.random(100_000)
    labels = draw.random(100_000) < probabilities
    figures = evaluate((("", bool(a), float(p)) for a, p in zip(labels, probabilities, strict=True)), tmp_path)
    assert len(figures["roc"]) <= 201
    thin = np.array([[point["false_positive_rate"], point["true_positive_rate"]] for point in figures["roc"]])
    assert np.trapezoid(thin[:, 1], thin[:, 0]) == pytest.approx(figures["auc"], abs=1e-3)
    assert figures["ece"] < 0.01
    assert (tmp_path / "figures.json").stat().st_size < 100_000


def test_report(tmp_path: Path) -> None:
    """Figures and pictures are written, the same bytes every time, and no picture names a date."""
    figures = evaluate(SMALL, tmp_path / "one")
    paths = report(measure(SMALL), tmp_path / "two")
    assert sorted(path.name for path in paths) == ["confusion.svg", "figures.json", "reliability.svg", "roc.svg"]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(path.name for path in paths)
    for path in paths:
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()
        if path.suffix == ".svg":
            ET.parse(path)  # noqa: S314 - our own file
            assert "date>" not in path.read_text()
    assert json.loads((tmp_path / "one" / "figures.json").read_text()) == json.loads(json.dumps(figures))


def test_words_of_the_pictures(tmp_path: Path) -> None:
    """Pictures keep their words as text and say what their axes are."""
    evaluate(SMALL, tmp_path)
    assert "judged by the model as" in (tmp_path / "confusion.svg").read_text()
    assert "share of positive reviews found" in (tmp_path / "roc.svg").read_text()
    assert "P(positive) as the model said" in (tmp_path / "reliability.svg").read_text()
    assert "95% interval" in (tmp_path / "reliability.svg").read_text()


def test_one_label_alone(tmp_path: Path) -> None:
    """Where all reviews are positive there is no curve, and all else is there."""
    figures = evaluate([("a", True, 0.9), ("b", True, 1.0)], tmp_path)
    assert figures["auc"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.svg", "figures.json", "reliability.svg"]


@pytest.mark.parametrize(("positive", "count"), [(5, 10), (0, 20), (1, 1), (900, 1000)])
def test_interval(positive: int, count: int) -> None:
    """It is what scipy says, which takes over a second to load."""
    found = binomtest(positive, count).proportion_ci(method="wilson")
    assert interval(positive / count, count) == pytest.approx((found.low, found.high))
