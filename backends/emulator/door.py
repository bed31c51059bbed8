"""Who may ask: this machine's own programs, and no page of another site that a browser here happens to show.

Served beyond loopback, the emulator answers others' questions, but what changes anything needs a token (case S15).
"""

import re
import secrets
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from backends.emulator.protocol.models import Head
from backends.sagemaker.readings import ServiceError

LOOPBACK = "127.0.0.1"
_LOOPBACK_NAMES = frozenset({LOOPBACK, "localhost", "::1"})
_HARMLESS = re.compile(r"(Describe|List|Get|Head|Filter|Simulate|Invoke)[A-Z]")
_ACCESS_KEY = re.compile(r"Credential=([^/\s,]+)/")


@dataclass(frozen=True)
class Door:
    """*host* is the name by which the emulator is served beside those of loopback, *token* what writers show.

    The token is shown as AWS_ACCESS_KEY_ID: every signed request bears that, and no client need be changed.
    """

    host: str = LOOPBACK
    token: str = ""

    def turned_away(self, head: Head) -> ServiceError | None:
        """Why the request is not heard, or None.

        A page that got its own name to resolve to this machine still says that name in Host; a page that writes here
        across sites says its own in Origin. Reads across sites are the browser's to stop: no CORS header is sent.
        """
        host = _name(f"//{head.headers.get('host', LOOPBACK)}")
        if not self._is_ours(host):
            return _denied(f"Host {host!r} is not served here.")
        origin = head.headers.get("origin")
        if origin is not None and head.method not in {"GET", "HEAD", "OPTIONS"} and not self._is_ours(_name(origin)):
            return _denied(f"Pages of {origin!r} may not write here.")
        return None

    def check(self, operation: str, head: Head) -> None:
        """Refuse a stranger's *operation* that changes something. Raises ServiceError."""
        if _is_local(self.host) or _HARMLESS.match(operation):
            return
        shown = _ACCESS_KEY.search(head.headers.get("authorization", ""))
        if self.token and shown and secrets.compare_digest(shown[1].encode(), self.token.encode()):
            return
        raise _denied(
            f"{operation} changes what is here, and this server can be reached from other machines: start it with "
            "GREENROOM_TOKEN set, and give the same to its clients as AWS_ACCESS_KEY_ID."
        )

    def _is_ours(self, host: str) -> bool:
        return _is_local(host) or host == self.host.lower()


def _denied(text: str) -> ServiceError:
    return ServiceError("AccessDeniedException", text, status=403)


def _is_local(host: str) -> bool:
    return host in _LOOPBACK_NAMES or host.endswith(".localhost")


@lru_cache(maxsize=1024)
def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
