"""The sentiment model: NB-SVM over hashed word 1-3-grams, with probabilities.

    train:    reviews ── featurise ── n-grams in at least min_df reviews ── naive-Bayes log-count ratios, rows of
              unit length ── linear SVM (scikit-learn) ── Platt scaling on out-of-fold margins ── SentimentModel
    serve:    review ── featurise ── Table ── sums ── margin ── probability        numpy alone

The log-count ratio r of an n-gram says how much more often it stands in positive reviews than in negative ones. A
review is the vector of its n-grams' ratios, scaled to length 1; the SVM learns a weight w for each. Both are folded
with the Platt scaling into two numbers an n-gram, so that the margin is the log of the odds:

    margin = bias + sum(influence) / sqrt(sum(energy)),    P(positive) = 1 / (1 + exp(-margin))

Source: S. Wang and C. Manning, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification", ACL 2012;
G. Mesnil et al., "Ensemble of Generative and Discriminative Techniques for Sentiment Analysis of Movie Reviews", 2014;
J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
"""

import difflib
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sentiment.text import HASH_BITS, TREATMENT_VERSION, Hashes, featurise, locate

FORMAT_VERSION = 1

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
_Halves = npt.NDArray[np.float16]
_Marks = npt.NDArray[np.uint16]


class ModelError(ValueError):
    """A stored model cannot be used; the text says which file and why."""


# --- what is asked for ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Hyperparameters:
    """How to train.

    Attributes:
        c: cost of an error on the training data against a small weight; above 0.
        min_df: an n-gram counts if at least so many training reviews have it.
        ngram_max: the most words in an n-gram, 1 to 5.
        folds: parts of the training data for the out-of-fold margins; fewer are used if a class is smaller.
    """

    c: float = 1.0
    min_df: int = 2
    ngram_max: int = 3
    folds: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.c < math.inf:
            raise ValueError(f"c must be a number above 0, not {self.c}")
        if self.min_df < 1:
            raise ValueError(f"min_df must be at least 1, not {self.min_df}")
        if not 1 <= self.ngram_max <= _LONGEST_NGRAM:
            raise ValueError(f"ngram_max must be 1 to {_LONGEST_NGRAM}, not {self.ngram_max}")
        if self.folds < _FEWEST_FOLDS:
            raise ValueError(f"folds must be at least {_FEWEST_FOLDS}, not {self.folds}")

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> "Hyperparameters":
        """Read them as SageMaker delivers them, every value a string; those not given keep their defaults.

        Raises:
            ValueError: a name is unknown, or a value is no number or outside its range.
        """
        kinds = {field.name: type(field.default) for field in fields(cls)}
        return cls(**{name: _number(name, value, kinds) for name, value in values.items()})


_LONGEST_NGRAM = 5
_FEWEST_FOLDS = 2


def _number(name: str, value: str, kinds: Mapping[str, Any]) -> Any:
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown hyperparameter '{name}'; did you mean '{near}'? Known: {', '.join(kinds)}")
    try:
        return kinds[name](value)
    except ValueError:
        kind = "whole number" if kinds[name] is int else "number"
        raise ValueError(f"hyperparameter {name} must be a {kind}, not {value!r}") from None


