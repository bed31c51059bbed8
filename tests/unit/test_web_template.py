"""The template of the web tier: what it says, held against AWS's schemas, the gateway, and the least that is needed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml

from backends.aws.webstack import TEMPLATE
from backends.gateway import FunctionSettings, GatewaySettings
from backends.gateway.routes import Route
from backends.page import SECURITY_HEADERS
from sentiment.bundle import HANDLER, WEB

# CloudFront developer guide, "Use managed cache policies", "Use managed origin request policies".
CACHING_DISABLED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
ALL_VIEWER_EXCEPT_HOST_HEADER = "b689b0a8-53d0-40ab-baf2-68738e2966ac"
ACCOUNT = "arn:${AWS::Partition}:%s:${AWS::Region}:${AWS::AccountId}:%s"
LONGEST_INLINE_BYTES = 51_200


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    """Logical name → type and properties, intrinsic functions in their long form."""
    found: dict[str, Any] = cfn_yaml.load(str(TEMPLATE))["Resources"]
    return found


@pytest.fixture(scope="module")
def distribution(resources: dict[str, Any]) -> Any:
    return resources["Distribution"]["Properties"]["DistributionConfig"]


def statements(resources: dict[str, Any], role: str) -> list[dict[str, Any]]:
    """What *role* may do."""
    (policy,) = resources[role]["Properties"]["Policies"]
    found: list[dict[str, Any]] = policy["PolicyDocument"]["Statement"]
    return found


def test_cfn_lint_has_nothing_to_say() -> None:
    """No error, no warning, not even a hint, by the schemas that AWS publishes."""
    command = [str(Path(sys.executable).with_name("cfn-lint")), "-c", "I", "--non-zero-exit-code", "informational"]
    done = subprocess.run([*command, "-t", str(TEMPLATE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_template_travels_in_the_request() -> None:
    """It need not be uploaded first."""
    assert len(TEMPLATE.read_bytes()) < LONGEST_INLINE_BYTES


def test_the_pages_headers_are_the_gateways(resources: dict[str, Any]) -> None:
    """CloudFront sends the same security headers, and no others."""
    config = resources["PageHeaders"]["Properties"]["ResponseHeadersPolicyConfig"]
    security = config["SecurityHeadersConfig"]
    assert security["ContentTypeOptions"] == {"Override": True}
    sent = {
        "content-security-policy": security["ContentSecurityPolicy"]["ContentSecurityPolicy"],
        "referrer-policy": security["ReferrerPolicy"]["ReferrerPolicy"],
        "x-content-type-options": "nosniff",
        "x-frame-options": security["FrameOptions"]["FrameOption"],
    } | {item["Header"]: item["Value"] for item in config["CustomHeadersConfig"]["Items"]}
    assert sent == dict(SECURITY_HEADERS)
    assert len(security) == 4
    assert all(header["Override"] for header in [*security.values(), *config["CustomHeadersConfig"]["Items"]])


def test_the_routes_are_the_gateways(resources: dict[str, Any], distribution: Any) -> None:
    """The API has each of them, and the page's address leads to each, uncached and with the client's own headers."""
    wanted = GatewaySettings(FunctionSettings(HANDLER)).routes
    found = [r["Properties"]["RouteKey"] for r in resources.values() if r["Type"] == "AWS::ApiGatewayV2::Route"]
    assert sorted(found) == sorted(wanted)
    behaviours = {behaviour["PathPattern"]: behaviour for behaviour in distribution["CacheBehaviors"]}
    assert behaviours.keys() == {Route.parse(key).resource for key in wanted}
    for route in map(Route.parse, wanted):
        behaviour = behaviours[route.resource]
        assert route.method in behaviour["AllowedMethods"]
        assert behaviour["TargetOriginId"] == "api"
        assert behaviour["CachePolicyId"] == CACHING_DISABLED
        assert behaviour["OriginRequestPolicyId"] == ALL_VIEWER_EXCEPT_HOST_HEADER
        assert not (WEB / route.resource.lstrip("/")).exists()  # a file there would be hidden


def test_everything_else_is_the_page(resources: dict[str, Any], distribution: Any) -> None:
    """From the private bucket, over HTTPS; what browsers ask for each time the edge may keep."""
    origins = {origin["Id"]: origin for origin in distribution["Origins"]}
    default = distribution["DefaultCacheBehavior"]
    assert origins[default["TargetOriginId"]]["DomainName"] == {"Fn::GetAtt": ["PageBucket", "RegionalDomainName"]}
    assert default["ViewerProtocolPolicy"] == "redirect-to-https"
    assert distribution["DefaultRootObject"] == "index.html"
    assert set(resources["PageBucket"]["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    assert resources["PageCache"]["Properties"]["CachePolicyConfig"]["MinTTL"] > 0


def test_the_function_is_the_handler(resources: dict[str, Any]) -> None:
    """Its entry point is there, its time ends before the API's, and it is told the endpoint."""
    function = resources["Function"]["Properties"]
    module, _, name = function["Handler"].partition(".")
    assert f"def {name}(" in (HANDLER / f"{module}.py").read_text()
    assert function["Timeout"] < 30
    assert function["Environment"]["Variables"] == {"ENDPOINT_NAME": {"Ref": "EndpointName"}}


