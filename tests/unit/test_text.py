import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentiment.text import HASH_BITS, featurise, locate, normalise

# All that a review may hold, with what the treatment looks for more often than by chance.
PIECES = st.one_of(
    st.sampled_from(
        [
            "<br />",
            "<BR>",
            "<p",
            ">",
            "<",
            "&amp;",
            "&#39;",
            "&#x27",
            "&",
            ";",
            "don't",
            "'",
            "8/10",
            "/",
            "!?!",
            "…",
            "İ",
        ]
    ),
    # The default alphabet has no surrogates.
    st.text(max_size=8),
    st.sampled_from([" ", "\n", "\0", "\x85", "\u200d", "\u2028", "😀", "é", "ẞ", "Ⱥ", "ς", "\x7f", "`"]),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def tokens(text: str) -> list[str]:
    return [text[start:end] for start, end in locate(text, 1).spans]


def hashes(text: str, ngram_max: int = 1) -> list[int]:
    found: list[int] = featurise([text], ngram_max).hashes.tolist()
    return found


def sets(texts: list[str]) -> list[list[int]]:
    features = featurise(texts, 3)
    return [part.tolist() for part in np.split(features.hashes, features.bounds[1:-1])] if texts else []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I didn't laugh", ["I", "didn't", "laugh"]),
        ("'quoted' words'", ["'", "quoted", "'", "words", "'"]),
        ("8/10 and/or 10/", ["8/10", "and", "/", "or", "10", "/"]),
        ("Wow!!! really?! yes.", ["Wow", "!!!", "really", "?!", "yes", "."]),
        ("a...b", ["a", ".", ".", ".", "b"]),
        ("one<br /><br/>two<BR>three", ["one", "two", "three"]),
        ("I <3 it; a<b", ["I", "<", "3", "it", ";", "a", "<", "b"]),
        ("<great movie>", ["<", "great", "movie", ">"]),
        ("don&#39;t &quot;go&quot;", ["don&#39;t", "&quot;", "go", "&quot;"]),
        ("café—bar", ["café", "—", "bar"]),
        ("great😀😀fun", ["great", "😀", "😀", "fun"]),
        ("don’t", ["don’t"]),
        ("a\0b\x1fc\u200dd", ["a", "b", "c", "d"]),
        ("", []),
        (" \n\t ", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    """Words keep inner apostrophes, ratings their slash, shouts are one token and other signs one each."""
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("GREAT Movie", "great movie"),
        ("don’t", "don't"),
        ("don&#39;t", "don't"),
        ("“good”", '"good"'),
        ("good<br />film", "good  film"),
        ("good\x85", "good."),
        ("İstanbul", "istanbul"),
        ("ÉTÉ", "été"),
        ("Tom &amp; Jerry", "tom & jerry"),
    ],
)
def test_treated_alike(one: str, other: str) -> None:
    """Case, markup and typographic signs make no difference."""
    assert hashes(one, 3) == hashes(other, 3)
    assert normalise(one) == normalise(other)


def test_different_texts_have_different_hashes() -> None:
    """N-grams of different words, lengths and orders are told apart."""
    words = [f"{stem}{number}" for stem in ("a", "film", "wonderful", "incomprehensi") for number in range(500)]
    assert len({value for word in words for value in hashes(word)}) == len(words)
    assert set(hashes("a b", 2)) - set(hashes("b a", 2))
    assert not set(hashes("good film", 1)) & (set(hashes("good film", 2)) - set(hashes("good film", 1)))


def test_counts_are_binary() -> None:
    """An n-gram counts once a review, however often it is there."""
    assert hashes("good good good") == hashes("good")
    assert len(hashes("good good good", 3)) == 3


@settings(deadline=None)  # the machine may be busy with other tests
@given(st.lists(TEXTS, max_size=6))
@example(["", "a", "", "b c d", ""])
@example(["x"] * 600)
def test_company_makes_no_difference(texts: list[str]) -> None:
    """A review has the same n-grams alone and among others, none across two reviews, in ascending order."""
    together = sets(texts)
    assert together == [hashes(text, 3) for text in texts]
    for found in together:
        assert found == sorted(set(found))
        assert all(value % 2 == 1 and value < 2**HASH_BITS for value in found)


@given(TEXTS)
def test_located_n_grams_are_the_features(text: str) -> None:
    """What an explanation sees is what the prediction sees, and spans follow one another inside the text."""
    located = locate(text, 3)
    assert sorted({value for grams in located.hashes for value in grams.tolist()}) == hashes(text, 3)
    assert len(located.hashes[0]) == len(located.spans)
    flat = located.spans.ravel().tolist()
    assert flat == sorted(flat)
    assert all(0 <= place <= len(text) for place in flat)


def test_text_around_a_tag_makes_no_tag() -> None:
    """Removing one tag cannot complete another one, in training, serving and explaining alike."""
    for text in ("<p<br />>word", "<p <br />>word", "<<br />br>word", "&am<br />p;"):
        located = {value for grams in locate(text, 3).hashes for value in grams.tolist()}
        assert located == set(hashes(text, 3))


@pytest.mark.parametrize("text", ["\ud83d", "good \udc00 film"])
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    """A lone surrogate is no character: the error says so and which text it is in."""
    with pytest.raises(ValueError, match=r"text 2 .*half a surrogate pair"):
        featurise(["fine", text], 3)
    with pytest.raises(ValueError, match="half a surrogate pair"):
        locate(text, 3)


def test_ten_megabytes() -> None:
    """Ten megabytes are one review like any other."""
    assert hashes("a good film. " * 800_000, 3) == hashes("a good film. " * 2, 3)


@pytest.mark.parametrize("piece", ["word ", "a", "<", "&", "<br />", "<p ", "'", "1/", "😀", "é ", "!"])
def test_memory_is_linear(piece: str) -> None:
    """A review takes at most 120 bytes of memory for each of its own, whatever it is made of."""
    text = piece * (500_000 // len(piece.encode()))
    tracemalloc.start()
    features = featurise([text], 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(features.hashes) <= 100
    assert peak < 120 * len(text.encode())
