"""Which route of the API a request belongs to, after API Gateway's rules."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "ANY")
_SEGMENT = re.compile(r"\{(?P<variable>[A-Za-z0-9._-]+)(?P<greedy>\+)?\}|(?P<literal>[^{}/]*)")


@dataclass(frozen=True)
class Route:
    """One route such as ``POST /predict``, ``GET /reviews/{id}``, ``ANY /{proxy+}`` or ``$default``.

    ``key`` is the text it was read from, ``resource`` its path template.
    """

    key: str
    method: str
    resource: str
    _pattern: re.Pattern[str] = field(repr=False, compare=False)

    @classmethod
    def parse(cls, key: str) -> "Route":
        """Read a route key.

        Raises:
            ValueError: *key* is none.
        """
        if key == "$default":
            return cls(key, "ANY", key, re.compile(r"(?s:.*)"))
        method, _, resource = key.partition(" ")
        if method not in METHODS or not resource.startswith("/"):
            raise ValueError(f"a route reads 'POST /predict', 'ANY /{{proxy+}}' or '$default', not {key!r}")
        return cls(key, method, resource, re.compile(_path_pattern(key, resource)))

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The path's variables when the request is this route's, else None. *path* is as the client sent it."""
        if self.method not in (method, "ANY"):
            return None
        found = self._pattern.fullmatch(path)
        return None if found is None else {_name(k): unquote(v) for k, v in found.groupdict().items()}

    @property
    def rank(self) -> tuple[bool, bool, int, bool]:
        """Sorts the most particular first: exact paths, then variables, then greedy ones, then ``$default``."""
        return (self.key == "$default", "+}" in self.resource, self.resource.count("{"), self.method == "ANY")


class RouteTable:
    """The routes of one API, asked most particular first."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._routes = sorted((Route.parse(key) for key in keys), key=lambda route: route.rank)
        # Nearly every request is for a path without variables.
        self._fixed = {(r.method, r.resource): r for r in self._routes if "{" not in r.resource}

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """The route for a request and the path's variables, or None."""
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return fixed, {}
        for route in self._routes:
            variables = route.match(method, path)
            if variables is not None:
                return route, variables
        return None


def _path_pattern(key: str, resource: str) -> str:
    """A regular expression for *resource*; its groups are numbered names, as ``{user-id}`` is no Python name."""
    parts = []
    for segment in resource.split("/")[1:]:
        found = _SEGMENT.fullmatch(segment)
        if found is None:
            raise ValueError(f"route {key!r}: {segment!r} is neither plain nor one {{variable}}")
        if found["variable"] is None:
            parts.append(re.escape(segment))
        else:
            parts.append(f"(?P<{_group(found['variable'])}>{'.+' if found['greedy'] else '[^/]+'})")
    return "/" + "/".join(parts)


def _group(name: str) -> str:
    return "v_" + name.encode().hex()


def _name(group: str) -> str:
    return bytes.fromhex(group.removeprefix("v_")).decode()
