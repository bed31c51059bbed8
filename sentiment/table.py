"""A map from n-grams' hashes to numbers, small and fast to look many up in with numpy alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sentiment.text import HASH_BITS, Hashes

Indices = npt.NDArray[np.int64]
Payloads = npt.NDArray[np.int64]


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

    @classmethod
    def restored(cls, marks: npt.NDArray[np.uint16], payloads: Payloads, level_bits: tuple[int, ...]) -> "Table":
        """The table that had these *marks* and *payloads*, one a slot, in ``LEVELS`` levels of *level_bits*."""
        words = payloads << _MARK_BITS
        words |= marks
        return cls(words, level_bits)

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
LEVELS = len(_SHAPES)
