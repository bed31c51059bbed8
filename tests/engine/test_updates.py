"""Changing endpoints in service (contract B.5)."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backends.engine.settings import ACCOUNT
from tests.engine.conftest import Stage, variant
from tests.engine.hammer import hammering

ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}"


def configure(stage: Stage, name: str, *variants: dict[str, Any], version: str = "", **settings: Any) -> str:
    """A configuration of *variants*, or of one variant whose model of the same *name* answers with *version*."""
    if not variants:
        stage.model(name, {"VERSION": version}, **settings)
    stage.call("CreateEndpointConfig", EndpointConfigName=name, ProductionVariants=list(variants or [variant(name)]))
    return name


def update(stage: Stage, endpoint: str, config: str, **members: Any) -> dict[str, Any]:
    """Update to the end; the endpoint's description."""
    answer = stage.call("UpdateEndpoint", EndpointName=endpoint, EndpointConfigName=config, **members)
    assert answer == {"EndpointArn": f"{ARN}:endpoint/{endpoint}"}
    return stage.settled(endpoint)


def changes(config: str) -> dict[str, dict[str, Any]]:
    """The two operations that change an endpoint, with what they need."""
    return {
        "UpdateEndpoint": {"EndpointConfigName": config},
        "UpdateEndpointWeightsAndCapacities": {"DesiredWeightsAndCapacities": [{"VariantName": "AllTraffic"}]},
    }


