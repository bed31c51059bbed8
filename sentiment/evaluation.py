"""How good the model is: figures and pictures from judged reviews.

    (text, is positive, P(positive)), ...  ── measure ──> Evaluation ── report ──> figures.json, three SVG pictures

The rows are read once. Memory holds two numbers for each and the texts of the worst mistakes only.
"""

import heapq
import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sentiment.model import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 15
EVEN_ODDS = 0.5
_ROC_POINTS = 201
# A probability of 0 for what is so would cost infinitely much.
_SURE = 1e-15

_Floats = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Confusion:
    """Reviews by what they are and what they were taken for; positive from even odds up."""

    true_positive: int
    false_negative: int
    false_positive: int
    true_negative: int


@dataclass(frozen=True)
class Bin:
    """The reviews whose P(positive) is in [low, high), the last bin's including 1; means are None if there are none."""

    low: float
    high: float
    reviews: int
    mean_probability: float | None
    share_positive: float | None


@dataclass(frozen=True)
class RocPoint:
    """The shares of negative and of positive reviews with at least some probability."""

    false_positive_rate: float
    true_positive_rate: float


@dataclass(frozen=True)
class Mistake:
    """A review on the wrong side of even odds."""

    text: str
    is_positive: bool
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """The figures.

    Attributes:
        reviews: how many were judged.
        accuracy: share judged rightly, 0 to 1.
        auc: chance that a positive review gets a higher probability than a negative one, ties counting half; None
            where there are not both.
        log_loss: mean of -ln(probability given to what is so).
        ece: expected calibration error, 0 to 1: how far the mean probability is from the share of positive reviews,
            in BINS bins of P(positive) of equal width, on the average over the reviews.
        confusion: the four counts.
        calibration: the bins.
        roc: at most 201 points of the curve, from (0, 0) to (1, 1); empty where there are not both labels.
        mistakes: the most certain ones, the worst first.
    """

    reviews: int
    accuracy: float
    auc: float | None
    log_loss: float
    ece: float
    confusion: Confusion
    calibration: tuple[Bin, ...]
    roc: tuple[RocPoint, ...]
    mistakes: tuple[Mistake, ...]


def evaluate(rows: Iterable[tuple[str, bool, float]], folder: Path | str) -> dict[str, Any]:
    """`measure` *rows* and `report` on them in *folder*; what figures.json holds is returned too.

    Raises:
        ValueError: as `measure`.
    """
    evaluation = measure(rows)
    report(evaluation, folder)
    return asdict(evaluation)


def measure(rows: Iterable[tuple[str, bool, float]], *, most_mistakes: int = 20) -> Evaluation:
    """Judge *rows*: text, whether it is positive (or 1 or 0), and P(positive) as the model said.

    Raises:
        ValueError: there is no row, or a probability is not in [0, 1]; the message has the row's number from 1.
    """
    positive, probabilities, mistakes = _collected(rows, most_mistakes)
    if not probabilities.size:
        raise ValueError("there is nothing to evaluate: no row came in")
    judged = probabilities >= EVEN_ODDS
    given = np.where(positive, probabilities, 1 - probabilities)
    calibration = tuple(_calibration(positive, probabilities))
    roc = _roc(positive, probabilities)
    return Evaluation(
        reviews=len(positive),
        accuracy=float(np.mean(judged == positive)),
        auc=_area(roc) if roc.size else None,
        log_loss=float(-np.log(np.maximum(given, _SURE)).mean()),
        ece=_calibration_error(calibration),
        confusion=Confusion(
            true_positive=int((judged & positive).sum()),
            false_negative=int((~judged & positive).sum()),
            false_positive=int((judged & ~positive).sum()),
            true_negative=int((~judged & ~positive).sum()),
        ),
        calibration=calibration,
        roc=tuple(RocPoint(x, y) for x, y in _thinned(roc).tolist()),
        mistakes=mistakes,
    )


