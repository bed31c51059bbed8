"""``sentiment permissions --web`` grants what publishing the page asks of AWS, and what CloudFormation then asks.

The first is recorded. The second no server at hand shows: CloudFormation makes the resources in the caller's name. It
is read out of the schemas that AWS publishes of the resource types, as cfn-lint carries them: what their handlers for
making, reading, changing and deleting need, but for that which belongs to properties that the template has not got.
On which resources stands in the Service Authorization Reference; their ARNs are those that CloudFormation would give.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from backends.aws.webstack import TEMPLATE
from backends.config import load_config
from backends.engine.settings import ACCOUNT
from sentiment.bundle import CONTAINER
from sentiment.production import callers_policy
from sentiment.settings import IMAGE
from tests.aws.commands import Commands, user_of_aws
from tests.aws.record import recording, resource_types
from tests.emulator import served
from tests.peers import client, peer
from tests.policies import Call, allows, covers, elsewhere

REGION = "us-east-1"
HANDLERS = {"create", "read", "update", "delete"}
CALLED_VIA = "aws:CalledViaFirst"
# By type and property: what is only needed for it. A handler does not say which property an action is for; what is
# not here is granted.
ONLY_FOR: dict[str, dict[str, set[str]]] = {
    "AWS::ApiGatewayV2::Api": {"BodyS3Location": {"s3:getObject"}},
    "AWS::ApiGatewayV2::Integration": {"CredentialsArn": {"iam:PassRole"}},
    "AWS::CloudFront::Distribution": {
        "ConnectionMode": {"cloudfront:CreateConnectionGroup", "cloudfront:GetConnectionGroup"},
        "Staging": {"cloudfront:UpdateDistributionWithStagingConfig"},
        "VpcOriginConfig": {"cloudfront:GetVpcOrigin"},
    },
    "AWS::IAM::Role": {
        "Description": {"iam:UpdateRoleDescription"},
        "ManagedPolicyArns": {"iam:AttachRolePolicy", "iam:DetachRolePolicy"},
        "MaxSessionDuration": {"iam:UpdateRole"},
        "PermissionsBoundary": {"iam:DeleteRolePermissionsBoundary", "iam:PutRolePermissionsBoundary"},
    },
    "AWS::Lambda::Function": {
        "CapacityProviderConfig": {"lambda:PassCapacityProvider"},
        "CodeSigningConfigArn": {
            "lambda:DeleteFunctionCodeSigningConfig",
            "lambda:GetCodeSigningConfig",
            "lambda:PutFunctionCodeSigningConfig",
        },
        "FileSystemConfigs": {"elasticfilesystem:DescribeMountTargets", "s3files:ListMountTargets"},
        "FunctionScalingConfig": {"lambda:PutFunctionScalingConfig"},
        "KmsKeyArn": {"kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"},
        "Layers": {"lambda:GetLayerVersion"},
        "PublishToLatestPublished": {"lambda:PublishVersion"},
        "RecursiveLoop": {"lambda:PutFunctionRecursionConfig"},
        "ReservedConcurrentExecutions": {"lambda:DeleteFunctionConcurrency", "lambda:PutFunctionConcurrency"},
        "RuntimeManagementConfig": {"lambda:PutRuntimeManagementConfig"},
        "VpcConfig": {
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
        },
    },
    "AWS::Logs::LogGroup": {
        "BearerTokenAuthenticationEnabled": {"logs:PutBearerTokenAuthentication"},
        "DataProtectionPolicy": {
            "firehose:TagDeliveryStream",
            "logs:CreateLogDelivery",
            "logs:PutDataProtectionPolicy",
            "s3:REST.PUT.OBJECT",
        },
        "DeletionProtectionEnabled": {"logs:PutLogGroupDeletionProtection"},
        "FieldIndexPolicies": {"logs:DeleteIndexPolicy", "logs:PutIndexPolicy"},
        "KmsKeyId": {"logs:AssociateKmsKey", "logs:DisassociateKmsKey"},
        "ResourcePolicyDocument": {"logs:DeleteResourcePolicy", "logs:PutResourcePolicy"},
    },
    "AWS::S3::Bucket": {
        "AbacStatus": {"s3:PutBucketAbac"},
        "AccelerateConfiguration": {"s3:PutAccelerateConfiguration"},
        "AccessControl": {"s3:GetBucketAcl", "s3:PutBucketAcl", "s3:PutObjectAcl"},
        "AnalyticsConfigurations": {"s3:DeleteBucketAnalyticsConfiguration", "s3:PutAnalyticsConfiguration"},
        "BucketEncryption": {"s3:DeleteBucketEncryption", "s3:PutEncryptionConfiguration"},
        "CorsConfiguration": {"s3:DeleteBucketCors", "s3:PutBucketCORS"},
        "IntelligentTieringConfigurations": {"s3:PutIntelligentTieringConfiguration"},
        "InventoryConfigurations": {"s3:PutInventoryConfiguration"},
        "LifecycleConfiguration": {"s3:DeleteBucketLifecycle", "s3:PutLifecycleConfiguration"},
        "LoggingConfiguration": {"s3:PutBucketLogging"},
        "MetadataConfiguration": {
            "s3:CreateBucketMetadataTableConfiguration",
            "s3:DeleteBucketMetadataTableConfiguration",
            "s3:UpdateBucketMetadataAnnotationTableConfiguration",
            "s3:UpdateBucketMetadataInventoryTableConfiguration",
            "s3:UpdateBucketMetadataJournalTableConfiguration",
            "s3tables:CreateNamespace",
            "s3tables:CreateTable",
            "s3tables:CreateTableBucket",
            "s3tables:GetTable",
            "s3tables:GetTableMetadataLocation",
            "s3tables:PutTableBucketPolicy",
            "s3tables:PutTableEncryption",
            "s3tables:PutTablePolicy",
            "s3tables:UpdateTableMetadataLocation",
        },
        "MetricsConfigurations": {"s3:DeleteBucketMetricsConfiguration", "s3:PutMetricsConfiguration"},
        "NotificationConfiguration": {"s3:PutBucketNotification"},
        "ObjectLockConfiguration": {"s3:PutBucketObjectLockConfiguration", "s3:PutObjectLockConfiguration"},
        "ReplicationConfiguration": {
            "iam:PassRole",
            "s3:DeleteBucketReplication",
            "s3:PutBucketReplication",
            "s3:PutReplicationConfiguration",
        },
        "VersioningConfiguration": {"s3:PutBucketVersioning"},
        "WebsiteConfiguration": {"s3:DeleteBucketWebsite", "s3:PutBucketWebsite"},
    },
}


# What of the stack has a name before or while it is made, by the type of resource.
NAMED = {
    "apigateway:api": ["apigateway:us-east-1::/apis/a"],
    "apigateway:apis": ["apigateway:us-east-1::/apis"],
    "apigateway:integration": ["apigateway:us-east-1::/apis/a/integrations/i"],
    "apigateway:route": ["apigateway:us-east-1::/apis/a/routes/r"],
    "apigateway:stage": ["apigateway:us-east-1::/apis/a/stages/$default"],
    "apigateway:tags": ["apigateway:us-east-1::/tags/arn%3Aaws%3Aapigateway%3Aus-east-1%3A%3A%2Fapis%2Fa"],
    "cloudfront:cache-policy": [f"cloudfront::{ACCOUNT}:cache-policy/c"],
    "cloudfront:distribution": [f"cloudfront::{ACCOUNT}:distribution/D"],
    "cloudfront:origin-access-control": [f"cloudfront::{ACCOUNT}:origin-access-control/o"],
    "cloudfront:response-headers-policy": [f"cloudfront::{ACCOUNT}:response-headers-policy/r"],
    "iam:role": [f"iam::{ACCOUNT}:role/sentiment-web-FunctionRole-1A"],
    "lambda:function": [f"lambda:us-east-1:{ACCOUNT}:function:sentiment-web-Function-1A"],
    "logs:log-group": [f"logs:us-east-1:{ACCOUNT}:log-group:sentiment-web-FunctionLogs-1A:*"],
    "s3:bucket": ["s3:::sentiment-web-pagebucket-1a"],
    "s3:object": [
        "s3:::sentiment-web-pagebucket-1a/index.html",
        f"s3:::greenroom-{ACCOUNT}-us-east-1/sentiment/functions/1.zip",
    ],
    "scheduler:schedule": [f"scheduler:us-east-1:{ACCOUNT}:schedule/default/sentiment-web-Expiry-1A"],
}
# Of which the reference does not say.
NOT_IN_THE_REFERENCE = {
    "apigateway:TagResource",
    "apigateway:UntagResource",
    "cloudfront:CreateDistributionWithTags",
    "lambda:AssociateRuntimeAlias",
    "s3:DeleteBucketTagging",
}


def policy(*, web: bool, in_the_callers_name: bool | None = None) -> dict[str, Any]:
    """The whole policy of the emulator's account; or CloudFormation's statements alone, or the commands' own."""
    found: dict[str, Any] = callers_policy(load_config(backend="aws", expected_account=ACCOUNT), web=web)
    statements = [
        statement
        for statement in found["Statement"]
        if in_the_callers_name is None
        or (CALLED_VIA in statement.get("Condition", {}).get("StringEquals", ())) is in_the_callers_name
    ]
    return found | {"Statement": statements}


