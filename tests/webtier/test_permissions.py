"""``sentiment permissions --web`` grants what publishing the page asks of AWS, and what CloudFormation then asks.

The first is recorded. The second no server at hand shows: CloudFormation makes the resources in the caller's name. It
is read out of the schemas that AWS publishes of the resource types, as cfn-lint carries them: what their handlers for
making, reading, changing and deleting need, but for that which belongs to properties that the template has not got.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cfnlint.decode import cfn_yaml
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from backends.aws.webstack import TEMPLATE
from backends.config import load_config
from sentiment.bundle import CONTAINER
from sentiment.production import callers_policy
from sentiment.settings import IMAGE
from tests.aws.commands import Commands, user_of_aws
from tests.aws.record import recording
from tests.emulator import served
from tests.peers import client, peer

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


def granted(*, web: bool, in_the_callers_name: bool = False) -> set[str]:
    """The actions of the policy's statements, those of CloudFormation apart from the commands' own."""
    statements = callers_policy(load_config(backend="aws"), web=web)["Statement"]
    return {
        action
        for statement in statements
        for action in statement["Action"]
        if (CALLED_VIA in statement.get("Condition", {}).get("StringEquals", ())) is in_the_callers_name
    }


def test_what_the_commands_ask_is_granted_and_nothing_else_ministack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page goes up, is brought up to date, loses its hour, comes down; beyond what the other policy grants."""
    user_of_aws(monkeypatch, tmp_path)
    folder = tmp_path / "server"
    folder.mkdir()
    with peer("ministack", tmp_path) as cloud:
        (folder / "greenroom.toml").write_text(f'endpoint_url = "{cloud}"\n[images]\n"{IMAGE}" = "{CONTAINER}"\n')
        with served(folder, "--upstream", cloud) as (url, _), recording() as record:
            sentiment = Commands(tmp_path, "--backend", "aws", "--endpoint-url", url)
            sentiment.done("run", "--source", sentiment.source)
            sentiment.done("deploy", "--ttl", "2h", "--yes")
            assert "billed by use: Lambda Function: 0.0002 USD" in sentiment.done("web", "--yes").stderr
            (page,) = record.buckets.keys() - {"greenroom-000000000000-us-east-1"}
            assert page.startswith("sentiment-web-")  # By which the policy knows it.
            client("s3", cloud).put_object(Bucket=page, Key="old.js", Body=b"")
            sentiment.done("web", "--yes")
            sentiment.done("web", "--ttl", "0", "--yes")
            sentiment.done("destroy", "--yes")
    assert record.actions - granted(web=False) | record.buckets[page] == granted(web=True)


def test_what_cloudformation_asks_is_granted_and_nothing_else() -> None:
    """In the caller's name, so the caller's policy has to have it; only through CloudFormation."""
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
    assert granted(web=True, in_the_callers_name=True) == asked


def names(part: Any) -> Iterator[str]:
    """The members of a resource at any depth."""
    if isinstance(part, dict):
        for name, value in part.items():
            yield name
            yield from names(value)
    elif isinstance(part, list):
        for value in part:
            yield from names(value)
