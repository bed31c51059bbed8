"""Changing an endpoint in service: UpdateEndpoint, UpdateEndpointWeightsAndCapacities (contract B.5).

Here the wish is recorded; the endpoint's supervisor carries it out (:mod:`backends.engine.hosting_run`).
"""

import time
from collections.abc import Callable

from backends.engine.documents import check_absent, check_choice, check_range, refuse, required, required_name
from backends.engine.hosting import IN_PROGRESS, config_name, variant_facts
from backends.engine.models import find
from backends.engine.site import ENDPOINT, ENDPOINT_CONFIG, Site
from backends.engine.state import Document, Resource
from backends.engine.supervision import is_alive

# What RetainAllVariantProperties keeps of a variant, by its name in ExcludeRetainedVariantProperties.
_PROPERTIES = {"DesiredWeight": "weight", "DesiredInstanceCount": "count"}


def update_endpoint(site: Site, request: Document) -> Document:
    """UpdateEndpoint: containers of the new configuration come up beside the old ones, then take over.

    The current configuration must still exist, as AWS demands. DeploymentConfig is kept for DescribeEndpoint; traffic
    always switches all at once.
    """
    endpoint = find(site, ENDPOINT, required_name(request, "EndpointName"))
    _check_free(site, endpoint, endpoint.facts)
    find(site, ENDPOINT_CONFIG, config_name(endpoint))
    config = find(site, ENDPOINT_CONFIG, required_name(request, "EndpointConfigName"))
    variants = [variant_facts(site, variant) for variant in config.request["ProductionVariants"]]
    retained = _retained(request)

    def change(facts: Document) -> None:
        facts["updates"] = facts.get("updates", 0) + 1
        known = {variant["name"]: variant for variant in facts["variants"]}
        for variant in variants:
            variant["folder"] = f"{variant['name']}@{facts['updates']}"
            variant |= {key: known[variant["name"]][key] for key in retained if variant["name"] in known}
        facts["pending"] = {"config": config.name, "variants": variants, "started": time.time()}
        if not request.get("RetainDeploymentConfig") or "DeploymentConfig" in request:
            facts["deployment"] = request.get("DeploymentConfig")

    return _begin(site, endpoint, change)


def update_weights(site: Site, request: Document) -> Document:
    """UpdateEndpointWeightsAndCapacities: the containers stay, the traffic is shared anew."""
    endpoint = find(site, ENDPOINT, required_name(request, "EndpointName"))
    wishes = {required_name(wish, "VariantName"): wish for wish in required(request, "DesiredWeightsAndCapacities")}
    for name, wish in wishes.items():
        check_absent(wish, f"Variant '{name}'", ["ServerlessUpdateConfig"])
        check_range(wish.get("DesiredWeight"), "DesiredWeightsAndCapacities.DesiredWeight", 0)
        check_range(wish.get("DesiredInstanceCount"), "DesiredWeightsAndCapacities.DesiredInstanceCount", 0)

    def change(facts: Document) -> None:
        if unknown := wishes.keys() - {variant["name"] for variant in facts["variants"]}:
            raise refuse(f'Endpoint "{site.arn(ENDPOINT, endpoint.name)}" has no variant {", ".join(sorted(unknown))}.')
        for variant in facts["variants"]:
            wish = wishes.get(variant["name"], {})
            variant["desired"] = {key: wish.get(member, variant[key]) for member, key in _PROPERTIES.items()}

    return _begin(site, endpoint, change)


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
