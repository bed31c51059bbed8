"""DataProcessing of a batch transform: InputFilter, JoinSource and OutputFilter.

    record ─ InputFilter ─► model ─► answer ─ join(record, answer) ─ OutputFilter ─► output record

The filters are SageMaker's small part of JSONPath, parsed by hand: no recursion, no expressions,
at most 63 characters, so no filter can run for long. A CSV row counts as an array of its columns.
Source: SageMaker developer guide, "Associate Prediction Results with Input Records", and the
service's own error texts where they are known.
"""

import csv
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, AnyStr, Never

from backends.engine.records import BadObject
from backends.errors import InvalidSpec
from backends.specs import Split

# The guide's prose says that a slice includes its end ($[1:4] is the 2nd to the 5th column); the JSONPath
# library it refers to and an AWS notebook exclude it. Undecided until measured on AWS: change it here.
SLICE_END_INCLUSIVE = False

MAX_FILTER_LENGTH = 63
OUTPUT_KEY = "SageMakerOutput"
INPUT_KEY = "SageMakerInput"

_CSV, _JSON, _JSON_LINES = "text/csv", "application/json", "application/jsonlines"
_OPERATORS = "$[]*. ,:-'"
_JOIN_SOURCES = ("Input", "None")
_LONGEST_CSV_CELL = 2**31 - 1


class InvalidDataProcessing(InvalidSpec):
    """A filter, or its combination with the content types, that SageMaker refuses at creation.

    The text is the ValidationException's message.
    """


class FilterFailed(BadObject):
    """A record, or the model's answer to it, does not fit the filters; ``record`` counts from 1 within the object."""

    def __init__(self, reason: str, record: int, detail: str) -> None:
        super().__init__(f"{reason}: record {record}: {detail}", kind="record", name=str(record), reason=reason)
        self.record = record


class _Outside(LookupError):
    """A path names what the value does not have."""


@dataclass(frozen=True)
class _Names:
    """``.a``, ``['a']``: that member's value; ``['a','b']``: an object of these members."""

    names: tuple[str, ...]
    is_single = True

    def pick(self, value: Any) -> Sequence[Any]:
        found = value if isinstance(value, dict) else {}
        missing = [name for name in self.names if name not in found]
        if missing:
            raise _Outside(f"{_kind(value)} has no member {missing[0]!r}")
        if len(self.names) == 1:
            return [found[self.names[0]]]
        return [{name: found[name] for name in self.names}]


@dataclass(frozen=True)
class _Indexes:
    """``[2]``: one element; ``[0,-1]``: several."""

    indexes: tuple[int, ...]

    @property
    def is_single(self) -> bool:
        return len(self.indexes) == 1

    def pick(self, value: Any) -> Sequence[Any]:
        elements = _elements(value)
        try:
            return [elements[index] for index in self.indexes]
        except IndexError:
            wrong = next(i for i in self.indexes if not -len(elements) <= i < len(elements))
            raise _Outside(f"index {wrong} is outside of {len(elements)} elements") from None


@dataclass(frozen=True)
class _Slice:
    """``[1:4]``, ``[1:]``, ``[:4]``; ends beyond the array are cut to it."""

    span: slice
    is_single = False

    def pick(self, value: Any) -> Sequence[Any]:
        return _elements(value)[self.span]


@dataclass(frozen=True)
class _Every:
    """``*``: every element of an array, every member's value of an object."""

    is_single = False

    def pick(self, value: Any) -> Sequence[Any]:
        return list(value.values()) if isinstance(value, dict) else _elements(value)


_Step = _Names | _Indexes | _Slice | _Every


