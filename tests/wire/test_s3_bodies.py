import asyncio
import base64
import http.client
import os
import socket
import sqlite3
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.config import BackendConfig
from backends.emulator.protocol.models import Head
from backends.emulator.services.s3.payload import Payload
from backends.sagemaker.readings import ServiceError

UNHURRIED = settings(deadline=None)
MIB = 1024**2


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def framed(chunks: Iterable[bytes], *, signed: bool, trailer: str = "") -> bytes:
    """As the SDKs of AWS write it."""
    extension = b";chunk-signature=" + b"0" * 64 if signed else b""
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return body + b"0" + extension + b"\r\n" + trailer.encode() + b"\r\n"


async def cut(body: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    """*body* in pieces of these sizes, over and over."""
    while body:
        for size in sizes:
            if body:
                yield body[:size]
            body = body[size:]


def read(body: bytes, sizes: list[int], headers: dict[str, str]) -> bytes:
    async def whole() -> bytes:
        payload = Payload(Head(method="PUT", path="/b/k", query={}, headers=headers), cut(body, sizes))
        return b"".join([piece async for piece in payload])

    return asyncio.run(whole())


@UNHURRIED
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    signed=st.booleans(),
    trailing=st.booleans(),
)
def test_framing_is_undone_however_it_is_cut(
    *,
    chunks: list[bytes],
    sizes: list[int],
    signed: bool,
    trailing: bool,
) -> None:
    """Signed or not, with a checksum behind it or not."""
    data = b"".join(chunks)
    headers = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(len(data))}
    trailer = ""
    if trailing:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
        trailer = f"x-amz-checksum-crc32:{crc32(data)}\r\n" + ("x-amz-trailer-signature:00\r\n" if signed else "")
    assert read(framed(chunks, signed=signed, trailer=trailer), sizes, headers) == data


@UNHURRIED
@given(body=st.binary(max_size=200) | st.text("0123456789abcdef;\r\n:-", max_size=60).map(str.encode))
def test_broken_framing_is_refused(body: bytes) -> None:
    """Whatever arrives is S3's error or bytes whose number was announced; never another exception."""
    headers = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": "3"}
    code = ""
    try:
        assert len(read(body, [7], headers)) == 3
    except ServiceError as error:
        code = error.code
    assert code in {"", "InvalidChunkSizeError", "IncompleteBody", "MalformedTrailerError", "InvalidRequest"}


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (framed([b"abc"], signed=False)[:-6], {}, "IncompleteBody"),
        (framed([b"abc"], signed=False), {"x-amz-decoded-content-length": "4"}, "IncompleteBody"),
        (b"zz\r\nabc", {}, "InvalidChunkSizeError"),
        (b"2\r\nabc\r\n0\r\n\r\n", {}, "InvalidChunkSizeError"),
        (b"1" * 5000, {}, "InvalidChunkSizeError"),
        (framed([b"abc"], signed=False), {"x-amz-trailer": "x-amz-checksum-crc32"}, "MalformedTrailerError"),
        (framed([b"abc"], signed=False, trailer="nonsense\r\n"), {}, "MalformedTrailerError"),
        (framed([b"abc"], signed=False, trailer="x:y\r\n" * 17), {}, "MalformedTrailerError"),
        (
            framed([b"abc"], signed=False, trailer=f"x-amz-checksum-crc32:{crc32(b'abd')}\r\n"),
            {"x-amz-trailer": "x-amz-checksum-crc32"},
            "BadDigest",
        ),
    ],
)
def test_each_way_to_be_broken(body: bytes, headers: dict[str, str], code: str) -> None:
    """Cut short, too long, no number, no trailer, a wrong checksum in it."""
    with pytest.raises(ServiceError) as caught:
        read(body, [7], {"content-encoding": "aws-chunked"} | headers)
    assert caught.value.code == code


