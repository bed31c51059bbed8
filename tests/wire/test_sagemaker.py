import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from backends.config import BackendConfig
from backends.emulator.app import create_app
from backends.engine import Engine
from backends.local.backend import engine_settings
from tests.wire.conftest import ENDPOINT, serving


def test_boto3_finds_the_endpoint(sagemaker: Any) -> None:
    """List and Describe arrive through botocore's own parser, times included."""
    (listed,) = sagemaker.list_endpoints(StatusEquals="InService", NameContains=ENDPOINT)["Endpoints"]
    described = sagemaker.describe_endpoint(EndpointName=ENDPOINT)
    assert {key: described[key] for key in listed} == listed
    assert [variant["VariantName"] for variant in described["ProductionVariants"]] == ["one", "two"]
    assert sagemaker.list_endpoints(NameContains="nobody")["Endpoints"] == []


def test_an_unknown_endpoint_is_refused_in_the_control_planes_words(sagemaker: Any) -> None:
    """Code and text of the JSON protocol (contract 0.1)."""
    with pytest.raises(ClientError) as caught:
        sagemaker.describe_endpoint(EndpointName="nobody")
    error = caught.value.response["Error"]
    assert (error["Code"], "nobody" in error["Message"]) == ("ValidationException", True)


def test_nothing_is_created_or_deleted_over_the_wire(sagemaker: Any, backend: Any) -> None:
    """Only what changes nothing is answered: there is no token yet that would guard more (case S15)."""
    for call in (sagemaker.delete_endpoint, sagemaker.create_endpoint):
        members = {"EndpointConfigName": "x"} if call == sagemaker.create_endpoint else {}
        with pytest.raises(ClientError, match="not an operation that Greenroom answers") as caught:
            call(EndpointName=ENDPOINT, **members)
        assert caught.value.response["Error"]["Code"] == "UnknownOperationException"
    assert ENDPOINT in backend.endpoints.names()


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_document_is_refused(url: str, body: bytes) -> None:
    """400 and an AWS-shaped error, whatever it is."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", "/", body=body, headers={"X-Amz-Target": "SageMaker.ListEndpoints"})
    response = connection.getresponse()
    document = json.loads(response.read())
    connection.close()
    assert (response.status, document["__type"]) == (400, "SerializationException")


def test_the_name_it_is_served_by_is_answered(config: BackendConfig, sagemaker: Any) -> None:
    """A name of this machine beside loopback's, and no third one."""
    name = socket.gethostname()
    engine = Engine(engine_settings(config))
    with serving(create_app(engine, host=name)) as url:
        statuses = []
        for host in (name, "attacker.example"):
            connection = http.client.HTTPConnection(urlsplit(url).netloc)
            connection.request("POST", "/nothing", headers={"Host": f"{host}:80"})
            statuses.append(connection.getresponse().status)
            connection.close()
    engine.close()
    assert statuses == [404, 403]
