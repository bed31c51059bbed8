"""The record of what is asked of AWS: which operations, and the calls that IAM judges for them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import botocore.handlers
import cfnlint
from botocore.model import OperationModel

from backends.naming import partition_of
from tests.policies import Call

# Where IAM's action is not called as the operation is. Source: the Service Authorization Reference, "Actions,
# resources, and condition keys" of each service.
_ACTIONS = {
    "s3:CompleteMultipartUpload": "s3:PutObject",
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
_ROLES = ("RoleArn", "ExecutionRoleArn")
_SCALING = "sagemaker.application-autoscaling.amazonaws.com"
# What an ARN says after its partition, by service and type of resource, in the words of requests. Source: the Service
# Authorization Reference; of log groups, CloudWatch Logs user guide, "Overview of managing access permissions".
_ARNS = {
    "application-autoscaling:scalabletarget": "application-autoscaling:{region}:{account}:scalable-target/0",
    "cloudformation:stack": "cloudformation:{region}:{account}:stack/{StackName}/0",
    "cloudfront:distribution": "cloudfront::{account}:distribution/{DistributionId}",
    "cloudwatch:alarm": "cloudwatch:{region}:{account}:alarm:{AlarmName}",
    "ecr:repository": "ecr:{region}:{account}:repository/{repositoryName}",
    "iam:role": "iam::{account}:role{Path}{RoleName}",
    "logs:log-group": "logs:{region}:{account}:log-group:{logGroupName}:*",
    "logs:log-stream": "logs:{region}:{account}:log-group:{logGroupName}:log-stream:{logStreamName}",
    "s3:bucket": "s3:::{Bucket}",
    "s3:object": "s3:::{Bucket}/{Key}",
    "sagemaker:endpoint": "sagemaker:{region}:{account}:endpoint/{EndpointName}",
    "sagemaker:endpoint-config": "sagemaker:{region}:{account}:endpoint-config/{EndpointConfigName}",
    "sagemaker:model": "sagemaker:{region}:{account}:model/{ModelName}",
    "sagemaker:training-job": "sagemaker:{region}:{account}:training-job/{TrainingJobName}",
    "sagemaker:transform-job": "sagemaker:{region}:{account}:transform-job/{TransformJobName}",
}


@cache
def _reference() -> dict[str, Any]:
    """The Service Authorization Reference, as cfn-lint carries it."""
    path = Path(cfnlint.__file__).parent / "data" / "AdditionalSpecs" / "Policies.json"
    reference: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return reference


def resource_types(action: str) -> list[str]:
    """The types of resources that *action* is on, as ``service:type``; none: it is on no resource, which is ``*``."""
    service, _, name = action.partition(":")
    actions = {key.lower(): value for key, value in _reference()[service]["Actions"].items()}
    return [f"{service}:{kind}".lower() for kind in actions[name.lower()].get("Resources", ())]


@dataclass
class Record:
    """What was asked of *account*: operations as ``service:Operation``, and the calls that IAM judges for them."""

    account: str
    operations: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    _paths: dict[str, str] = field(default_factory=dict)
    _stacks: dict[str, str] = field(default_factory=dict)

    def note(self, model: OperationModel, params: Mapping[str, Any], context: Mapping[str, Any], **_: object) -> None:
        """One request before it is sent."""
        operation = f"{model.service_model.signing_name}:{model.name}"
        self.operations.append(operation)
        if model.name == "CreateRole":
            self._paths[params["RoleName"]] = params.get("Path", "/")
        for call in self._needed(model, params, context["client_region"]):
            if call not in self.calls:
                self.calls.append(call)

    def note_answer(self, parsed: Mapping[str, Any], model: OperationModel, **_: object) -> None:
        """An answer: a change set's ARN does not say whose it is."""
        if model.name == "CreateChangeSet" and "StackId" in parsed:
            self._stacks[parsed["Id"]] = parsed["StackId"]

    def _needed(self, model: OperationModel, params: Mapping[str, Any], region: str) -> Iterator[Call]:
        service = model.service_model.signing_name
        service = _PREFIXES.get(service, service)
        operation = f"{service}:{model.name}"
        if operation in _ALLOWED_TO_ALL:
            return
        action = _ACTIONS.get(operation, operation)
        if operation == "s3:DeleteObjects" and all("VersionId" in each for each in params["Delete"]["Objects"]):
            action = "s3:DeleteObjectVersion"
        tags = _tags(params.get("Tags") or params.get("tags") or ())
        context = {f"aws:RequestTag/{key}": value for key, value in tags.items()} | {"aws:ViaAWSService": "false"}
        if "ServiceNamespace" in params:
            context["application-autoscaling:service-namespace"] = params["ServiceNamespace"]
        arns = list(self._resources(action, params, region))
        yield from (Call(action, arn, context) for arn in arns)
        if service in _TAGGING and tags and _TAGGING[service] != action:
            yield from (Call(_TAGGING[service], arn, context) for arn in arns)
        for role in [params[name] for name in _ROLES if name in params and model.name.startswith("Create")]:
            yield Call("iam:PassRole", role, {"iam:PassedToService": f"{service}.amazonaws.com"})
        for other in _IN_THE_CALLERS_NAME.get(operation, ()):
            for arn in self._resources(other, _behind_scaling(params), region):
                yield Call(other, arn, {"aws:ViaAWSService": "true", "iam:AWSServiceName": _SCALING})

    def _resources(self, action: str, params: Mapping[str, Any], region: str) -> Iterator[str]:
        types = resource_types(action)
        if not types:
            yield "*"
            return
        start = f"arn:{partition_of(region).name}:"
        arns = [
            params["ResourceArn"] if "ResourceArn" in params else start + _ARNS[kind].format_map(words)
            for kind in types
            if kind in _ARNS
            for words in self._words(params, region)
            if "ResourceArn" in params
            or {name for _, name, _, _ in Formatter().parse(_ARNS[kind]) if name} <= words.keys()
        ]
        assert arns, f"{action} with {sorted(params)} names no resource that is known here"
        yield from dict.fromkeys(arns)

    def _words(self, params: Mapping[str, Any], region: str) -> Iterator[dict[str, str]]:
        """What fills in an ARN, once for each object or alarm of a request about several."""
        words = {key: value for key, value in params.items() if isinstance(value, str)}
        words |= {"region": region, "account": self.account}
        if "RoleName" in words:
            words.setdefault("Path", self._paths.get(words["RoleName"], "/"))
        stack = words.get("StackName") or self._stacks.get(words.get("ChangeSetName", ""))
        if stack:
            words["StackName"] = stack.split("/")[1] if stack.startswith("arn:") else stack
        several = [{"Key": each["Key"]} for each in params.get("Delete", {}).get("Objects", ())]
        several += [{"AlarmName": name} for name in params.get("AlarmNames", ())]
        several += [{"repositoryName": name} for name in params.get("repositoryNames", ())]
        yield from (words | one for one in several or [{}])


def _tags(tags: Any) -> dict[str, str]:
    return dict(tags) if isinstance(tags, Mapping) else {tag["Key"]: tag["Value"] for tag in tags}


def _behind_scaling(params: Mapping[str, Any]) -> dict[str, str]:
    """What Application Auto Scaling speaks of where it asks in the caller's name for a variant to scale."""
    _, endpoint, _, _ = params["ResourceId"].split("/")
    return {
        "EndpointName": endpoint,
        "EndpointConfigName": f"{endpoint}-1",
        "AlarmName": f"TargetTracking-{params['ResourceId']}",
        "Path": f"/aws-service-role/{_SCALING}/",
        "RoleName": "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
    }


@contextmanager
def recording(account: str = "123456789012") -> Iterator[Record]:
    """Record every request of clients that are made within; those of earlier clients, such as a test's own, are not."""
    record = Record(account)
    hooks = [("before-parameter-build", record.note), ("after-call", record.note_answer)]
    botocore.handlers.BUILTIN_HANDLERS.extend(hooks)
    try:
        yield record
    finally:
        for hook in hooks:
            botocore.handlers.BUILTIN_HANDLERS.remove(hook)
