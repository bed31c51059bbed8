"""List operations (contract 0.5)."""

import time
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Stage, variant

NAMES = [f"Item-{letter}" for letter in "cadbe"]


@pytest.fixture(scope="module", autouse=True)
def items(stage: Stage) -> None:
    for name in NAMES:
        stage.model(name)
        stage.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=[variant(name)])
        stage.call("CreateTrainingJob", **stage.training_request(name))
    stage.call("CreateTrainingJob", **stage.training_request("failed", HyperParameters={"mode": "fail"}))
    for name in [*NAMES, "failed"]:
        stage.trained(name)


def walk(stage: Stage, operation: str, result: str, member: str, **query: object) -> Iterator[str]:
    while True:
        page = stage.call(operation, **query)
        for summary in page[result]:
            yield summary[member]
        if "NextToken" not in page:
            return
        query["NextToken"] = page["NextToken"]


@pytest.mark.parametrize(
    ("operation", "result", "member"),
    [
        ("ListModels", "Models", "ModelName"),
        ("ListEndpointConfigs", "EndpointConfigs", "EndpointConfigName"),
        ("ListTrainingJobs", "TrainingJobSummaries", "TrainingJobName"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_a_walk_shows_each_item_once(stage: Stage, operation: str, result: str, member: str, size: int) -> None:
    """Newest first unless asked otherwise; the token is absent on the last page (F.3 36)."""
    query = {"MaxResults": size, "NameContains": "item"}
    assert list(walk(stage, operation, result, member, **query)) == NAMES[::-1]
    by_name = walk(stage, operation, result, member, **query, SortBy="Name", SortOrder="Ascending")
    assert list(by_name) == sorted(NAMES)


def test_the_default_page_has_ten(stage: Stage) -> None:
    """MaxResults is 1 to 100, 10 by default."""
    for number in range(12):
        stage.model(f"more-{number}")
    assert len(stage.call("ListModels")["Models"]) == 10
    for size in (0, 101):
        assert "maxResults" in stage.refusal("ListModels", MaxResults=size).message


def test_a_walk_survives_changes(stage: Stage) -> None:
    """What is made or deleted meanwhile neither repeats nor hides another item."""
    for number in range(4):
        stage.model(f"walked-{number}")
    page = stage.call("ListModels", MaxResults=2, NameContains="walked")
    assert [model["ModelName"] for model in page["Models"]] == ["walked-3", "walked-2"]
    stage.model("walked-4")
    stage.call("DeleteModel", ModelName="walked-2")
    rest = stage.call("ListModels", MaxResults=5, NameContains="walked", NextToken=page["NextToken"])
    assert [model["ModelName"] for model in rest["Models"]] == ["walked-1", "walked-0"]


def test_a_token_belongs_to_its_question(stage: Stage) -> None:
    """With other filters, or made up, it is refused."""
    token = stage.call("ListModels", MaxResults=1)["NextToken"]
    assert "NextToken" in stage.refusal("ListModels", NextToken=token, NameContains="x").message
    assert "NextToken" in stage.refusal("ListModels", NextToken="made up").message
    assert "NextToken" in stage.refusal("ListModels", NextToken="é").message


def test_filters(stage: Stage) -> None:
    """By status and by time; times are bounds that exclude themselves."""
    failed = list(walk(stage, "ListTrainingJobs", "TrainingJobSummaries", "TrainingJobName", StatusEquals="Failed"))
    assert failed == ["failed"]
    created = stage.call("DescribeTrainingJob", TrainingJobName="Item-d")["CreationTime"]
    query = ("ListTrainingJobs", "TrainingJobSummaries", "TrainingJobName")
    after = list(walk(stage, *query, CreationTimeAfter=created, NameContains="item"))
    before = list(walk(stage, *query, CreationTimeBefore=created, NameContains="item"))
    assert (after, before) == (["Item-e", "Item-b"], ["Item-a", "Item-c"])
    assert list(walk(stage, *query, LastModifiedTimeAfter=time.time() + 3600)) == []
    by_status = list(walk(stage, *query, SortBy="Status", SortOrder="Descending"))
    assert by_status[0] == "failed"


def test_what_cannot_be_sorted_by_is_refused(stage: Stage) -> None:
    """Models have no status."""
    assert "[Name, CreationTime]" in stage.refusal("ListModels", SortBy="Status").message
    assert "sortOrder" in stage.refusal("ListModels", SortOrder="down").message


def test_endpoints_and_transforms_are_listed(stage: Stage) -> None:
    """Their summaries have what the service model requires."""
    stage.deploy("listed")
    stage.put("batch/a", b"x\n")
    stage.model("model")
    stage.transform("listed")
    (endpoint,) = stage.call("ListEndpoints", StatusEquals="InService", NameContains="LIST")["Endpoints"]
    assert endpoint["EndpointName"] == "listed"
    (job,) = stage.call("ListTransformJobs", StatusEquals="Completed")["TransformJobSummaries"]
    assert job["TransformJobName"] == "listed"
    stage.delete_endpoint("listed")
