"""What S3 computes over bytes: the ETag and the checksums that travel beside an object, as base64.

A checksum of an object of several parts is of one of two types: *full object* is that of all the bytes, worked out from
those of the parts without reading them again (only CRCs can); *composite* is that of the parts' checksums, written
with the number of parts behind it. Source: S3 user guide, "Checking object integrity in Amazon S3".
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from anycrc import Model

FULL_OBJECT, COMPOSITE = "FULL_OBJECT", "COMPOSITE"
DEFAULT_ALGORITHM = "CRC64NVME"  # what S3 adds where a client sent none

_CRCS = {"CRC32": ("CRC32-ISO-HDLC", 4), "CRC32C": ("CRC32-ISCSI", 4), "CRC64NVME": ("CRC64-NVME", 8)}
_HASHES = {
    name: partial(getattr(hashlib, name.lower()), usedforsecurity=False) for name in ("MD5", "SHA1", "SHA256", "SHA512")
}
ALGORITHMS = (*_CRCS, *_HASHES)


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class Digests:
    """The digests of one stream of bytes: MD5, which is S3's ETag, and those of *algorithms*."""

    def __init__(self, algorithms: Iterable[str] = ()) -> None:
        self._md5 = _start("MD5")
        self._checksums: dict[str, _Digest] = {name: _start(name) for name in {*algorithms} - {"MD5"}}

    def update(self, piece: bytes) -> None:
        self.update_etag(piece)
        self.update_checksums(piece)

    # MD5 takes longer than all others together, and each half may go on in a thread of its own.

    def update_etag(self, piece: bytes) -> None:
        self._md5.update(piece)

    def update_checksums(self, piece: bytes) -> None:
        for digest in self._checksums.values():
            digest.update(piece)

    @property
    def etag(self) -> str:
        """MD5 in hex."""
        return self._md5.digest().hex()

    def __getitem__(self, algorithm: str) -> str:
        digest = self._md5 if algorithm == "MD5" else self._checksums[algorithm]
        return b64encode(digest.digest()).decode()


def is_crc(algorithm: str) -> bool:
    """True if checksums of parts can be put together to that of the whole."""
    return algorithm in _CRCS


def combined(algorithm: str, parts: Sequence[tuple[str, int]]) -> str:
    """The full object's CRC from those of its parts, each with its size in bytes."""
    model, size_bytes = _model(algorithm), _CRCS[algorithm][1]
    crc = 0
    for checksum, part_bytes in parts:
        crc = model.combine(crc, int.from_bytes(b64decode(checksum), "big"), part_bytes)
    return b64encode(crc.to_bytes(size_bytes, "big")).decode()


def composite(algorithm: str, checksums: Sequence[str]) -> str:
    """The checksum of the parts' *checksums*, with their number."""
    digest = _start(algorithm)
    for checksum in checksums:
        digest.update(b64decode(checksum))
    return f"{b64encode(digest.digest()).decode()}-{len(checksums)}"


def composite_etag(etags: Sequence[str]) -> str:
    """The ETag of an object made of parts with these *etags*."""
    digest = hashlib.md5(b"".join(map(bytes.fromhex, etags)), usedforsecurity=False)
    return f"{digest.hexdigest()}-{len(etags)}"


class _Crc:
    def __init__(self, algorithm: str) -> None:
        self._model, self._size_bytes = _model(algorithm), _CRCS[algorithm][1]
        self._value = self._model.calc(b"")

    def update(self, data: bytes, /) -> None:
        self._value = self._model.calc(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size_bytes, "big")  # type: ignore[no-any-return]  # anycrc has no types


def _start(algorithm: str) -> _Digest:
    return _Crc(algorithm) if algorithm in _CRCS else _HASHES[algorithm]()


@cache
def _model(algorithm: str) -> "Model":
    from anycrc import Model  # noqa: PLC0415  the pipeline's own objects do without

    return Model(_CRCS[algorithm][0])
