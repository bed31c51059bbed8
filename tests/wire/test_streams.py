"""Answers that arrive in parts: InvokeEndpointWithResponseStream through unmodified boto3, and the framing."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError, EventStreamError
from botocore.model import ServiceModel, StructureShape
from botocore.parsers import EventStreamJSONParser, EventStreamXMLParser

from backends import Backend, open_backend
from backends.config import BackendConfig
from backends.emulator.app import create_app
from backends.emulator.protocol import event_stream, json_documents
from backends.emulator.protocol.models import Members, load_model
from backends.emulator.protocol.serialize import serialize
from backends.engine import Engine, EngineSettings
from backends.local.backend import engine_settings
from backends.sagemaker.readings import ServiceError
from backends.specs import EndpointSpec, ModelSpec, Variant
from tests.archives import archive
from tests.docker_engine import streamer_image
from tests.emulator import serving
from tests.wire.conftest import client

STREAMER = Path(__file__).parents[1] / "images" / "streamer"
ENDPOINT = "streamer"


@pytest.fixture(scope="module", params=["process", "docker"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Backend, Any]]:
    """A place with an endpoint whose answers arrive in parts, and what an engine there is told."""
    image = streamer_image() if request.param == "docker" else "streamer"
    home = tmp_path_factory.mktemp("streams") / "home"
    config = BackendConfig(home=home, runner=request.param, images={"streamer": STREAMER})
    with open_backend(config) as opened:
        opened.store.ensure_bucket("wire")
        opened.store.put("s3://wire/model.tar.gz", archive({"model.txt": b""}))
        model = ModelSpec(image=image, artifact_uri="s3://wire/model.tar.gz")
        opened.endpoints.start(EndpointSpec(name=ENDPOINT, variants=(Variant(name="one", model=model),)))
        opened.endpoints.wait_in_service(ENDPOINT, timeout_seconds=60)
        yield opened, engine_settings(config)
        opened.endpoints.delete(ENDPOINT)
        opened.endpoints.wait_deleted(ENDPOINT, timeout_seconds=60)


@pytest.fixture(scope="module")
def runtime(backend: tuple[Backend, EngineSettings]) -> Iterator[Any]:
    """A boto3 client of the emulator before that place."""
    yield from _runtime(backend[1])


@pytest.fixture
def hurried(backend: tuple[Backend, EngineSettings]) -> Iterator[Any]:
    """The same, where an answer may take half a second."""
    yield from _runtime(replace(backend[1], stream_timeout_seconds=0.5))


def _runtime(settings: EngineSettings) -> Iterator[Any]:
    engine = Engine(settings)
    with serving(create_app(engine)) as url:
        made = client("sagemaker-runtime", url)
        yield made
        made.close()
    engine.close()


def ask(runtime: Any, words: str, **members: Any) -> Any:
    return runtime.invoke_endpoint_with_response_stream(EndpointName=ENDPOINT, Body=words.encode(), **members)


def part(events: Iterator[Any]) -> bytes:
    data: bytes = next(events)["PayloadPart"]["Bytes"]
    return data


def test_parts_arrive_as_they_are_made(runtime: Any) -> None:
    """The first is here while the program waits for a signal before it makes the second."""
    response = ask(runtime, "first wait second", Accept="text/csv")
    events = iter(response["Body"])
    assert part(events) == b"first"
    assert [event["PayloadPart"]["Bytes"] for event in ask(runtime, "go")["Body"]] == [b"go"]
    assert part(events) == b"second"
    assert next(events, None) is None
    assert response["ContentType"] == "text/csv"
    assert response["CustomAttributes"] == "made=here"
    assert response["InvokedProductionVariant"] == "one"
    assert response["ResponseMetadata"]["HTTPHeaders"]["content-type"] == "application/vnd.amazon.eventstream"


def test_an_answer_without_parts(runtime: Any) -> None:
    """It is an empty stream."""
    assert list(ask(runtime, "")["Body"]) == []


def test_errors_before_the_first_part(runtime: Any) -> None:
    """What is known before the answer begins is an ordinary error."""
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        ask(runtime, "refuse")
    assert (caught.value.response["OriginalStatusCode"], caught.value.response["OriginalMessage"]) == (400, "refused")
    with pytest.raises(ClientError) as unknown:
        runtime.invoke_endpoint_with_response_stream(EndpointName="nobody", Body=b"x")
    assert unknown.value.response["Error"]["Code"] == "ValidationError"


def test_an_answer_that_breaks_off(runtime: Any) -> None:
    """What had arrived is there, then comes the error, as the model has it."""
    response = ask(runtime, "first break")
    with closing(response["Body"]) as stream:
        events = iter(stream)
        assert part(events) == b"first"
        with pytest.raises(EventStreamError, match="broke off") as caught:
            next(events)
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"


def test_an_answer_that_takes_too_long(hurried: Any) -> None:
    """The limit is for the whole answer, however many parts come."""
    with closing(ask(hurried, "tick")["Body"]) as stream, pytest.raises(EventStreamError, match="ModelStreamError"):
        list(stream)
    assert [event["PayloadPart"]["Bytes"] for event in ask(hurried, "go")["Body"]] == [b"go"]


def test_a_client_that_goes_away(runtime: Any) -> None:
    """The program learns that nobody reads its answer any more."""
    with closing(ask(runtime, "tick")["Body"]) as stream:
        assert part(iter(stream)) == b"tick"
    assert [event["PayloadPart"]["Bytes"] for event in ask(runtime, "gone")["Body"]] == [b"gone"]


# The framing, against botocore's parsers.


def framed(stream: StructureShape, events: Iterator[Members]) -> list[Any]:
    """The messages that botocore reads of what is written for *events*."""

    def write(name: str, shape: Any, value: Any) -> tuple[bytes, str]:
        del name
        return json_documents.write(shape, value), "application/json"

    return read_from(event_stream.messages(stream, events, write))


def read_from(body: Any) -> list[Any]:
    async def collect() -> bytes:
        return b"".join([piece async for piece in body])

    buffer = EventStreamBuffer()
    buffer.add_data(asyncio.run(collect()))
    return [message.to_response_dict() for message in buffer]


def failing(error: Exception) -> Iterator[Members]:
    yield {"PayloadPart": {"Bytes": b"first"}}
    raise error


def response_stream() -> StructureShape:
    operation = load_model("sagemaker-runtime").service.operation_model("InvokeEndpointWithResponseStream")
    assert operation.output_shape is not None
    shape = operation.output_shape.members["Body"]
    assert isinstance(shape, StructureShape)
    return shape


def test_the_stream_s_own_exceptions_carry_their_members() -> None:
    """Botocore shows code and message of them; other clients read the rest."""
    error = ServiceError("ModelStreamError", "too late", ErrorCode="ModelInvocationTimeExceeded")
    first, last = framed(response_stream(), failing(error))
    assert (first["headers"][":event-type"], first["headers"][":content-type"]) == (
        "PayloadPart",
        "application/octet-stream",
    )
    assert (last["headers"][":message-type"], last["headers"][":exception-type"]) == ("exception", "ModelStreamError")
    assert last["body"] == b'{"Message":"too late","ErrorCode":"ModelInvocationTimeExceeded"}'


def test_a_failure_of_ours_is_the_stream_s_internal_one(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets AWS's words, the log the cause."""
    *_, last = framed(response_stream(), failing(RuntimeError("a secret")))
    assert last["headers"][":exception-type"] == "InternalStreamFailure"
    assert b"secret" not in last["body"]
    assert "a secret" in caplog.text


