"""The one text treatment, shared by training and serving: a review becomes the set of its n-grams' hashes.

    I <b>didn&#39;t</b> laugh!! 8/10          as typed
    i  didn't  laugh!! 8/10                   cleaned: tags, entities, typographic signs, case
    i | didn't | laugh | !! | 8/10            tokens
    i, didn't, i didn't, didn't laugh, ...    n-grams, each a 56-bit hash, once a review

Many reviews are treated together as one buffer of bytes, with numpy and without a Python step per word. There is no
compiler, so that a cold start does not wait for one; there is no shared scratch memory, so any number of threads may
call in here at once.
"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

# Raise with every change that alters a hash: a model only understands the treatment it was trained with.
TREATMENT_VERSION = 1
# The number of its review stands in the bits above a hash, so that one sort of plain numbers sorts by both.
HASH_BITS = 56
_SPARE_BITS = 64 - HASH_BITS

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]
_Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Features:
    """The n-grams of some reviews, each named once a review.

    Attributes:
        hashes: the reviews' n-grams one after the other, each review's own in ascending order, below 2**HASH_BITS.
        bounds: shape (reviews + 1,); review i owns ``hashes[bounds[i]:bounds[i + 1]]``.
    """

    hashes: Hashes
    bounds: Offsets


@dataclass(frozen=True)
class Located:
    """The n-grams of one review, with their places in it as it was typed.

    Attributes:
        spans: shape (tokens, 2); each token's first character and the one after its last.
        hashes: for n = 1, 2, ...: the n-grams that begin at token 0, 1, ..., repetitions included.
    """

    spans: Offsets
    hashes: tuple[Hashes, ...]


def featurise(texts: Sequence[str], ngram_max: int) -> Features:
    """Find the word n-grams of each of *texts*, of one word up to *ngram_max*.

    Raises:
        ValueError: a text holds half a surrogate pair; the message gives its number, counted from 1.
    """
    parts = [_clean(text, number) for number, text in enumerate(texts, start=1)]
    chunks = [_chunk_features(chunk, ngram_max) for chunk in _chunks(parts)]
    if len(chunks) == 1:
        return chunks[0]
    counts = [np.diff(chunk.bounds) for chunk in chunks]
    bounds = np.concatenate([[0], np.cumsum(np.concatenate(counts))]) if chunks else np.zeros(1, np.int64)
    hashes = np.concatenate([chunk.hashes for chunk in chunks]) if chunks else np.zeros(0, np.uint64)
    return Features(hashes, bounds)


def locate(text: str, ngram_max: int) -> Located:
    """Find the n-grams of *text* as `featurise` does, and where their tokens stand.

    Raises:
        ValueError: *text* holds half a surrogate pair.
    """
    cleaned, places = _unmark_with_places(text)
    folded = _fold(cleaned, 1)
    tokens = _tokenise([folded])
    begins_character = np.frombuffer(folded, np.uint8) & 0xC0 != 0x80
    character = np.cumsum(begins_character) - 1
    # The buffer of tokens begins with a space, hence the offsets by one.
    firsts = character[tokens.starts - 1]
    lasts = character[tokens.ends - 2]
    spans = np.stack([places[firsts], places[lasts + 1]], axis=1)
    return Located(spans, tuple(hashes for hashes, _ in _ngrams(tokens, ngram_max)))


def normalise(text: str) -> bytes:
    """What `featurise` sees of *text*, its words one space apart: equal for texts that differ in nothing else.

    Raises:
        ValueError: *text* holds half a surrogate pair.
    """
    return b" ".join(_clean(text, 1).translate(_CONTROLS_TO_SPACES).split())


# --- cleaning ------------------------------------------------------------------------------------

# Begins with one set of characters, which the regular expression engine looks for much faster than for a choice.
_MARKUP = re.compile(
    r"[<&](?i:"
    r"(?<=<)/?(?:a|b|big|blockquote|br|center|code|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|q|s|small|span|strike|strong"
    r"|sub|sup|table|tbody|td|th|tr|tt|u|ul)(?:\s[^<>\0]{0,999})?/?>"
    r"|(?<=&)(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});)"
)


# Counts as a space, and is in no markup: what stood around a tag cannot become a tag when that one is gone.
_TAG_SIGN = "\0"


def _said(markup: re.Match[str]) -> str:
    """What a reader sees in the place of *markup*."""
    found = markup[0]
    return _TAG_SIGN if found.startswith("<") else html.unescape(found)


# One character for one character, so that places are kept. 0x85-0x97 stand in old reviews for what Windows-1252 has
# there. Controls, joiners and marks of direction are no part of a word.
_FOLDED = MappingProxyType(
    {
        chr(code): plain
        for plain, codes in [
            (" ", [*range(0x80, 0xA1), 0xAD, *range(0x2000, 0x2010), *range(0x2028, 0x2030), *range(0x205F, 0x2070)]),
            (" ", [0x3000, 0xFE0E, 0xFE0F, 0xFEFF]),
            ("'", [0x91, 0x92, 0xB4, 0x2BC, 0x2018, 0x2019, 0x201B, 0x2032]),
            ('"', [0x93, 0x94, 0xAB, 0xBB, 0x201C, 0x201D, 0x201E, 0x201F]),
            ("-", [0x96, 0x97, *range(0x2010, 0x2016)]),
            (".", [0x85, 0x2026]),
            # The one letter whose small form would be two characters.
            ("i", [0x130]),
        ]
        for code in codes
    }
)
# Much faster than str.translate, which looks every character up.
_TO_FOLD = re.compile(f"[{''.join(_FOLDED)}]")


def _clean(text: str, number: int) -> bytes:
    # Most markup is this tag, which a plain replacement finds much faster; it is one of _MARKUP too.
    text = text.replace("<br />", _TAG_SIGN)
    return _fold(_MARKUP.sub(_said, text) if "<" in text or "&" in text else text, number)


def _fold(text: str, number: int) -> bytes:
    if text.isascii():
        return text.lower().encode()
    try:
        return _TO_FOLD.sub(lambda sign: _FOLDED[sign[0]], text).lower().encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text {number} holds half a surrogate pair, which is no character") from error


def _unmark_with_places(text: str) -> tuple[str, Offsets]:
    """Replace the markup of *text*.

    Returns:
        The cleaned text; and for each of its characters, and for its end, where in *text* it was.
    """
    pieces: list[str] = []
    places: list[Offsets] = []
    end = 0
    for markup in _MARKUP.finditer(text):
        said = _said(markup)
        pieces += [text[end : markup.start()], said]
        places += [np.arange(end, markup.start()), np.full(len(said), markup.start())]
        end = markup.end()
    pieces.append(text[end:])
    places.append(np.arange(end, len(text) + 1))
    return "".join(pieces), np.concatenate(places)


# --- tokens --------------------------------------------------------------------------------------

_SPACE, _SIGN, _SHOUT, _APOSTROPHE, _SLASH, _WORD, _DIGIT = range(7)


def _kind(byte: int) -> int:
    if byte in b"!?'/":
        return {b"!": _SHOUT, b"?": _SHOUT, b"'": _APOSTROPHE, b"/": _SLASH}[bytes([byte])]
    if byte >= 0x80 or chr(byte).isalpha():
        return _WORD
    return _DIGIT if chr(byte).isdigit() else _SIGN if chr(byte).isprintable() and byte != ord(" ") else _SPACE


_KINDS = bytes(_kind(byte) for byte in range(256))
_CONTROLS_TO_SPACES = bytes(32 if _KINDS[byte] == _SPACE else byte for byte in range(256))


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a buffer: where each starts and ends in it, its hash, and its review's number above HASH_BITS."""

    starts: Offsets
    ends: Offsets
    hashes: Hashes
    reviews: Hashes


