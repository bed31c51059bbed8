import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.wire.conftest import ENDPOINT


def test_boto3_gets_the_models_answer(runtime: Any) -> None:
    """Body, content type and variant arrive through botocore's own parser."""
    response = runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=b"hello", ContentType="text/csv", Accept="text/csv")
    assert response["Body"].read() == b"HELLO"
    assert response["ContentType"] == "text/csv"
    assert response["InvokedProductionVariant"] == "one"
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]


def test_only_the_operations_own_headers_reach_the_container(runtime: Any) -> None:
    """What was not sent stays absent; signatures and client headers do not pass (contract B.2)."""
    response = runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=b"headers", CustomAttributes="trace=1")
    seen = json.loads(response["Body"].read())
    assert seen["x-amzn-sagemaker-custom-attributes"] == "trace=1"
    assert not {"authorization", "x-amz-date", "accept", "content-type", "amz-sdk-request"} & seen.keys()


def test_a_variant_can_be_named(runtime: Any) -> None:
    """TargetVariant overrides the weights, even a weight of 0."""
    response = runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=b"model", TargetVariant="two")
    assert (response["InvokedProductionVariant"], response["Body"].read()) == ("two", b"the model")


@pytest.mark.parametrize(("status", "blame"), [(400, "client"), (500, "server")])
def test_a_container_error_is_a_model_error(runtime: Any, status: int, blame: str) -> None:
    """424 with every member of ModelError (contract B.6)."""
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=f"status={status}".encode())
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == status
    assert response["OriginalMessage"] == "told to fail"
    assert response["LogStreamArn"].endswith(f"/aws/sagemaker/Endpoints/{ENDPOINT}")
    text = f'Received {blame} error ({status}) from primary with message "told to fail". See https://'
    assert response["Error"]["Message"].startswith(text)


def test_an_unknown_endpoint_is_a_validation_error(runtime: Any) -> None:
    """AWS's code of the runtime plane, and its words."""
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName="nobody", Body=b"x")
    error = caught.value.response["Error"]
    assert (error["Code"], error["Message"]) == (
        "ValidationError",
        "Endpoint nobody of account 000000000000 not found.",
    )


def test_an_unknown_variant_is_a_validation_error(runtime: Any) -> None:
    """The text names the variants that exist."""
    with pytest.raises(ClientError, match="one, two") as caught:
        runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=b"x", TargetVariant="three")
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_a_body_over_the_limit_is_refused(runtime: Any) -> None:
    """25 MB is the limit; the endpoint goes on."""
    with pytest.raises(ClientError, match="26214400") as caught:
        runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=b"x" * (25 * 1024 * 1024 + 1))
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert runtime.invoke_endpoint(EndpointName=ENDPOINT, Body=b"on")["Body"].read() == b"ON"


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Host": "attacker.example"}, f"/endpoints/{ENDPOINT}/invocations", 403),
        ({}, f"/endpoints/{ENDPOINT}/async-invocations", 400),
        ({}, f"/endpoints/{ENDPOINT}/nothing", 404),
        ({"Host": "attacker.example"}, "/%0a", 403),
    ],
)
def test_what_is_not_served_is_said_so(url: str, headers: dict[str, str], path: str, status: int) -> None:
    """A foreign Host (DNS rebinding) and operations that are not there get an AWS-shaped error."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request("POST", path, body=b"x", headers=headers)
    response = connection.getresponse()
    document = json.loads(response.read())
    connection.close()
    assert response.status == status
    assert response.headers["x-amzn-ErrorType"] in {"AccessDeniedException", "UnknownOperationException"}
    assert document["Message"]
