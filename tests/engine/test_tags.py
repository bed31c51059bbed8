"""Tags (contract 0.2, 0.5)."""

from typing import Any

import pytest

from backends.engine.settings import ACCOUNT
from tests.engine.conftest import Stage, variant

ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}"
PATTERN = "Member must satisfy regular expression pattern: arn:aws[a-z-]*:sagemaker:[a-z0-9-]*:[0-9]{12}:.+"
TAG = {"Key": "team", "Value": "film"}


def tags(**pairs: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


def configure(stage: Stage, name: str, **members: Any) -> dict[str, Any]:
    variants = [variant(stage.model(f"{name}-model"))]
    return stage.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=variants, **members)


def make(stage: Stage, kind: str, **members: Any) -> str:
    """A resource of *kind* called Tagged; its ARN."""
    created: dict[str, Any]
    if kind == "training-job":
        created = stage.call("CreateTrainingJob", **stage.training_request("Tagged", **members))
    elif kind == "transform-job":
        stage.put("batch/a", b"x\n")
        request = stage.transform_request("Tagged", ModelName=stage.model("Tagged-transform"), **members)
        created = stage.call("CreateTransformJob", **request)
    elif kind == "model":
        created = stage.call("CreateModel", ModelName="Tagged", PrimaryContainer={"Image": "probe"}, **members)
    elif kind == "endpoint-config":
        created = configure(stage, "Tagged", **members)
    else:
        configure(stage, "For-tagged")
        created = stage.call("CreateEndpoint", EndpointName="Tagged", EndpointConfigName="For-tagged", **members)
    (arn,) = created.values()
    return str(arn)


@pytest.mark.parametrize("kind", ["training-job", "transform-job", "model", "endpoint-config", "endpoint"])
def test_every_resource_has_tags(stage: Stage, kind: str) -> None:
    """Given at creation, changed, added, deleted; by an ARN in any case; never part of Describe (A.12, F.1)."""
    arn = make(stage, kind, Tags=[TAG, *tags(stage="test")])
    assert arn == f"{ARN}:{kind}/tagged"
    assert stage.call("ListTags", ResourceArn=arn) == {"Tags": [TAG, *tags(stage="test")]}
    spelled = f"{ARN}:{kind}/Tagged"
    answer = stage.call("AddTags", ResourceArn=spelled, Tags=tags(stage="live", owner=""))
    assert answer == {"Tags": [TAG, *tags(stage="live", owner="")]}
    stage.call("DeleteTags", ResourceArn=spelled, TagKeys=["team", "no-such"])
    assert stage.call("ListTags", ResourceArn=spelled, MaxResults=50)["Tags"] == tags(stage="live", owner="")


def test_a_resource_without_tags_has_an_empty_list(stage: Stage) -> None:
    """Also if it was made with an empty one, as the SDK does (F.2); tags go with the resource."""
    requests: list[dict[str, Any]] = [{}, {"Tags": []}]
    for members in requests:
        stage.call("CreateModel", ModelName="plain", PrimaryContainer={"Image": "probe"}, **members)
        arn = f"{ARN}:model/plain"
        assert stage.call("ListTags", ResourceArn=arn)["Tags"] == []
        stage.call("AddTags", ResourceArn=arn, Tags=[TAG])
        stage.call("DeleteModel", ModelName="plain")


