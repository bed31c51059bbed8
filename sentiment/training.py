"""How a sentiment model is trained.

    reviews ── featurise ── n-grams in at least min_df reviews ── naive-Bayes log-count ratios, rows of unit length
            ── linear SVM (scikit-learn) ── Platt scaling on out-of-fold margins ── SentimentModel

Source of the last: J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999; of the others see
:mod:`sentiment.model`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sentiment.model import (
    BATCH_TEXTS,
    FEWEST_FOLDS,
    Floats,
    Hyperparameters,
    SentimentModel,
    Shorts,
    Training,
    packed,
    probability,
    replacing,
)
from sentiment.table import Indices, Table
from sentiment.text import TREATMENT_VERSION, Hashes, featurise


def train(
    texts: Sequence[str],
    labels: Sequence[int] | npt.NDArray[np.integer],
    hyperparameters: Hyperparameters | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
    checkpoints: Path | None = None,
) -> SentimentModel:
    """Fit a model to *texts* and their *labels*, 1 for positive and 0 for negative.

    The same input gives the same model. *progress* gets a sentence at each step. The folder *checkpoints* keeps the
    result of the first of the two fits, which a later call with the same input does not do again. Needs scikit-learn.

    Raises:
        ValueError: labels and texts differ in number, a label is neither 0 nor 1, a class has fewer than two
            reviews, no n-gram stands in ``min_df`` of them, or a text holds half a surrogate pair.
    """
    settings = hyperparameters or Hyperparameters()
    positive = _checked_labels(texts, labels)
    is_held_out = _held_out(positive, settings.folds)
    order = np.lexsort((positive, ~is_held_out))
    progress(f"reading the n-grams of {len(texts):,} reviews")
    rows = _Rows.of([texts[index] for index in order], settings)
    progress(f"{rows.width:,} n-grams stand in at least {settings.min_df} reviews")
    fit = _Fit(rows, positive[order], int(is_held_out.sum()), settings.c)
    checkpoint = checkpoints and checkpoints / f"margins-{_digest(texts, positive, settings)}.npy"
    margins = _read_checkpoint(checkpoint, fit.held_out)
    if margins is None:
        progress(f"fitting to all reviews but {fit.held_out:,}")
        margins = fit.held_out_margins()
        _write_checkpoint(checkpoint, margins)
    else:
        progress(f"fitting to all reviews but {fit.held_out:,}: a checkpoint has the result")
    truth = fit.positive[: fit.held_out]
    slope, offset = _platt(margins, truth)
    accuracy = float(np.mean((slope * margins + offset >= 0) == truth))
    progress("fitting the model to all reviews")
    ratios, weights, bias = fit.from_row(0)
    training = Training(int(positive.sum()), int((~positive).sum()), rows.width, len(margins), accuracy)
    influence, influence_unit = _whole(slope * ratios * weights)
    energy, energy_unit = _whole(ratios**2)
    table = rows.table.filled(packed(influence, energy))
    return SentimentModel(settings, training, slope * bias + offset, influence_unit, energy_unit, table)


def _digest(texts: Sequence[str], positive: npt.NDArray[np.bool_], settings: Hyperparameters) -> str:
    """What tells the first fit of one training from that of any other."""
    whole = hashlib.sha256(json.dumps([TREATMENT_VERSION, asdict(settings)]).encode() + positive.tobytes())
    for text in texts:
        whole.update(hashlib.sha256(text.encode(errors="surrogatepass")).digest())
    return whole.hexdigest()[:16]


def _read_checkpoint(path: Path | None, length: int) -> Floats | None:
    """The margins at *path*; None if there are none, or what is there is not whole."""
    if path is None or not path.is_file():
        return None
    try:
        margins = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_sound = margins.shape == (length,) and margins.dtype == np.float64 and np.isfinite(margins).all()
    return margins if is_sound else None


def _write_checkpoint(path: Path | None, margins: Floats) -> None:
    if path is not None:
        with replacing(path) as draft, draft.open("wb") as file:
            np.save(file, margins, allow_pickle=False)


def _whole(values: Floats) -> tuple[Shorts, float]:
    """*values* as whole numbers of 16 bits, and the unit they are in."""
    unit = max(float(np.abs(values).max()), float(np.finfo(np.float32).tiny)) / float(np.iinfo(np.int16).max)
    return np.rint(values / unit).astype(np.int16), unit


def _checked_labels(texts: Sequence[str], labels: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    numbers = np.asarray(labels)
    if numbers.shape != (len(texts),):
        raise ValueError(f"{len(texts)} texts need as many labels, not {numbers.shape}")
    if not np.isin(numbers, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1; found {np.setdiff1d(numbers, (0, 1))[:3].tolist()}")
    positive: npt.NDArray[np.bool_] = numbers == 1
    smallest, name = min((int(positive.sum()), "positive"), (int((~positive).sum()), "negative"))
    if smallest < FEWEST_FOLDS:
        raise ValueError(f"training needs at least {FEWEST_FOLDS} reviews of each label; {smallest} are {name}")
    return positive


# One fold alone: it gives 8,300 margins of 25,000 reviews for the two numbers of the Platt scaling. Another would cost
# a fit, and changes the calibration by less than what the choice of reviews does.
def _held_out(positive: npt.NDArray[np.bool_], folds: int) -> npt.NDArray[np.bool_]:
    """Which reviews are held out: of each class, the first of every *folds*."""
    is_held_out = np.zeros(len(positive), np.bool_)
    count = min(folds, int(positive.sum()), int((~positive).sum()))
    for is_class in (positive, ~positive):
        is_held_out[is_class.nonzero()[0][::count]] = True
    return is_held_out


@dataclass(frozen=True)
class _Rows:
    """The training reviews as sets of known n-grams, which are numbered 0 to ``width`` - 1 in order of their slots.

    Review i has the n-grams ``columns[bounds[i]:bounds[i + 1]]``.
    """

    table: Table
    width: int
    columns: npt.NDArray[np.int32]
    bounds: npt.NDArray[np.int32]

    @classmethod
    def of(cls, texts: Sequence[str], settings: Hyperparameters) -> "_Rows":
        features = featurise(texts, settings.ngram_max)
        table = Table.of(_frequent(features.hashes, settings.min_df))
        if not table.size:
            raise ValueError(f"no n-gram stands in at least {settings.min_df} of the {len(texts)} reviews")
        columns, counts = [], []
        for start in range(0, len(texts), BATCH_TEXTS):
            bounds = features.bounds[start : start + BATCH_TEXTS + 1]
            numbers = table.find(features.hashes[bounds[0] : bounds[-1]])
            known = numbers > 0
            columns.append(numbers[known].astype(np.int32) - 1)
            counts.append(np.diff(np.append(0, np.cumsum(known))[bounds - bounds[0]]))
        row_bounds = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        if row_bounds[-1] > np.iinfo(np.int32).max:
            raise ValueError(f"{row_bounds[-1]:,} n-grams are more than the solver counts; use fewer reviews")
        # The solver takes 32-bit indices alone.
        return cls(table, table.size, np.concatenate(columns), row_bounds.astype(np.int32))

    def scaled(self, ratios: Floats, start: int, end: int) -> Any:
        """A range of reviews as a sparse matrix of *ratios*, each row of length 1."""
        # Slow to import, and serving does without.
        from scipy import sparse  # noqa: PLC0415
        from sklearn.preprocessing import normalize  # noqa: PLC0415

        bounds = self.bounds[start : end + 1]
        columns = self.columns[bounds[0] : bounds[-1]]
        rows = sparse.csr_array((ratios[columns], columns, bounds - bounds[0]), (end - start, self.width))
        return normalize(rows, copy=False)

    def counts(self, start: int, end: int) -> npt.NDArray[np.int32]:
        """In how many of a range of reviews each n-gram stands."""
        return np.bincount(self.columns[self.bounds[start] : self.bounds[end]], minlength=self.width).astype(np.int32)


def _frequent(hashes: Hashes, min_df: int) -> Hashes:
    """Those that occur *min_df* times, each once, in ascending order."""
    ordered: Hashes = np.sort(hashes)
    lasts = ordered[min_df - 1 :]
    firsts = ordered[: len(lasts)]
    begins = firsts == lasts
    begins[1:] &= firsts[1:] != firsts[:-1]
    frequent: Hashes = firsts[begins]
    return frequent


@dataclass(frozen=True)
class _Fit:
    """Linear models of rows, of which the first *held_out* can be left out; either part is sorted by label."""

    rows: _Rows
    positive: npt.NDArray[np.bool_]
    held_out: int
    c: float

    def held_out_margins(self) -> Floats:
        """The margins of the rows held out, from all others and nothing else."""
        ratios, weights, bias = self.from_row(self.held_out)
        margins: Floats = self.rows.scaled(ratios, 0, self.held_out) @ weights + bias
        return margins

    def from_row(self, start: int) -> tuple[Floats, Floats, float]:
        """Ratios, weights and bias from the rows *start*, 0 or *held_out*, and after."""
        end = len(self.positive)
        counts = self._counts[1] if start else self._counts[0] + self._counts[1]
        ratios = _ratios(*counts)
        return ratios, *_support_vectors(self.rows.scaled(ratios, start, end), self.positive[start:end], self.c)

    @cached_property
    def _counts(self) -> list[npt.NDArray[np.int32]]:
        """Of the rows held out and of the others: in how many negative and positive ones each n-gram stands."""
        counts = []
        for start, end in pairwise((0, self.held_out, len(self.positive))):
            middle = end - self.positive[start:end].sum()
            counts.append(np.stack([self.rows.counts(start, middle), self.rows.counts(middle, end)]))
        return counts


def _ratios(negative: Indices, positive: Indices) -> Floats:
    """The log of how much more often each n-gram stands in positive reviews, as a share of all their n-grams."""
    scale = (negative.sum() + len(negative)) / (positive.sum() + len(positive))
    ratios: Floats = np.log((positive + 1.0) / (negative + 1.0) * scale)
    return ratios


def _support_vectors(matrix: Any, positive: npt.NDArray[np.bool_], c: float) -> tuple[Floats, float]:
    from sklearn.svm import LinearSVC  # noqa: PLC0415 - slow to import, and serving does without

    # The solver's default of 1e-4 takes twice as long, and accuracy and log-loss are the same.
    fitted = LinearSVC(C=c, dual=True, tol=_TOLERANCE, random_state=0).fit(matrix, positive)
    return fitted.coef_[0], float(fitted.intercept_[0])


_TOLERANCE = 0.3
_NEWTON_STEPS = 50
_SMALLEST_SLOPE = 0.01


def _platt(margins: Floats, positive: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """The slope and offset that make the log of the odds out of *margins*, by Newton's method.

    Margins that say nothing, or the contrary of the truth, get a slope just above zero: even odds, not reversed ones.
    """
    # Targets a little inside 0 and 1 keep the slope finite where the margins separate the classes.
    targets = np.where(positive, 1 - 1 / (positive.sum() + 2), 1 / ((~positive).sum() + 2))
    columns = np.stack([margins, np.ones_like(margins)])

    def loss(parameters: Floats) -> float:
        odds = parameters @ columns
        return float(np.sum(np.logaddexp(0, odds) - targets * odds))

    parameters = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        probabilities = probability(parameters @ columns)
        gradient = columns @ (probabilities - targets)
        curvature = (columns * probabilities * (1 - probabilities)) @ columns.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while loss(parameters - step) > loss(parameters) and np.abs(step).max() > 1e-9:
            step /= 2
        parameters -= step
        if np.abs(step).max() < 1e-9:
            break
    return max(float(parameters[0]), _SMALLEST_SLOPE), float(parameters[1])