def _collected(rows: Iterable[tuple[str, bool, float]], most: int) -> tuple[_Flags, _Floats, tuple[Mistake, ...]]:
    positive, probabilities = bytearray(), array("d")
    # The least of the worst so far is first; of equal ones the earlier row counts as worse.
    worst: list[tuple[float, int, Mistake]] = []
    for number, (text, is_positive, probability) in enumerate(rows, start=1):
        if not 0 <= probability <= 1:
            raise ValueError(f"row {number}: {probability!r} is no probability")
        positive.append(bool(is_positive))
        probabilities.append(probability)
        if (probability >= EVEN_ODDS) != bool(is_positive):
            entry = (abs(probability - EVEN_ODDS), -number, Mistake(text, bool(is_positive), float(probability)))
            if len(worst) < most:
                heapq.heappush(worst, entry)
            elif most:
                heapq.heappushpop(worst, entry)
    mistakes = tuple(mistake for _, _, mistake in sorted(worst, key=lambda entry: entry[:2], reverse=True))
    return np.frombuffer(positive, np.bool_), np.array(probabilities), mistakes


def _calibration(positive: _Flags, probabilities: _Floats) -> Iterator[Bin]:
    numbers = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(numbers, minlength=BINS).tolist()
    sums = np.bincount(numbers, probabilities, BINS).tolist()
    positives = np.bincount(numbers, positive, BINS).tolist()
    for number, count in enumerate(counts):
        means = (sums[number] / count, positives[number] / count) if count else (None, None)
        yield Bin(number / BINS, (number + 1) / BINS, count, *means)


def _calibration_error(bins: Iterable[Bin]) -> float:
    filled = [(b.reviews, b.mean_probability, b.share_positive) for b in bins]
    total = sum(count for count, _, _ in filled)
    return (
        sum(count * abs(mean - share) for count, mean, share in filled if mean is not None and share is not None)
        / total
    )


def _roc(positive: _Flags, probabilities: _Floats) -> _Floats:
    """The corners of the curve, shape (corners, 2), from (0, 0) to (1, 1); none where there are not both labels."""
    if positive.all() or not positive.any():
        return np.zeros((0, 2))
    order = np.argsort(-probabilities, kind="stable")
    # Reviews with the same probability are passed in one step.
    last_of_equals = np.append((np.diff(probabilities[order]) != 0).nonzero()[0], len(order) - 1)
    true_positives = np.cumsum(positive[order])[last_of_equals]
    false_positives = last_of_equals + 1 - true_positives
    corners = np.zeros((len(last_of_equals) + 1, 2))
    corners[1:, 0] = false_positives / false_positives[-1]
    corners[1:, 1] = true_positives / true_positives[-1]
    return corners


def _area(corners: _Floats) -> float:
    return float(np.trapezoid(corners[:, 1], corners[:, 0]))


def _thinned(corners: _Floats) -> _Floats:
    """At most so many corners, evenly along the curve."""
    if len(corners) <= _ROC_POINTS:
        return corners
    along = corners.sum(axis=1)
    chosen = np.searchsorted(along, np.linspace(0, along[-1], _ROC_POINTS))
    thinned: _Floats = corners[np.unique(np.minimum(chosen, len(corners) - 1))]
    return thinned


# --- the report ----------------------------------------------------------------------------------

_Z_95 = 1.959964

# Two colours that are told apart with any kind of colour vision, and in grey.
_BLUE, _ORANGE, _GREY = "#0060a8", "#c84e00", "#595959"


