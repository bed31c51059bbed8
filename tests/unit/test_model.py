import json
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment.data import package_reviews
from sentiment.model import Hyperparameters, ModelError, SentimentModel, load
from sentiment.table import Table
from sentiment.training import train

GOOD = ["wonderful", "touching", "a joy", "loved it", "10/10", "superb!!"]
BAD = ["awful", "a waste of time", "boring", "hated it", "2/10", "dull..."]
PLAIN = ["the film", "an actor", "we saw", "don't know", "last year", "<br />", "and then", "it's about"]
TEXTS = st.lists(
    st.one_of(st.sampled_from(GOOD + BAD + PLAIN), st.text(max_size=6), st.sampled_from(["&amp;", "😀", "\n", "’"])),
    max_size=12,
).map(" ".join)


def corpus(reviews: int = 400) -> tuple[list[str], list[int]]:
    """Reviews of plain phrases with three telling ones, one of which lies."""
    draw = np.random.default_rng(7)
    texts, labels = [], []
    for number in range(reviews):
        label = number % 2
        telling = [*draw.choice(GOOD if label else BAD, 2), draw.choice(BAD if label else GOOD)]
        texts.append(" ".join(draw.permutation([*telling, *draw.choice(PLAIN, 5)])))
        labels.append(label)
    return texts, labels


@pytest.fixture(scope="module")
def model() -> SentimentModel:
    return train(*corpus())


@pytest.fixture(scope="module")
def real() -> tuple[list[str], list[int]]:
    """4,000 reviews of the package, half of them positive."""
    reviews = [review for number, review in enumerate(package_reviews()) if number % 25 < 4]
    return [review.text for review in reviews], [int(review.is_positive) for review in reviews]


def test_tells_good_from_bad(model: SentimentModel) -> None:
    """Words of praise make a review positive, words of blame negative."""
    good, bad = model.predict(["It is superb!! I loved it, 10/10", "Boring, awful, a waste of time: 2/10"])
    assert good > 0.9
    assert bad < 0.1


def test_quick_on_real_reviews(real: tuple[list[str], list[int]]) -> None:
    """Three thousand real reviews teach it to judge a thousand others rightly five times in six, and to know it."""
    texts, labels = real
    is_test = np.arange(len(texts)) % 4 == 0
    chosen = [[text for text, test in zip(texts, is_test, strict=True) if test == flag] for flag in (False, True)]
    truth = np.array(labels)
    model = train(chosen[0], truth[~is_test])
    probabilities = model.predict(chosen[1])
    assert np.mean((probabilities >= 0.5) == truth[is_test]) > 0.84
    assert abs(probabilities.mean() - truth[is_test].mean()) < 0.05
    assert abs(model.training.accuracy - 0.87) < 0.04


@given(TEXTS)
def test_explanations_add_up(model: SentimentModel, text: str) -> None:
    """The pieces make the text, their weights and the bias make the margin, and the margin makes the probability."""
    explanation = model.explain(text)
    assert "".join(word.text for word in explanation.words) == text
    assert math.isclose(math.fsum(word.weight for word in explanation.words) + explanation.bias, explanation.margin)
    assert explanation.probability == model.predict([text])[0]
    assert math.isclose(1 / (1 + math.exp(-explanation.margin)), explanation.probability)
    # Python counts "\x85" among the spaces; in old reviews it is an ellipsis.
    assert all(word.weight == 0 for word in explanation.words if word.text.isspace() and "\x85" not in word.text)


def test_explanation_names_the_words(model: SentimentModel) -> None:
    """Praise weighs for positive, blame against it, as typed."""
    weights = {word.text: word.weight for word in model.explain("WONDERFUL &amp; boring").words}
    assert weights["WONDERFUL"] > 0 > weights["boring"]
    assert weights["&amp;"] == 0


def test_unknown_words_say_nothing(model: SentimentModel) -> None:
    """A review without a known word gets the bias as its margin."""
    for text in ("", "zzz", "Привет"):
        assert model.margins([text])[0] == model.bias


@given(st.lists(TEXTS, max_size=5))
def test_company_makes_no_difference(model: SentimentModel, texts: list[str]) -> None:
    """A text gets exactly the same probability alone and among others."""
    together = model.predict(texts)
    assert together.shape == (len(texts),)
    assert together.dtype == np.float64
    assert together.tolist() == [model.predict([text])[0] for text in texts]


def test_many_at_once(model: SentimentModel) -> None:
    """More texts than are worked on at a time are answered in their order."""
    texts = corpus(1000)[0]
    assert model.predict(texts).tolist() == [model.predict([text])[0] for text in texts]


