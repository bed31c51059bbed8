"""The command line in this process, and the record of what it asks of AWS."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.handlers
import pytest
from botocore.model import OperationModel
from typer.testing import CliRunner, Result

from sentiment.cli import app
from tests.reviews import few_reviews

# Where IAM's action is not called as the operation is. Source: the Service Authorization Reference, "Actions,
# resources, and condition keys" of each service.
_ACTIONS = {
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:UploadPart": "s3:PutObject",
}
_PREFIXES = {"monitoring": "cloudwatch", "tagging": "tag"}
# What the service asks of others in the caller's name. Source: Application Auto Scaling user guide, "Permissions
# validation" (for SageMaker the actions are those of its "Identity-based policy examples").
_IN_THE_CALLERS_NAME = {
    "application-autoscaling:RegisterScalableTarget": {
        "cloudwatch:DeleteAlarms",
        "cloudwatch:DescribeAlarms",
        "cloudwatch:PutMetricAlarm",
        "iam:CreateServiceLinkedRole",
        "sagemaker:DescribeEndpoint",
        "sagemaker:DescribeEndpointConfig",
        "sagemaker:UpdateEndpointWeightsAndCapacities",
    },
}
_ALLOWED_TO_ALL = {"sts:GetCallerIdentity"}
_TAGGING = {
    "application-autoscaling": "application-autoscaling:TagResource",
    "cloudwatch": "cloudwatch:TagResource",
    "ecr": "ecr:TagResource",
    "iam": "iam:TagRole",
    "sagemaker": "sagemaker:AddTags",
}
_ROLES = {"RoleArn", "ExecutionRoleArn"}


def needed(model: OperationModel, params: Mapping[str, Any]) -> set[str]:
    """The IAM actions that a caller of this operation needs with these members."""
    service = model.service_model.signing_name
    service = _PREFIXES.get(service, service)
    operation = f"{service}:{model.name}"
    if operation == "s3:DeleteObjects" and all("VersionId" in each for each in params["Delete"]["Objects"]):
        return {"s3:DeleteObjectVersion"}
    if operation in _ALLOWED_TO_ALL:
        return set()
    actions = {_ACTIONS.get(operation, operation)} | _IN_THE_CALLERS_NAME.get(operation, set())
    if service in _TAGGING and (params.get("Tags") or params.get("tags")):
        actions.add(_TAGGING[service])
    if model.name.startswith("Create") and _ROLES & params.keys():
        actions.add("iam:PassRole")
    return actions


@dataclass
class Record:
    """What was asked of AWS: operations as ``service:Operation``, the actions that they need, S3's by bucket too."""

    operations: list[str]
    actions: set[str]
    buckets: defaultdict[str, set[str]]


@contextmanager
def recording() -> Iterator[Record]:
    """Record every request of clients that are made within; those of earlier clients, such as a test's own, are not."""
    record = Record([], set(), defaultdict(set))

    def note(model: OperationModel, params: Mapping[str, Any], **_: object) -> None:
        record.operations.append(f"{model.service_model.signing_name}:{model.name}")
        actions = needed(model, params)
        record.actions.update(actions)
        if "Bucket" in params:
            record.buckets[params["Bucket"]].update(actions)

    hook = ("before-parameter-build", note)
    botocore.handlers.BUILTIN_HANDLERS.append(hook)
    try:
        yield record
    finally:
        botocore.handlers.BUILTIN_HANDLERS.remove(hook)


class Commands:
    """Runs ``sentiment`` with the same options before each command. Its source are a few dozen reviews."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._options = options
        self.source = str(few_reviews(folder / "reviews.tar.gz"))

    def __call__(self, *arguments: str, answer: str = "") -> Result:
        """The result, whichever it is; ``answer`` is typed where it asks."""
        return CliRunner().invoke(app, [*self._options, *arguments], input=answer)

    def done(self, *arguments: str) -> Result:
        """The result of a command that has to succeed."""
        result = self(*arguments)
        assert result.exit_code == 0, f"{arguments}: {result.exception!r}\n{result.output}"
        return result

    def json(self, *arguments: str) -> Any:
        """What the command printed with ``--json``."""
        return json.loads(self.done(*arguments, "--json").stdout)


def user_of_aws(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Credentials that lead nowhere, no settings, an empty working folder."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GREENROOM_"))]:
        monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.chdir(folder)
