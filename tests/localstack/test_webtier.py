"""The web tier created by plain boto3, and asked from outside as far as each server runs it."""

import base64
import hashlib
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localstack.webtier import FUNCTION, NAME, ROUTES, create_http_api, create_rest_api, function_zip
from tests.peers import client

STAGE = "live"


def ask(api: tuple[str, str], path: str, document: Any = None) -> tuple[int, Any]:
    """Status and JSON of an API, given as base URL and the Host by which the server tells it from others."""
    base, host = api
    data = None if document is None else json.dumps(document).encode()
    headers = {"Content-Type": "application/json"} | ({"Host": host} if host else {})
    request = urllib.request.Request(base + path, data, headers)  # noqa: S310  a server of ours
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


@pytest.fixture(scope="module")
def rest_api(server: tuple[str, str], function_arn: str) -> tuple[str, str, str]:
    """A REST API's id, base URL and Host: each server has its own way to tell APIs apart."""
    name, url = server
    api_id = create_rest_api(client("apigateway", url), function_arn, STAGE)
    if name == "localstack":
        return api_id, f"{url}/_aws/execute-api/{api_id}/{STAGE}", ""
    return api_id, f"{url}/{STAGE}", f"{api_id}.execute-api.localhost"


def test_the_function_is_what_was_sent(url: str, role_arn: str, function_arn: str) -> None:
    """Code, role and environment are those of the request; the same folder makes the same zip."""
    found = client("lambda", url).get_function(FunctionName=NAME)["Configuration"]
    digest = hashlib.sha256(function_zip(FUNCTION)).digest()
    assert base64.b64decode(found["CodeSha256"]) == digest
    assert found["FunctionArn"] == function_arn
    assert found["Role"] == role_arn == client("iam", url).get_role(RoleName=NAME)["Role"]["Arn"]
    assert "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME" in found["Environment"]["Variables"]


def test_the_role_may_only_ask(url: str, role_arn: str) -> None:
    """One policy, one action."""
    policy = client("iam", url).get_role_policy(RoleName=NAME, PolicyName="ask")["PolicyDocument"]
    assert policy["Statement"][0]["Action"] == "sagemaker:InvokeEndpoint"


def test_the_rest_api_leads_to_the_function(url: str, rest_api: tuple[str, str, str], function_arn: str) -> None:
    """Each route, in the deployed stage; what is no route is refused by the gateway itself."""
    gateway = client("apigateway", url)
    resources = gateway.get_resources(restApiId=rest_api[0], embed=["methods"])["items"]
    found = {
        (method, resource["pathPart"]): made["methodIntegration"]["uri"]
        for resource in resources
        for method, made in resource.get("resourceMethods", {}).items()
    }
    assert set(found) == set(ROUTES)
    assert all(function_arn in uri for uri in found.values())
    assert [stage["stageName"] for stage in gateway.get_stages(restApiId=rest_api[0])["item"]] == [STAGE]
    assert ask(rest_api[1:], "/elsewhere")[0] == 403


def test_the_rest_api_answers(rest_api: tuple[str, str, str], run: Any) -> None:
    """Gateway, function, runtime API and endpoint in a row."""
    assert_answers(rest_api[1:], run["endpoint"])


def test_the_http_api_answers(server: tuple[str, str], function_arn: str, run: Any) -> None:
    """The same through payload 2.0, where the server has such APIs; LocalStack has them only for payment."""
    name, url = server
    gateway = client("apigatewayv2", url)
    if name == "localstack":
        with pytest.raises(ClientError, match="not yet been emulated"):
            create_http_api(gateway, function_arn)
        return
    api_id = create_http_api(gateway, function_arn)
    assert_answers((url, f"{api_id}.execute-api.localhost"), run["endpoint"])


def assert_answers(api: tuple[str, str], endpoint: str) -> None:
    """Both routes, and a refusal of the function's."""
    assert ask(api, "/about") == (200, {"endpoint": endpoint, "backend": "local"})
    status, opinion = ask(api, "/predict", {"text": "a good film"})
    assert (status, opinion["label"], opinion["endpoint"]) == (200, "positive", endpoint)
    status, refusal = ask(api, "/predict", {"text": " "})
    assert (status, refusal["error"]["code"]) == (400, "EmptyReview")
