import csv
import io
import json
import re
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.engine.filters import (
    DataProcessing,
    FilterFailed,
    InvalidDataProcessing,
    parse_path,
)
from backends.engine.records import Packing, assemble, split_batches
from backends.specs import Split, Strategy

UNHURRIED = settings(deadline=None)  # the machine may be busy with other tests
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=8)
ROWS = st.lists(st.lists(CELLS, min_size=1, max_size=5), min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def csv_bytes(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def csv_job(**members: Any) -> DataProcessing:
    return DataProcessing(content_type="text/csv", accept="text/csv", split=Split.LINE, assemble=Split.LINE, **members)


def lines_job(**members: Any) -> DataProcessing:
    kind = "application/jsonlines"
    return DataProcessing(content_type=kind, accept=kind, split=Split.LINE, assemble=Split.LINE, **members)


def json_job(**members: Any) -> DataProcessing:
    return DataProcessing(content_type="application/json", accept="application/json", **members)


# Parsing


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", {"a": [10, 20, 30, 40], "b": {"c": 1}, "d": 2}),
        ("$.a", [10, 20, 30, 40]),
        ("$['a']", [10, 20, 30, 40]),
        ("$.b.c", 1),
        ("$['b'].c", 1),
        ("$.b['c']", 1),
        ("$['d','b']", {"d": 2, "b": {"c": 1}}),
        ("$.a[0]", 10),
        ("$.a[-1]", 40),
        ("$.a[0,-1]", [10, 40]),
        ("$.a[1:3]", [20, 30]),
        ("$.a[1:]", [20, 30, 40]),
        ("$.a[:2]", [10, 20]),
        ("$.a[-2:]", [30, 40]),
        ("$.a[:99]", [10, 20, 30, 40]),
        ("$.a[*]", [10, 20, 30, 40]),
        ("$.b.*", [1]),
        ("$.*", [[10, 20, 30, 40], {"c": 1}, 2]),
        (" $ . a [ 0 , 1 ] ", [10, 20]),
    ],
)
def test_paths_select(path: str, expected: Any) -> None:
    """Each form of the grammar selects what the guide says; one place gives a value, several an array."""
    value = {"a": [10, 20, 30, 40], "b": {"c": 1}, "d": 2}
    assert parse_path(path).select(value) == expected