def _tokenise(parts: Sequence[bytes]) -> _Tokens:
    # A space on both sides of every part keeps tokens apart and lets each byte have two neighbours.
    buffer = b" " + b" ".join(parts) + b" " * _STRIDE
    kinds = _joined_kinds(buffer)
    is_edge = kinds[1:] != kinds[:-1]
    is_edge |= kinds[1:] == _SIGN
    if not buffer.isascii():
        _separate_symbols(np.frombuffer(buffer, np.uint8), is_edge)
    edges = is_edge.nonzero()[0]
    edges += 1
    # The last edge is the end of the last token: spaces follow, with no further edge.
    tokens = (kinds[edges[:-1]] != _SPACE).nonzero()[0]
    starts, ends = edges[tokens], edges[tokens + 1]
    part_starts = list(accumulate((len(part) + 1 for part in parts), initial=1))
    firsts = starts.searchsorted(part_starts)
    reviews = _review_bits(len(parts)).repeat(firsts[1:] - firsts[:-1])
    return _Tokens(starts, ends, _token_hashes(buffer, starts, ends), reviews)


def _joined_kinds(buffer: bytes) -> _Codes:
    """The kind of each byte: space, sign, shout, or for all that belongs to a word the kind of letters."""
    kinds = np.frombuffer(bytearray(buffer.translate(_KINDS)), np.uint8)
    marks = ((kinds == _APOSTROPHE) | (kinds == _SLASH)).nonzero()[0]
    # An apostrophe inside a word belongs to it, and a slash inside the figures of a rating: don't, 8/10.
    least = kinds[marks] + (_WORD - _APOSTROPHE)
    inside = np.minimum(kinds[marks - 1], kinds[marks + 1]) >= least
    kinds[marks] = np.where(inside, np.uint8(_WORD), np.uint8(_SIGN))
    return np.minimum(kinds, np.uint8(_WORD), out=kinds)


