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
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sentiment.text import HASH_BITS, TREATMENT_VERSION, Hashes, featurise, locate

FORMAT_VERSION = 2

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Payloads = npt.NDArray[np.int64]
_Shorts = npt.NDArray[np.int16]


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
        folds: for the out-of-fold margins, one in so many training reviews is held out; more if a class is smaller.
    """

    c: float = 1.0
    min_df: int = 2
    ngram_max: int = 3
    folds: int = 3

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
        kinds = {known.name: type(known.default) for known in fields(cls)}
        return cls(**{name: _number(name, value, kinds) for name, value in values.items()})


_LONGEST_NGRAM = 5
_FEWEST_FOLDS = 2


def _number(name: str, value: str, kinds: Mapping[str, Any]) -> Any:
    if name not in kinds:
        near = difflib.get_close_matches(name.lower(), kinds, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown hyperparameter '{name}'; did you mean '{near}'? Known: {', '.join(kinds)}")
    try:
        return kinds[name](value)
    except ValueError:
        kind = "whole number" if kinds[name] is int else "number"
        raise ValueError(f"hyperparameter {name} must be a {kind}, not {value!r}") from None


# --- n-grams by their hashes ---------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A map from hashes to payloads, signed numbers of up to 48 bits; all other hashes have payload 0.

    Two levels of buckets, a bucket being a few slots side by side in memory. The hashes that find their bucket of the
    first level full go to the second level, which is smaller; the few that find it full there too, at most one in a
    thousand, are left out. A slot holds a mark, 16 bits of its hash, so that one strange n-gram in some ten thousand is
    taken for a known one. Mark and payload are side by side in one word, so that a level costs one look at a far place
    in memory.

    Attributes:
        words: one a slot: the mark in the lowest 16 bits, 0 if the slot is empty, and the payload above. A bucket's
            slots are taken in their order.
        level_bits: level i has ``2**level_bits[i]`` slots; those of the second follow those of the first.
    """

    words: Payloads
    level_bits: tuple[int, ...]

    @classmethod
    def of(cls, hashes: Hashes) -> "Table":
        """Build a table of *hashes*, distinct, odd and below 2**HASH_BITS; payloads are 1, 2, ... by slot."""
        level_bits: list[int] = []
        words = []
        for shape in _SHAPES:
            bits = max(_SMALLEST_LEVEL_BITS, (len(hashes) * 3 // 2).bit_length() + shape.spare_bits)
            level = _Level.of(np.zeros(1 << bits, np.int64), shape)
            marks = hashes & _MARK_MASK
            # In the order of their buckets, and one alone of those that nothing would tell apart.
            keys, order = np.unique((level.buckets(hashes) << _MARK_BITS) | marks.view(np.int64), return_index=True)
            buckets = keys >> _MARK_BITS
            ranks = np.arange(len(keys)) - buckets.searchsorted(buckets)
            fits = ranks < shape.width
            level.words[buckets[fits], ranks[fits]] = marks[order[fits]]
            hashes = hashes[order[~fits]]
            words.append(level.words.ravel())
            level_bits.append(bits)
        table = cls(np.concatenate(words), tuple(level_bits))
        return table.filled(np.arange(1, table.size + 1))

    @property
    def size(self) -> int:
        """How many slots are taken."""
        return int(np.count_nonzero(self.words))

    @property
    def marks(self) -> npt.NDArray[np.uint16]:
        """The mark of each slot."""
        return self.words.astype(np.uint16)

    @property
    def payloads(self) -> Payloads:
        """The payload of each slot; 0 for one that is not taken."""
        return self.words >> _MARK_BITS

    def filled(self, payloads: Payloads) -> "Table":
        """The same table with other *payloads*, one for each taken slot."""
        words = self.words & _MARK_MASK
        words[words > 0] |= payloads << _MARK_BITS
        return Table(words, self.level_bits)

    def find(self, hashes: Hashes) -> Payloads:
        """The payload of each of *hashes*."""
        payloads = np.zeros(len(hashes), np.int64)
        for places, words in self._search(hashes):
            payloads[places] = words >> _MARK_SHIFT
        return payloads

    def known(self, hashes: Hashes) -> Payloads:
        """The payloads of those of *hashes* that the table has, in no order: all that a sum needs, and less work."""
        payloads = np.concatenate([words for _, words in self._search(hashes)])
        payloads >>= _MARK_SHIFT
        return payloads

    def _search(self, hashes: Hashes) -> Iterator[tuple[Indices, Payloads]]:
        """Yield, for each level, which of *hashes* it has, and the word of each of those."""
        first, second = self._levels
        places, words, is_further = first.find(hashes)
        yield places, words
        is_further[places] = False
        further = is_further.nonzero()[0]
        places, words, _ = second.find(hashes.take(further))
        yield further.take(places), words

    @cached_property
    def _levels(self) -> tuple["_Level", "_Level"]:
        end = 1 << self.level_bits[0]
        first, second = _SHAPES
        return _Level.of(self.words[:end], first), _Level.of(self.words[end:], second)


class _Shape(NamedTuple):
    """How a level of a table is laid out.

    Attributes:
        width: slots in a bucket; a power of two.
        spare_bits: how many bits more than its hashes need it has.
        factor: what spreads the hashes over it.
    """

    width: int
    spare_bits: int
    factor: int


class _Level(NamedTuple):
    """The words of a level, a row a bucket, and how to get from a hash to its bucket."""

    words: Payloads
    factor: Hashes
    shift: Hashes
    width_bits: Indices

    @classmethod
    def of(cls, words: Payloads, shape: _Shape) -> "_Level":
        rows = words.reshape(-1, shape.width)
        shift = 64 - (len(rows).bit_length() - 1)
        # numpy is much faster with an array of one number than with a number.
        return cls(
            rows,
            np.array(shape.factor, np.uint64),
            np.array(shift, np.uint64),
            np.array(shape.width.bit_length() - 1),
        )

    def buckets(self, hashes: Hashes) -> Indices:
        """The bucket of each of *hashes*."""
        places = hashes * self.factor
        places >>= self.shift
        return places.view(np.int64)

    def find(self, hashes: Hashes) -> tuple[Indices, Payloads, npt.NDArray[np.bool_]]:
        """The numbers of those of *hashes* that are here, the word of each of them; and of all, if the bucket is full.

        All of a bucket is looked at, as that is one look at a far place in memory, and then there is no step for those
        that are not the first in it.
        """
        rows = self.words.take(self.buckets(hashes), axis=0)
        found = rows.ravel()
        width = rows.shape[1]
        hits = (found.astype(np.uint16) == hashes.astype(np.uint16).repeat(width)).nonzero()[0]
        return hits >> self.width_bits, found.take(hits), rows[:, -1] != 0


_MARK_BITS = 16
_MARK_MASK = (1 << _MARK_BITS) - 1
_MARK_SHIFT = np.array(_MARK_BITS)
_SMALLEST_LEVEL_BITS = 6
# The first takes the uppermost bits as they are: a review's sorted hashes then walk through it in order.
_SHAPES = (_Shape(2, 0, 1 << 64 - HASH_BITS), _Shape(8, 1, 0xD1342543DE82EF95))


# --- the model -----------------------------------------------------------------------------------


class Word(NamedTuple):
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
        held_out: training reviews that were judged by a model that had not seen them.
        accuracy: the share of those that were judged rightly, 0 to 1.
    """

    positive: int
    negative: int
    features: int
    held_out: int
    accuracy: float


@dataclass(frozen=True)
class SentimentModel:
    """A trained model. It never changes: any number of threads may use it at once.

    Attributes:
        hyperparameters: how it was trained.
        training: what it was trained on.
        bias: the margin of a review without a known n-gram.
        influence_unit: log-odds for 1 of an n-gram's influence, the log-count ratio times the weight.
        energy_unit: what 1 of an n-gram's energy, the log-count ratio squared, stands for.
        table: the known n-grams; the payload is the energy, and 16 bits above it the influence, a signed number.
    """

    hyperparameters: Hyperparameters
    training: Training
    bias: float
    influence_unit: float
    energy_unit: float
    table: Table

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
        influence, energy = _unpacked(self.table.find(hashes))
        length = math.sqrt(energy.sum() * self.energy_unit) or 1.0
        shares = influence * (self.influence_unit / length) / counts
        weights = np.zeros(len(located.spans))
        end = 0
        for n, grams in enumerate(located.hashes, start=1):
            start, end = end, end + len(grams)
            for place in range(n):
                weights[place : place + len(grams)] += shares[inverse[start:end]] / n
        margins = self.margins([text])
        words = tuple(_words(text, located.spans.tolist(), weights.tolist()))
        return Explanation(float(_probability(margins)[0]), float(margins[0]), self.bias, words)

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
            "influence_unit": self.influence_unit,
            "energy_unit": self.energy_unit,
            "level_bits": list(self.table.level_bits),
        }
        with _replacing(folder / _ARRAYS) as path, path.open("wb") as file:
            influence, energy = (part.astype(np.int16) for part in _unpacked(self.table.payloads))
            np.savez(file, marks=self.table.marks, influence=influence, energy=energy)
        with _replacing(folder / _DOCUMENT) as path:
            path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    def _margins(self, texts: Sequence[str]) -> Floats:
        features = featurise(texts, self.hyperparameters.ngram_max)
        if len(texts) == 1:
            influence, energy = (int(part.sum()) for part in _unpacked(self.table.known(features.hashes)))
            # The very steps below, without a call of numpy for each.
            length = math.sqrt(energy * self.energy_unit) or 1.0
            return np.array([self.bias + influence * self.influence_unit / length])
        influences, energies = (_sums(part, features.bounds) for part in _unpacked(self.table.find(features.hashes)))
        lengths = np.sqrt(energies * self.energy_unit)
        lengths[lengths == 0] = 1
        margins: Floats = self.bias + influences * self.influence_unit / lengths
        return margins


# Few enough for their n-grams to stay in the processor's cache.
_BATCH_TEXTS = 128


def _sums(values: Indices, bounds: Indices) -> Indices:
    """The sums of *values* between *bounds*. As they are whole numbers, no sum depends on what stands before it."""
    totals = np.zeros(len(values) + 1, np.int64)
    values.cumsum(out=totals[1:])
    sums: Indices = totals[bounds[1:]] - totals[bounds[:-1]]
    return sums


_ENERGY_BITS, _ENERGY_MASK = np.array(16), np.array(0xFFFF)


def _packed(influence: _Shorts, energy: _Shorts) -> Payloads:
    payloads: Payloads = influence.astype(np.int64)
    payloads <<= _ENERGY_BITS
    payloads |= energy
    return payloads


def _unpacked(payloads: Payloads) -> tuple[Indices, Indices]:
    return payloads >> _ENERGY_BITS, payloads & _ENERGY_MASK


def _probability(margins: Floats) -> Floats:
    # Below this the answer does not change, and the exponential would overflow.
    probabilities: Floats = 1 / (1 + np.exp(-np.maximum(margins, -700)))
    return probabilities


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
_DTYPES = {"marks": np.uint16, "influence": np.int16, "energy": np.int16}


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
        model = SentimentModel(
            Hyperparameters(**document["hyperparameters"]),
            Training(**document["training"]),
            float(document["bias"]),
            float(document["influence_unit"]),
            float(document["energy_unit"]),
            _read_table(arrays, [int(bits) for bits in document["level_bits"]]),
        )
    except ModelError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / _DOCUMENT} is no description of a model: {error!r}") from error
    if not all(map(math.isfinite, (model.bias, model.influence_unit, model.energy_unit))) or model.energy_unit <= 0:
        raise ModelError(f"{folder / _DOCUMENT}: a number is out of range")
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
        # Opened here, as numpy does not close what turns out to be no archive.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _DTYPES}
    # A zip file can be damaged in many ways, and numpy and zipfile have an exception for each.
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"cannot read the model's numbers {path}: {error}") from error
    for name, array in arrays.items():
        if array.dtype != _DTYPES[name] or array.ndim != 1:
            raise ModelError(f"{path}: {name} is {array.dtype}{list(array.shape)}, not {_DTYPES[name].__name__}[n]")
    return arrays


def _read_table(arrays: Mapping[str, npt.NDArray[Any]], level_bits: Sequence[int]) -> Table:
    if len(level_bits) != len(_SHAPES) or not all(0 < bits < HASH_BITS for bits in level_bits):
        raise ModelError(f"{_DOCUMENT}: level_bits {level_bits} are not {len(_SHAPES)} numbers of bits")
    slots = sum(1 << bits for bits in level_bits)
    if any(len(array) != slots for array in arrays.values()):
        lengths = {name: len(array) for name, array in arrays.items()}
        raise ModelError(f"{_ARRAYS} and {_DOCUMENT} do not belong together: {lengths} numbers, {slots} slots")
    if arrays["energy"].min(initial=0) < 0:
        raise ModelError(f"{_ARRAYS}: an energy is below 0")
    words = _packed(arrays["influence"], arrays["energy"])
    words <<= _MARK_BITS
    words |= arrays["marks"]
    return Table(words, tuple(level_bits))


# --- training ------------------------------------------------------------------------------------


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
    table = rows.table.filled(_packed(influence, energy))
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
        with _replacing(path) as draft, draft.open("wb") as file:
            np.save(file, margins, allow_pickle=False)


def _whole(values: Floats) -> tuple[_Shorts, float]:
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
    if smallest < _FEWEST_FOLDS:
        raise ValueError(f"training needs at least {_FEWEST_FOLDS} reviews of each label; {smallest} are {name}")
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
        for start in range(0, len(texts), _BATCH_TEXTS):
            bounds = features.bounds[start : start + _BATCH_TEXTS + 1]
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