@pytest.mark.parametrize(
    ("arn", "text"),
    [
        (f"{ARN}:model/none", f'Could not find model "{ARN}:model/none".'),
        (f"{ARN}:endpoint-config/none", f'Could not find endpoint configuration "{ARN}:endpoint-config/none".'),
        (f"{ARN}:endpoint/none", f'Could not find endpoint "{ARN}:endpoint/none".'),
        (f"{ARN}:training-job/none", "Requested resource not found."),
        (f"{ARN}:transform-job/none", "Could not find requested job with name: none"),
        (f"{ARN}:pipeline/none", "Requested resource not found."),
        (f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:model/none", "Requested resource not found."),
        ("none", f"1 validation error detected: Value 'none' at 'resourceArn' failed to satisfy constraint: {PATTERN}"),
    ],
)
def test_what_does_not_exist_has_no_tags(stage: Stage, arn: str, text: str) -> None:
    """ValidationException, in the words with which Describe refuses (0.3)."""
    requests: dict[str, dict[str, Any]] = {
        "ListTags": {},
        "AddTags": {"Tags": [TAG]},
        "DeleteTags": {"TagKeys": ["team"]},
    }
    for operation, members in requests.items():
        error = stage.refusal(operation, ResourceArn=arn, **members)
        assert (error.code, error.message) == ("ValidationException", text)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (tags(**{"a" * 129: ""}), "at 'tags.1.member.key' failed to satisfy constraint: Member must have length less"),
        (tags(ok="", **{"": "x"}), "at 'tags.2.member.key' failed to satisfy constraint: Member must have length gre"),
        (tags(a="b" * 257), "at 'tags.1.member.value' failed to satisfy constraint: Member must have length less"),
        (tags(a="b;c"), r"Member must satisfy regular expression pattern: ^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$"),
        (tags(a="b\n"), "regular expression"),
        (tags(**{"aws:cloudformation": "x"}), "AWS's own"),
        ([TAG, TAG], "given twice"),
        ([{"Key": "a"}], "at 'value' failed to satisfy constraint: Member must not be null"),
    ],
)
def test_tags_have_limits(stage: Stage, given: list[dict[str, str]], text: str) -> None:
    """At creation as later, and then nothing is made (0.2)."""
    error = stage.refusal("CreateModel", ModelName="never", PrimaryContainer={"Image": "probe"}, Tags=given)
    assert (error.code, text in error.message) == ("ValidationException", True), error.message
    request = stage.training_request("never", Tags=given)
    assert text in stage.refusal("CreateTrainingJob", **request).message
    assert "Could not find model" in stage.refusal("DescribeModel", ModelName="never").message


def test_a_tag_may_be_in_any_language(stage: Stage) -> None:
    """Letters, digits and spaces of all alphabets (0.2)."""
    given = tags(**{"équipe du film ٣": "映画 +-=._:/@"})
    stage.call("CreateModel", ModelName="languages", PrimaryContainer={"Image": "probe"}, Tags=given)
    assert stage.call("ListTags", ResourceArn=f"{ARN}:model/languages")["Tags"] == given


def test_fifty_tags_are_the_most(stage: Stage) -> None:
    """At creation and in all; what was refused has changed nothing (0.2)."""
    many = tags(**{f"key-{number}": "x" for number in range(51)})
    error = stage.refusal("CreateModel", ModelName="many", PrimaryContainer={"Image": "probe"}, Tags=many)
    assert "at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50" in error.message
    stage.call("CreateModel", ModelName="many", PrimaryContainer={"Image": "probe"}, Tags=many[:50])
    arn = f"{ARN}:model/many"
    stage.call("AddTags", ResourceArn=arn, Tags=tags(**{"key-0": "y"}))
    assert stage.refusal("AddTags", ResourceArn=arn, Tags=many[50:]).code == "ResourceLimitExceeded"
    listed = stage.call("ListTags", ResourceArn=arn, MaxResults=50)
    assert (len(listed["Tags"]), "NextToken" in listed) == (50, False)


def test_a_page_of_tags_has_at_least_fifty(stage: Stage) -> None:
    """MaxResults below is refused, and there is no second page to ask for (0.5, F.3 35)."""
    stage.call("CreateModel", ModelName="paged", PrimaryContainer={"Image": "probe"})
    error = stage.refusal("ListTags", ResourceArn=f"{ARN}:model/paged", MaxResults=49)
    assert "at 'maxResults' failed to satisfy constraint: Member must have value greater than or equal to 50" in (
        error.message
    )
    assert "NextToken" in stage.refusal("ListTags", ResourceArn=f"{ARN}:model/paged", NextToken="made up").message


def test_names_differ_by_more_than_case(stage: Stage) -> None:
    """An ARN is lower-cased, so a second resource that differs by case only could not be told apart (0.2)."""
    stage.call("CreateModel", ModelName="Cased", PrimaryContainer={"Image": "probe"})
    error = stage.refusal("CreateModel", ModelName="cASED", PrimaryContainer={"Image": "probe"})
    assert error.message == f'Cannot create already existing model "{ARN}:model/cased".'
    assert "Could not find model" in stage.refusal("DescribeModel", ModelName="cASED").message
