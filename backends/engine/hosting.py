"""Models, endpoint configurations and endpoints as documents, and invocations (contract B).

Endpoints are carried by :mod:`backends.engine.hosting_run` in a supervisor process each; an invocation goes straight
from the caller's process to the container.
"""

import shutil
import time
from typing import Any

from backends.engine import routing
from backends.engine.documents import page, refuse, required_name
from backends.engine.exchange import Exchange, NoAnswer
from backends.engine.runners import ImageMissing
from backends.engine.settings import ACCOUNT
from backends.engine.site import ENDPOINT, ENDPOINT_CONFIG, MODEL, Site
from backends.engine.state import Document, Resource, Taken
from backends.engine.supervision import Supervisor, is_alive
from backends.errors import BackendError
from backends.sagemaker.readings import ServiceError

# While one of these an endpoint answers (contract B.5).
SERVING = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack"})
IN_PROGRESS = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack"})
PAYLOAD_LIMIT_BYTES = 25 * 1024 * 1024
_OK = range(200, 300)
_SERVER_ERROR = 500


# --- models


def create_model(site: Site, request: Document) -> Document:
    """CreateModel: record it; nothing is started. Image and model data must be there (contract 0.3)."""
    name = required_name(request, "ModelName")
    container = request.get("PrimaryContainer")
    if container is None or "Image" not in container:
        raise refuse("CreateModel needs a PrimaryContainer with an Image; this engine runs one container per model.")
    try:
        site.runner.check(container["Image"])
    except ImageMissing as exc:
        raise refuse(f"Requested image {container['Image']} not found. {exc}") from exc
    url = container.get("ModelDataUrl")
    if url is not None and not _stored(site, url):
        raise refuse(f"Could not find model data at {url}. Train the model first, or correct the URL.")
    _record(site, MODEL, name, request)
    return {"ModelArn": site.arn(MODEL, name)}


def describe_model(site: Site, request: Document) -> Document:
    """DescribeModel."""
    model = find(site, MODEL, required_name(request, "ModelName"))
    document = _untagged(model.request) | {"ModelArn": site.arn(MODEL, model.name), "CreationTime": model.created}
    document["PrimaryContainer"] = {"Mode": "SingleModel", **model.request["PrimaryContainer"]}
    document.setdefault("EnableNetworkIsolation", False)
    return document


def delete_model(site: Site, request: Document) -> Document:
    """DeleteModel: only the record goes; endpoints that use it go on."""
    name = required_name(request, "ModelName")
    if not site.state.remove(MODEL, name):
        raise _missing(site, MODEL, name)
    return {}


def list_models(site: Site, request: Document) -> Document:
    """ListModels."""
    return page(
        site.state.every(MODEL),
        request,
        status=None,
        summary=lambda model: {
            "ModelName": model.name,
            "ModelArn": site.arn(MODEL, model.name),
            "CreationTime": model.created,
        },
        result="Models",
    )


# --- endpoint configurations


def create_config(site: Site, request: Document) -> Document:
    """CreateEndpointConfig: its models must exist."""
    name = required_name(request, "EndpointConfigName")
    variants = request.get("ProductionVariants") or []
    if not variants:
        raise refuse("CreateEndpointConfig needs at least one production variant.")
    if len({variant["VariantName"] for variant in variants}) < len(variants):
        raise refuse("The names of production variants must differ from one another.")
    for variant in variants:
        find(site, MODEL, variant.get("ModelName", ""))
    _record(site, ENDPOINT_CONFIG, name, request)
    return {"EndpointConfigArn": site.arn(ENDPOINT_CONFIG, name)}


def describe_config(site: Site, request: Document) -> Document:
    """DescribeEndpointConfig: the request, with the weight of 1.0 that AWS fills in."""
    config = find(site, ENDPOINT_CONFIG, required_name(request, "EndpointConfigName"))
    document = _untagged(config.request) | {
        "EndpointConfigArn": site.arn(ENDPOINT_CONFIG, config.name),
        "CreationTime": config.created,
    }
    document["ProductionVariants"] = [
        {"InitialVariantWeight": 1.0, **variant} for variant in config.request["ProductionVariants"]
    ]
    document.setdefault("EnableNetworkIsolation", False)
    return document


def delete_config(site: Site, request: Document) -> Document:
    """DeleteEndpointConfig: allowed while in use."""
    name = required_name(request, "EndpointConfigName")
    if not site.state.remove(ENDPOINT_CONFIG, name):
        raise _missing(site, ENDPOINT_CONFIG, name)
    return {}