def test_the_function_may_ask_one_endpoint_and_log(resources: dict[str, Any]) -> None:
    """Nothing else, and no other log; it cannot make the log group anew after the stack is gone."""
    assert statements(resources, "FunctionRole") == [
        {
            "Effect": "Allow",
            "Action": "sagemaker:InvokeEndpoint",
            "Resource": {"Fn::Sub": ACCOUNT % ("sagemaker", "endpoint/${EndpointName}")},
        },
        {
            "Effect": "Allow",
            "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": {"Fn::GetAtt": ["FunctionLogs", "Arn"]},
        },
    ]
    assert resources["Function"]["Properties"]["LoggingConfig"] == {"LogGroup": {"Ref": "FunctionLogs"}}
    assert resources["FunctionLogs"]["Properties"]["RetentionInDays"] == 14


def test_the_schedule_may_delete_one_endpoint(resources: dict[str, Any]) -> None:
    """The one that it deletes, on behalf of this account alone."""
    assert statements(resources, "ExpiryRole") == [
        {
            "Effect": "Allow",
            "Action": "sagemaker:DeleteEndpoint",
            "Resource": {"Fn::Sub": ACCOUNT % ("sagemaker", "endpoint/${EndpointName}")},
        }
    ]
    (trust,) = resources["ExpiryRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    target = resources["Expiry"]["Properties"]["Target"]
    assert target["Arn"] == {"Fn::Sub": "arn:${AWS::Partition}:scheduler:::aws-sdk:sagemaker:deleteEndpoint"}
    assert target["Input"] == {"Fn::Sub": '{"EndpointName": "${EndpointName}"}'}


def test_the_bucket_is_read_by_the_distribution_alone(resources: dict[str, Any]) -> None:
    """Both statements are bound to it."""
    condition = {
        "StringEquals": {
            "AWS:SourceArn": {
                "Fn::Sub": "arn:${AWS::Partition}:cloudfront::${AWS::AccountId}:distribution/${Distribution}"
            }
        }
    }
    found = resources["PageBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert {statement["Action"] for statement in found} == {"s3:GetObject", "s3:ListBucket"}
    assert all(statement["Principal"] == {"Service": "cloudfront.amazonaws.com"} for statement in found)
    assert all(statement["Condition"] == condition for statement in found)


def test_the_function_is_called_by_the_api_alone(resources: dict[str, Any]) -> None:
    """And by nobody else's."""
    permission = resources["ApiPermission"]["Properties"]
    assert permission["Principal"] == "apigateway.amazonaws.com"
    assert permission["SourceArn"] == {"Fn::Sub": ACCOUNT % ("execute-api", "${Api}/*")}


def test_the_bill_is_bounded(resources: dict[str, Any]) -> None:
    """Anyone may ask, so the stage is throttled."""
    limits = resources["Stage"]["Properties"]["DefaultRouteSettings"]
    assert 0 < limits["ThrottlingRateLimit"] <= limits["ThrottlingBurstLimit"] <= 100


def test_nothing_outlives_the_stack(resources: dict[str, Any]) -> None:
    """No resource is kept, and each belongs to the page or to the schedule."""
    kept = [name for name, found in resources.items() if found.get("DeletionPolicy", "Delete") != "Delete"]
    assert kept == []
    assert {found["Condition"] for found in resources.values()} == {"Serves", "DoesExpire"}
