"""What Greenroom does not speak, asked of another server: LocalStack or one compatible with it."""

import asyncio
from collections.abc import AsyncIterable
from typing import Any
from urllib.parse import quote

import urllib3

from backends.emulator.protocol.models import Head
from backends.emulator.protocol.serialize import Reply
from backends.sagemaker.readings import ServiceError

_OWN_TO_A_CONNECTION = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection", "content-length"}
)
_CONNECT_SECONDS, _READ_SECONDS = 3.0, 120.0


class Upstream:
    """One server, over a pool of connections; requests pass unchanged, with the signatures that they bear."""

    def __init__(self, url: str) -> None:
        """Remember *url*; nothing is connected yet."""
        self.url = url.rstrip("/")
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
        self._pool = urllib3.PoolManager(timeout=timeout, retries=False, maxsize=32)

    async def forward(self, head: Head, body: bytes | AsyncIterable[bytes]) -> Reply:
        """Send the request on and return the answer. Raises ServiceError: the server is not reached."""
        content = body if isinstance(body, bytes) else b"".join([piece async for piece in body])
        return await asyncio.to_thread(self._exchange, head, content)

    def _exchange(self, head: Head, body: bytes) -> Reply:
        query = "&".join(f"{_quote(name)}={_quote(value)}" for name, values in head.query.items() for value in values)
        url = f"{self.url}{head.path}" + (f"?{query}" if query else "")
        headers = {name: value for name, value in head.headers.items() if name not in _OWN_TO_A_CONNECTION}
        try:
            answer: Any = self._pool.request(
                head.method, url, body=body, headers=headers, redirect=False, decode_content=False
            )
        except urllib3.exceptions.HTTPError as exc:
            text = f"the upstream server {self.url} does not answer ({exc}); start it, or leave --upstream out."
            raise ServiceError("ServiceUnavailable", text, status=503) from exc
        dropped = _OWN_TO_A_CONNECTION
        if head.method == "HEAD":  # There it says what the body would be.
            dropped -= {"content-length"}
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in dropped}
        return Reply(status=answer.status, headers=kept, body=answer.data)


def _quote(text: str) -> str:
    return quote(text, safe="-_.~")