def list_configs(site: Site, request: Document) -> Document:
    """ListEndpointConfigs."""
    return page(
        site.state.every(ENDPOINT_CONFIG),
        request,
        status=None,
        summary=lambda config: {
            "EndpointConfigName": config.name,
            "EndpointConfigArn": site.arn(ENDPOINT_CONFIG, config.name),
            "CreationTime": config.created,
        },
        result="EndpointConfigs",
    )


# --- endpoints


def create_endpoint(site: Site, request: Document) -> Document:
    """CreateEndpoint: record it and hand it to a supervisor."""
    name = required_name(request, "EndpointName")
    config = find(site, ENDPOINT_CONFIG, required_name(request, "EndpointConfigName"))
    variants = [_variant_facts(site, variant) for variant in config.request["ProductionVariants"]]
    if any(other.name.lower() == name.lower() for other in site.state.every(ENDPOINT)):
        raise _taken(site, ENDPOINT, name)
    supervisor = Supervisor(site.settings)
    facts = {"status": "Creating", "seat": supervisor.seat, "modified": time.time(), "variants": variants}
    try:
        _record(site, ENDPOINT, name, request, facts)
    except BaseException:
        supervisor.dismiss()
        raise
    supervisor.carry(ENDPOINT, name)
    return {"EndpointArn": site.arn(ENDPOINT, name)}


def describe_endpoint(site: Site, request: Document) -> Document:
    """DescribeEndpoint; once it is deleted a ValidationException, which the waiters rely on (0.4)."""
    endpoint = find(site, ENDPOINT, required_name(request, "EndpointName"))
    document: dict[str, Any] = {
        "EndpointName": endpoint.name,
        "EndpointArn": site.arn(ENDPOINT, endpoint.name),
        "EndpointConfigName": endpoint.request["EndpointConfigName"],
        "EndpointStatus": endpoint.facts["status"],
        "CreationTime": endpoint.created,
        "LastModifiedTime": endpoint.facts["modified"],
    }
    if "FailureReason" in endpoint.facts:
        document["FailureReason"] = endpoint.facts["FailureReason"]
    if endpoint.facts["status"] not in {"Creating", "Failed"}:
        document["ProductionVariants"] = [_variant_summary(variant) for variant in endpoint.facts["variants"]]
    return document


def delete_endpoint(site: Site, request: Document) -> Document:
    """DeleteEndpoint: the supervisor ends the containers and forgets the record."""
    name = required_name(request, "EndpointName")

    def ask(facts: Document) -> bool:
        if facts["status"] in IN_PROGRESS:
            raise refuse(f'Cannot update in-progress endpoint "{site.arn(ENDPOINT, name)}".')
        facts |= {"status": "Deleting", "modified": time.time()}
        return True

    facts = site.state.edit(ENDPOINT, name, ask)
    if facts is None:
        raise _missing(site, ENDPOINT, name)
    if not is_alive(site.settings.home, facts["seat"]):
        site.state.remove(ENDPOINT, name)
        shutil.rmtree(site.folder(ENDPOINT, name), ignore_errors=True)
    return {}


def list_endpoints(site: Site, request: Document) -> Document:
    """ListEndpoints."""
    return page(
        site.state.every(ENDPOINT),
        request,
        status=lambda endpoint: endpoint.facts["status"],
        summary=lambda endpoint: {
            "EndpointName": endpoint.name,
            "EndpointArn": site.arn(ENDPOINT, endpoint.name),
            "CreationTime": endpoint.created,
            "LastModifiedTime": endpoint.facts["modified"],
            "EndpointStatus": endpoint.facts["status"],
        },
        result="Endpoints",
    )


# --- invocations


