"""How good predictions are: figures as JSON, pictures as SVG and PNG, the worst mistakes.

Memory holds a label and a probability a review, and the texts of the worst mistakes alone.
"""

import heapq
import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 15
_MISTAKES = 20
_MISTAKE_CHARS = 600
_ROC_POINTS = 400
_SURE = 1e-15

_GREEN, _RED, _INK, _PALE = "#1d6b4a", "#a62b2b", "#1c2321", "#c9d6cf"

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Mistake:
    """A review that was judged wrongly, cut to its first characters; *label* is the truth, 1 for positive."""

    text: str
    label: int
    probability: float


@dataclass(frozen=True)
class Bin:
    """One bar of the reliability diagram: reviews whose P(positive) lies in it, their mean and the positive share."""

    count: int
    mean_probability: float
    positive_share: float


@dataclass(frozen=True)
class Figures:
    """What was found.

    Attributes:
        size: labelled reviews.
        accuracy: share judged rightly at P(positive) >= 0.5.
        auc: area under the ROC curve, ties counted half; None where one class is missing.
        log_loss: mean negative log-likelihood, in nats.
        ece: expected calibration error: the mean distance of a bin's positive share from its mean P(positive),
            weighted by its reviews, over 15 bins of equal width.
        confusion: counts by truth and judgement.
        reliability: the bins that hold reviews, by rising probability.
        roc: (false positive rate, true positive rate), thinned for drawing.
        worst_mistakes: those furthest on the wrong side, worst first.
    """

    size: int
    accuracy: float
    auc: float | None
    log_loss: float
    ece: float
    confusion: Mapping[str, int]
    reliability: tuple[Bin, ...]
    roc: tuple[tuple[float, float], ...]
    worst_mistakes: tuple[Mistake, ...]


