import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from sentiment.evaluation import evaluate, judge

ROWS = st.lists(
    st.tuples(st.text(max_size=5), st.integers(0, 1), st.floats(0, 1).map(lambda p: round(p, 2))),
    min_size=1,
    max_size=60,
)


@given(ROWS)
def test_the_figures_are_those_of_the_reference(rows: list[tuple[str, int, float]]) -> None:
    """Accuracy, AUC and log-loss equal scikit-learn's; every review is in one bin and one cell."""
    figures = judge(rows)
    labels, chances = [label for _, label, _ in rows], [chance for _, _, chance in rows]
    assert figures.accuracy == pytest.approx(np.mean([(chance >= 0.5) == label for _, label, chance in rows]))
    assert figures.log_loss == pytest.approx(
        log_loss(labels, np.clip(chances, 1e-15, 1 - 1e-15), labels=[0, 1]), rel=1e-6
    )
    if len(set(labels)) == 2:
        assert figures.auc == pytest.approx(roc_auc_score(labels, chances))
        assert (figures.roc[0], figures.roc[-1]) == ((0.0, 0.0), (1.0, 1.0))
    else:
        assert figures.auc is None
    assert sum(bin_.count for bin_ in figures.reliability) == sum(figures.confusion.values()) == len(rows)
    assert 0 <= figures.ece <= 1


def test_a_calibrated_prediction_has_no_calibration_error() -> None:
    """Three in four positive at 0.75 is what 0.75 means."""
    figures = judge([("", 1, 0.75)] * 3 + [("", 0, 0.75)])
    assert figures.ece == pytest.approx(0)
    assert judge([("", 0, 0.75)] * 4).ece == pytest.approx(0.75)


def test_the_worst_mistakes_come_first() -> None:
    """Only wrong judgements, by distance from the border, at most twenty, cut to a readable length."""
    rows = [(f"wrong {number} " * 200, 0, 0.5 + number / 100) for number in range(40)] + [("right", 1, 0.99)]
    mistakes = judge(rows).worst_mistakes
    assert [round(mistake.probability, 2) for mistake in mistakes] == [round(0.89 - n / 100, 2) for n in range(20)]
    assert all(len(mistake.text) <= 600 for mistake in mistakes)


@pytest.mark.parametrize("rows", [[], [("x", 1, 1.5)], [("x", 1, float("nan"))]])
def test_nonsense_is_refused(rows: list[tuple[str, int, float]]) -> None:
    """No figure is made up from nothing, or from what is no probability."""
    with pytest.raises(ValueError, match=r"no predictions|no probability"):
        judge(rows)


def test_the_report_is_complete_and_the_same_again(tmp_path: Path) -> None:
    """Figures and well-formed pictures; the same rows give the same bytes of SVG; one class alone is no error."""
    rows = [("good", 1, 0.9), ("<b>bad</b>", 0, 0.2), ("so-so", 0, 0.6), ("fine", 1, 0.7)]
    first = evaluate(iter(rows), tmp_path / "one")
    evaluate(iter(rows), tmp_path / "two")
    evaluate(iter(rows[:1]), tmp_path / "single-class")
    assert json.loads((tmp_path / "one" / "figures.json").read_text())["accuracy"] == first["accuracy"] == 0.75
    for name in ("confusion.svg", "roc.svg", "reliability.svg"):
        picture = (tmp_path / "one" / name).read_bytes()
        assert ET.fromstring(picture).tag.endswith("svg")  # noqa: S314  our own file
        assert picture == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / "report.png").read_bytes().startswith(b"\x89PNG")