@pytest.fixture
def endpoint(stage: Stage, request: pytest.FixtureRequest) -> Iterator[str]:
    """An endpoint of the test's own, with version 1 of its model."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    configure(stage, f"{name}-1", version="1")
    stage.call("CreateEndpoint", EndpointName=name, EndpointConfigName=f"{name}-1")
    stage.settled(name)
    yield name
    stage.delete_endpoint(name)


def test_an_update_loses_no_request(stage: Stage, endpoint: str) -> None:
    """Callers get the old model until they get the new one, whatever they were in the middle of (F.1)."""
    folder = next(stage.home.glob(f"endpoint/{endpoint}@*"))
    with hammering(stage, endpoint) as seen:
        for version in "23":
            config = configure(stage, f"{endpoint}-{version}", version=version, ping_delay=0.2)
            described = update(stage, endpoint, config)
            assert described["EndpointConfigName"] == config
            assert "FailureReason" not in described
            stage.until(lambda: set(seen.versions[-20:]), {version}.__eq__)
        assert set(seen.versions) == {"1", "2", "3"}
        stage.until(lambda: [path.name for path in folder.iterdir() if path.is_dir()], lambda left: len(left) == 1)
    assert seen.failures == []


@pytest.mark.parametrize("settings", [{"exit": 3}, {"ping": 500}])
def test_a_broken_update_leaves_the_old_model(make_stage: Callable[..., Stage], settings: dict[str, int]) -> None:
    """It serves on without a failed request, InService with a FailureReason and the old configuration (F.3 25)."""
    stage = make_stage(startup_timeout_seconds=2.0)
    configure(stage, "sound", version="1")
    stage.call("CreateEndpoint", EndpointName="kept", EndpointConfigName="sound")
    stage.settled("kept")
    configure(stage, "broken", version="2", **settings)
    with hammering(stage, "kept") as seen:
        described = update(stage, "kept", "broken")
    assert (seen.failures, set(seen.versions)) == ([], {"1"})
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "sound")
    assert described["FailureReason"].startswith("The primary container for production variant AllTraffic did not pass")
    assert "PendingDeploymentSummary" not in described
    folder = next(stage.home.glob("endpoint/kept@*"))
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["AllTraffic"]
    configure(stage, "mended", version="3")
    assert "FailureReason" not in update(stage, "kept", "mended")


def test_one_broken_variant_of_two_breaks_the_update(stage: Stage, endpoint: str) -> None:
    """All containers are healthy, or none takes traffic."""
    stage.model("two-good", {"VERSION": "2"})
    stage.model("two-bad", exit=1)
    configure(stage, "two", variant("two-good", "Good"), variant("two-bad", "Bad"))
    described = update(stage, endpoint, "two")
    assert "production variant Bad" in described["FailureReason"]
    assert stage.invoke(endpoint, b"x")["InvokedProductionVariant"] == "AllTraffic"


def test_an_update_is_described_while_it_goes_on(stage: Stage, endpoint: str) -> None:
    """Updating, the old configuration, what is coming; nothing else is taken meanwhile (B.5, 0.3)."""
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    deployment = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    config = configure(stage, f"{endpoint}-2", version="2", ping_delay=0.4)
    stage.call("UpdateEndpoint", EndpointName=endpoint, EndpointConfigName=config, DeploymentConfig=deployment)
    described = stage.call("DescribeEndpoint", EndpointName=endpoint)
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("Updating", f"{endpoint}-1")
    pending = described["PendingDeploymentSummary"]
    assert pending["EndpointConfigName"] == config
    assert pending["ProductionVariants"][0]["VariantStatus"][0]["Status"] == "Creating"
    for operation, members in {**changes(config), "DeleteEndpoint": {}}.items():
        error = stage.refusal(operation, EndpointName=endpoint, **members)
        assert error.code == "ValidationException"
        assert error.message == f'Cannot update in-progress endpoint "{ARN}:endpoint/{endpoint}".'
    described = stage.settled(endpoint)
    assert described["LastDeploymentConfig"] == deployment
    described = update(stage, endpoint, config, RetainDeploymentConfig=True)
    assert described["LastDeploymentConfig"] == deployment
    assert "LastDeploymentConfig" not in update(stage, endpoint, config)


def test_an_update_needs_both_configurations(stage: Stage, endpoint: str) -> None:
    """The new one, and the current one too, which somebody may have deleted (0.3, F.3 26)."""
    error = stage.refusal("UpdateEndpoint", EndpointName=endpoint, EndpointConfigName="no-such")
    assert error.message == f'Could not find endpoint configuration "{ARN}:endpoint-config/no-such".'
    config = configure(stage, f"{endpoint}-2", version="2")
    stage.call("DeleteEndpointConfig", EndpointConfigName=f"{endpoint}-1")
    error = stage.refusal("UpdateEndpoint", EndpointName=endpoint, EndpointConfigName=config)
    assert error.message == f'Could not find endpoint configuration "{ARN}:endpoint-config/{endpoint}-1".'
    error = stage.refusal("UpdateEndpoint", EndpointName="no-such", EndpointConfigName=config)
    assert error.message == f'Could not find endpoint "{ARN}:endpoint/no-such".'
    assert stage.call("DescribeEndpoint", EndpointName=endpoint)["EndpointStatus"] == "InService"


def test_a_model_may_be_deleted_once_it_serves(stage: Stage, endpoint: str) -> None:
    """But an update looks its models up anew (0.3)."""
    config = configure(stage, f"{endpoint}-2", version="2")
    update(stage, endpoint, config)
    stage.call("DeleteModel", ModelName=config)
    assert stage.invoke(endpoint, b"x")["Body"] == b"X"
    error = stage.refusal("UpdateEndpoint", EndpointName=endpoint, EndpointConfigName=config)
    assert error.message == f'Could not find model "{ARN}:model/{config}".'


def test_a_failed_endpoint_can_only_be_deleted(stage: Stage) -> None:
    """Neither of the two updates is taken (B.5)."""
    stage.create_endpoint("failed", exit=3)
    stage.settled("failed")
    for operation, members in changes("failed").items():
        error = stage.refusal(operation, EndpointName="failed", **members)
        assert (error.code, "in status Failed" in error.message) == ("ValidationException", True)
    stage.delete_endpoint("failed")


def scales(stage: Stage, endpoint: str) -> dict[str, tuple[float, int]]:
    """Weight and instance count of each variant."""
    variants = stage.call("DescribeEndpoint", EndpointName=endpoint)["ProductionVariants"]
    assert all(each["CurrentWeight"] == each["DesiredWeight"] for each in variants)
    return {each["VariantName"]: (each["CurrentWeight"], each["CurrentInstanceCount"]) for each in variants}


def test_weights_change_without_a_restart(stage: Stage) -> None:
    """Traffic follows at once; what was not named stays; the containers are the same ones (B.5)."""
    for name in ("left", "right"):
        stage.model(name, {"VERSION": name})
    configure(stage, "scales", variant("left", "Left"), variant("right", "Right", InitialVariantWeight=0.0))
    stage.call("CreateEndpoint", EndpointName="scales", EndpointConfigName="scales")
    stage.settled("scales")
    with hammering(stage, "scales") as seen:
        stage.until(lambda: seen.versions[-20:], lambda last: last == ["left"] * 20)
        wishes = [
            {"VariantName": "Left", "DesiredWeight": 0.0},
            {"VariantName": "Right", "DesiredWeight": 3.0, "DesiredInstanceCount": 2},
        ]
        answer = stage.call(
            "UpdateEndpointWeightsAndCapacities", EndpointName="scales", DesiredWeightsAndCapacities=wishes
        )
        assert answer == {"EndpointArn": f"{ARN}:endpoint/scales"}
        described = stage.call("DescribeEndpoint", EndpointName="scales")
        assert described["ProductionVariants"][1]["DesiredWeight"] == 3.0
        stage.settled("scales")
        stage.until(lambda: seen.versions[-20:], lambda last: last == ["right"] * 20)
    assert seen.failures == []
    assert scales(stage, "scales") == {"Left": (0.0, 1), "Right": (3.0, 2)}
    assert stage.invoke("scales", b"x", TargetVariant="Left")["InvokedProductionVariant"] == "Left"
    logs = [path.name for path in next(stage.home.glob("endpoint/scales@*")).glob("*.log")]
    assert sorted(logs) == ["Left.log", "Right.log"]
    unknown = [{"VariantName": "None", "DesiredWeight": 1.0}]
    error = stage.refusal(
        "UpdateEndpointWeightsAndCapacities", EndpointName="scales", DesiredWeightsAndCapacities=unknown
    )
    assert "has no variant None" in error.message
    negative = [{"VariantName": "Left", "DesiredWeight": -1.0}]
    error = stage.refusal(
        "UpdateEndpointWeightsAndCapacities", EndpointName="scales", DesiredWeightsAndCapacities=negative
    )
    assert "greater than or equal to 0" in error.message
    stage.delete_endpoint("scales")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, (1.0, 1)),
        ({"RetainAllVariantProperties": False}, (1.0, 1)),
        ({"RetainAllVariantProperties": True}, (0.5, 3)),
        ({"RetainAllVariantProperties": True, "ExcludeRetainedVariantProperties": ["DesiredWeight"]}, (1.0, 3)),
        ({"RetainAllVariantProperties": True, "ExcludeRetainedVariantProperties": ["DesiredInstanceCount"]}, (0.5, 1)),
    ],
)
def test_an_update_may_retain_what_was_changed(
    stage: Stage, members: dict[str, Any], expected: tuple[float, int]
) -> None:
    """Weights and counts of the variants that stay, but for those that are excluded (B.5)."""
    if not stage.exists("retaining"):
        configure(stage, "retaining", version="1")
        stage.call("CreateEndpoint", EndpointName="retaining", EndpointConfigName="retaining")
        stage.settled("retaining")
    wish = {"VariantName": "AllTraffic", "DesiredWeight": 0.5, "DesiredInstanceCount": 3}
    stage.call("UpdateEndpointWeightsAndCapacities", EndpointName="retaining", DesiredWeightsAndCapacities=[wish])
    stage.settled("retaining")
    if excluded := members.get("ExcludeRetainedVariantProperties"):
        properties = [{"VariantPropertyType": name} for name in excluded]
        members = members | {"ExcludeRetainedVariantProperties": properties}
    update(stage, "retaining", "retaining", **members)
    assert scales(stage, "retaining") == {"AllTraffic": expected}


def test_variants_come_and_go(stage: Stage, endpoint: str) -> None:
    """An update may bring other variants than it finds; traffic follows their weights (F.3 24)."""
    stage.model("come", {"VERSION": "2"})
    variants = [variant("come", name, InitialVariantWeight=weight) for name, weight in [("A", 1.0), ("B", 3.0)]]
    configure(stage, "coming", *variants)
    update(stage, endpoint, "coming")
    shares = Counter(stage.invoke(endpoint, b"x")["InvokedProductionVariant"] for _ in range(400))
    assert 0.15 < shares["A"] / 400 < 0.35  # Six standard deviations are 0.13.
    error = stage.refusal("InvokeEndpoint", EndpointName=endpoint, Body=b"", TargetVariant="AllTraffic")
    assert error.code == "ValidationError"


def routing(kind: str, seconds: int, *, termination_seconds: int = 0, **size: Any) -> dict[str, Any]:
    """A DeploymentConfig; *size* is that of the canary or of each step."""
    traffic = {"Type": kind, "WaitIntervalInSeconds": seconds, **size}
    policy = {"TrafficRoutingConfiguration": traffic, "TerminationWaitInSeconds": termination_seconds}
    return {"BlueGreenUpdatePolicy": policy}


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def begin(stage: Stage, endpoint: str, config: str, deployment: dict[str, Any]) -> None:
    """Update, and wait until the new model takes its first share of the traffic."""
    stage.call("UpdateEndpoint", EndpointName=endpoint, EndpointConfigName=config, DeploymentConfig=deployment)
    stage.until(lambda: stage.call("DescribeEndpoint", EndpointName=endpoint), is_baking)


def is_baking(described: dict[str, Any]) -> bool:
    pending = described.get("PendingDeploymentSummary", {"ProductionVariants": []})["ProductionVariants"]
    return bool(pending) and pending[0]["VariantStatus"][0]["Status"] == "Baking"


def answers(stage: Stage, endpoint: str, count: int) -> Counter[str]:
    """Which version of the model answered how often."""
    bodies = (stage.invoke(endpoint, b"environment")["Body"] for _ in range(count))
    return Counter(json.loads(body)["VERSION"] for body in bodies)


def test_a_canary_gets_its_share_first(stage: Stage, endpoint: str) -> None:
    """A fifth of the traffic while it bakes, then all; no request fails meanwhile (B.5)."""
    config = configure(stage, f"{endpoint}-2", version="2")
    with hammering(stage, endpoint) as seen:
        begin(stage, endpoint, config, routing("CANARY", 3, CanarySize=percent(20)))
        shares = answers(stage, endpoint, 300)
        described = stage.call("DescribeEndpoint", EndpointName=endpoint)
        assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("Updating", f"{endpoint}-1")
        assert is_baking(described)
        assert 0.06 < shares["2"] / 300 < 0.34  # Six standard deviations are 0.14.
        described = stage.settled(endpoint)
        assert (described["EndpointConfigName"], "FailureReason" in described) == (config, False)
        assert answers(stage, endpoint, 50) == {"2": 50}
    assert seen.failures == []


def test_a_canary_that_is_lost_is_taken_back(stage: Stage, endpoint: str) -> None:
    """The old model has all the traffic again, and its configuration is the endpoint's (B.5)."""
    config = configure(stage, f"{endpoint}-2", version="2", pings=2)
    begin(stage, endpoint, config, routing("CANARY", 60, CanarySize=percent(50)))
    assert answers(stage, endpoint, 60).keys() == {"1", "2"}
    described = stage.settled(endpoint)
    assert described["EndpointConfigName"] == f"{endpoint}-1"
    assert "lost its pings" in described["FailureReason"]
    assert answers(stage, endpoint, 60).keys() == {"1"}


