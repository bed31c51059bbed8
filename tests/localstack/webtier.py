"""The web tier as plain boto3 makes it: a role, the function as a zip, an API in front of it."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from tests.peers import REGION

FUNCTION = Path(__file__).parents[2] / "lambda" / "predict"
NAME = "predict"
ROUTES = (("POST", "predict"), ("GET", "about"))
_FILE_MODE = 0o644


def function_zip(folder: Path) -> bytes:
    """The Python files of *folder* as Lambda takes them: the same bytes for the same files, whenever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in sorted(folder.rglob("*.py")):
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # dated 1980
            member.external_attr = _FILE_MODE << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            bundle.writestr(member, path.read_bytes())
    return buffer.getvalue()


def create_role(iam: Any) -> str:
    """A role that Lambda may assume and that may ask endpoints; returns its ARN."""
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ask = {"Effect": "Allow", "Action": "sagemaker:InvokeEndpoint", "Resource": "*"}
    role = iam.create_role(RoleName=NAME, AssumeRolePolicyDocument=_policy(trust))["Role"]
    iam.put_role_policy(RoleName=NAME, PolicyName="ask", PolicyDocument=_policy(ask))
    return str(role["Arn"])


def create_function(
    functions: Any, name: str, folder: Path, *, role_arn: str, variables: dict[str, str], timeout_seconds: int = 29
) -> str:
    """The function in *folder* with *variables* as its environment, ready to be called; returns its ARN."""
    created = functions.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role=role_arn,
        Handler="handler.handler",
        Code={"ZipFile": function_zip(folder)},
        Timeout=timeout_seconds,
        MemorySize=256,
        Environment={"Variables": variables},
    )
    functions.get_waiter("function_active_v2").wait(FunctionName=name)
    functions.add_permission(
        FunctionName=name,
        StatementId="api-gateway",
        Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com",
    )
    return str(created["FunctionArn"])


def create_rest_api(gateway: Any, function_arn: str, stage: str) -> str:
    """A REST API with the page's routes, deployed as *stage*; returns its id."""
    api_id = str(gateway.create_rest_api(name=NAME)["id"])
    (root,) = gateway.get_resources(restApiId=api_id)["items"]
    for method, path in ROUTES:
        made = gateway.create_resource(restApiId=api_id, parentId=root["id"], pathPart=path)
        place = {"restApiId": api_id, "resourceId": made["id"], "httpMethod": method}
        gateway.put_method(**place, authorizationType="NONE")
        gateway.put_integration(
            **place,
            type="AWS_PROXY",
            integrationHttpMethod="POST",
            uri=f"arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{function_arn}/invocations",
        )
    gateway.create_deployment(restApiId=api_id, stageName=stage)
    return api_id


def create_http_api(gateway: Any, function_arn: str) -> str:
    """An HTTP API with the page's routes and payload 2.0, on the default stage; returns its id."""
    api_id = str(gateway.create_api(Name=NAME, ProtocolType="HTTP")["ApiId"])
    integration = gateway.create_integration(
        ApiId=api_id, IntegrationType="AWS_PROXY", IntegrationUri=function_arn, PayloadFormatVersion="2.0"
    )
    for method, path in ROUTES:
        target = f"integrations/{integration['IntegrationId']}"
        gateway.create_route(ApiId=api_id, RouteKey=f"{method} /{path}", Target=target)
    gateway.create_stage(ApiId=api_id, StageName="$default", AutoDeploy=True)
    return api_id


def _policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