# --- n-grams by their hashes ---------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A set of hashes, each with a slot of its own, numbered from 1; slot 0 stands for all others.

    Several levels of direct addressing: of the hashes that fall on the same slot of a level, one stays there and the
    others go to the next level, which is smaller. A slot holds 16 bits of its hash, so that one strange n-gram in
    65,536 is taken for a known one. An empty slot ends the search.

    Attributes:
        marks: the 16 bits of each slot, 0 where it is empty.
        level_bits: level i has ``2**level_bits[i]`` slots, which follow those of level i - 1.
    """

    marks: _Marks
    level_bits: tuple[int, ...]

    @classmethod
    def of(cls, hashes: Hashes) -> "Table":
        """Build the table of *hashes*, which are below 2**HASH_BITS and distinct."""
        levels = [np.zeros(1, np.uint16)]
        level_bits = []
        while hashes.size:
            # Beyond the first level, twice the room: few levels mean a short search.
            bits = max(_SMALLEST_LEVEL_BITS, (len(hashes) - 1).bit_length() + bool(level_bits))
            places = _places(hashes, len(level_bits), bits)
            winners = np.full(1 << bits, -1, np.int64)
            winners[places] = np.arange(len(hashes))
            taken = winners >= 0
            marks = np.zeros(1 << bits, np.uint16)
            marks[taken] = _marks(hashes[winners[taken]])
            levels.append(marks)
            level_bits.append(bits)
            # One with the same mark on the same slot would never be looked for further on.
            hashes = hashes[marks[places] != _marks(hashes)]
        return cls(np.concatenate(levels), tuple(level_bits))

    def find(self, hashes: Hashes) -> Indices:
        """The slot of each of *hashes*, 0 for those not in the table."""
        slots = np.zeros(len(hashes), np.int64)
        open_indices: Indices | None = None
        offset = 1
        for level, bits in enumerate(self.level_bits):
            places = _places(hashes, level, bits)
            places += offset
            found, wanted = self.marks[places], _marks(hashes)
            hit = found == wanted
            if open_indices is None:
                slots[hit] = places[hit]
            else:
                slots[open_indices[hit]] = places[hit]
            still_open = ((found != 0) & ~hit).nonzero()[0]
            if not still_open.size:
                break
            hashes = hashes[still_open]
            open_indices = still_open if open_indices is None else open_indices[still_open]
            offset += 1 << bits
        return slots


_SMALLEST_LEVEL_BITS = 6
_LEVEL_STEP = 0xD1342543DE82EF95


def _places(hashes: Hashes, level: int, bits: int) -> Indices:
    # The first level takes the uppermost bits as they are: a review's sorted hashes then walk through it in order.
    factor = (1 << 64 - HASH_BITS) if level == 0 else pow(_LEVEL_STEP, level, 1 << 64)
    return (hashes * factor >> 64 - bits).view(np.int64)


def _marks(hashes: Hashes) -> _Marks:
    return np.maximum(hashes.astype(np.uint16), 1)


# --- the model -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """A piece of a review as it was typed, and its part in the margin; 0 for what stands between two words."""

    text: str
    weight: float


@dataclass(frozen=True)
class Explanation:
    """Why a review has its probability.

    Attributes:
        probability: P(positive).
        margin: the log of the odds; ``bias`` plus the sum of the words' weights.
        bias: the margin of a review without a known word.
        words: the review in pieces; their texts, one after the other, are the review.
    """

    probability: float
    margin: float
    bias: float
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Training:
    """What a model was trained on and how well that went.

    Attributes:
        positive: positive training reviews.
        negative: negative training reviews.
        features: n-grams in the model.
        accuracy: share of training reviews judged rightly by a model that had not seen them (out of fold), 0 to 1.
    """

    positive: int
    negative: int
    features: int
    accuracy: float


@dataclass(frozen=True)
class SentimentModel:
    """A trained model. It never changes: any number of threads may use it at once.

    Attributes:
        hyperparameters: how it was trained.
        training: what it was trained on.
        bias: the margin of a review without a known n-gram.
        table: the known n-grams.
        influence: float16, one a slot of *table*: log-count ratio times weight, in units of log-odds.
        energy: float16, one a slot of *table*: log-count ratio squared.
    """

    hyperparameters: Hyperparameters
    training: Training
    bias: float
    table: Table
    influence: _Halves
    energy: _Halves

    def predict(self, texts: Sequence[str]) -> Floats:
        """P(positive) of each of *texts*: float64, shape (texts,). A text gets the same answer in any company.

        Raises:
            ValueError: a text holds half a surrogate pair.
        """
        return _probability(self.margins(texts))

    def margins(self, texts: Sequence[str]) -> Floats:
        """The log of the odds of each of *texts*: float64, shape (texts,)."""
        if len(texts) <= _BATCH_TEXTS:
            return self._margins(texts)
        starts = range(0, len(texts), _BATCH_TEXTS)
        return np.concatenate([self._margins(texts[start : start + _BATCH_TEXTS]) for start in starts])

    def explain(self, text: str) -> Explanation:
        """Share the margin of *text* out to its words: an n-gram's part in equal shares to its tokens.

        Raises:
            ValueError: *text* holds half a surrogate pair.
        """
        located = locate(text, self.hyperparameters.ngram_max)
        hashes, inverse, counts = np.unique(np.concatenate(located.hashes), return_inverse=True, return_counts=True)
        slots = self.table.find(hashes)
        shares = self.influence[slots] / counts / (math.sqrt(self.energy[slots].sum(dtype=np.float64)) or 1.0)
        weights = np.zeros(len(located.spans))
        end = 0
        for n, grams in enumerate(located.hashes, start=1):
            start, end = end, end + len(grams)
            for place in range(n):
                weights[place : place + len(grams)] += shares[inverse[start:end]] / n
        margin = float(self.margins([text])[0])
        words = tuple(_words(text, located.spans.tolist(), weights.tolist()))
        return Explanation(float(_probability(np.float64(margin))), margin, self.bias, words)

    def save(self, folder: Path | str) -> None:
        """Write ``model.npz`` (numbers) and ``model.json`` (all else) into *folder*, which is made if need be.

        The same model gives the same bytes. Each file appears whole or not at all.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "format_version": FORMAT_VERSION,
            "text_treatment_version": TREATMENT_VERSION,
            "hyperparameters": asdict(self.hyperparameters),
            "training": asdict(self.training),
            "bias": self.bias,
            "level_bits": list(self.table.level_bits),
        }
        with _replacing(folder / _ARRAYS) as path, path.open("wb") as file:
            np.savez(file, marks=self.table.marks, influence=self.influence, energy=self.energy)
        with _replacing(folder / _DOCUMENT) as path:
            path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    def _margins(self, texts: Sequence[str]) -> Floats:
        features = featurise(texts, self.hyperparameters.ngram_max)
        slots = self.table.find(features.hashes)
        reviews = np.arange(len(texts)).repeat(features.bounds[1:] - features.bounds[:-1])
        energy = np.bincount(reviews, self.energy[slots], len(texts))
        energy[energy == 0] = 1
        margins: Floats = self.bias + np.bincount(reviews, self.influence[slots], len(texts)) / np.sqrt(energy)
        return margins


