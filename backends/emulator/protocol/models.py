"""Which operation a request asks for: botocore's service models, read once, and their routes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import unquote

import botocore.loaders
from botocore.model import OperationModel, ServiceModel, Shape, StructureShape

from backends.sagemaker.readings import ServiceError

Members = dict[str, Any]
"""An operation's input or output: the members of its shape by the model's names."""


@dataclass(kw_only=True, slots=True)
class Head:
    """What a request says before its body. *path* is still percent-encoded; headers' names are in lower case."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]

    def first(self, name: str) -> str | None:
        """The first value of the query parameter *name*."""
        values = self.query.get(name)
        return values[0] if values else None


@dataclass(kw_only=True, slots=True)
class Found:
    """An operation and the members of its input that lie in the path."""

    operation: OperationModel
    labels: Mapping[str, str] = field(default_factory=dict)


class Model:
    """One service as botocore describes it."""

    def __init__(self, service: str) -> None:
        """Read the description of *service*, spelled as botocore does."""
        description = botocore.loaders.Loader().load_service_model(service, "service-2")
        self.service = ServiceModel(description, service)
        self.protocol: str = self.service.resolved_protocol

    def named(self, operation: str) -> Found:
        """The operation of that name. Raises ServiceError: there is none."""
        if operation not in self._names:
            raise unknown_operation(f"{operation!r} is not an operation of {self.service.service_name}.")
        return Found(operation=self.service.operation_model(operation))

    def at(self, head: Head) -> Found:
        """The operation of a REST service that *head* addresses. Raises ServiceError: there is none."""
        for route in self._routes.get(head.method, ()):
            labels = route.match(head) if route.parameters <= head.query.keys() else None
            if labels is not None:
                return Found(operation=route.operation, labels=labels)
        text = f"{head.method} {head.path} is not an operation of {self.service.service_name}."
        raise unknown_operation(text, status=404)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.service.operation_names)

    @cached_property
    def _routes(self) -> dict[str, list["_Route"]]:
        """By method, the most demanding first: a request is the operation that all of its marks speak for."""
        routes: dict[str, list[_Route]] = {}
        for name in self.service.operation_names:
            operation = self.service.operation_model(name)
            if not operation.deprecated:
                routes.setdefault(operation.http["method"], []).append(_Route(operation))
        for found in routes.values():
            found.sort(key=lambda route: route.demands, reverse=True)
        return routes


@lru_cache(maxsize=4096)
def wires(shape: StructureShape) -> list[tuple[str, Shape, str, str]]:
    """Every member: its name, shape, location ("" is the body) and its name there; headers' in lower case."""
    found = []
    for name, inner in shape.members.items():
        where, wire = inner.serialization.get("location", ""), inner.serialization.get("name", name)
        found.append((name, inner, where, wire.lower() if where in {"header", "headers"} else wire))
    return found


def unknown_operation(text: str, *, status: int = 400) -> ServiceError:
    """The error for what no service here answers."""
    return ServiceError("UnknownOperationException", text, status=status)


@lru_cache(maxsize=32)
def load_model(service: str) -> Model:
    """The model of *service*, read once."""
    return Model(service)


class _Route:
    """One operation's place: path template, fixed and required query parameters, required headers."""

    def __init__(self, operation: OperationModel) -> None:
        self.operation = operation
        path, _, query = operation.http["requestUri"].partition("?")
        self._labels = re.findall(r"\{([^}+]+)\+?\}", path)
        pattern = re.sub(r"\\\{[^}]+\\\+\\\}", "(.+)", re.escape(path))
        self._path = re.compile(re.sub(r"\\\{[^}]+\\\}", "([^/]+)", pattern) + ("" if "+" in path else "/?"))
        self._fixed = [tuple(part.partition("=")[::2]) for part in query.split("&") if part]
        self.parameters = {name for name, _ in self._fixed}
        self._headers = []
        shape = operation.input_shape
        self._names: dict[str, str] = {}
        if shape is None:
            return
        for member, inner in shape.members.items():
            where, name = inner.serialization.get("location"), inner.serialization.get("name", member)
            if where == "uri":
                self._names[name] = member
            elif member in shape.required_members and where == "querystring":
                self.parameters.add(name)
            elif member in shape.required_members and where == "header":
                self._headers.append(name.lower())

    @property
    def demands(self) -> tuple[int, int]:
        """How much must be true of a request for this route."""
        return len(self.parameters) + len(self._headers), len(self._labels)

    def match(self, head: Head) -> Mapping[str, str] | None:
        """The values of the path's labels, or None: another route."""
        found = self._path.fullmatch(head.path)
        if not found:
            return None
        if any(head.first(name) != value for name, value in self._fixed if value):
            return None
        if any(name not in head.headers for name in self._headers):
            return None
        return {self._names[label]: unquote(value) for label, value in zip(self._labels, found.groups(), strict=True)}
