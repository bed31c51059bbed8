"""Constraints of the service model, refused in AWS's own grammar (contract 0.3)."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import regex
from botocore.model import ListShape, MapShape, Shape, StructureShape

from backends.sagemaker.readings import ServiceError

_PATTERN_SECONDS = 0.5
_LONGEST_REMEMBERED = 256
_MOST_VIOLATIONS = 10


def check(shape: Shape | None, members: dict[str, Any]) -> None:
    """Refuse *members* that the model does not allow; the text names every violation, up to ten.

    Raises:
        ServiceError: ValidationException, `N validation errors detected: Value 'x' at 'member' failed to satisfy
            constraint: …`.
    """
    if shape is None:
        return
    clauses = []
    for clause in _violations(shape, members, ""):
        clauses.append(clause)
        if len(clauses) == _MOST_VIOLATIONS:
            break
    if clauses:
        count = f"{len(clauses)} validation error{'s' if len(clauses) > 1 else ''} detected: "
        raise ServiceError("ValidationException", count + "; ".join(clauses))


def _violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """Every violation in *value* and below it."""
    if isinstance(shape, StructureShape):
        for name in shape.required_members:
            if name not in value:
                yield _clause("null", _below(path, name), "Member must not be null")
        for name, inner in _constrained(shape):
            if name in value and not _is_known(inner, value[name]):
                yield from _violations(inner, value[name], _below(path, name))
        return
    for constraint in _violated(shape, value):
        yield _clause(f"'{_shown(value)}'", path, constraint)
    if isinstance(shape, ListShape):
        for position, item in enumerate(value, 1):
            yield from _violations(shape.member, item, f"{path}.{position}.member")
    elif isinstance(shape, MapShape):
        yield from _violations_in_map(shape, value, path)


@lru_cache(maxsize=4096)
def _constrained(shape: StructureShape) -> list[tuple[str, Shape]]:
    """The members in which, or in what is below them, something could be violated."""
    return [(name, inner) for name, inner in shape.members.items() if not _is_free(inner)]


def _is_free(shape: Shape) -> bool:
    is_scalar = not isinstance(shape, (StructureShape, ListShape, MapShape))
    return is_scalar and {"min", "max", "enum", "pattern"}.isdisjoint(shape.metadata)


def _is_known(shape: Shape, value: Any) -> bool:
    return type(value) is str and len(value) <= _LONGEST_REMEMBERED and _is_allowed(shape, value)


# The same few names and content types come again and again, and matching within a time limit is slow.
@lru_cache(maxsize=4096)
def _is_allowed(shape: Shape, text: str) -> bool:
    return not any(_violated(shape, text))


def _violations_in_map(shape: MapShape, value: dict[str, Any], path: str) -> Iterator[str]:
    for key, item in value.items():
        if keys := list(_violated(shape.key, key)):
            yield _clause(f"'{_shown(value)}'", path, f"Map keys must satisfy constraint: [{', '.join(keys)}]")
        yield from _violations(shape.value, item, f"{path}.{key}.member")


def _violated(shape: Shape, value: Any) -> Iterator[str]:
    """The constraints that *value* by itself violates."""
    is_number = shape.type_name in {"integer", "long", "float", "double"}
    if not is_number and not isinstance(value, (str, bytes, list, dict)):
        return  # A time, a flag, or a payload that is still on its way.
    size, what = (value, "value") if is_number else (len(value), "length")
    if size < shape.metadata.get("min", size):
        yield f"Member must have {what} greater than or equal to {shape.metadata['min']}"
    if size > shape.metadata.get("max", size):
        yield f"Member must have {what} less than or equal to {shape.metadata['max']}"
    elif shape.type_name == "string":  # No pattern is tried on a text that may be of any length.
        yield from _violated_by_text(shape, value)


def _violated_by_text(shape: Shape, value: str) -> Iterator[str]:
    choices, pattern = shape.metadata.get("enum"), shape.metadata.get("pattern")
    if choices and value not in choices:
        yield f"Member must satisfy enum value set: [{', '.join(choices)}]"
    elif pattern and not _fits(pattern, value):
        yield f"Member must satisfy regular expression pattern: {pattern}"


def _fits(pattern: str, value: str) -> bool:
    compiled = compiled_pattern(pattern)
    if compiled is None:
        return True
    try:
        return compiled.fullmatch(value, timeout=_PATTERN_SECONDS) is not None
    except TimeoutError:
        return False


@lru_cache(maxsize=1024)
def compiled_pattern(pattern: str) -> Any:
    """The model's *pattern*, written for Java; None where it cannot be read here and is not checked."""
    try:
        return regex.compile(pattern, regex.DOTALL)
    except regex.error:
        return None


def _clause(shown: str, path: str, constraint: str) -> str:
    return f"Value {shown} at '{path}' failed to satisfy constraint: {constraint}"


def _below(path: str, name: str) -> str:
    spelled = name[:1].lower() + name[1:]
    return f"{path}.{spelled}" if path else spelled


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) + "}"
    return str(value)[:512]