def test_an_error_that_the_stream_does_not_have() -> None:
    """It travels in the message's headers."""
    *_, last = framed(response_stream(), failing(ServiceError("ThrottlingException", "Rate exceeded")))
    told = {name: value for name, value in last["headers"].items() if name.startswith(":error")}
    assert told == {":error-code": "ThrottlingException", ":error-message": "Rate exceeded"}


EVERY_TRAIT: dict[str, Any] = {
    "metadata": {"protocol": "rest-json", "endpointPrefix": "x", "apiVersion": "1"},
    "operations": {},
    "shapes": {
        "Stream": {
            "type": "structure",
            "eventstream": True,
            "members": {"Told": {"shape": "Told"}, "Plain": {"shape": "Plain"}},
        },
        "Told": {
            "type": "structure",
            "event": True,
            "members": {
                "flag": {"shape": "Flag", "eventheader": True},
                "small": {"shape": "Small", "eventheader": True},
                "large": {"shape": "Large", "eventheader": True},
                "word": {"shape": "Word", "eventheader": True},
                "raw": {"shape": "Raw", "eventheader": True},
                "when": {"shape": "When", "eventheader": True},
                "inside": {"shape": "Inside", "eventpayload": True},
            },
        },
        "Plain": {"type": "structure", "event": True, "members": {"word": {"shape": "Word"}}},
        "Inside": {"type": "structure", "members": {"word": {"shape": "Word"}}},
        "Flag": {"type": "boolean"},
        "Small": {"type": "integer"},
        "Large": {"type": "long"},
        "Word": {"type": "string"},
        "Raw": {"type": "blob"},
        "When": {"type": "timestamp"},
    },
}


def test_every_kind_of_header_and_payload() -> None:
    """Botocore's parser finds the same members in an event that were written."""
    stream = ServiceModel(EVERY_TRAIT, "x").shape_for("Stream")
    assert isinstance(stream, StructureShape)
    told: Members = {"flag": False, "small": -7, "large": 2**40, "word": "é", "raw": b"\0\xff"}
    told |= {"when": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), "inside": {"word": "in the payload"}}
    events: list[Members] = [{"Told": told}, {"Told": {"flag": True}}, {"Plain": {"word": "alone"}}, {"Plain": {}}]
    parser = EventStreamJSONParser()
    read = [parser.parse(message, stream) for message in framed(stream, iter(events))]
    for event in read:
        event.pop("ResponseMetadata", None)
    assert read == [{"Told": told}, {"Told": {"flag": True, "inside": {}}}, *events[2:]]


def test_a_stream_in_xml() -> None:
    """The documents of a service that speaks XML are XML: S3's SelectObjectContent, which botocore parses."""
    model = load_model("s3")
    operation = model.service.operation_model("SelectObjectContent")
    details = {"BytesScanned": 3, "BytesProcessed": 2, "BytesReturned": 1}
    events: list[Members] = [{"Records": {"Payload": b"a,b"}}, {"Stats": {"Details": details}}, {"End": {}}]
    reply = serialize(model, operation, {"Payload": iter(events)}, request_id="1")
    assert operation.output_shape is not None
    parser = EventStreamXMLParser()
    found = [parser.parse(message, operation.output_shape.members["Payload"]) for message in read_from(reply.body)]
    assert [{name: event[name] for name in event if name != "ResponseMetadata"} for event in found] == events
