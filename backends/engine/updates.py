"""Changing an endpoint in service: UpdateEndpoint, UpdateEndpointWeightsAndCapacities (contract B.5).

Here the wish is recorded; the endpoint's supervisor carries it out (:mod:`backends.engine.hosting_run`).
"""

import math
import time
from collections.abc import Callable

from backends.engine.documents import check_choice, check_range, refuse, required, required_name
from backends.engine.hosting import IN_PROGRESS, config_name, variant_facts
from backends.engine.models import check_concurrency, find
from backends.engine.site import ENDPOINT, ENDPOINT_CONFIG, Site
from backends.engine.state import Document, Resource
from backends.engine.supervision import is_alive

# What RetainAllVariantProperties keeps of a variant, by its name in ExcludeRetainedVariantProperties.
_PROPERTIES = {"DesiredWeight": "weight", "DesiredInstanceCount": "count"}
# Where TrafficRoutingConfiguration says how large its first step is.
_SIZES = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}
_LARGEST_SHARE = 0.5


def update_endpoint(site: Site, request: Document) -> Document:
    """UpdateEndpoint: containers of the new configuration come up beside the old ones, then take over.

    The current configuration must still exist, as AWS demands. By DeploymentConfig the traffic switches all at once,
    after a canary or in steps; a serverless endpoint always switches at once.
    """
    endpoint = find(site, ENDPOINT, required_name(request, "EndpointName"))
    _check_free(site, endpoint, endpoint.facts)
    find(site, ENDPOINT_CONFIG, config_name(endpoint))
    config = find(site, ENDPOINT_CONFIG, required_name(request, "EndpointConfigName"))
    variants = [variant_facts(site, variant) for variant in config.request["ProductionVariants"]]
    retained = _retained(request)
    _check_deployment(request.get("DeploymentConfig") or {}, variants)

    def change(facts: Document) -> None:
        if any("serverless" in variant for variant in variants) and any("count" in each for each in facts["variants"]):
            raise refuse(
                f'Endpoint "{site.arn(ENDPOINT, endpoint.name)}" is on instances and cannot be updated to serverless; '
                "delete it and create it anew."
            )
        facts["updates"] = facts.get("updates", 0) + 1
        known = {variant["name"]: variant for variant in facts["variants"]}
        for variant in variants:
            variant["folder"] = f"{variant['name']}@{facts['updates']}"
            before = known.get(variant["name"], {})
            variant |= {key: before[key] for key in retained if key in before and key in variant}
        if not request.get("RetainDeploymentConfig") or "DeploymentConfig" in request:
            facts["deployment"] = request.get("DeploymentConfig")
        facts["pending"] = {
            "config": config.name,
            "variants": variants,
            "started": time.time(),
            "stage": "Creating",
            **_shifting(facts["deployment"] or {}, variants),
        }

    return _begin(site, endpoint, change)


def update_weights(site: Site, request: Document) -> Document:
    """UpdateEndpointWeightsAndCapacities: the containers stay, the traffic is shared anew."""
    endpoint = find(site, ENDPOINT, required_name(request, "EndpointName"))
    wishes = {required_name(wish, "VariantName"): wish for wish in required(request, "DesiredWeightsAndCapacities")}
    for wish in wishes.values():
        check_concurrency(wish.get("ServerlessUpdateConfig", {}))
        check_range(wish.get("DesiredWeight"), "DesiredWeightsAndCapacities.DesiredWeight", 0)
        check_range(wish.get("DesiredInstanceCount"), "DesiredWeightsAndCapacities.DesiredInstanceCount", 0)

    def change(facts: Document) -> None:
        if unknown := wishes.keys() - {variant["name"] for variant in facts["variants"]}:
            raise refuse(f'Endpoint "{site.arn(ENDPOINT, endpoint.name)}" has no variant {", ".join(sorted(unknown))}.')
        for variant in facts["variants"]:
            variant["desired"] = _desired(variant, wishes.get(variant["name"], {}))

    return _begin(site, endpoint, change)


def call_off(site: Site, name: str, reason: str) -> bool:
    """Have the update of endpoint *name* taken back if it bakes; whether it does."""

    def change(facts: Document) -> bool:
        if facts.get("pending", {}).get("stage") != "Baking":
            return False
        facts["pending"]["called_off"] = reason
        return True

    endpoint = site.state.find(ENDPOINT, name)
    facts = site.state.edit(endpoint, change) if endpoint else None
    return "called_off" in (facts or {}).get("pending", {})


