"""What the account's own services say to boto3: roles that are made, resources by their tags, logs that are deleted."""

import json
import uuid
from typing import Any

import pytest

from tests.wire.conftest import client, refused

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
SOON = {"Delay": 1, "MaxAttempts": 60}


@pytest.fixture
def iam(url: str) -> Any:
    """IAM."""
    return client("iam", url)


def test_a_role_is_what_it_was_made_of(iam: Any) -> None:
    """Its path, its documents and its tags; it is listed until it is deleted."""
    name = f"made-{uuid.uuid4().hex[:8]}"
    tags = [{"Key": "team", "Value": "a"}]
    made = iam.create_role(Path="/ours/", RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST), Tags=tags)["Role"]
    assert made["Arn"] == f"arn:aws:iam::000000000000:role/ours/{name}"
    told = iam.get_role(RoleName=name)["Role"]
    assert (told["AssumeRolePolicyDocument"], told["Tags"]) == (TRUST, tags)
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(POLICY))
    assert iam.get_role_policy(RoleName=name, PolicyName="p")["PolicyDocument"] == POLICY
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(POLICY))
    listed = {role["RoleName"]: role for role in iam.list_roles(PathPrefix="/ours/")["Roles"]}
    assert listed[name]["AssumeRolePolicyDocument"] == POLICY
    assert "Tags" not in listed[name]
    assert iam.list_roles(PathPrefix="/theirs/")["Roles"] == []
    with refused("DeleteConflict", 409):
        iam.delete_role(RoleName=name)
    iam.delete_role_policy(RoleName=name, PolicyName="p")
    iam.delete_role(RoleName=name)
    assert name not in {role["RoleName"] for role in iam.list_roles()["Roles"]}


def test_a_role_is_made_once_and_deleted_once(iam: Any) -> None:
    """Its name is taken as long as it is there."""
    name = f"made-{uuid.uuid4().hex[:8]}"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    with refused("EntityAlreadyExists", 409):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.delete_role(RoleName=name)
    for act in (iam.delete_role, lambda **role: iam.get_role_policy(**role, PolicyName="p")):
        with refused("NoSuchEntity", 404):
            act(RoleName=name)


def test_resources_are_found_by_their_tags(url: str, sagemaker: Any) -> None:
    """Those of the engine and buckets, each as its own service tags it, page by page."""
    mark = uuid.uuid4().hex[:8]
    tags = [{"Key": "mark", "Value": mark}, {"Key": "team", "Value": "a"}]
    for number in range(3):
        sagemaker.create_model(
            ModelName=f"m{number}-{mark}",
            ExecutionRoleArn="arn:aws:iam::000000000000:role/any",
            PrimaryContainer={"Image": "probe"},
            Tags=tags,
        )
    s3 = client("s3", url)
    s3.create_bucket(Bucket=f"tagged-{mark}")
    s3.put_bucket_tagging(Bucket=f"tagged-{mark}", Tagging={"TagSet": tags[:1]})
    tagging = client("resourcegroupstaggingapi", url)

    def found(*filters: dict[str, Any]) -> list[str]:
        pages = tagging.get_paginator("get_resources").paginate(TagFilters=list(filters), ResourcesPerPage=2)
        return [entry["ResourceARN"] for page in pages for entry in page["ResourceTagMappingList"]]

    models = [f"arn:aws:sagemaker:us-east-1:000000000000:model/m{number}-{mark}" for number in range(3)]
    marked = {"Key": "mark", "Values": [mark]}
    assert found(marked) == [f"arn:aws:s3:::tagged-{mark}", *models]
    assert found(marked, {"Key": "team"}) == models
    assert found(marked, {"Key": "team", "Values": ["b"]}) == []
    sagemaker.delete_tags(ResourceArn=models[0], TagKeys=["mark"])
    sagemaker.delete_model(ModelName=f"m1-{mark}")
    assert found(marked, {"Key": "team"}) == models[2:]


def test_the_log_of_a_job_is_deleted(url: str, sagemaker: Any) -> None:
    """Its streams are gone, those of other jobs are not; a second time there is none."""
    logs, group = client("logs", url), "/aws/sagemaker/TrainingJobs"
    names = [f"log{number}-{uuid.uuid4().hex[:8]}" for number in range(2)]
    for name in names:
        sagemaker.create_training_job(
            TrainingJobName=name,
            RoleArn="arn:aws:iam::000000000000:role/any",
            AlgorithmSpecification={"TrainingImage": "probe", "TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": "s3://wire/out"},
            ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 30},
            StoppingCondition={"MaxRuntimeInSeconds": 60},
        )
    for name in names:
        sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name, WaiterConfig=SOON)

    def streams(name: str) -> list[str]:
        found = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        return [stream["logStreamName"] for stream in found]

    (stream,) = streams(names[0])
    logs.delete_log_stream(logGroupName=group, logStreamName=stream)
    assert (streams(names[0]), len(streams(names[1]))) == ([], 1)
    with refused("ResourceNotFoundException", 400):
        logs.delete_log_stream(logGroupName=group, logStreamName=stream)


def test_the_log_of_an_endpoint_is_deleted(url: str) -> None:
    """Of the group nothing is left but its name, as long as the endpoint is there."""
    logs, group = client("logs", url), "/aws/sagemaker/Endpoints/probe"
    assert logs.describe_log_streams(logGroupName=group)["logStreams"]
    logs.delete_log_group(logGroupName=group)
    assert logs.describe_log_streams(logGroupName=group)["logStreams"] == []
    with refused("ResourceNotFoundException", 400):
        logs.delete_log_group(logGroupName="/aws/sagemaker/Endpoints/never")
