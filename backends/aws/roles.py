"""The execution role that jobs and endpoints assume, where the user brings none: as little as they need.

Sources: SageMaker developer guide, "How to use SageMaker AI execution roles" and, for the alarms that a canary is
watched by, "Auto-Rollback Configuration and Monitoring".
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backends.aws.account import refused_as, translated
from backends.aws.endpoints import alarm_name
from backends.naming import partition_of, split_uri
from backends.specs import Request

PATH = "/greenroom/"
_POLICY = "execution"
# In every partition, as China's developer guide has it ("IAM permissions and execution roles").
_SERVICE = "sagemaker.amazonaws.com"
_IMAGE = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.([a-z0-9.-]+)/([^:@]+)(?:[:@].*)?")
_JOB_GROUPS = ("TrainingJobs", "TransformJobs")

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ExecutionRole:
    """A role for the jobs and endpoints of one application in one account and region.

    Their names begin with *stem*. They read objects below *reads*, write below *writes* (``s3://`` prefixes of one
    bucket), pull *image* where that lies in ECR, look at their endpoints' alarms, and log; nothing else.
    """

    account: str
    region: str
    stem: str
    reads: Sequence[str]
    writes: Sequence[str]
    image: str
    tags: Mapping[str, str]

    @property
    def name(self) -> str:
        """One for each region: what it may do differs."""
        return f"{self.stem}-{self.region}"

    @property
    def arn(self) -> str:
        """Known before the role is made."""
        return f"arn:{self._partition}:iam::{self.account}:role{PATH}{self.name}"

    @property
    def trust(self) -> Document:
        """SageMaker may assume it, on behalf of this account alone."""
        return _document(
            {
                "Effect": "Allow",
                "Principal": {"Service": _SERVICE},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": self.account}},
            }
        )

    @cached_property
    def policy(self) -> Document:
        """What it may do.

        Log groups end in ``:*`` there. Source: CloudWatch Logs user guide, "Overview of managing access permissions".
        """
        bucket = split_uri(self.reads[0], key_required=False)[0]
        folders = [split_uri(uri, key_required=False)[1] for uri in self.reads]
        logs = f"arn:{self._partition}:logs:{self.region}:{self.account}:log-group:/aws/sagemaker"
        endpoints = [f"{logs}/Endpoints/{self.stem}", f"{logs}/Endpoints/{self.stem}-*"]
        groups = [f"{group}:*" for group in [*(f"{logs}/{name}" for name in _JOB_GROUPS), *endpoints]]
        streams = [f"{logs}/{name}:log-stream:{self.stem}-*" for name in _JOB_GROUPS]
        streams += [f"{group}:log-stream:*" for group in endpoints]
        alarms = f"arn:{self._partition}:cloudwatch:{self.region}:{self.account}:alarm"
        watched = [f"{alarms}:{alarm_name(endpoint, '*')}" for endpoint in (self.stem, f"{self.stem}-*")]
        statements = [
            _allow("Read", ["s3:GetObject"], [self._objects(uri) for uri in self.reads]),
            _allow("Write", ["s3:PutObject", "s3:AbortMultipartUpload"], [self._objects(uri) for uri in self.writes]),
            _allow("List", ["s3:ListBucket"], [f"arn:{self._partition}:s3:::{bucket}"])
            | {"Condition": {"StringLike": {"s3:prefix": [f"{folder}/*" for folder in folders]}}},
            _allow("LogGroups", ["logs:CreateLogGroup", "logs:DescribeLogStreams"], groups),
            _allow("Log", ["logs:CreateLogStream", "logs:PutLogEvents"], streams),
            _allow("Metrics", ["cloudwatch:PutMetricData"], ["*"])
            | {"Condition": {"StringLike": {"cloudwatch:namespace": "/aws/sagemaker/*"}}},
            _allow("Alarms", ["cloudwatch:DescribeAlarms"], watched),
        ]
        found = _IMAGE.fullmatch(self.image)
        if found and found[3] == partition_of(found[2]).domain:
            owner, region, _, repository = found.groups()
            pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
            statements += [
                _allow("Pull", pull, [f"arn:{self._partition}:ecr:{region}:{owner}:repository/{repository}"]),
                _allow("LogIn", ["ecr:GetAuthorizationToken"], ["*"]),
            ]
        return _document(*statements)

    @property
    def requests(self) -> tuple[Request, ...]:
        """What makes it, natively."""
        tags = [{"Key": key, "Value": value} for key, value in sorted(self.tags.items())]
        create = {
            "Path": PATH,
            "RoleName": self.name,
            "AssumeRolePolicyDocument": json.dumps(self.trust),
            "Description": f"What the jobs and endpoints of {self.stem} in {self.region} may do",
            "Tags": tags,
        }
        put = {"RoleName": self.name, "PolicyName": _POLICY, "PolicyDocument": json.dumps(self.policy)}
        return Request("CreateRole", create), Request("PutRolePolicy", put)

    def ensure(self, iam: Any) -> bool:
        """Make it unless it is there, and set right what differs; True if anything was done.

        Raises:
            BackendError: IAM refuses.
        """
        create, put = self.requests
        with translated(f"role {self.name!r}"):
            found = next((role for role in roles(iam, self.stem) if role["RoleName"] == self.name), None)
            if found is None:
                iam.create_role(**create.document)
            elif found["AssumeRolePolicyDocument"] != self.trust:
                iam.update_assume_role_policy(RoleName=self.name, PolicyDocument=json.dumps(self.trust))
            if self._policy_in_force(iam) == self.policy:
                return found is None or found["AssumeRolePolicyDocument"] != self.trust
            iam.put_role_policy(**put.document)
            return True

    def remove(self, iam: Any) -> bool:
        """Remove it; False if there is none.

        Raises:
            BackendError: IAM refuses, as where somebody attached more policies to it.
        """
        with translated(f"role {self.name!r}"):
            with refused_as("NoSuchEntity"):
                iam.delete_role_policy(RoleName=self.name, PolicyName=_POLICY)
            with refused_as("NoSuchEntity"):
                iam.delete_role(RoleName=self.name)
                return True
        return False

    @property
    def _partition(self) -> str:
        return partition_of(self.region).name

    def _objects(self, uri: str) -> str:
        return f"arn:{self._partition}:s3:::{uri.removeprefix('s3://').rstrip('/')}/*"

    def _policy_in_force(self, iam: Any) -> Document | None:
        with refused_as("NoSuchEntity"):
            document: Document = iam.get_role_policy(RoleName=self.name, PolicyName=_POLICY)["PolicyDocument"]
            return document
        return None


def is_made_here(role_arn: str) -> bool:
    """True of a role that :class:`ExecutionRole` makes, False of one that the user brought."""
    return f":role{PATH}" in role_arn


def roles(iam: Any, stem: str) -> Iterator[Document]:
    """Yield the roles made here for the application whose names begin with *stem*, of every region."""
    for page in iam.get_paginator("list_roles").paginate(PathPrefix=PATH):
        yield from (role for role in page["Roles"] if role["RoleName"].startswith(f"{stem}-"))


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(sid: str, actions: list[str], resources: list[str]) -> Document:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