def _check_deployment(deployment: Document, variants: list[Document]) -> None:
    """Refuse sizes of a canary or a step that SageMaker documents as too large, or that are missing."""
    routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    member = _SIZES.get(routing.get("Type", ""))
    if member is None:
        return
    path = f"DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration.{member}"
    size = required({"DeploymentConfig": deployment}, path)
    check_choice(required(size, "Type"), f"{path}.Type", ("INSTANCE_COUNT", "CAPACITY_PERCENT"))
    check_range(required(size, "Value"), f"{path}.Value", 1)
    if _share(size, variants) > _LARGEST_SHARE:
        raise refuse(f"{member} is at most half of a variant's instances.")


def _shifting(deployment: Document, variants: list[Document]) -> Document:
    """The shares of the traffic that the new fleet gets one after the other, and the seconds of each wait."""
    policy = deployment.get("BlueGreenUpdatePolicy", {})
    routing = policy.get("TrafficRoutingConfiguration", {})
    pause = routing.get("WaitIntervalInSeconds", 0)
    if not routing or any("serverless" in variant for variant in variants):
        return {"shares": [], "pause_seconds": 0, "termination_seconds": 0}
    shares = [1.0] if pause else []
    if member := _SIZES.get(routing["Type"]):
        step = _share(routing[member], variants)
        steps = 1 if routing["Type"] == "CANARY" else math.ceil(1 / step) - 1
        shares = [step * number for number in range(1, steps + 1)] + [1.0]
    return {
        "shares": shares,
        "pause_seconds": pause,
        "termination_seconds": policy.get("TerminationWaitInSeconds", 0),
    }


def _share(size: Document, variants: list[Document]) -> float:
    if size["Type"] == "CAPACITY_PERCENT":
        return float(size["Value"] / 100)
    return float(size["Value"] / min(variant.get("count", 1) for variant in variants))


def _desired(variant: Document, wish: Document) -> Document:
    """What *variant* becomes by *wish*, which is about its weight and the capacity of its own kind."""
    capacity, other = ("serverless", "count") if "serverless" in variant else ("count", "serverless")
    member = {"count": "DesiredInstanceCount", "serverless": "ServerlessUpdateConfig"}
    if member[other] in wish:
        kind = "serverless" if capacity == "serverless" else "on instances"
        raise refuse(f"Variant '{variant['name']}' is {kind}; it cannot have {member[other]}.")
    wanted = wish.get(member[capacity], variant[capacity])
    if capacity == "serverless":
        wanted = variant["serverless"] | wanted
        check_concurrency(wanted)
    return {"weight": wish.get("DesiredWeight", variant["weight"]), capacity: wanted}


def _begin(site: Site, endpoint: Resource, change: Callable[[Document], None]) -> Document:
    def begin(facts: Document) -> None:
        _check_free(site, endpoint, facts)
        change(facts)
        facts.pop("FailureReason", None)
        facts |= {"status": "Updating", "modified": time.time()}

    facts = site.state.edit(endpoint, begin)
    if facts is not None and not is_alive(site.settings.home, facts["seat"]):
        from backends.engine.recovery import recover  # noqa: PLC0415  needed after a crash only

        recover(site)
    return {"EndpointArn": site.arn(ENDPOINT, endpoint.name)}


def _check_free(site: Site, endpoint: Resource, facts: Document) -> None:
    """Refuse what an endpoint in this status does not take."""
    arn = site.arn(ENDPOINT, endpoint.name)
    if facts["status"] in {*IN_PROGRESS, "Deleting"}:
        raise refuse(f'Cannot update in-progress endpoint "{arn}".')
    if facts["status"] != "InService":
        raise refuse(f'Cannot update endpoint "{arn}" in status {facts["status"]}; it can only be deleted.')


def _retained(request: Document) -> list[str]:
    if not request.get("RetainAllVariantProperties"):
        return []
    excluded = [entry["VariantPropertyType"] for entry in request.get("ExcludeRetainedVariantProperties", [])]
    for name in excluded:
        check_choice(name, "ExcludeRetainedVariantProperties.VariantPropertyType", [*_PROPERTIES, "DataCaptureConfig"])
    return [key for member, key in _PROPERTIES.items() if member not in excluded]
