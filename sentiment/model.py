"""The sentiment model: NB-SVM over hashed word 1-3-grams, with probabilities.

    train:    reviews ── :mod:`sentiment.training` ── SentimentModel
    serve:    review ── featurise ── Table ── sums ── margin ── probability        numpy alone

The log-count ratio r of an n-gram says how much more often it stands in positive reviews than in negative ones. A
review is the vector of its n-grams' ratios, scaled to length 1; the SVM learns a weight w for each. Both are folded
with the Platt scaling into two numbers an n-gram, so that the margin is the log of the odds:

    margin = bias + sum(influence) / sqrt(sum(energy)),    P(positive) = 1 / (1 + exp(-margin))

Source: S. Wang and C. Manning, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification", ACL 2012;
G. Mesnil et al., "Ensemble of Generative and Discriminative Techniques for Sentiment Analysis of Movie Reviews", 2014.
"""

import difflib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sentiment.table import LEVELS, Indices, Payloads, Table
from sentiment.text import HASH_BITS, TREATMENT_VERSION, featurise, locate

FORMAT_VERSION = 2

Floats = npt.NDArray[np.float64]
Shorts = npt.NDArray[np.int16]


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
        if self.folds < FEWEST_FOLDS:
            raise ValueError(f"folds must be at least {FEWEST_FOLDS}, not {self.folds}")

    @classmethod
    def from_strings(cls, values: Mapping[str, str]) -> "Hyperparameters":
        """Read them as SageMaker delivers them, every value a string; those not given keep their defaults.

        Raises:
            ValueError: a name is unknown, or a value is no number or outside its range.
        """
        kinds = {known.name: type(known.default) for known in fields(cls)}
        return cls(**{name: _number(name, value, kinds) for name, value in values.items()})


_LONGEST_NGRAM = 5
FEWEST_FOLDS = 2


def _number(name: str, value: str, kinds: Mapping[str, Any]) -> Any:
    if name not in kinds:
        near = difflib.get_close_matches(name.lower(), kinds, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown hyperparameter '{name}'; did you mean '{near}'? Known: {', '.join(kinds)}")
    try:
        return kinds[name](value)
    except ValueError:
        kind = "whole number" if kinds[name] is int else "number"
        raise ValueError(f"hyperparameter {name} must be a {kind}, not {value!r}") from None


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
        return probability(self.margins(texts))

    def margins(self, texts: Sequence[str]) -> Floats:
        """The log of the odds of each of *texts*: float64, shape (texts,)."""
        if len(texts) <= BATCH_TEXTS:
            return self._margins(texts)
        starts = range(0, len(texts), BATCH_TEXTS)
        return np.concatenate([self._margins(texts[start : start + BATCH_TEXTS]) for start in starts])

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
        return Explanation(float(probability(margins)[0]), float(margins[0]), self.bias, words)

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
        with replacing(folder / _ARRAYS) as path, path.open("wb") as file:
            influence, energy = (part.astype(np.int16) for part in _unpacked(self.table.payloads))
            np.savez(file, marks=self.table.marks, influence=influence, energy=energy)
        with replacing(folder / _DOCUMENT) as path:
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
BATCH_TEXTS = 128


def _sums(values: Indices, bounds: Indices) -> Indices:
    """The sums of *values* between *bounds*. As they are whole numbers, no sum depends on what stands before it."""
    totals = np.zeros(len(values) + 1, np.int64)
    values.cumsum(out=totals[1:])
    sums: Indices = totals[bounds[1:]] - totals[bounds[:-1]]
    return sums


_ENERGY_BITS, _ENERGY_MASK = np.array(16), np.array(0xFFFF)


def packed(influence: Shorts, energy: Shorts) -> Payloads:
    """The payload of each n-gram of a model's table; no energy is below 0."""
    payloads: Payloads = influence.astype(np.int64)
    payloads <<= _ENERGY_BITS
    payloads |= energy
    return payloads


def _unpacked(payloads: Payloads) -> tuple[Indices, Indices]:
    return payloads >> _ENERGY_BITS, payloads & _ENERGY_MASK


def probability(margins: Floats) -> Floats:
    """P(positive) for each log of the odds."""
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
def replacing(path: Path) -> Iterator[Path]:
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
    if len(level_bits) != LEVELS or not all(0 < bits < HASH_BITS for bits in level_bits):
        raise ModelError(f"{_DOCUMENT}: level_bits {level_bits} are not {LEVELS} numbers of bits")
    slots = sum(1 << bits for bits in level_bits)
    if any(len(array) != slots for array in arrays.values()):
        lengths = {name: len(array) for name, array in arrays.items()}
        raise ModelError(f"{_ARRAYS} and {_DOCUMENT} do not belong together: {lengths} numbers, {slots} slots")
    if arrays["energy"].min(initial=0) < 0:
        raise ModelError(f"{_ARRAYS}: an energy is below 0")
    return Table.restored(arrays["marks"], packed(arrays["influence"], arrays["energy"]), tuple(level_bits))