def evaluate(rows: Iterable[tuple[str, int, float]], folder: Path) -> dict[str, Any]:
    """Judge (text, label, P(positive)) *rows*, write the report into *folder*, return its figures.

    The folder gets ``figures.json``, ``confusion.svg``, ``roc.svg``, ``reliability.svg`` and ``report.png``.

    Raises:
        ValueError: there are no rows, or a probability is not in [0, 1].
    """
    figures = judge(rows)
    document = asdict(figures)
    folder.mkdir(parents=True, exist_ok=True)
    draw(figures, folder)
    # Last: where the figures are, the report is complete.
    (folder / "figures.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document


def judge(rows: Iterable[tuple[str, int, float]]) -> Figures:
    """The figures of (text, label, P(positive)) *rows*. Raises ValueError as :func:`evaluate` does."""
    labels, probabilities = array("b"), array("d")
    worst: list[tuple[float, int, Mistake]] = []
    for number, (text, label, probability) in enumerate(rows):
        if not 0 <= probability <= 1:
            raise ValueError(f"row {number + 1}: {probability} is no probability; it must lie between 0 and 1.")
        labels.append(label)
        probabilities.append(probability)
        if (probability >= 0.5) != bool(label):
            mistake = Mistake(text[:_MISTAKE_CHARS], label, probability)
            keep = heapq.heappush if len(worst) < _MISTAKES else heapq.heappushpop
            keep(worst, (abs(probability - 0.5), -number, mistake))
    if not labels:
        raise ValueError("there are no predictions to judge: the file of labelled reviews is empty.")
    truth = np.frombuffer(labels, np.int8).astype(bool)
    chance = np.frombuffer(probabilities, np.float64)
    bins = _bins(truth, chance)
    return Figures(
        size=len(truth),
        accuracy=float(np.mean((chance >= 0.5) == truth)),
        auc=_auc(truth, chance),
        log_loss=float(-np.mean(np.log(np.clip(np.where(truth, chance, 1 - chance), _SURE, 1)))),
        ece=sum(bin_.count * abs(bin_.positive_share - bin_.mean_probability) for bin_ in bins) / len(truth),
        confusion=_confusion(truth, chance >= 0.5),
        reliability=bins,
        roc=_roc(truth, chance),
        worst_mistakes=tuple(mistake for _, _, mistake in sorted(worst, reverse=True)),
    )


def draw(figures: Figures, folder: Path) -> None:
    """Draw the pictures of *figures* into *folder*. The same figures give the same SVG bytes."""
    import matplotlib as mpl  # noqa: PLC0415  takes half a second
    from matplotlib.figure import Figure  # noqa: PLC0415

    panels = {"confusion": _draw_confusion, "roc": _draw_roc, "reliability": _draw_reliability}
    style: dict[Any, Any] = {"svg.hashsalt": "greenroom", "svg.fonttype": "none", "font.size": 11, "text.color": _INK}
    with mpl.rc_context(style):
        for name, panel in panels.items():
            figure = Figure(figsize=(5, 4.4), layout="constrained")
            panel(figure.subplots(), figures)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        together = Figure(figsize=(15, 4.6), layout="constrained")
        for axes, panel in zip(together.subplots(1, len(panels)), panels.values(), strict=True):
            panel(axes, figures)
        together.savefig(folder / "report.png", dpi=110)


def _auc(truth: Labels, chance: Floats) -> float | None:
    """Mann-Whitney: the share of pairs of a positive and a negative review that are in the right order."""
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return None
    _, inverse, counts = np.unique(chance, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((middle_rank[inverse][truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _bins(truth: Labels, chance: Floats) -> tuple[Bin, ...]:
    index = np.minimum((chance * BINS).astype(int), BINS - 1)
    counts = np.bincount(index, minlength=BINS)
    chances = np.bincount(index, chance, BINS)
    positives = np.bincount(index, truth, BINS)
    return tuple(
        Bin(int(count), float(total / count), float(positive / count))
        for count, total, positive in zip(counts, chances, positives, strict=True)
        if count
    )


def _confusion(truth: Labels, judged: Labels) -> dict[str, int]:
    return {
        "true_negative": int((~truth & ~judged).sum()),
        "false_positive": int((~truth & judged).sum()),
        "false_negative": int((truth & ~judged).sum()),
        "true_positive": int((truth & judged).sum()),
    }


def _roc(truth: Labels, chance: Floats) -> tuple[tuple[float, float], ...]:
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return ()
    order = np.argsort(-chance, kind="stable")
    # Reviews of one probability are passed together: no point lies between them.
    ends = np.flatnonzero(np.append(np.diff(chance[order]) != 0, [True]))
    true_rate = np.concatenate([[0.0], np.cumsum(truth[order])[ends] / positive])
    false_rate = np.concatenate([[0.0], np.cumsum(~truth[order])[ends] / negative])
    kept = np.unique(np.linspace(0, len(true_rate) - 1, _ROC_POINTS).round().astype(int))
    return tuple(zip(false_rate[kept].tolist(), true_rate[kept].tolist(), strict=True))


def _draw_confusion(axes: "Axes", figures: Figures) -> None:
    counts = np.array(list(figures.confusion.values())).reshape(2, 2)
    axes.imshow(counts / max(1, counts.max()), cmap="Greens", vmin=0, vmax=1.4)
    for (row, column), count in np.ndenumerate(counts):
        share = count / max(1, counts[row].sum())
        axes.text(column, row, f"{count:,}\n{share:.1%}", ha="center", va="center", color=_INK, fontsize=13)
    names = ["negative", "positive"]
    axes.set(xticks=[0, 1], yticks=[0, 1], xticklabels=names, yticklabels=names)
    axes.set(xlabel="judged", ylabel="truly", title=f"Accuracy {figures.accuracy:.2%} of {figures.size:,} reviews")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _draw_roc(axes: "Axes", figures: Figures) -> None:
    axes.plot([0, 1], [0, 1], color=_PALE, linestyle="--", label="guessing")
    if figures.roc:
        false_rate, true_rate = zip(*figures.roc, strict=True)
        axes.plot(false_rate, true_rate, color=_GREEN, linewidth=2, label="this model")
    area = "undefined: one class only" if figures.auc is None else f"{figures.auc:.4f}"
    axes.set(xlabel="negative reviews judged positive", ylabel="positive reviews judged positive")
    axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal", title=f"ROC curve, area {area}")
    _finish(axes)


def _draw_reliability(axes: "Axes", figures: Figures) -> None:
    axes.plot([0, 1], [0, 1], color=_PALE, linestyle="--", label="perfectly calibrated")
    means = [bin_.mean_probability for bin_ in figures.reliability]
    shares = [bin_.positive_share for bin_ in figures.reliability]
    errors = [
        1.96 * (share * (1 - share) / bin_.count) ** 0.5
        for share, bin_ in zip(shares, figures.reliability, strict=True)
    ]
    axes.errorbar(
        means,
        shares,
        yerr=errors,
        color=_GREEN,
        ecolor=_RED,
        marker="o",
        linewidth=1.5,
        elinewidth=1,
        label="this model (95 %)",
    )
    axes.set(xlabel="P(positive) as predicted", ylabel="share that is positive", xlim=(0, 1), ylim=(0, 1.01))
    axes.set(aspect="equal", title=f"Calibration, error {figures.ece:.2%}")
    _finish(axes)


def _finish(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eef2f0")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="lower right")
