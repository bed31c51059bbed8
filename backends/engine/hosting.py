"""Endpoints as documents: CreateEndpoint, DescribeEndpoint, DeleteEndpoint … (contract B.5).

An endpoint is carried by :mod:`backends.engine.hosting_run` in a supervisor process of its own.
"""

import time
from typing import Any

from backends.engine import layout
from backends.engine.documents import page, refuse, required_name
from backends.engine.models import find, record
from backends.engine.site import ENDPOINT, ENDPOINT_CONFIG, MODEL, Site
from backends.engine.state import Document, Resource
from backends.engine.supervision import Supervisor, is_alive

# While one of these an endpoint answers.
SERVING = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack"})
IN_PROGRESS = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack"})
PAYLOAD_LIMIT_BYTES = 25 * 1024 * 1024
SERVERLESS_PAYLOAD_LIMIT_BYTES = 4 * 1024 * 1024


def create_endpoint(site: Site, request: Document) -> Document:
    """CreateEndpoint: record it and hand it to a supervisor."""
    name = required_name(request, "EndpointName")
    config = find(site, ENDPOINT_CONFIG, required_name(request, "EndpointConfigName"))
    variants = [variant_facts(site, variant) for variant in config.request["ProductionVariants"]]
    supervisor = Supervisor(site.nursery)
    facts = {
        "status": "Creating",
        "seat": supervisor.seat,
        "modified": time.time(),
        "variants": variants,
        "deployment": request.get("DeploymentConfig"),
    }
    try:
        record(site, ENDPOINT, name, request, facts)
    except BaseException:
        supervisor.dismiss()
        raise
    supervisor.carry(ENDPOINT, name)
    return {"EndpointArn": site.arn(ENDPOINT, name)}


def describe_endpoint(site: Site, request: Document) -> Document:
    """DescribeEndpoint; once it is deleted a ValidationException, which the waiters rely on (0.4)."""
    endpoint = find(site, ENDPOINT, required_name(request, "EndpointName"))
    document: dict[str, Any] = _summary(site, endpoint) | {"EndpointConfigName": config_name(endpoint)}
    if "FailureReason" in endpoint.facts:
        document["FailureReason"] = endpoint.facts["FailureReason"]
    if endpoint.facts["status"] not in {"Creating", "Failed"}:
        document["ProductionVariants"] = [_variant_summary(variant) for variant in endpoint.facts["variants"]]
    if deployment := endpoint.facts.get("deployment"):
        document["LastDeploymentConfig"] = deployment
    if pending := endpoint.facts.get("pending"):
        document["PendingDeploymentSummary"] = {
            "EndpointConfigName": pending["config"],
            "ProductionVariants": [_pending_summary(variant, pending) for variant in pending["variants"]],
            "StartTime": pending["started"],
        }
    return document


def delete_endpoint(site: Site, request: Document) -> Document:
    """DeleteEndpoint: the supervisor ends the containers and forgets the record."""
    endpoint = find(site, ENDPOINT, required_name(request, "EndpointName"))

    before = ""

    def ask(facts: Document) -> bool:
        nonlocal before
        before = facts["status"]
        if before in IN_PROGRESS:
            raise refuse(f'Cannot update in-progress endpoint "{site.arn(ENDPOINT, endpoint.name)}".')
        facts |= {"status": "Deleting", "modified": time.time()}
        return True

    facts = site.state.edit(endpoint, ask)
    if facts is not None and not is_alive(site.settings.home, facts["seat"]):
        site.runner.sweep(facts["seat"])
        forget(site, endpoint)
    elif before == "Failed":
        forget(site, endpoint)  # Its supervisor may still live, but looks at it no more.
    return {}


def list_endpoints(site: Site, request: Document) -> Document:
    """ListEndpoints."""
    return page(
        site.state.every(ENDPOINT),
        request,
        summary=lambda endpoint: _summary(site, endpoint),
        modified=lambda endpoint: float(endpoint.facts["modified"]),
        result="Endpoints",
    )


def forget(site: Site, endpoint: Resource) -> None:
    """Remove the files and the record of an endpoint of which nothing runs any more."""
    layout.remove(site.folder(endpoint))
    site.state.remove(endpoint)


def config_name(endpoint: Resource) -> str:
    """The configuration that *endpoint* serves: an update's, else that of its creation."""
    return str(endpoint.facts.get("config", endpoint.request["EndpointConfigName"]))


def variant_facts(site: Site, variant: Document) -> Document:
    """What the supervisor needs of a variant; the model's document is kept, for the record may be deleted."""
    model = find(site, MODEL, variant["ModelName"])
    facts = {
        "name": variant["VariantName"],
        "weight": variant.get("InitialVariantWeight", 1.0),
        "startup_timeout_seconds": variant.get("ContainerStartupHealthCheckTimeoutInSeconds"),
        "instance_type": variant.get("InstanceType", ""),
        "model": model.request,
    }
    if "ServerlessConfig" in variant:
        return facts | {"serverless": variant["ServerlessConfig"]}
    return facts | {"count": variant.get("InitialInstanceCount", 1)}


def _variant_summary(variant: Document) -> Document:
    desired = variant.get("desired", variant)
    return {
        "VariantName": variant["name"],
        "DeployedImages": _images(variant),
        "CurrentWeight": variant["weight"],
        "DesiredWeight": desired["weight"],
        **_capacity("Current", variant),
        **_capacity("Desired", desired),
    }


def _pending_summary(variant: Document, pending: Document) -> Document:
    return {
        "VariantName": variant["name"],
        "DeployedImages": _images(variant),
        "DesiredWeight": variant["weight"],
        **_capacity("Desired", variant),
        "VariantStatus": [{"Status": pending["stage"], "StartTime": pending["started"]}],
    }


def _capacity(when: str, variant: Document) -> Document:
    if "serverless" in variant:
        return {f"{when}ServerlessConfig": variant["serverless"]}
    return {f"{when}InstanceCount": variant["count"]}


def _images(variant: Document) -> list[Document]:
    image = variant["model"]["PrimaryContainer"]["Image"]
    return [{"SpecifiedImage": image, "ResolvedImage": image}]


def _summary(site: Site, endpoint: Resource) -> Document:
    return {
        "EndpointName": endpoint.name,
        "EndpointArn": site.arn(ENDPOINT, endpoint.name),
        "EndpointStatus": endpoint.facts["status"],
        "CreationTime": endpoint.created,
        "LastModifiedTime": endpoint.facts["modified"],
    }
