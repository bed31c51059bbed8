"""Who may ask: this machine's own programs, and no page of another site that a browser here happens to show."""

from urllib.parse import urlsplit

from backends.emulator.protocol.models import Head
from backends.sagemaker.readings import ServiceError

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def turned_away(head: Head) -> ServiceError | None:
    """Why the request is not heard, or None.

    A page that got its own name to resolve to this machine still says that name in Host; a page that writes here
    across sites says its own in Origin. Reads across sites are the browser's to stop: no CORS header is sent.
    """
    host = _name(f"//{head.headers.get('host', '127.0.0.1')}")
    if not _is_local(host):
        return ServiceError("AccessDeniedException", f"Host {host!r} is not served here.", status=403)
    origin = head.headers.get("origin")
    if origin is not None and head.method not in {"GET", "HEAD", "OPTIONS"} and not _is_local(_name(origin)):
        return ServiceError("AccessDeniedException", f"Pages of {origin!r} may not write here.", status=403)
    return None


def _is_local(host: str) -> bool:
    return host in _LOOPBACK or host.endswith(".localhost")


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