@pytest.mark.parametrize("signed", [True, False])
def test_framed_bodies_over_the_wire(web: urllib3.PoolManager, s3: Any, s3_url: str, bucket: str, signed: bool) -> None:  # noqa: FBT001  pytest's
    """The object is the data alone, and its encoding is not `aws-chunked`."""
    data = os.urandom(3 * MIB)
    chunks = [data[start : start + 65536] for start in range(0, len(data), 65536)]
    headers = {
        "x-amz-content-sha256": f"STREAMING-{'AWS4-HMAC-SHA256-PAYLOAD' if signed else 'UNSIGNED-PAYLOAD'}-TRAILER",
        "Content-Encoding": "gzip,aws-chunked",
        "x-amz-decoded-content-length": str(len(data)),
        "x-amz-trailer": "x-amz-checksum-crc32",
    }
    body = framed(chunks, signed=signed, trailer=f"x-amz-checksum-crc32:{crc32(data)}\r\n")
    answer = web.request("PUT", f"{s3_url}/{bucket}/k", body=body, headers=headers)
    assert (answer.status, answer.headers["x-amz-checksum-crc32"]) == (200, crc32(data))
    found = s3.get_object(Bucket=bucket, Key="k")
    assert (found["Body"].read(), found["ContentEncoding"]) == (data, "gzip")
    wrong = framed(chunks, signed=signed, trailer=f"x-amz-checksum-crc32:{crc32(b'')}\r\n")
    refusal = web.request("PUT", f"{s3_url}/{bucket}/other", body=wrong, headers=headers)
    assert (refusal.status, b"<Code>BadDigest</Code>" in refusal.data) == (400, True)
    assert web.request("HEAD", f"{s3_url}/{bucket}/other").status == 404


def test_large_bodies_take_flat_memory(s3_url: str, bucket: str) -> None:
    """Both ways; what the server, this client and the kernel's buffers hold does not depend on the size."""
    connection = http.client.HTTPConnection(urlsplit(s3_url).netloc)
    piece = os.urandom(MIB)
    tracemalloc.start()
    try:
        length = {"Content-Length": str(96 * MIB)}
        connection.request("PUT", f"/{bucket}/k", body=(piece for _ in range(96)), headers=length)
        assert connection.getresponse().read() == b""
        connection.request("GET", f"/{bucket}/k")
        answer = connection.getresponse()
        for _ in range(96):
            assert answer.read(MIB) == piece
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB
    finally:
        tracemalloc.stop()
        connection.close()


def test_a_client_that_reads_slowly_gets_every_byte(s3: Any, s3_url: str, bucket: str) -> None:
    """Through a small window, twice over one connection: the whole object, then the rest of it from some byte on."""
    data = os.urandom(8 * MIB)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    connection = narrow(s3_url)
    for ranged, start in (("", 0), (f"Range: bytes={MIB + 1}-\r\n", MIB + 1)):
        connection.sendall(f"GET /{bucket}/k HTTP/1.1\r\nHost: localhost\r\n{ranged}\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert b"".join(iter(lambda: answer.read(10_000), b"")) == data[start:]  # noqa: B023  used within the turn
    connection.close()


def test_a_client_that_leaves_in_the_middle_of_an_object(s3: Any, s3_url: str, bucket: str) -> None:
    """Nothing stays open for it, whether it says so or just goes."""
    s3.put_object(Bucket=bucket, Key="k", Body=os.urandom(32 * MIB))
    for how in (socket.SHUT_RDWR, None):
        connection = narrow(s3_url)
        connection.sendall(f"GET /{bucket}/k HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert read_by_the_server()
        if how is not None:
            connection.shutdown(how)
        connection.close()
        until = time.monotonic() + 20
        while read_by_the_server():
            assert time.monotonic() < until
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 32 * MIB


def test_a_small_object_waits_for_its_turn_without_the_others(
    s3: Any, s3_url: str, s3_config: BackendConfig, bucket: str
) -> None:
    """While another process writes the server goes on, and what was to be stored is, when that one is done."""
    (index,) = s3_config.home.rglob("index.sqlite")
    with closing(sqlite3.connect(index, isolation_level=None)) as other, ThreadPoolExecutor(1) as client:
        other.execute("BEGIN IMMEDIATE")
        put = client.submit(s3.put_object, Bucket=bucket, Key="k", Body=b"small")
        for _ in range(20):
            assert urllib3.request("GET", f"{s3_url}/healthz", timeout=5).status == 200
        assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
        assert not put.done()
        other.execute("ROLLBACK")
        put.result(30)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"small"


def narrow(url: str) -> socket.socket:
    """A connection that takes little at a time."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    address = urlsplit(url)
    connection.connect((address.hostname, address.port))
    return connection


def read_by_the_server() -> list[str]:
    """The objects' files that are open; the server is in this process."""
    return [file.path for file in psutil.Process().open_files() if "/blobs/" in file.path]


def test_a_body_without_a_length(s3: Any, s3_url: str, bucket: str) -> None:
    """HTTP's own chunks are nothing to S3."""
    connection = http.client.HTTPConnection(urlsplit(s3_url).netloc)
    pieces = iter([b"abc", b"def" * 100_000])
    connection.request(
        "PUT", f"/{bucket}/k", body=pieces, headers={"Transfer-Encoding": "chunked"}, encode_chunked=True
    )
    assert connection.getresponse().status == 200
    connection.close()
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"abc" + b"def" * 100_000