def test_an_update_that_bakes_can_be_called_off(stage: Stage, endpoint: str) -> None:
    """For the reason that is given, as an alarm does on SageMaker; what does not bake goes on."""
    assert not stage.engine.call_off(endpoint, "no update")
    assert not stage.engine.call_off("no-such", "no endpoint")
    begin(
        stage, endpoint, configure(stage, f"{endpoint}-2", version="2"), routing("CANARY", 600, CanarySize=percent(50))
    )
    assert stage.engine.call_off(endpoint, "too many errors")
    described = stage.settled(endpoint)
    assert (described["EndpointConfigName"], described["FailureReason"]) == (f"{endpoint}-1", "too many errors")
    assert answers(stage, endpoint, 60).keys() == {"1"}


def test_traffic_may_move_in_steps(stage: Stage, endpoint: str) -> None:
    """LINEAR: half of it, then all; the old containers stay for the time asked for."""
    config = configure(stage, f"{endpoint}-2", version="2")
    begin(stage, endpoint, config, routing("LINEAR", 2, LinearStepSize=percent(50), termination_seconds=3600))
    assert answers(stage, endpoint, 60).keys() == {"1", "2"}
    stage.until(lambda: answers(stage, endpoint, 20), {"2": 20}.__eq__)
    assert is_baking(stage.call("DescribeEndpoint", EndpointName=endpoint))
    assert "FailureReason" not in stage.settled(endpoint)


@pytest.mark.parametrize(
    ("deployment", "said"),
    [
        (routing("CANARY", 1), "canarySize"),
        (routing("LINEAR", 1), "linearStepSize"),
        (routing("CANARY", 1, CanarySize=percent(51)), "at most half"),
        (routing("CANARY", 1, CanarySize={"Type": "INSTANCE_COUNT", "Value": 1}), "at most half"),
        (routing("CANARY", 1, CanarySize=percent(0)), "greater than or equal to 1"),
    ],
)
def test_shares_have_limits(stage: Stage, deployment: dict[str, Any], said: str) -> None:
    """A canary or a step is at most half of the instances; the endpoint is not touched."""
    if not stage.exists("sharing"):
        configure(stage, "sharing", version="1")
        stage.call("CreateEndpoint", EndpointName="sharing", EndpointConfigName="sharing")
        stage.settled("sharing")
    error = stage.refusal(
        "UpdateEndpoint", EndpointName="sharing", EndpointConfigName="sharing", DeploymentConfig=deployment
    )
    assert (error.code, said in error.message) == ("ValidationException", True), error.message
    assert stage.settled("sharing")["EndpointStatus"] == "InService"
