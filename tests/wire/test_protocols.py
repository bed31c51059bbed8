"""The protocols against botocore: what its serializers write is read here, what is written here its parsers read."""

import base64
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import botocore.parsers
import botocore.serialize
import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from backends.emulator.protocol.models import Head, load_model
from backends.emulator.protocol.parse import find_operation, parse
from backends.emulator.protocol.serialize import serialize, serialize_error
from backends.emulator.protocol.validate import check, compiled_pattern
from backends.sagemaker.readings import ServiceError

OPERATIONS = [
    ("sagemaker", "CreateTrainingJob"),
    ("sagemaker", "CreateEndpointConfig"),
    ("sagemaker", "ListTrainingJobs"),
    ("sagemaker", "DescribeTransformJob"),
    ("sagemaker", "StopTrainingJob"),
    ("sagemaker-runtime", "InvokeEndpoint"),
    ("logs", "GetLogEvents"),
    ("sts", "GetCallerIdentity"),
    ("iam", "GetRole"),
    ("iam", "SimulatePrincipalPolicy"),
    ("s3", "CompleteMultipartUpload"),
    ("s3", "PutBucketTagging"),
    ("s3", "DeleteObjects"),
    ("s3", "CopyObject"),
    ("s3", "ListObjectsV2"),
    ("s3", "GetBucketAcl"),
    ("s3", "UploadPartCopy"),
]
# Its output is a stream, which botocore's parser takes as an object of its own; test_runtime.py reads it.
STREAMED = ("sagemaker-runtime", "InvokeEndpoint")
TEXT = st.text("aZ09 .-_/+=%&<>\"'éß漢😀", min_size=1, max_size=12)
TOKEN = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.=-]{0,10}", fullmatch=True)
MOMENT = st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXT,
    "character": TEXT,
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**53), 2**53),
    "float": st.integers(-(10**6), 10**6).map(lambda n: n / 64),
    "double": st.integers(-(10**6), 10**6).map(lambda n: n / 64),
    "boolean": st.booleans(),
    "blob": st.binary(max_size=12),
    "timestamp": MOMENT,
}


def values(shape: Shape, depth: int = 0) -> st.SearchStrategy[Any]:
    """Whatever *shape* may hold, constraints aside, a few levels deep; what is empty cannot be said in a form."""
    if isinstance(shape, StructureShape):
        members = {name: values(inner, depth + 1) for name, inner in shape.members.items() if depth < 4 or _flat(inner)}
        required = {name: each for name, each in members.items() if name in shape.required_members}
        optional = {name: each for name, each in members.items() if name not in required}
        whole = st.fixed_dictionaries(required, optional=optional)
        return whole.filter(bool) if members and depth else whole
    if isinstance(shape, ListShape):
        items = TOKEN if shape.serialization.get("location") else values(shape.member, depth + 1)
        return st.lists(items, min_size=1, max_size=3)
    if isinstance(shape, MapShape):
        keys = TOKEN.map(str.lower) if shape.serialization.get("location") else TEXT
        items = TOKEN if shape.serialization.get("location") else values(shape.value, depth + 1)
        return st.dictionaries(keys, items, min_size=1, max_size=3)
    if shape.serialization.get("location") in {"header", "uri", "querystring"} and shape.type_name == "string":
        return TOKEN
    return SCALARS[shape.type_name]


def _flat(shape: Shape) -> bool:
    return not isinstance(shape, (StructureShape, ListShape, MapShape))


@cache
def contents(service: str, operation: str, *, of_input: bool) -> st.SearchStrategy[Any]:
    """Every input, or output, of an operation."""
    described = load_model(service).service.operation_model(operation)
    shape = described.input_shape if of_input else described.output_shape
    return values(shape) if shape else st.just({})