def test_threads_do_not_disturb_one_another(model: SentimentModel) -> None:
    """Eight threads get the answers that one gets."""
    texts = corpus(300)[0]
    expected = model.predict(texts).tolist()
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda text: model.predict([text])[0], texts * 4))
        batches = list(pool.map(lambda _: model.predict(texts).tolist(), range(16)))
        explained = list(pool.map(lambda text: model.explain(text).probability, texts))
    assert alone == expected * 4
    assert batches == [expected] * 16
    assert explained == expected


def test_training_is_deterministic(tmp_path: Path) -> None:
    """The same reviews give the same bytes, in another process too."""
    texts, labels = corpus(60)
    train(texts, labels).save(tmp_path / "one")
    (tmp_path / "corpus.json").write_text(json.dumps([texts, labels]))
    code = (
        "import json, pathlib, sys; from sentiment.training import train; place = pathlib.Path(sys.argv[1]);"
        "train(*json.loads((place / 'corpus.json').read_text())).save(place / 'two')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    for name in ("model.npz", "model.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("damage", [b"", b"no numpy file"])
def test_a_checkpoint_saves_work_and_changes_nothing(tmp_path: Path, damage: bytes) -> None:
    """It is used by a training on the same input alone; one that is not whole is made anew."""
    texts, labels = corpus(60)
    said: list[str] = []
    first = train(texts, labels, progress=said.append, checkpoints=tmp_path)
    (checkpoint,) = tmp_path.iterdir()
    kept = checkpoint.read_bytes()
    for change, is_used in ((lambda: None, True), (lambda: checkpoint.write_bytes(damage or kept[:-8]), False)):
        change()
        said.clear()
        again = train(texts, labels, progress=said.append, checkpoints=tmp_path)
        assert any("a checkpoint has the result" in line for line in said) == is_used
        assert (again.bias, again.training) == (first.bias, first.training)
        assert checkpoint.read_bytes() == kept
    said.clear()
    train([*texts[1:], "another film"], labels, progress=said.append, checkpoints=tmp_path)
    assert not any("a checkpoint has the result" in line for line in said)


def test_progress_is_told() -> None:
    """Training says what it is doing."""
    said: list[str] = []
    train(*corpus(40), progress=said.append)
    assert len(said) >= 3


# --- on disk -------------------------------------------------------------------------------------


def test_round_trip(model: SentimentModel, tmp_path: Path) -> None:
    """A model read back gives the very same answers and has the same description."""
    model.save(tmp_path)
    again = load(tmp_path)
    texts = corpus(50)[0]
    assert again.predict(texts).tolist() == model.predict(texts).tolist()
    assert (again.hyperparameters, again.training, again.bias) == (model.hyperparameters, model.training, model.bias)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.npz"]


def test_no_pickle(model: SentimentModel, tmp_path: Path) -> None:
    """An array of objects, which only pickle can read, is refused."""
    model.save(tmp_path)
    np.savez(tmp_path / "model.npz", marks=np.array([{}]), influence=np.zeros(1), energy=np.zeros(1))
    with pytest.raises(ModelError, match=r"model\.npz"):
        load(tmp_path)


def _edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / "model.json").read_text())
        change(document)
        (folder / "model.json").write_text(json.dumps(document))

    return edit


def _rewrite(**changed: np.ndarray) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        with np.load(folder / "model.npz") as file:
            arrays = dict(file) | changed
        np.savez(folder / "model.npz", **arrays)

    return rewrite


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "model.json").unlink(), "model.json"),
        (lambda folder: (folder / "model.npz").unlink(), "model.npz"),
        (lambda folder: (folder / "model.json").write_text("{"), "model.json"),
        (lambda folder: (folder / "model.json").write_text("[]"), "format_version"),
        (_edit(lambda document: document.update(format_version=99)), "format_version is 99"),
        (_edit(lambda document: document.update(text_treatment_version=0)), "train the model again"),
        (_edit(lambda document: document.pop("bias")), "bias"),
        (_edit(lambda document: document.update(bias="nan")), "out of range"),
        (_edit(lambda document: document.update(energy_unit=-1)), "out of range"),
        (_edit(lambda document: document.update(level_bits=[3])), "level_bits"),
        (_edit(lambda document: document.update(level_bits=[60, 60])), "level_bits"),
        (_edit(lambda document: document.update(level_bits=[6, 6])), "belong together"),
        (_edit(lambda document: document.update(hyperparameters={"ngram_max": 900})), "ngram_max"),
        (_edit(lambda document: document.update(hyperparameters={"colour": 1})), "colour"),
        (_rewrite(influence=np.zeros(3, np.int16)), "belong together"),
        (_rewrite(energy=np.zeros(3, np.float64)), "energy is float64"),
        (lambda folder: (folder / "model.npz").write_bytes(b"PK\3\4 no"), "model.npz"),
        (lambda folder: (folder / "model.npz").write_bytes((folder / "model.npz").read_bytes()[:-200]), "model.npz"),
    ],
)
def test_damaged_models_are_refused(
    model: SentimentModel, tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    """What is missing, damaged, of another version or inconsistent is named, never answered with."""
    model.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ModelError, match=says):
        load(tmp_path)


