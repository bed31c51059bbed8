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
from typing import NamedTuple

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
        hashes: the reviews' n-grams one after the other, each review's own in ascending order; odd, and below
            2**HASH_BITS.
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
    firsts = character[tokens.starts]
    lasts = character[tokens.ends - 1]
    spans = np.stack([places[firsts], places[lasts + 1]], axis=1)
    return Located(spans, tuple(_numbered(hashes) for _, hashes in _ngrams(tokens, ngram_max)))


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
    if not text.isascii():
        text = _TO_FOLD.sub(lambda sign: _FOLDED[sign[0]], text)
    try:
        folded = text.lower().encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text {number} holds half a surrogate pair, which is no character") from error
    return _RATING.sub(_SLASH_INSIDE, _QUOTE.sub(_QUOTE_SIGN, folded))


# An apostrophe belongs to the word it is inside of, and at its edge it is a sign of its own; a slash is one but inside
# a rating. Each expression begins with the one byte it is about, which the engine finds fast.
_QUOTE = re.compile(rb"'(?:(?![a-z0-9\x80-\xff])|(?<![a-z0-9\x80-\xff]'))")
_QUOTE_SIGN = b"`"
_RATING = re.compile(rb"/(?<=[0-9]/)(?=[0-9])")
_SLASH_INSIDE = b"\x7f"


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

_SPACE, _SIGN, _SHOUT, _WORD = range(4)


def _kind(byte: int) -> int:
    if byte >= 0x80 or chr(byte).isalnum() or byte in b"'" + _SLASH_INSIDE:
        return _WORD
    if byte in b"!?":
        return _SHOUT
    return _SIGN if chr(byte).isprintable() and byte != ord(" ") else _SPACE


_KINDS = bytes(_kind(byte) for byte in range(256))
_CONTROLS_TO_SPACES = bytes(32 if _KINDS[byte] == _SPACE else byte for byte in range(256))


class _Tokens(NamedTuple):
    """The tokens of some reviews joined by spaces: where each starts and ends, and its hash."""

    starts: Offsets
    ends: Offsets
    hashes: Hashes


def _tokenise(parts: Sequence[bytes]) -> _Tokens:
    # Spaces on both sides keep tokens apart, give each byte a neighbour, and let eight bytes be read from any of them.
    buffer = b" " + b" ".join(parts) + b" " * _STRIDE
    kinds = np.frombuffer(buffer.translate(_KINDS), np.uint8)
    before, kinds = kinds[:-1], kinds[1:]
    is_edge = kinds != before
    is_edge |= kinds == _SIGN
    if not buffer.isascii():
        _separate_symbols(np.frombuffer(buffer, np.uint8), is_edge)
    edges = is_edge.nonzero()[0]
    # Spaces are of kind 0. They follow the last edge, which is the end of the last token.
    tokens = kinds.take(edges[:-1]).nonzero()[0]
    starts, ends = edges.take(tokens), edges[1:].take(tokens)
    return _Tokens(starts, ends, _token_hashes(buffer, starts, ends))


def _separate_symbols(codes: _Codes, is_edge: npt.NDArray[np.bool_]) -> None:
    """Make each emoji and each other symbol beyond ASCII a token of its own; ``is_edge[i]`` is for byte i + 1."""
    first, second = codes[:-1], codes[1:]
    for length, leads in [
        (2, first == 0xC2),  # U+0080 to U+00BF
        (3, (first == 0xE2) & (second < 0xB0) | (first == 0xE3) & (second == 0x80)),  # U+2000-2BFF, U+3000-303F
        (4, first >= 0xF0),  # U+10000 and above
    ]:
        starts = leads.nonzero()[0]
        for step in range(length + 1):
            is_edge[starts + step - 1] = step in (0, length)


# --- hashes --------------------------------------------------------------------------------------

_STRIDE = 8
# numpy is much faster with an array of one number than with a number.
_STEP: Hashes = np.array(0xD6E8FEB86659FD93, np.uint64)
_HALF: Hashes = np.array(32, np.uint64)
_ODD: Hashes = np.array(1, np.uint64)
_SPARE: Hashes = np.array(_SPARE_BITS, np.uint64)
# _KEEP[n] keeps the first n bytes of eight.
_KEEP = np.array([(1 << 8 * n) - 1 for n in range(_STRIDE + 1)], np.uint64)


def _token_hashes(buffer: bytes, starts: Offsets, ends: Offsets) -> Hashes:
    """Hash each token by its first eight bytes, its last eight and its length: one to one up to 16 bytes.

    What is longer is hardly a word, and reading all of it would take a step of Python for each eight bytes of it.
    """
    # The eight bytes from each byte of the reviews on; the buffer begins with a space that is not theirs.
    windows: Hashes = np.ndarray((len(buffer) - _STRIDE,), "<u8", buffer, 1, (1,))
    lengths = ends - starts
    hashes: Hashes = windows[starts] & _KEEP.take(lengths, mode="clip")
    longer = (lengths > _STRIDE).nonzero()[0]
    lasts = windows[ends.take(longer) - _STRIDE]
    lasts *= _STEP
    lasts += lengths.take(longer).view(np.uint64)
    hashes[longer] += lasts
    hashes *= _STEP
    hashes ^= hashes >> _HALF
    hashes *= _STEP
    return hashes


def _ngrams(tokens: _Tokens, ngram_max: int) -> Iterator[tuple[int, Hashes]]:
    """Yield, for n = 1 up to *ngram_max*, the hash of the n-gram that begins at each token but the last n - 1.

    Where there are several reviews, an n-gram may begin in one and end in the next.
    """
    hashes = tokens.hashes
    yield 1, hashes
    for n in range(2, ngram_max + 1):
        hashes = hashes[:-1] * _STEP
        hashes += tokens.hashes[n - 1 :]
        yield n, hashes


def _numbered(hashes: Hashes) -> Hashes:
    # Odd, as a hash whose last bits were all 0 could not mark its place in a table.
    numbers: Hashes = hashes >> _SPARE
    numbers |= _ODD
    return numbers


# --- features ------------------------------------------------------------------------------------


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
    if len(parts) == 1:
        keys = _distinct(_numbered(np.concatenate([hashes for _, hashes in _ngrams(tokens, ngram_max)])))
        return Features(keys, np.array([0, len(keys)]))
    numbers: Hashes = np.arange(len(parts) + 1, dtype=np.uint64)
    numbers <<= HASH_BITS
    part_starts = list(accumulate((len(part) + 1 for part in parts), initial=0))
    reviews = numbers[:-1].repeat(np.diff(tokens.starts.searchsorted(part_starts)))
    inside = [_inside(_numbered(hashes), reviews, n) for n, hashes in _ngrams(tokens, ngram_max)]
    keys = _distinct(np.concatenate(inside))
    bounds = keys.searchsorted(numbers)
    keys &= (1 << HASH_BITS) - 1
    return Features(keys, bounds)


def _inside(hashes: Hashes, reviews: Hashes, n: int) -> Hashes:
    """The n-grams that begin and end in one review, with its number."""
    last = reviews[n - 1 :]
    same = (reviews[: len(last)] == last).nonzero()[0]
    keys: Hashes = hashes[same] | last[same]
    return keys


def _distinct(keys: Hashes) -> Hashes:
    """Each of *keys* once, in ascending order."""
    keys.sort()
    is_first = np.empty(len(keys), np.bool_)
    is_first[:1] = True
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    return keys.take(is_first.nonzero()[0])