def asked(service: str, operation: str, members: dict[str, Any]) -> tuple[Head, bytes]:
    """The request that botocore would send."""
    model = load_model(service)
    serializer = botocore.serialize.create_serializer(model.protocol, include_validation=False)
    request = serializer.serialize_to_request(dict(members), model.service.operation_model(operation))
    path, _, query = request["url_path"].partition("?")
    pairs = parse_qs(query, keep_blank_values=True)
    for name, value in (request["query_string"] or {}).items():
        pairs[name] = list(map(str, value)) if isinstance(value, list) else [str(value)]
    body = request["body"]
    headers = {name.lower(): str(value) for name, value in request["headers"].items()}
    if isinstance(body, dict):
        body = urlencode(body).encode()
    body = body.encode() if isinstance(body, str) else body
    head = Head(method=request["method"], path=path, query=pairs, headers=Headers(headers))
    return head, body or b""


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_what_botocore_writes_is_read_back(service: str, operation: str, data: st.DataObject) -> None:
    """Operation and every member of the input arrive as they were given."""
    model = load_model(service)
    members = data.draw(contents(service, operation, of_input=True))
    head, body = asked(service, operation, members)
    found = find_operation(model, head, body)
    assert found.operation.name == operation
    assert parse(model, found, head, body) == members


@pytest.mark.parametrize(("service", "operation"), [pair for pair in OPERATIONS if pair != STREAMED])
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_what_is_written_botocore_reads(service: str, operation: str, data: st.DataObject) -> None:
    """Every member of the output arrives through botocore's own parser; what the model does not know does not."""
    model = load_model(service)
    described = model.service.operation_model(operation)
    shape = described.output_shape
    members = data.draw(contents(service, operation, of_input=False))
    reply = serialize(model, described, {**members, "Unknown": "x"}, request_id="the-id")
    parser = botocore.parsers.create_parser(model.protocol)
    response = {"status_code": reply.status, "headers": Headers(dict(reply.headers)), "body": reply.body}
    parsed = parser.parse(response, cast("Shape", shape))
    parsed.pop("ResponseMetadata")
    empty = {name for name, value in parsed.items() if value == {}}  # What the parser makes of an absent payload.
    assert {name: value for name, value in parsed.items() if name not in empty} == members


@pytest.mark.parametrize("protocol", ["json", "rest-json", "rest-xml", "query"])
@settings(max_examples=30)
@given(message=TEXT)
def test_botocore_reads_errors(protocol: str, message: str) -> None:
    """Code and message arrive in each protocol."""
    reply = serialize_error(protocol, ServiceError("NoSuchThing", message, status=404), request_id="the-id")
    parser = botocore.parsers.create_parser(protocol)
    shape = load_model("sagemaker").service.operation_model("DescribeModel").output_shape
    response = {"status_code": reply.status, "headers": Headers(dict(reply.headers)), "body": reply.body}
    parsed = parser.parse(response, cast("Shape", shape))
    assert (parsed["Error"]["Code"], parsed["Error"]["Message"].strip()) == ("NoSuchThing", message.strip())


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            {"TrainingJobName": "-x-"},
            (
                "Value '-x-' at 'trainingJobName' failed to satisfy constraint: Member must satisfy regular expression "
                "pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
            ),
        ),
        (
            {"StoppingCondition": {"MaxRuntimeInSeconds": 0}},
            (
                "Value '0' at 'stoppingCondition.maxRuntimeInSeconds' failed to satisfy constraint: Member must have "
                "value greater than or equal to 1"
            ),
        ),
        (
            {"Tags": [{"Key": "", "Value": "x"}]},
            (
                "Value '' at 'tags.1.member.key' failed to satisfy constraint: Member must have length greater than or "
                "equal to 1"
            ),
        ),
        (
            {"OutputDataConfig": {}},
            "Value null at 'outputDataConfig.s3OutputPath' failed to satisfy constraint: Member must not be null",
        ),
        (
            {"HyperParameters": {"k" * 257: "v"}},
            (
                "failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or "
                "equal to 256]"
            ),
        ),
        (
            {"AlgorithmSpecification": {"TrainingInputMode": "Fast"}},
            (
                "Value 'Fast' at 'algorithmSpecification.trainingInputMode' failed to satisfy constraint: Member must "
                "satisfy enum value set: ["
            ),
        ),
    ],
)
def test_the_models_constraints_are_refused_in_awss_grammar(document: dict[str, Any], text: str) -> None:
    """Path, value and constraint, spelled as AWS does (contract 0.3)."""
    shape = load_model("sagemaker").service.operation_model("CreateTrainingJob").input_shape
    with pytest.raises(ServiceError) as caught:
        check(shape, document)
    assert text in caught.value.message
    count = caught.value.message.count("failed to satisfy constraint")
    assert caught.value.message.startswith(f"{count} validation error{'s' if count > 1 else ''} detected: ")