def test_a_flipped_byte_is_noticed(model: SentimentModel, tmp_path: Path) -> None:
    """A checksum covers the numbers."""
    model.save(tmp_path)
    data = bytearray((tmp_path / "model.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.npz").write_bytes(data)
    with pytest.raises(ModelError):
        load(tmp_path)


def test_serving_needs_numpy_alone(model: SentimentModel, tmp_path: Path) -> None:
    """Loading and predicting import neither scikit-learn nor pandas nor matplotlib."""
    model.save(tmp_path)
    code = (
        "import sys; from sentiment.model import load; load(sys.argv[1]).explain('good');"
        "print(*sorted({'sklearn', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout == "\n"


# --- what training refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "labels", "says"),
    [
        (["good", "bad"], [1], "as many labels"),
        (["good", "bad"], [1, 2], r"must be 0 or 1; found \[2\]"),
        (["good"] * 4, [1] * 4, "0 are negative"),
        (["good", "fine", "bad"], [1, 1, 0], "1 are negative"),
        ([], [], "at least 2"),
        (["a", "b", "c", "d"], [1, 0, 1, 0], "no n-gram stands in at least 2"),
        (["", "", "", ""], [1, 0, 1, 0], "no n-gram"),
    ],
)
def test_unusable_reviews(texts: list[str], labels: list[int], says: str) -> None:
    """Reviews that teach nothing are refused with a reason."""
    with pytest.raises(ValueError, match=says):
        train(texts, labels)


@pytest.mark.parametrize("labels", [[1, 0] * 10, [0, 1] * 10])
def test_labels_without_rhyme_or_reason(labels: list[int]) -> None:
    """Texts that say nothing about their labels give even odds, not the opposite of the truth."""
    model = train(["the same text", "the same text"] * 10, labels)
    assert 0.4 < model.predict(["the same text"])[0] < 0.6


def test_hyperparameters_from_strings() -> None:
    """They come as strings, and those not given keep their defaults."""
    assert Hyperparameters.from_strings({}) == Hyperparameters()
    read = Hyperparameters.from_strings({"c": "0.5", "min_df": "3", "ngram_max": "2"})
    assert read == Hyperparameters(c=0.5, min_df=3, ngram_max=2)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"min_dff": "2"}, "did you mean 'min_df'"),
        ({"C": "2"}, "did you mean 'c'"),
        ({"min_df": "2.5"}, "whole number"),
        ({"c": "much"}, "c must be a number"),
        ({"c": "0"}, "above 0"),
        ({"c": "nan"}, "above 0"),
        ({"min_df": "0"}, "at least 1"),
        ({"ngram_max": "9"}, "1 to 5"),
        ({"folds": "1"}, "at least 2"),
    ],
)
def test_wrong_hyperparameters(values: dict[str, str], says: str) -> None:
    """An unknown name or a value out of range is refused, with what would do."""
    with pytest.raises(ValueError, match=says):
        Hyperparameters.from_strings(values)


def test_hyperparameters_count() -> None:
    """Fewer words in an n-gram and a higher least frequency make a smaller model."""
    texts, labels = corpus(100)
    full, short, rare = (
        train(texts, labels, settings) for settings in (None, Hyperparameters(ngram_max=1), Hyperparameters(min_df=9))
    )
    assert full.training.features > rare.training.features
    assert full.training.features > short.training.features


# --- the table -----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 5000), st.integers(0, 2**32 - 1))
def test_table_finds_what_is_in_it(size: int, seed: int) -> None:
    """Each hash has a payload of its own but for very few, and a strange one hardly ever has one."""
    draw = np.random.default_rng(seed)
    drawn = np.unique(draw.integers(0, 2**56, 2 * size, dtype=np.uint64) | np.uint64(1))
    known, strange = drawn[::2], drawn[1::2]
    table = Table.of(known)
    payloads = table.find(known)
    assert len(np.unique(payloads[payloads > 0])) >= len(known) - 2 - size // 1000
    assert np.count_nonzero(table.find(strange)) <= 2 + size // 1000
    found = table.find(drawn)
    assert sorted(table.known(drawn).tolist()) == sorted(found[found > 0].tolist())
    refilled = table.filled(np.arange(table.size) + 100).find(known)
    assert refilled.tolist() == np.where(payloads > 0, payloads + 99, 0).tolist()