def _separate_symbols(codes: _Codes, is_edge: npt.NDArray[np.bool_]) -> None:
    """Make each emoji and each other symbol beyond ASCII a token of its own; ``is_edge[i]`` is for byte i + 1."""
    after = codes[1:]
    for length, leads in [
        (2, codes[:-1] == 0xC2),  # U+0080 to U+00BF
        (3, (codes[:-1] == 0xE2) & (after < 0xB0) | (codes[:-1] == 0xE3) & (after == 0x80)),  # U+2000-2BFF, U+3000-303F
        (4, codes[:-1] >= 0xF0),  # U+10000 and above
    ]:
        firsts = np.flatnonzero(leads)
        for step in range(length + 1):
            is_edge[firsts + step - 1] = step in (0, length)


# --- hashes --------------------------------------------------------------------------------------

_STRIDE = 8
_STEP = 0xD6E8FEB86659FD93
# _KEEP[n] keeps the first n bytes of eight.
_KEEP = np.array([(1 << 8 * n) - 1 for n in range(_STRIDE + 1)], np.uint64)


def _token_hashes(buffer: bytes, starts: Offsets, ends: Offsets) -> Hashes:
    """Hash each token by its first sixteen bytes, its last eight and its length: one to one up to 24 bytes.

    What is longer is hardly a word, and reading all of it would take a step of Python for each eight bytes of it.
    """
    # The eight bytes from every byte of the buffer on, which ends with eight spaces.
    windows: Hashes = np.ndarray((len(buffer) - _STRIDE + 1,), "<u8", buffer, 0, (1,))
    lengths = ends - starts
    hashes: Hashes = windows[starts] & _KEEP[np.minimum(lengths, _STRIDE)]
    longer = (lengths > _STRIDE).nonzero()[0]
    if longer.size:
        size, end = lengths[longer], ends[longer]
        second: Hashes = windows[starts[longer] + _STRIDE] & _KEEP[np.minimum(size - _STRIDE, _STRIDE)]
        hashes[longer] ^= _mixed(second ^ _mixed(windows[end - _STRIDE] ^ size.astype(np.uint64)))
    return _mixed(hashes)


def _mixed(hashes: Hashes) -> Hashes:
    """Let the upper bits of each hash depend on all bits of it, one to one; in place."""
    hashes *= _STEP
    hashes ^= hashes >> 32
    hashes *= _STEP
    return hashes


def _ngrams(tokens: _Tokens, ngram_max: int) -> Iterator[tuple[Hashes, Hashes]]:
    """Yield, for n = 1 up to *ngram_max*, the hashes of the n-grams within a review, and their reviews."""
    hashes, reviews = tokens.hashes, tokens.reviews
    yield np.right_shift(hashes, _SPARE_BITS, dtype=np.uint64), reviews
    for n in range(2, ngram_max + 1):
        hashes = hashes[:-1] * _STEP + tokens.hashes[n - 1 :]
        reviews = tokens.reviews[n - 1 :]
        inside = (reviews == tokens.reviews[: 1 - n]).nonzero()[0]
        yield np.right_shift(hashes[inside], _SPARE_BITS, dtype=np.uint64), reviews[inside]


# --- features ------------------------------------------------------------------------------------


def _review_bits(count: int) -> Hashes:
    """The numbers 0 to *count* - 1 in the bits above a hash."""
    return np.left_shift(np.arange(count, dtype=np.uint64), HASH_BITS, dtype=np.uint64)


_CHUNK_REVIEWS = (1 << _SPARE_BITS) - 1
_CHUNK_BYTES = 1 << 16


def _chunks(parts: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut *parts* into runs that fit the processor's cache; a single longer part is a run of its own."""
    start, size = 0, 0
    for index, part in enumerate(parts):
        size += len(part) + 1
        if index > start and (size > _CHUNK_BYTES or index - start == _CHUNK_REVIEWS):
            yield parts[start:index]
            start, size = index, len(part) + 1
    if start < len(parts):
        yield parts[start:]


def _chunk_features(parts: Sequence[bytes], ngram_max: int) -> Features:
    tokens = _tokenise(parts)
    found = np.concatenate([hashes | reviews for hashes, reviews in _ngrams(tokens, ngram_max)])
    found.sort()
    # Before the first there is none to be equal to.
    found = found[np.append(True, found[1:] != found[:-1]).nonzero()[0]] if found.size else found
    bounds = found.searchsorted(_review_bits(len(parts) + 1))
    found &= (1 << HASH_BITS) - 1
    return Features(found, bounds)
