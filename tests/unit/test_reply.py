"""A container's answer is the same, however its bytes are cut on their way."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.engine.reply import NoAnswer, Reply

BODY = b"until the end"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nX-Mixed: a\r\nx-mixed: b\r\n\r\n" + BODY
CHUNKS = (
    b"HTTP/1.1 100 Continue\r\nX-Interim: c\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Mixed: a\r\n\r\n"
    b"5\r\nuntil\r\n8\r\n the end\r\n0\r\nX-Mixed: trailer\r\n\r\n"
)
TO_THE_END = b"HTTP/1.0 200 OK\r\nX-Mixed: a\r\n\r\n" + BODY


def fed(reply: Reply, data: bytes, cuts: list[int]) -> Reply:
    """*reply* after *data* in pieces that begin at *cuts*."""
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        reply.feed(data[start:end])
    return reply


@given(
    st.sampled_from([(LENGTH, True), (CHUNKS, True), (LENGTH + b"HTTP/1.1 200 OK\r\n", False)]),
    st.lists(st.integers(min_value=0)),
)
def test_every_cut_is_read_alike(answer: tuple[bytes, bool], cuts: list[int]) -> None:
    """Status, the first header of a name, body; whether the connection can be used again."""
    data, stays_open = answer
    reply = fed(Reply(), data, cuts)
    assert (reply.answer.status, reply.answer.headers["x-mixed"]) == (200, "a")
    assert "x-interim" not in reply.headers
    reply = fed(Reply(limit_bytes=len(BODY)), data, cuts)
    assert (reply.answer.body, reply.is_whole, reply.stays_open) == (BODY, True, stays_open)


@given(st.lists(st.integers(min_value=0)))
def test_an_answer_may_end_with_its_connection(cuts: list[int]) -> None:
    """Only then it is whole."""
    reply = fed(Reply(), TO_THE_END, cuts)
    assert not reply.is_whole
    reply.feed(b"")
    assert (reply.answer.body, reply.is_whole, reply.stays_open) == (BODY, True, False)


@given(st.sampled_from([LENGTH, CHUNKS]), st.integers(min_value=0))
def test_what_is_cut_off_is_none(data: bytes, cut: int) -> None:
    """Wherever the connection ends."""
    reply = fed(Reply(), data[: cut % len(data)], [])
    with pytest.raises(NoAnswer, match="closed"):
        reply.feed(b"")


@given(st.sampled_from([LENGTH, CHUNKS, TO_THE_END]), st.lists(st.integers(min_value=0)))
def test_a_limit_counts_the_body(data: bytes, cuts: list[int]) -> None:
    """One byte too many is refused."""
    with pytest.raises(NoAnswer, match="larger than 12 bytes"):
        fed(Reply(limit_bytes=len(BODY) - 1), data, cuts)