class Invoker:
    """InvokeEndpoint. Keeps connections to the containers open between calls; safe in several threads."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._exchanges: dict[int, Exchange] = {}

    def invoke(self, request: Document) -> Document:
        """Send ``Body`` to the variant that traffic or TargetVariant chooses.

        Raises:
            ServiceError: ValidationError for an unknown endpoint or variant or too large a body; ModelError (424)
                when the container answered other than 2xx, too late or not at all (contract B.6).
        """
        name = request["EndpointName"]
        endpoint = self._site.state.find(ENDPOINT, name)
        if endpoint is None or endpoint.facts["status"] not in SERVING:
            raise ServiceError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        if len(request["Body"]) > PAYLOAD_LIMIT_BYTES:
            raise ServiceError(
                "ValidationError", f"Request has {len(request['Body'])} bytes; the limit is {PAYLOAD_LIMIT_BYTES}."
            )
        variant = routing.choose(endpoint.facts["variants"], request.get("TargetVariant"), endpoint=name)
        return self._ask(name, variant, request)

    def close(self) -> None:
        """Close the idle connections."""
        for exchange in self._exchanges.values():
            exchange.close()

    def _ask(self, endpoint: str, variant: Document, request: Document) -> Document:
        port = variant.get("port", 0)
        exchange = self._exchanges.setdefault(port, Exchange(port))
        timeout = self._site.settings.invocation_timeout_seconds
        headers = _container_headers(request)
        try:
            answer = exchange.send(
                "POST", "/invocations", body=request["Body"], headers=headers, timeout_seconds=timeout
            )
        except NoAnswer as exc:
            raise self._model_error(endpoint, 0, _no_answer_text(exc)) from exc
        if answer.status not in _OK:
            raise self._model_error(endpoint, answer.status, answer.body.decode(errors="replace"))
        response: Document = {"Body": answer.body, "InvokedProductionVariant": variant["name"]}
        if "content-type" in answer.headers:
            response["ContentType"] = answer.headers["content-type"]
        if custom := answer.headers.get("x-amzn-sagemaker-custom-attributes"):
            response["CustomAttributes"] = custom
        return response

    def _model_error(self, endpoint: str, status: int, body: str) -> ServiceError:
        region = self._site.settings.region
        group = f"/aws/sagemaker/Endpoints/{endpoint}"
        blame = "server" if status == 0 or status >= _SERVER_ERROR else "client"
        return ServiceError(
            "ModelError",
            f'Received {blame} error ({status}) from primary with message "{body}". See https://{region}.console.aws.'
            f"amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} in account {ACCOUNT} "
            "for more information.",
            status=424,
            OriginalStatusCode=status,
            OriginalMessage=body,
            LogStreamArn=f"arn:aws:logs:{region}:{ACCOUNT}:log-group:{group}",
        )


def _no_answer_text(error: NoAnswer) -> str:
    if str(error).startswith("no answer within"):
        return (
            "Your invocation timed out while waiting for a response from container primary. Review the latency "
            "metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
        )
    return f"The container closed the connection without an answer ({error})."


def _container_headers(request: Document) -> dict[str, str]:
    """What SageMaker lets through to the container; what was not sent stays absent (contract B.2)."""
    members = {
        "ContentType": "Content-Type",
        "Accept": "Accept",
        "CustomAttributes": "X-Amzn-SageMaker-Custom-Attributes",
        "InferenceId": "X-Amzn-SageMaker-Inference-Id",
    }
    return {header: request[member] for member, header in members.items() if member in request}


# --- shared


def find(site: Site, kind: str, name: str) -> Resource:
    """The resource, or AWS's error for a missing one."""
    resource = site.state.find(kind, name)
    if resource is None:
        raise _missing(site, kind, name)
    return resource


def _record(site: Site, kind: str, name: str, request: Document, facts: Document | None = None) -> None:
    try:
        site.state.insert(kind, name, request, facts or {})
    except Taken as exc:
        raise _taken(site, kind, name) from exc


def _missing(site: Site, kind: str, name: str) -> ServiceError:
    return refuse(f'Could not find {kind} "{site.arn(kind, name)}".')


def _taken(site: Site, kind: str, name: str) -> ServiceError:
    return refuse(f'Cannot create already existing {kind} "{site.arn(kind, name)}".')


def _stored(site: Site, url: str) -> bool:
    try:
        return site.store.exists(url)
    except BackendError:
        return False


def _untagged(request: Document) -> Document:
    return {key: value for key, value in request.items() if key != "Tags"}


def _variant_facts(site: Site, variant: Document) -> Document:
    """What the supervisor needs of a variant; the model's document is kept, for the record may be deleted."""
    model = find(site, MODEL, variant["ModelName"])
    return {
        "name": variant["VariantName"],
        "weight": variant.get("InitialVariantWeight", 1.0),
        "count": variant.get("InitialInstanceCount", 1),
        "startup_timeout_seconds": variant.get("ContainerStartupHealthCheckTimeoutInSeconds"),
        "model": model.request,
    }


def _variant_summary(variant: Document) -> Document:
    image = variant["model"]["PrimaryContainer"]["Image"]
    return {
        "VariantName": variant["name"],
        "DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image}],
        "CurrentWeight": variant["weight"],
        "DesiredWeight": variant["weight"],
        "CurrentInstanceCount": variant["count"],
        "DesiredInstanceCount": variant["count"],
    }