def test_steps_after_a_wildcard_apply_to_each() -> None:
    """What follows a step that names several places selects from each of them."""
    value = [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert parse_path("$[*].a").select(value) == [1, 3]
    assert parse_path("$[0,1]['b','a']").select(value) == [{"b": 2, "a": 1}, {"b": 4, "a": 3}]


def test_the_slice_end_has_one_switch() -> None:
    """Exclusive by default; inclusive, as the guide's prose has it, by one argument."""
    row = [0, 1, 2, 3, 4, 5, 6]
    assert parse_path("$[1:4]").select(row) == [1, 2, 3]
    for path, expected in (("$[1:4]", [1, 2, 3, 4]), ("$[:5]", row[:6]), ("$[2:-1]", row[2:]), ("$[:-2]", row[:6])):
        assert parse_path(path, slice_end_inclusive=True).select(row) == expected
    assert csv_job(input_filter="$[:1]", slice_end_inclusive=True).request_body(b"1,2,3\n") == b"1,2\n"


def test_names_with_an_underscore_are_rejected_in_the_services_words() -> None:
    """The observed text of the ValidationException, letter by letter."""
    expected = (
        'Invalid OutputFilter: "$[\'a_b\']". Unexpected "_" in JsonPath. Supported operators for '
        "\"application/jsonlines\" are ['$', '[', ']', '*', '.', ' ', ',', ':', '-', ''']"
    )
    with pytest.raises(InvalidDataProcessing, match=f"^{re.escape(expected)}$"):
        lines_job(output_filter="$['a_b']")


def test_slices_and_indexes_do_not_mix_in_the_services_words() -> None:
    """The observed text of the ValidationException, letter by letter."""
    expected = (
        "Invalid JsonPath: $[0:2,246:]: only single range filters of format (eg: [1:5]) are supported. "
        "Format [0:2,246:] is not supported"
    )
    with pytest.raises(InvalidDataProcessing, match=f"^{re.escape(expected)}$"):
        csv_job(input_filter="$[0:2,246:]")
    for other in ("$[0,5:]", "$[1:2:3]", "$[:]"):
        with pytest.raises(InvalidDataProcessing, match="only single range filters"):
            csv_job(input_filter=other)


@pytest.mark.parametrize(
    "path",
    [
        *("", "a", ".a", "$$", "$a", "$.", "$..a", "$.a_b", "$.a!", "$.é", "$\t.a", "$.a\n", "$[(1)]"),
        *("$[", "$[]", "$[a]", "$['a]", "$['a'", "$['']", "$['a',]", "$['a.b']", "$['a',0]", '$["a"]'),
        *("$[0,]", "$[,0]", "$[0 1]", "$[--1]", "$[٣]", "$[?(@.a)]"),
    ],
)
def test_everything_else_is_refused(path: str) -> None:
    """No recursion, no expressions, no nested names in brackets, nothing half written."""
    with pytest.raises(InvalidDataProcessing):
        parse_path(path)


def test_filters_have_63_characters_at_most() -> None:
    """The API model's limit, in the words of its schema validation."""
    parse_path("$." + "a" * 61)
    with pytest.raises(InvalidDataProcessing, match=r"1 validation error.*'dataProcessing.inputFilter'.*equal to 63"):
        parse_path("$." + "a" * 62)


@UNHURRIED
@given(st.text("$[]*. ,:-'a0_\"(", max_size=63), JSON)
def test_no_filter_runs_long_or_breaks(path: str, value: Any) -> None:
    """Any text is refused as a ValidationException or selects, or says what is missing; at once."""
    started = time.process_time()
    with suppress(InvalidDataProcessing, LookupError):
        parse_path("$" + path[:62]).select(value)
    assert time.process_time() - started < 1


# What may be combined


@pytest.mark.parametrize("members", [{"input_filter": "$[0]"}, {"output_filter": "$[0]"}, {"join_source": "Input"}])
def test_filters_and_joins_need_agreeing_types(members: dict[str, str]) -> None:
    """ContentType and Accept are equal and one of three; lines are split and assembled."""
    line, none = Split.LINE, Split.NONE
    wrong: list[tuple[str | None, str | None, Split, Split]] = [
        (None, None, line, line),
        ("text/csv", None, line, line),
        ("text/csv", "application/json", line, line),
        ("text/plain", "text/plain", line, line),
        ("text/csv", "text/csv", line, none),
        ("text/csv", "text/csv", none, line),
        ("application/jsonlines", "application/jsonlines", none, none),
    ]
    for content_type, accept, split, assembled in wrong:
        with pytest.raises(InvalidDataProcessing, match="DataProcessing"):
            DataProcessing(
                content_type=content_type,
                accept=accept,
                split=split,
                assemble=assembled,
                **members,  # type: ignore[arg-type]  # only names and texts
            )
    csv_job(**members)
    json_job(**members)
    DataProcessing(
        content_type="text/csv; charset=utf-8", accept="Text/CSV", split=line, assemble=line, join_source="Input"
    )


def test_without_filters_any_type_passes_untouched() -> None:
    """The defaults change no byte and ask for no content type."""
    job = DataProcessing(content_type="image/png")
    assert job.request_body(b"\x00\xff") == b"\x00\xff"
    assert job.output(b"\x00\xff", b'not, "json') == b'not, "json'


def test_rows_are_selected_by_index_only() -> None:
    """CSV has no names and no depth."""
    for path in ("$.a", "$['a']", "$[0][0]", "$[0].a"):
        with pytest.raises(InvalidDataProcessing, match="only columns"):
            csv_job(input_filter=path)


def test_join_source_is_one_of_two() -> None:
    """Other words fail as the schema validation words it."""
    with pytest.raises(InvalidDataProcessing, match=r"Value 'Output' at 'dataProcessing.joinSource'"):
        csv_job(join_source="Output")


# CSV


def test_csv_columns_are_filtered_joined_and_filtered_again() -> None:
    """The guide's walk: the model sees the features, the output is the id and the last prediction column."""
    job = csv_job(input_filter="$[1:]", join_source="Input", output_filter="$[0,-1]")
    body, response = b"id1,1,2\nid2,3,4\n", b"no,0.1\nyes,0.9\n"
    assert job.request_body(body) == b"1,2\n3,4\n"
    assert job.output(body, response) == b"id1,0.1\nid2,0.9\n"


def test_csv_join_appends_the_answers_columns() -> None:
    """1,2,3 and 1 give 1,2,3,1; an answer's missing last line end and CRLF do not matter."""
    job = csv_job(join_source="Input")
    assert job.output(b"1,2,3\n4,5,6", b"1\r\n2") == b"1,2,3,1\n4,5,6,2\n"


def test_csv_quotes_only_where_needed() -> None:
    """Quotes that the source did not need go; those that are needed stay, an empty row's too."""
    job = csv_job(input_filter="$[0,1]")
    assert job.request_body(b'"a","b,c",x\n"say ""hi""",  d ,x\n') == b'a,"b,c"\n"say ""hi""",  d \n'
    assert csv_job(input_filter="$[0]").request_body(b",b\n") == b'""\n'


def test_csv_a_carriage_return_within_a_cell_stays_quoted() -> None:
    """It would end the row for many readers."""
    assert csv_job(input_filter="$[1]").request_body(b'1,"a\rb"\n') == b'"a\rb"\n'


def test_a_blank_line_is_a_record_however_it_is_sent() -> None:
    """SingleRecord sends a blank line as an empty body; it is joined as the blank line that it is."""
    job = csv_job(join_source="Input")
    assert job.output(b"", b"1\n") == job.output(b"\n", b"1\n") == b"1\n"
    with pytest.raises(FilterFailed, match="1 records from here on were sent, 0 came back"):
        job.output(b"", b"")


def test_csv_a_single_column_stays_a_row() -> None:
    """$[0] gives one row with one column for each row, and a body without line end stays without."""
    job = csv_job(input_filter="$[0]")
    assert job.request_body(b"1,2\n3,4\n") == b"1\n3\n"
    assert job.request_body(b"1,2") == b"1"


def test_csv_bytes_of_any_encoding_pass() -> None:
    """Only commas, quotes and line ends are looked at; other bytes, a NUL too, come out as they went in."""
    job = csv_job(input_filter="$[1]")
    assert job.request_body(b"1,caf\xe9\x00\x85\n") == b"caf\xe9\x00\x85\n"
    assert job.request_body("1,\u2028ŁÓDŹ 🙂\n".encode()) == "\u2028ŁÓDŹ 🙂\n".encode()


def test_csv_cells_may_be_large() -> None:
    """The csv module's own limit of 128 KiB for a cell is not ours."""
    cell = b"x" * 3_000_000
    assert csv_job(input_filter="$[1]").request_body(b'1,"' + cell + b'"\n') == cell + b"\n"


@pytest.mark.parametrize(
    ("body", "record"),
    [
        (b"1,2\n3\n", 12),
        (b'1,2\n3,"4\n5,6\n7,8"\n', 12),
        (b'1,2\n3,4\n"5,6\n', 13),
        (b'1,"2"x\n', 11),
        (b"1,2\n\n", 12),
    ],
)
def test_csv_errors_name_the_record(body: bytes, record: int) -> None:
    """A missing column, a quote that does not end on its line, text after one, a blank row."""
    with pytest.raises(FilterFailed, match=f"record {record}: ") as caught:
        csv_job(input_filter="$[1]").request_body(body, first_record=11)
    assert caught.value.record == record


def test_csv_a_slice_of_nothing_fails() -> None:
    """A row without columns cannot be told from a blank line, so selecting nothing is an error."""
    with pytest.raises(FilterFailed, match="InputFilter does not fit: record 1: the filter selects none of 2 columns"):
        csv_job(input_filter="$[5:]").request_body(b"1,2\n")


def test_a_join_needs_one_answer_for_each_record() -> None:
    """Fewer or more lines than records fail the object with the service's words."""
    job = csv_job(join_source="Input")
    for response in (b"", b"1\n", b"1\n2\n3\n"):
        with pytest.raises(FilterFailed, match=r"^Fail to join data: mismatched line count between the input and"):
            job.output(b"a\nb\n", response)
    assert csv_job(output_filter="$[0]").output(b"a\nb\n", b"1,2\n") == b"1\n"


def test_an_answer_that_is_no_csv_is_named_so() -> None:
    """The data log's words for an answer that cannot be read."""
    with pytest.raises(FilterFailed, match=r"^Failed to parse output from the algorithm as CSV: record 1: "):
        csv_job(join_source="Input").output(b"a\n", b'"a\n')


@UNHURRIED
@given(ROWS)
def test_csv_selecting_all_columns_keeps_every_cell(rows: list[list[str]]) -> None:
    """$[*] re-writes rows without changing a cell, whatever is in it."""
    found = csv_job(input_filter="$[*]").request_body(csv_bytes(rows))
    assert list(csv.reader(io.StringIO(found.decode(), newline=""), strict=True)) == rows


@UNHURRIED
@given(ROWS, st.sampled_from(list(Strategy)), st.integers(400, 2000))
def test_csv_join_with_an_echo_doubles_the_columns(rows: list[list[str]], strategy: Strategy, limit: int) -> None:
    """Split, answered by a model that echoes, joined and assembled: every row twice, in order."""
    job = csv_job(join_source="Input")
    packing = Packing(split=Split.LINE, strategy=strategy, max_payload_bytes=limit)
    batches = split_batches(io.BytesIO(csv_bytes(rows)), packing)
    outputs = (job.output(b.body, job.request_body(b.body), first_record=b.first_record) for b in batches)
    text = b"".join(assemble(outputs, Split.LINE)).decode()
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [row + row for row in rows]


# JSON Lines and JSON


def test_json_lines_send_members_and_join_objects() -> None:
    """One member is sent as its value, several as an object; an object gets SageMakerOutput."""
    body = b'{"id":1,"x":[1,2]}\n{"id":2,"x":[3]}\n'
    assert lines_job(input_filter="$.x").request_body(body) == b"[1,2]\n[3]\n"
    assert lines_job(input_filter="$['x','id']").request_body(body).splitlines()[1] == b'{"x":[3],"id":2}'
    joined = lines_job(join_source="Input").output(body, b'{"p":0.5}\n0.25\n')
    assert joined == (b'{"id":1,"x":[1,2],"SageMakerOutput":{"p":0.5}}\n{"id":2,"x":[3],"SageMakerOutput":0.25}\n')


def test_json_output_filter_sees_the_joined_record() -> None:
    """OutputFilter selects from input and answer together, or from the answer alone without join."""
    body, response = b'{"id":1,"x":2}\n', b'{"p":0.5,"q":1}\n'
    both = lines_job(join_source="Input", output_filter="$['id','SageMakerOutput']")
    assert both.output(body, response) == b'{"id":1,"SageMakerOutput":{"p":0.5,"q":1}}\n'
    assert lines_job(output_filter="$.p").output(body, response) == b"0.5\n"


def test_json_joins_what_is_no_object_under_two_keys() -> None:
    """A non-object input is wrapped; an existing SageMakerOutput is overwritten."""
    job = lines_job(join_source="Input")
    assert job.output(b'[1,2]\n"t"\n', b"3\n4\n") == (
        b'{"SageMakerInput":[1,2],"SageMakerOutput":3}\n{"SageMakerInput":"t","SageMakerOutput":4}\n'
    )
    assert job.output(b'{"SageMakerOutput":"old","a":1}\n', b"1\n") == b'{"SageMakerOutput":1,"a":1}\n'


def test_a_json_object_without_split_is_one_record() -> None:
    """application/json with SplitType None: the file is one value, printed over several lines or not."""
    job = json_job(input_filter="$.instances", join_source="Input", output_filter="$.SageMakerOutput.predictions")
    body = b'{\n  "instances": [1,\n 2]\n}\n'
    assert job.request_body(body).strip() == b"[1,2]"
    assert job.output(body, b'{"predictions":\n [0.1,0.2]}') == b"[0.1,0.2]"


def test_json_answers_in_one_array_do_not_join_to_lines() -> None:
    """A model that answers two lines with one array is a mismatch."""
    with pytest.raises(FilterFailed, match="mismatched line count"):
        lines_job(join_source="Input").output(b"1\n2\n", b"[1,2]\n")


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"NaN", b"[Infinity]", b"1e999", b"\xff", b"'a'", b"[" * 100_000, b"9" * 5000, b"1 2"],
)
def test_json_that_is_none_names_the_record(text: bytes) -> None:
    """Broken, endless, non-finite or non-UTF-8 values fail with the record's number, in input and answer."""
    with pytest.raises(FilterFailed, match=r"^Failed to parse input as JSON: record 42: "):
        lines_job(input_filter="$.a").request_body(b'{"a":1}\n' + text + b"\n", first_record=41)
    with pytest.raises(FilterFailed, match=r"^Failed to parse output from the algorithm as JSON: record 1: "):
        lines_job(output_filter="$.a").output(b"1\n", text + b"\n")