def _elements(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Outside(f"{_kind(value)} has no elements")
    return value


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


@dataclass(frozen=True)
class JsonPath:
    """A parsed filter; make one with :func:`parse_path`."""

    steps: tuple[_Step, ...]

    def select(self, value: Any) -> Any:
        """What the path names in *value*: one value, or an array if a step can name several.

        Raises:
            LookupError: a member or an index that *value* does not have.
        """
        found: Sequence[Any] = [value]
        for step in self.steps:
            found = [item for node in found for item in step.pick(node)]
        return found[0] if all(step.is_single for step in self.steps) else found


_STEP = re.compile(r" *(?:\. *(\*|[A-Za-z0-9-]+)|\[((?:'[^']*'|[^'\]])*)\])")
_NAME_LIST = re.compile(r"'[A-Za-z0-9 :-]+'(?: *, *'[A-Za-z0-9 :-]+')*")
_INDEX_LIST = re.compile(r"-?[0-9]+(?: *, *-?[0-9]+)*")
_RANGE = re.compile(r"(-?[0-9]+)? *: *(-?[0-9]+)?")


def parse_path(
    text: str,
    *,
    member: str = "InputFilter",
    media_type: str = _JSON,
    slice_end_inclusive: bool = SLICE_END_INCLUSIVE,
) -> JsonPath:
    """Parse a filter; *member* and *media_type* only word the error.

    Raises:
        InvalidDataProcessing: outside the grammar, with the service's text where it is known.
    """
    if len(text) > MAX_FILTER_LENGTH:
        place = f"dataProcessing.{member[0].lower()}{member[1:]}"
        _refuse_schema(text, place, f"Member must have length less than or equal to {MAX_FILTER_LENGTH}")
    for char in text:
        if char not in _OPERATORS and not (char.isascii() and char.isalnum()):
            known = ", ".join(f"'{operator}'" for operator in _OPERATORS)
            raise InvalidDataProcessing(
                f'Invalid {member}: "{text}". Unexpected "{char}" in JsonPath. '
                f'Supported operators for "{media_type}" are [{known}]'
            )
    start = text.find("$") + 1
    if start == 0 or text[: start - 1].strip():
        raise InvalidDataProcessing(f'Invalid {member}: "{text}". A JsonPath starts with "$".')
    steps: list[_Step] = []
    end = len(text.rstrip())
    while start < end:
        match = _STEP.match(text, start)
        if not match:
            raise InvalidDataProcessing(f'Invalid {member}: "{text}". Not understood from "{text[start:]}" on.')
        name, inside = match.groups()
        steps.append(_bracket(inside.strip(), text, member, slice_end_inclusive) if name is None else _dot(name))
        start = match.end()
    return JsonPath(tuple(steps))


def _dot(name: str) -> _Step:
    return _Every() if name == "*" else _Names((name,))


def _bracket(inside: str, text: str, member: str, slice_end_inclusive: bool) -> _Step:  # noqa: FBT001  passed through
    if inside == "*":
        return _Every()
    if _NAME_LIST.fullmatch(inside):
        return _Names(tuple(inside.split("'")[1::2]))
    if _INDEX_LIST.fullmatch(inside):
        return _Indexes(tuple(map(int, inside.split(","))))
    match = _RANGE.fullmatch(inside)
    if match and inside != ":":
        first, last = (None if bound is None else int(bound) for bound in match.groups())
        if slice_end_inclusive and last is not None:
            last = last + 1 or None  # up to and including -1 is up to the end
        return _Slice(slice(first, last))
    if ":" in inside and "'" not in inside:
        raise InvalidDataProcessing(
            f"Invalid JsonPath: {text}: only single range filters of format (eg: [1:5]) are supported. "
            f"Format [{inside}] is not supported"
        )
    raise InvalidDataProcessing(
        f"Invalid {member}: \"{text}\". [{inside}] is none of [n], [n,m], [a:b], [*] and ['name','name']."
    )


def _refuse_schema(value: str, place: str, constraint: str) -> Never:
    raise InvalidDataProcessing(
        f"1 validation error detected: Value '{value}' at '{place}' failed to satisfy constraint: {constraint}"
    )


_Record = Any
_Pick = Callable[[_Record], _Record]


class _Format(ABC):
    """How bodies of one content type become records and back."""

    name: str

    @abstractmethod
    def parse(self, body: bytes, reason: str, first_record: int) -> list[_Record]: ...

    @abstractmethod
    def write(self, records: Sequence[_Record]) -> bytes: ...

    @abstractmethod
    def join(self, record: _Record, answer: _Record) -> _Record: ...

    def append(self, body: bytes, answers: Sequence[_Record]) -> bytes | None:  # noqa: ARG002  a quick way for some
        """The batch's rows byte for byte, each with its answer behind it; None where :meth:`join` has to decide."""
        return None

    @abstractmethod
    def picker(self, path: JsonPath, text: str, member: str) -> _Pick: ...


class _CsvRows(_Format):
    """Rows of RFC 4180, one on each line; a record is a list of columns.

    Bytes are taken as Latin-1 and given back as such: commas and quotes are found, every other byte
    of any encoding that extends ASCII passes through as it is.
    """

    name = "CSV"

    def parse(self, body: bytes, reason: str, first_record: int) -> list[_Record]:
        lines = _split_lines(body.decode("latin-1"), "\n")
        if len(body) > csv.field_size_limit():
            # The module's limit is for the process; only ever raising it cannot disturb another thread.
            csv.field_size_limit(_LONGEST_CSV_CELL)
        try:
            rows = list(csv.reader(lines, strict=True))
        except csv.Error:
            rows = []
        if len(rows) != len(lines):
            self._blame(lines, reason, first_record)
        return rows

    @staticmethod
    def _blame(lines: list[str], reason: str, first_record: int) -> Never:
        for record, line in enumerate(lines, start=first_record):
            try:
                list(csv.reader([line], strict=True))
            except csv.Error as exc:
                raise FilterFailed(reason, record, f"{exc} (a row must end on its line)") from exc
        raise AssertionError("every line is a row by itself, yet together they are not")

    def write(self, records: Sequence[_Record]) -> bytes:
        # What csv.writer writes, which takes ten times as long, as it looks at each character by itself.
        return "".join(f"{_csv_row(record)}\n" for record in records).encode("latin-1")

    def join(self, record: _Record, answer: _Record) -> _Record:
        return record + answer

    def append(self, body: bytes, answers: Sequence[_Record]) -> bytes | None:
        rows, columns = _split_lines(body, b"\n"), _split_lines(self.write(answers), b"\n")
        if len(rows) != len(columns) or b"" in rows or b"" in columns or b"\r" in body:
            return None
        return b"".join(b"%b,%b\n" % pair for pair in zip(rows, columns, strict=True))

    def picker(self, path: JsonPath, text: str, member: str) -> _Pick:
        if not path.steps:
            return lambda row: row
        step = path.steps[0]
        if len(path.steps) > 1 or isinstance(step, _Names):
            raise InvalidDataProcessing(
                f'Invalid {member}: "{text}". From "{_CSV}" only columns can be selected: $[n], $[n,m], $[a:b] or $[*].'
            )
        return lambda row: step.pick(row) or _no_column(row)


# Cells never hold "\n".
_CSV_QUOTED = re.compile(r'[,"\r]')


def _csv_row(cells: list[str]) -> str:
    if cells == [""]:
        return '""'  # Not a blank line, which is a row without a cell.
    return ",".join('"' + cell.replace('"', '""') + '"' if _CSV_QUOTED.search(cell) else cell for cell in cells)


def _no_column(row: list[str]) -> Never:
    raise _Outside(f"the filter selects none of {len(row)} columns")


class _JsonValues(_Format):
    """JSON values: one on each line, or the whole body as one."""

    name = "JSON"

    def __init__(self, *, by_line: bool) -> None:
        self._by_line = by_line

    def parse(self, body: bytes, reason: str, first_record: int) -> list[_Record]:
        text = body.removeprefix(b"\xef\xbb\xbf")
        values = _split_lines(text, b"\n") if self._by_line else [text]
        return [_loads(value, reason, record) for record, value in enumerate(values, start=first_record)]

    def write(self, records: Sequence[_Record]) -> bytes:
        end = b"\n" if self._by_line else b""
        return b"".join(_dumps(record) + end for record in records)

    def join(self, record: _Record, answer: _Record) -> _Record:
        if isinstance(record, dict):
            return {**record, OUTPUT_KEY: answer}
        return {INPUT_KEY: record, OUTPUT_KEY: answer}

    def picker(self, path: JsonPath, text: str, member: str) -> _Pick:  # noqa: ARG002  every path fits
        return path.select


def _split_lines(text: AnyStr, end: AnyStr) -> list[AnyStr]:
    lines = text.split(end)
    if not lines[-1]:
        lines.pop()
    return lines


def _loads(text: bytes, reason: str, record: int) -> Any:
    try:
        return json.loads(str(text, "utf-8"), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise FilterFailed(reason, record, f"not a JSON value in UTF-8: {exc}") from exc


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is not a number that JSON can hold")
    return number


def _dumps(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
        return json.dumps(value, separators=(",", ":")).encode()
    except RecursionError as exc:
        raise BadObject("a JSON record is nested too deeply to be written.", kind="record") from exc


@dataclass(frozen=True, kw_only=True)
class DataProcessing:
    """What happens to the bodies of one transform job; checked when it is made.

    With the defaults bodies pass untouched, whatever their content type. Otherwise ContentType and
    Accept must agree on text/csv, application/json or application/jsonlines, and lines must be split
    and assembled as such. *join_source* is ``"None"`` or ``"Input"``.

    Raises:
        InvalidDataProcessing: with the text of SageMaker's ValidationException.
    """

    input_filter: str = "$"
    join_source: str = "None"
    output_filter: str = "$"
    content_type: str | None = None
    accept: str | None = None
    split: Split = Split.NONE
    assemble: Split = Split.NONE
    slice_end_inclusive: bool = SLICE_END_INCLUSIVE
    _format: _Format = field(init=False, repr=False, compare=False)
    _pick_input: _Pick | None = field(init=False, repr=False, compare=False)
    _pick_output: _Pick | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.join_source not in _JOIN_SOURCES:
            allowed = ", ".join(_JOIN_SOURCES)
            _refuse_schema(
                self.join_source, "dataProcessing.joinSource", f"Member must satisfy enum value set: [{allowed}]"
            )
        media_type = _media_type(self.content_type)
        form: _Format = _CsvRows() if media_type == _CSV else _JsonValues(by_line=self.split is Split.LINE)
        # A frozen dataclass lets only object's own method fill what is worked out from its fields.
        object.__setattr__(self, "_format", form)
        object.__setattr__(self, "_pick_input", self._picker("InputFilter", self.input_filter, form))
        object.__setattr__(self, "_pick_output", self._picker("OutputFilter", self.output_filter, form))
        if self._joins or self._pick_input or self._pick_output:
            self._check_types(media_type)

    def _picker(self, member: str, text: str, form: _Format) -> _Pick | None:
        path = parse_path(
            text,
            member=member,
            media_type=_media_type(self.content_type),
            slice_end_inclusive=self.slice_end_inclusive,
        )
        return form.picker(path, text, member) if path.steps else None

    def _check_types(self, media_type: str) -> None:
        known = (_CSV, _JSON, _JSON_LINES)
        if media_type not in known or media_type != _media_type(self.accept):
            raise InvalidDataProcessing(
                "DataProcessing needs the same ContentType and Accept, one of "
                f"{', '.join(known)}; found ContentType {self.content_type!r} and Accept {self.accept!r}."
            )
        if media_type != _JSON and not self.split is self.assemble is Split.LINE:
            raise InvalidDataProcessing(
                f"DataProcessing of {media_type} needs SplitType and AssembleWith Line; "
                f"found SplitType {self.split} and AssembleWith {self.assemble}."
            )

    @property
    def passes_through(self) -> bool:
        """True if requests and responses stay as they are."""
        return not self._joins and self._pick_input is None and self._pick_output is None

    @property
    def _joins(self) -> bool:
        return self.join_source == "Input"

    def request_body(self, body: bytes, *, first_record: int = 1) -> bytes:
        r"""What is sent to the model for a batch: its records through InputFilter.

        A body without a final ``\n`` stays without. *first_record* is the batch's, for errors.

        Raises:
            FilterFailed: a record cannot be read or lacks what the filter names.
        """
        if self._pick_input is None:
            return body
        records = self._inputs(body, first_record)
        filtered = self._format.write(_picked(self._pick_input, records, "InputFilter", first_record))
        return filtered if body.endswith(b"\n") else filtered.removesuffix(b"\n")

    def output(self, body: bytes, response: bytes, *, first_record: int = 1) -> bytes:
        r"""What goes to the output object for a batch and the model's response to it.

        *body* is the batch as it was split, before InputFilter. Lines that were joined or filtered
        all end with ``\n``; without join and filter the response is returned as it is.

        Raises:
            FilterFailed: something cannot be read, lacks what the filter names, or, in a join, the
                model did not answer with one record for each of the batch.
        """
        if not self._joins and self._pick_output is None:
            return response
        form = self._format
        reason = f"Failed to parse output from the algorithm as {form.name}"
        records = form.parse(response, reason, first_record)
        if self._joins and self._pick_input is not None and self._pick_output is None:
            # The rows were read for InputFilter, so they are sound and need not be taken apart again.
            joined = form.append(body, records)
            if joined is not None:
                return joined
        if self._joins:
            records = self._joined(self._inputs(body, first_record), records, first_record)
        if self._pick_output is not None:
            records = _picked(self._pick_output, records, "OutputFilter", first_record)
        return form.write(records)

    def _inputs(self, body: bytes, first_record: int) -> list[_Record]:
        # A batch holds at least one record, so an empty body is one blank line sent without its end.
        reason = f"Failed to parse input as {self._format.name}"
        return self._format.parse(body or b"\n", reason, first_record)

    def _joined(self, inputs: list[_Record], answers: list[_Record], first_record: int) -> list[_Record]:
        if len(inputs) != len(answers):
            raise FilterFailed(
                "Fail to join data: mismatched line count between the input and the output",
                first_record,
                f"{len(inputs)} records from here on were sent, {len(answers)} came back.",
            )
        return list(map(self._format.join, inputs, answers))


def _picked(pick: _Pick, records: Sequence[_Record], member: str, first_record: int) -> list[_Record]:
    found: list[_Record] = []
    try:
        for record in records:
            found.append(pick(record))  # noqa: PERF401  its length tells which record failed
    except _Outside as exc:
        raise FilterFailed(f"{member} does not fit", first_record + len(found), str(exc)) from exc
    return found


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()