def granted(policy: dict[str, Any]) -> set[str]:
    """Its actions."""
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def test_what_the_commands_ask_is_granted_and_nothing_else_ministack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page goes up, is brought up to date, loses its hour, comes down; beyond what the other policy grants."""
    user_of_aws(monkeypatch, tmp_path)
    folder = tmp_path / "server"
    folder.mkdir()
    with peer("ministack", tmp_path) as cloud:
        (folder / "greenroom.toml").write_text(f'endpoint_url = "{cloud}"\n[images]\n"{IMAGE}" = "{CONTAINER}"\n')
        with served(folder, "--upstream", cloud) as (url, _), recording(ACCOUNT) as record:
            sentiment = Commands(tmp_path, "--backend", "aws", "--endpoint-url", url)
            sentiment.done("run", "--source", sentiment.source)
            sentiment.done("deploy", "--ttl", "2h", "--yes")
            assert "billed by use: Lambda Function: 0.0002 USD" in sentiment.done("web", "--yes").stderr
            arns = {call.resource.partition("/")[0] for call in record.calls if call.action.startswith("s3:")}
            (page,) = {arn.rpartition(":")[2] for arn in arns} - {f"greenroom-{ACCOUNT}-us-east-1"}
            client("s3", cloud).put_object(Bucket=page, Key="old.js", Body=b"")
            sentiment.done("web", "--yes")
            sentiment.done("web", "--ttl", "0", "--yes")
            sentiment.done("destroy", "--yes")
    usual, own = policy(web=False), policy(web=True, in_the_callers_name=False)
    beyond = [call for call in record.calls if not allows(usual, call)]
    assert [call for call in beyond if not allows(own, call)] == []
    assert granted(own) == {call.action for call in beyond}
    patterns = [pattern for statement in own["Statement"] for pattern in statement["Resource"]]
    assert [pattern for pattern in patterns if not any(covers(pattern, call.resource) for call in beyond)] == []
    assert [twin for call in beyond for twin in elsewhere(call) if allows(own, twin) or allows(usual, twin)] == []


@pytest.fixture(scope="module")
def in_the_callers_name() -> set[str]:
    """The actions that CloudFormation needs for what is in the template."""
    asked: set[str] = set()
    resources: dict[str, Any] = cfn_yaml.load(str(TEMPLATE))["Resources"]
    for kind in {resource["Type"] for resource in resources.values()}:
        schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema
        used = {name for resource in resources.values() if resource["Type"] == kind for name in names(resource)}
        needed = set(schema["tagging"].get("permissions", ()))
        handlers = schema["handlers"]
        needed |= {action for name in HANDLERS & handlers.keys() for action in handlers[name]["permissions"]}
        for name, actions in ONLY_FOR.get(kind, {}).items():
            assert actions <= needed, (kind, name)
            if name not in used:
                needed -= actions
        asked |= needed
    return asked


def test_what_cloudformation_asks_is_granted_and_nothing_else(in_the_callers_name: set[str]) -> None:
    """In the caller's name, so the caller's policy has to have it; only through CloudFormation."""
    assert granted(policy(web=True, in_the_callers_name=True)) == in_the_callers_name


def test_cloudformation_may_do_it_to_what_is_the_stacks(in_the_callers_name: set[str]) -> None:
    """And to nothing of another name or account; what has no name, by the account."""
    whole = policy(web=True)
    for action in in_the_callers_name - NOT_IN_THE_REFERENCE:
        types = [kind for kind in resource_types(action) if kind in NAMED]
        named = [[f"arn:aws:{arn}" for arn in NAMED[kind]] for kind in types] or [["*"]]
        for arns in named:
            context = {CALLED_VIA: "cloudformation.amazonaws.com", "iam:PassedToService": "lambda.amazonaws.com"}
            calls = [Call(action, arn, context) for arn in arns]
            assert any(allows(whole, call) for call in calls), (action, arns)
            if action not in granted(policy(web=True, in_the_callers_name=False)):
                assert not any(allows(whole, Call(action, arn)) for arn in arns), action
            assert [twin for call in calls for twin in elsewhere(call) if allows(whole, twin)] == []


def names(part: Any) -> Iterator[str]:
    """The members of a resource at any depth."""
    if isinstance(part, dict):
        for name, value in part.items():
            yield name
            yield from names(value)
    elif isinstance(part, list):
        for value in part:
            yield from names(value)
