"""The body of an S3 request: `aws-chunked` framing undone, and everything verified that was said of the bytes.

    10000;chunk-signature=…  ⏎  65536 bytes  ⏎  …  0;chunk-signature=…  ⏎  x-amz-checksum-crc32:…  ⏎  ⏎

Signatures, here as elsewhere, are not checked. Source: S3 API reference, "Signature calculations for the authorization
header: transferring a payload in multiple chunks" and "… including trailing headers".
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator

from backends.emulator.protocol.models import Head
from backends.sagemaker.readings import ServiceError
from backends.stores.checksums import ALGORITHMS, Digests

_LONGEST_LINE_BYTES = 4096
_MOST_TRAILERS = 16
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_PREFIX = "x-amz-checksum-"
_NOT_SUMS = {"algorithm", "type", "mode"}


class Payload:
    """The bytes of a request's body, once.

    Iterating it verifies at the end. Whoever computes the digests of ``algorithms`` itself iterates :meth:`unverified`
    and then calls :meth:`verify`.
    """

    def __init__(self, head: Head, stream: AsyncIterator[bytes]) -> None:
        """Raises ServiceError: what the headers say of the body cannot be."""
        headers = head.headers
        self._stream = stream
        self._is_framed = "aws-chunked" in headers.get("content-encoding", "") or headers.get(
            "x-amz-content-sha256", ""
        ).startswith("STREAMING-")
        length = headers.get("x-amz-decoded-content-length") if self._is_framed else headers.get("content-length")
        self.size_bytes = int(length) if length and length.isascii() and length.isdigit() else None
        self._md5 = headers.get("content-md5")
        if self._md5 is not None and not _is_digest(self._md5, 16):
            raise ServiceError("InvalidDigest", "The Content-MD5 you specified was invalid.")
        sha256 = headers.get("x-amz-content-sha256", "")
        self._sha256 = b64encode(bytes.fromhex(sha256)).decode() if _SHA256.fullmatch(sha256) else None
        # The completion of an upload says the checksum of the object, not that of its own document.
        is_completion = head.method == "POST" and "uploadId" in head.query
        own = {} if is_completion else {name: headers[name] for name in headers if name.startswith(_PREFIX)}
        self._checksums = _checksums(own)
        trailing = headers.get("x-amz-trailer", "").lower()
        self._trailing = _algorithm(trailing) if trailing.startswith(_PREFIX) else None

    @property
    def algorithms(self) -> set[str]:
        """What must be computed to verify."""
        wanted = {*self._checksums, *([self._trailing] if self._trailing else [])}
        return wanted | ({"SHA256"} if self._sha256 else set())

    @property
    def checksum_algorithm(self) -> str | None:
        """The algorithm of the checksum that the client sends."""
        return self._trailing or next(iter(self._checksums), None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        digests = Digests(self.algorithms)
        async for piece in self.unverified():
            digests.update(piece)
            yield piece
        self.verify(digests)

    async def unverified(self) -> AsyncIterator[bytes]:
        """Raises ServiceError: the framing is broken, or the bytes are fewer or more than was said."""
        count = 0
        async for piece in _unframed(self._stream, self._checksums) if self._is_framed else self._stream:
            count += len(piece)
            if self.size_bytes is not None and count > self.size_bytes:
                break
            yield piece
        if self.size_bytes not in {None, count}:
            text = "You did not provide the number of bytes specified by the Content-Length HTTP header."
            raise ServiceError("IncompleteBody", text)

    def verify(self, digests: Digests) -> None:
        """Raises ServiceError: the bytes are others than the client meant."""
        if self._md5 is not None and digests["MD5"] != self._md5:
            raise ServiceError("BadDigest", "The Content-MD5 you specified did not match what we received.")
        if self._sha256 is not None and digests["SHA256"] != self._sha256:
            text = "The provided 'x-amz-content-sha256' header does not match what was computed."
            raise ServiceError("XAmzContentSHA256Mismatch", text)
        if self._trailing and self._trailing not in self._checksums:
            raise ServiceError("MalformedTrailerError", "The request contained trailing data that was not well-formed.")
        for algorithm, value in self._checksums.items():
            if digests[algorithm] != value:
                text = f"The {algorithm} you specified did not match the calculated checksum."
                raise ServiceError("BadDigest", text)


async def _unframed(stream: AsyncIterator[bytes], checksums: dict[str, str]) -> AsyncIterator[bytes]:
    """The data of the chunks; what the trailer says is added to *checksums*."""
    frames = _Frames(stream)
    while left := _chunk_bytes(await frames.line()):
        while left:
            piece = await frames.some(left)
            left -= len(piece)
            yield piece
        if await frames.line():
            raise _broken("a chunk is longer than it says")
    trailers: list[tuple[str, str]] = []
    while line := await frames.line(at_end=True):
        name, found, value = line.decode("latin-1").partition(":")
        if not found or len(trailers) == _MOST_TRAILERS:
            raise ServiceError("MalformedTrailerError", "The request contained trailing data that was not well-formed.")
        trailers.append((name.strip().lower(), value.strip()))
    checksums |= _checksums({name: value for name, value in trailers if name.startswith(_PREFIX)})


class _Frames:
    """Lines and data of a stream, whose own pieces may be cut anywhere."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._held = b""

    async def line(self, *, at_end: bool = False) -> bytes:
        """Up to the next line break; the stream may end instead if *at_end*."""
        while b"\r\n" not in self._held:
            if len(self._held) > _LONGEST_LINE_BYTES:
                raise _broken("the line before a chunk is too long")
            more = await anext(self._stream, b"")
            if not more:
                if at_end:
                    break
                raise ServiceError("IncompleteBody", "The request body terminated unexpectedly.")
            self._held += more
        line, _, self._held = self._held.partition(b"\r\n")
        return line

    async def some(self, most: int) -> bytes:
        """At least one byte of data and at most *most*."""
        held = self._held or await anext(self._stream, b"")
        if not held:
            raise ServiceError("IncompleteBody", "The request body terminated unexpectedly.")
        self._held = held[most:]
        return held[:most]


def _chunk_bytes(line: bytes) -> int:
    size = line.partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", size):
        raise _broken("the size of a chunk is not a number")
    return int(size, 16)


def _checksums(headers: dict[str, str]) -> dict[str, str]:
    """Algorithm → checksum."""
    found = {}
    for name, value in headers.items():
        if name.removeprefix(_PREFIX) in _NOT_SUMS:
            continue
        algorithm = _algorithm(name)
        if not _is_digest(value, len(b64decode(Digests([algorithm])[algorithm]))):
            raise ServiceError("InvalidRequest", f"Value for {name} header is invalid.")
        found[algorithm] = value
    return found


def _algorithm(header: str) -> str:
    algorithm = header.removeprefix(_PREFIX).upper()
    if algorithm not in ALGORITHMS:
        raise ServiceError("NotImplemented", f"Greenroom does not compute {algorithm}; use CRC64NVME.", status=501)
    return algorithm


def _is_digest(text: str, size_bytes: int) -> bool:
    try:
        return len(b64decode(text, validate=True)) == size_bytes
    except (binascii.Error, ValueError):
        return False


def _broken(why: str) -> ServiceError:
    return ServiceError("InvalidChunkSizeError", f"The aws-chunked body cannot be read: {why}.", status=403)