def report(evaluation: Evaluation, folder: Path | str) -> tuple[Path, ...]:
    """Write figures.json, confusion.svg, roc.svg and reliability.svg into *folder*; the same figures, the same bytes.

    roc.svg is left out where there are not both labels. Needs matplotlib.

    Returns:
        The paths of the files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"confusion": _draw_confusion, "reliability": _draw_reliability}
    if evaluation.roc:
        pictures["roc"] = _draw_roc
    paths = [_picture(folder / f"{name}.svg", draw, evaluation) for name, draw in sorted(pictures.items())]
    # Last, and at once: where it is, the report is whole.
    figures = folder / "figures.json"
    with replacing(figures) as draft:
        draft.write_text(json.dumps(asdict(evaluation), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return (figures, *paths)


def _picture(path: Path, draw: Callable[["Axes", Evaluation], None], evaluation: Evaluation) -> Path:
    from matplotlib import rc_context  # noqa: PLC0415 - slow to import, and only pictures need it
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings: Any = {
        # Without these, names inside the file are drawn by lot.
        "svg.hashsalt": path.name,
        # Text stays text: it can be searched and read aloud.
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(settings):
        figure = Figure(figsize=(5.6, 5.2), facecolor="white", layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot(), evaluation)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path


def _draw_confusion(axes: "Axes", evaluation: Evaluation) -> None:
    confusion = evaluation.confusion
    counts = np.array(
        [[confusion.true_positive, confusion.false_negative], [confusion.false_positive, confusion.true_negative]]
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        colour = "white" if share > EVEN_ODDS else "black"
        axes.text(column, row, f"{count:,}\n{share:.1%}", ha="center", va="center", color=colour, fontsize=15)
    axes.set_xticks([0, 1], ["positive", "negative"])
    axes.set_yticks([0, 1], ["positive", "negative"], rotation=90, va="center")
    axes.set_xlabel("judged by the model as")
    axes.set_ylabel("label of the review")
    axes.set_title(f"{evaluation.accuracy:.1%} of {evaluation.reviews:,} reviews judged rightly")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _draw_roc(axes: "Axes", evaluation: Evaluation) -> None:
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="guessing")
    x = [point.false_positive_rate for point in evaluation.roc]
    y = [point.true_positive_rate for point in evaluation.roc]
    axes.plot(x, y, color=_BLUE, linewidth=2, label="model")
    axes.set_xlabel("share of negative reviews taken for positive")
    axes.set_ylabel("share of positive reviews found")
    axes.set_title(f"ROC curve, area {evaluation.auc:.4f}")
    _square(axes)
    axes.legend(loc="lower right", frameon=False)


def _draw_reliability(axes: "Axes", evaluation: Evaluation) -> None:
    filled = [
        (b.mean_probability, b.share_positive, b.reviews)
        for b in evaluation.calibration
        if b.mean_probability is not None and b.share_positive is not None
    ]
    means = [mean for mean, _, _ in filled]
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="perfect")
    axes.plot(means, [share for _, share, _ in filled], color=_ORANGE, marker="o", linewidth=1.5, label="model")
    lows, highs = zip(*(interval(share, count) for _, share, count in filled), strict=True)
    axes.vlines(means, lows, highs, color=_ORANGE, linewidth=1, label="95% interval")
    heights = [b.reviews / evaluation.reviews for b in evaluation.calibration]
    lefts = [b.low for b in evaluation.calibration]
    axes.bar(lefts, heights, 1 / BINS, align="edge", color=_BLUE, alpha=0.25, label="share of reviews")
    axes.set_xlabel("P(positive) as the model said")
    axes.set_ylabel("share of positive reviews")
    axes.set_title(f"Reliability, expected calibration error {evaluation.ece:.2%}")
    _square(axes)
    axes.legend(loc="upper left", frameon=False)


def interval(share: float, count: int) -> tuple[float, float]:
    """Where the true share may lie of which *count* cases showed *share*, with 95% confidence.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    pull = _Z_95**2 / count
    middle = (share + pull / 2) / (1 + pull)
    reach = math.sqrt(share * (1 - share) * pull + pull**2 / 4) / (1 + pull)
    return middle - reach, middle + reach


def _square(axes: "Axes") -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
