"""Cross-origin rules that the gateway itself answers for, as an HTTP API with a CORS configuration does."""

from collections.abc import Iterable
from dataclasses import dataclass

from backends.gateway.events import Headers, HttpRequest, HttpResponse

_NO_CONTENT = 204
_PREFIX = "access-control-"


@dataclass(frozen=True)
class CorsRule:
    """Who may call from another origin, and how. Origins are compared exactly; there is no wildcard."""

    allow_origins: tuple[str, ...]
    allow_methods: tuple[str, ...] = ("GET", "POST")
    allow_headers: tuple[str, ...] = ("content-type",)
    expose_headers: tuple[str, ...] = ()
    allow_credentials: bool = False
    max_age_seconds: int = 600

    def __post_init__(self) -> None:
        """Raise ValueError for a wildcard: with credentials it is forbidden, without it nobody needs it here."""
        if "*" in self.allow_origins:
            raise ValueError("name the origins one by one; '*' would let any page on the web ask")

    def is_preflight(self, request: HttpRequest) -> bool:
        """Whether the gateway answers *request* instead of any route."""
        return bool(
            request.method == "OPTIONS" and request.header("origin") and request.header("access-control-request-method")
        )

    def preflight(self, request: HttpRequest) -> HttpResponse:
        """The answer to a preflight; without permission in it when the origin is not on the list."""
        permission = self._permission(request)
        if permission:
            permission += (
                ("access-control-allow-methods", ",".join(self.allow_methods)),
                ("access-control-allow-headers", ",".join(self.allow_headers)),
                ("access-control-max-age", str(self.max_age_seconds)),
            )
        return HttpResponse(_NO_CONTENT, (("vary", "Origin"), *permission), b"")

    def apply(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """*response* under these rules; what the function said about them is dropped, as API Gateway does."""
        kept = tuple(header for header in response.headers if not header[0].startswith(_PREFIX))
        return HttpResponse(response.status, (*_varying(kept), *self._permission(request)), response.body)

    def _permission(self, request: HttpRequest) -> Headers:
        origin = request.header("origin")
        if origin not in self.allow_origins:
            return ()
        headers = [("access-control-allow-origin", origin)]
        if self.expose_headers:
            headers.append(("access-control-expose-headers", ",".join(self.expose_headers)))
        if self.allow_credentials:
            headers.append(("access-control-allow-credentials", "true"))
        return tuple(headers)


def _varying(headers: Headers) -> Iterable[tuple[str, str]]:
    """*headers* with Vary naming Origin, so that no cache gives one origin's answer to another."""
    named = [value for name, value in headers if name == "vary"]
    yield from headers
    if not any("origin" in value.lower() for value in named):
        yield "vary", "Origin"