def test_json_text_stays_as_it_was_written() -> None:
    """Other scripts stay readable; a lone surrogate stays the escape that it was; a BOM is no part of it."""
    job = lines_job(input_filter="$.a")
    assert job.request_body('{"a":"żółć 🙂"}\n'.encode()) == '"żółć 🙂"\n'.encode()
    assert job.request_body(b'{"a":"\\ud800"}\n') == b'"\\ud800"\n'
    assert job.request_body(b'\xef\xbb\xbf{"a":1}\n') == b"1\n"


@pytest.mark.parametrize(("path", "what"), [("$.b", "no member 'b'"), ("$[0]", "has no elements"), ("$.a[7]", "7")])
def test_json_errors_name_what_is_missing(path: str, what: str) -> None:
    """A member, an array or an index that is not there fails the object."""
    with pytest.raises(FilterFailed, match=f"record 1: .*{what}"):
        lines_job(input_filter=path).request_body(b'{"a":[1]}\n')


@UNHURRIED
@given(st.lists(JSON, min_size=1, max_size=5))
def test_json_lines_join_with_an_echo_keeps_every_value(values: list[Any]) -> None:
    """Joining each record with itself loses nothing of either."""
    body = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    joined = [json.loads(line) for line in lines_job(join_source="Input").output(body, body).splitlines()]
    assert [record["SageMakerOutput"] for record in joined] == values
    for value, record in zip(values, joined, strict=True):
        if isinstance(value, dict):
            assert {**value, "SageMakerOutput": value} == record
        else:
            assert record["SageMakerInput"] == value


@given(ROWS)
def test_a_csv_join_is_the_same_whether_or_not_its_input_was_filtered(rows: list[list[str]]) -> None:
    """A filtered row is joined byte for byte, an unfiltered one is taken apart: read again, both are the same."""
    body, answer = csv_bytes(rows), b'yes,"a, b"\n' * len(rows)
    joined = [
        list(csv.reader(io.StringIO(csv_job(join_source="Input", input_filter=path).output(body, answer).decode())))
        for path in ("$", "$[0]")
    ]
    assert joined[0] == joined[1] == [[*row, "yes", "a, b"] for row in rows]