# Few enough for their n-grams to stay in the processor's cache.
_BATCH_TEXTS = 128


def _probability(margins: Any) -> Any:
    return 1 / (1 + np.exp(-margins))


def _words(text: str, spans: Sequence[Sequence[int]], weights: Sequence[float]) -> Iterator[Word]:
    end = 0
    for (start, next_end), weight in zip(spans, weights, strict=True):
        if start > end:
            yield Word(text[end:start], 0.0)
        yield Word(text[start:next_end], weight)
        end = next_end
    if end < len(text):
        yield Word(text[end:], 0.0)


# --- on disk -------------------------------------------------------------------------------------

_ARRAYS, _DOCUMENT = "model.npz", "model.json"
_DTYPES = {"marks": np.uint16, "influence": np.float16, "energy": np.float16}


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Lend a path to write to, and put the file at *path* once it is whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def load(folder: Path | str) -> SentimentModel:
    """Read a model that `SentimentModel.save` wrote.

    Raises:
        ModelError: a file is missing, damaged, of another format version or of another text treatment.
    """
    folder = Path(folder)
    document = _read_document(folder / _DOCUMENT)
    arrays = _read_arrays(folder / _ARRAYS)
    try:
        table = Table(arrays["marks"], tuple(int(bits) for bits in document["level_bits"]))
        model = SentimentModel(
            Hyperparameters(**document["hyperparameters"]),
            Training(**document["training"]),
            float(document["bias"]),
            table,
            arrays["influence"],
            arrays["energy"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / _DOCUMENT} is no description of a model: {error!r}") from error
    _check(model, folder)
    return model


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the model's description {path}: {error}") from error
    known = {"format_version": FORMAT_VERSION, "text_treatment_version": TREATMENT_VERSION}
    for name, version in known.items():
        found = document.get(name) if isinstance(document, dict) else None
        if found != version:
            raise ModelError(f"{path}: {name} is {found!r}, this program reads {version}; train the model again")
    return dict(document)


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _DTYPES}
    # A zip file can be damaged in many ways, and numpy and zipfile have an exception for each.
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"cannot read the model's numbers {path}: {error}") from error
    for name, array in arrays.items():
        if array.dtype != _DTYPES[name] or array.ndim != 1:
            raise ModelError(f"{path}: {name} is {array.dtype}{list(array.shape)}, not {_DTYPES[name].__name__}[n]")
    return arrays