def test_a_long_text_is_not_matched() -> None:
    """A pattern that backtracks is not tried on a text that is too long anyway."""
    shape = load_model("sagemaker").service.operation_model("DescribeTrainingJob").input_shape
    with pytest.raises(ServiceError, match="length less than or equal to 63") as caught:
        check(shape, {"TrainingJobName": "a" * 100_000 + "!"})
    assert "pattern" not in caught.value.message


def test_the_patterns_of_the_services_can_be_read() -> None:
    """But for the one of surrogates, which no text holds here."""
    unread = set()
    for service in ("sagemaker", "sagemaker-runtime", "sts", "iam", "logs"):
        model = load_model(service).service
        for name in model.shape_names:
            pattern = model.shape_for(name).metadata.get("pattern")
            if pattern and compiled_pattern(pattern) is None:
                unread.add(pattern)
    assert all("\\uD800" in pattern for pattern in unread), unread


@pytest.mark.parametrize(
    ("service", "operation", "body", "code"),
    [
        ("sagemaker", "DescribeModel", b"{", "SerializationException"),
        ("sagemaker", "DescribeModel", b"[1]", "SerializationException"),
        ("sagemaker", "DescribeModel", b'{"ModelName": 3}', "SerializationException"),
        ("sagemaker", "ListModels", b'{"MaxResults": true}', "SerializationException"),
        ("sagemaker", "DescribeModel", b"[" * 100_000, "SerializationException"),
        ("s3", "PutBucketTagging", b"<Tagging><TagSet>", "MalformedXML"),
        ("s3", "PutBucketTagging", b'<!DOCTYPE a [<!ENTITY b "c">]><Tagging>&b;</Tagging>', "MalformedXML"),
        ("s3", "PutBucketTagging", b"<a>" * 100_000, "MalformedXML"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(service: str, operation: str, body: bytes, code: str) -> None:
    """With the code that AWS uses, whatever it holds."""
    model = load_model(service)
    found = model.named(operation)
    head = Head(method="POST", path="/", query={}, headers=Headers({}))
    with pytest.raises(ServiceError) as caught:
        parse(model, found, head, body)
    assert caught.value.code == code


@settings(max_examples=200)
@given(
    body=st.binary(max_size=200),
    target=TEXT,
    path=st.text(max_size=30).map(quote),
    service=st.sampled_from(["sagemaker", "sagemaker-runtime", "sts", "iam", "logs", "s3"]),
)
def test_no_request_is_a_failure(body: bytes, target: str, path: str, service: str) -> None:
    """Whatever arrives is read or refused."""
    model = load_model(service)
    headers = Headers({"x-amz-target": base64.b64encode(target.encode()).decode()})
    head = Head(method="PUT", path=f"/{path}", query=parse_qs(urlsplit(path).query), headers=headers)
    with suppress(ServiceError):
        members = parse(model, found := find_operation(model, head, body), head, body)
        assert members.keys() <= (found.operation.input_shape or StructureShape("", {})).members.keys()
        check(found.operation.input_shape, members)