def _check(model: SentimentModel, folder: Path) -> None:
    bits = model.table.level_bits
    if not all(0 < bit < HASH_BITS for bit in bits):
        raise ModelError(f"{folder / _DOCUMENT}: level_bits {list(bits)} are out of range")
    slots = 1 + sum(1 << bit for bit in bits)
    if not len(model.table.marks) == len(model.influence) == len(model.energy) == slots:
        raise ModelError(f"{folder}: the arrays should have {slots} numbers, as the description says, and do not")
    if not (math.isfinite(model.bias) and np.isfinite(model.influence).all() and np.isfinite(model.energy).all()):
        raise ModelError(f"{folder}: a weight is not a finite number")


# --- training ------------------------------------------------------------------------------------


def train(
    texts: Sequence[str],
    labels: Sequence[int] | npt.NDArray[np.integer],
    hyperparameters: Hyperparameters | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> SentimentModel:
    """Fit a model to *texts* and their *labels*, 1 for positive and 0 for negative.

    The same input gives the same model. *progress* gets a sentence at each step. Needs scikit-learn.

    Raises:
        ValueError: labels and texts differ in number, a label is neither 0 nor 1, a class has fewer than two
            reviews, no n-gram stands in ``min_df`` of them, or a text holds half a surrogate pair.
    """
    settings = hyperparameters or Hyperparameters()
    positive = _checked_labels(texts, labels)
    folds = _folds(positive, settings.folds)
    # Reviews of one fold and label side by side: a fold is then a range of rows.
    order = np.lexsort((positive, folds))
    progress(f"reading the n-grams of {len(texts):,} reviews")
    rows = _Rows.of([texts[index] for index in order], settings)
    progress(f"{rows.width:,} n-grams stand in at least {settings.min_df} reviews")
    fit = _Fit(rows, positive[order], folds[order], settings.c)
    margins = fit.out_of_fold_margins(progress)
    slope, offset = _platt(margins, fit.positive)
    accuracy = float(np.mean((slope * margins + offset >= 0) == fit.positive))
    progress("fitting the model to all reviews")
    ratios, weights, bias = fit.on_all()
    influence = np.zeros(len(rows.table.marks), np.float16)
    influence[rows.table.marks > 0] = slope * ratios * weights
    energy = np.zeros(len(rows.table.marks), np.float16)
    energy[rows.table.marks > 0] = ratios**2
    training = Training(int(positive.sum()), int((~positive).sum()), rows.width, accuracy)
    return SentimentModel(settings, training, slope * bias + offset, rows.table, influence, energy)


def _checked_labels(texts: Sequence[str], labels: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    numbers = np.asarray(labels)
    if numbers.shape != (len(texts),):
        raise ValueError(f"{len(texts)} texts need as many labels, not {numbers.shape}")
    if not np.isin(numbers, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1; found {np.setdiff1d(numbers, (0, 1))[:3].tolist()}")
    positive = numbers == 1
    smallest = min(positive.sum(), (~positive).sum())
    if smallest < _FEWEST_FOLDS:
        name = "positive" if positive.sum() == smallest else "negative"
        raise ValueError(f"training needs at least {_FEWEST_FOLDS} reviews of each label; {smallest} are {name}")
    return positive


def _folds(positive: npt.NDArray[np.bool_], most: int) -> Indices:
    """The fold of each review: the reviews of a class go to the folds in turn."""
    folds = np.zeros(len(positive), np.int64)
    count = min(most, int(positive.sum()), int((~positive).sum()))
    for is_class in (positive, ~positive):
        folds[is_class] = np.arange(is_class.sum()) % count
    return folds


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
        if not table.level_bits:
            raise ValueError(f"no n-gram stands in at least {settings.min_df} of the {len(texts)} reviews")
        ranks = np.cumsum(table.marks > 0, dtype=np.int32) - 1
        columns, counts = [], []
        for start in range(0, len(texts), _BATCH_TEXTS):
            bounds = features.bounds[start : start + _BATCH_TEXTS + 1]
            slots = table.find(features.hashes[bounds[0] : bounds[-1]])
            known = slots > 0
            columns.append(ranks[slots[known]])
            counts.append(np.diff(np.concatenate([[0], np.cumsum(known)])[bounds - bounds[0]]))
        row_bounds = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        if row_bounds[-1] > np.iinfo(np.int32).max:
            raise ValueError(f"{row_bounds[-1]:,} n-grams are more than the solver counts; use fewer reviews")
        # The solver takes 32-bit indices alone.
        return cls(table, int(ranks[-1]) + 1, np.concatenate(columns), row_bounds.astype(np.int32))

    def scaled(self, ratios: Floats) -> Any:
        """The reviews as a sparse matrix of *ratios*, each row of length 1."""
        from scipy import sparse  # noqa: PLC0415 - slow to import, and serving does without

        shape = (len(self.bounds) - 1, self.width)
        values = ratios[self.columns]
        energy = sparse.csr_array((values**2, self.columns, self.bounds), shape) @ np.ones(self.width)
        energy[energy == 0] = 1
        values /= np.sqrt(energy).repeat(np.diff(self.bounds))
        return sparse.csr_array((values, self.columns, self.bounds), shape)


def _frequent(hashes: Hashes, min_df: int) -> Hashes:
    """Those that occur *min_df* times, each once, in ascending order."""
    ordered = np.sort(hashes)
    if len(ordered) < min_df:
        return ordered[:0]
    # In order, the n-th of equal ones has an equal one n - 1 places before it; the first of them has none.
    is_frequent = ordered[: len(ordered) - min_df + 1] == ordered[min_df - 1 :]
    is_frequent[1:] &= ordered[1 : len(is_frequent)] != ordered[: len(is_frequent) - 1]
    return ordered[: len(is_frequent)][is_frequent]


@dataclass(frozen=True)
class _Fit:
    """Linear models of rows that are sorted by fold and, within it, by label."""

    rows: _Rows
    positive: npt.NDArray[np.bool_]
    folds: Indices
    c: float

    def out_of_fold_margins(self, progress: Callable[[str], None]) -> Floats:
        """The margin of each row from a model whose ratios and weights come from the other folds alone."""
        from scipy import sparse  # noqa: PLC0415 - slow to import, and serving does without

        margins = np.empty(len(self.folds))
        groups = [self._counts(fold) for fold in range(self.folds[-1] + 1)]
        total = np.sum(groups, axis=0)
        for fold, counts in enumerate(groups):
            progress(f"fold {fold + 1} of {len(groups)}")
            ratios = _ratios(total - counts)
            matrix = self.rows.scaled(ratios)
            start, end = self.folds.searchsorted([fold, fold + 1])
            others = sparse.vstack([matrix[:start], matrix[end:]], format="csr")
            weights, bias = _support_vectors(others, np.delete(self.positive, slice(start, end)), self.c)
            margins[start:end] = matrix[start:end] @ weights + bias
        return margins

    def on_all(self) -> tuple[Floats, Floats, float]:
        """Ratios, weights and bias from all rows."""
        counts = np.sum([self._counts(fold) for fold in range(self.folds[-1] + 1)], axis=0)
        ratios = _ratios(counts)
        return ratios, *_support_vectors(self.rows.scaled(ratios), self.positive, self.c)

    def _counts(self, fold: int) -> npt.NDArray[np.int64]:
        """In how many negative and positive rows of *fold* each n-gram stands; shape (2, width)."""
        start, end = self.folds.searchsorted([fold, fold + 1])
        middle = start + int((~self.positive[start:end]).sum())
        first, second, third = self.rows.bounds[[start, middle, end]]
        columns, width = self.rows.columns, self.rows.width
        return np.stack(
            [np.bincount(columns[first:second], None, width), np.bincount(columns[second:third], None, width)]
        )


def _ratios(counts: npt.NDArray[np.int64]) -> Floats:
    smoothed = counts + 1.0
    negative, positive = np.log(smoothed / smoothed.sum(axis=1, keepdims=True))
    ratios: Floats = positive - negative
    return ratios


def _support_vectors(matrix: Any, positive: npt.NDArray[np.bool_], c: float) -> tuple[Floats, float]:
    from sklearn.svm import LinearSVC  # noqa: PLC0415 - slow to import, and serving does without

    # The solver's default of 1e-4 takes twice as long and judges no review in a thousand differently.
    fitted = LinearSVC(C=c, dual=True, tol=_TOLERANCE, random_state=0).fit(matrix, positive)
    return fitted.coef_[0], float(fitted.intercept_[0])


_TOLERANCE = 0.1
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
        probabilities = _probability(parameters @ columns)
        gradient = columns @ (probabilities - targets)
        curvature = (columns * probabilities * (1 - probabilities)) @ columns.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while loss(parameters - step) > loss(parameters) and np.abs(step).max() > 1e-9:
            step /= 2
        parameters -= step
        if np.abs(step).max() < 1e-9:
            break
    return max(float(parameters[0]), _SMALLEST_SLOPE), float(parameters[1])
