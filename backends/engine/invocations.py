"""InvokeEndpoint (contract B.2, B.6): from the caller's process straight to the container."""

import re
import threading
import uuid
from contextlib import AbstractContextManager, nullcontext

from backends.engine import routing
from backends.engine.exchange import Exchange, NoAnswer, TimedOut
from backends.engine.hosting import PAYLOAD_LIMIT_BYTES, SERVERLESS_PAYLOAD_LIMIT_BYTES, SERVING
from backends.engine.runners import Address
from backends.engine.settings import ACCOUNT
from backends.engine.site import ENDPOINT, Site
from backends.engine.slots import NoSlot, Slots
from backends.engine.state import Document, Resource
from backends.sagemaker.readings import ServiceError

_OK = range(200, 300)
_SERVER_ERROR = 500
# What SageMaker lets through to the container; what was not sent stays absent (contract B.2).
_HEADERS = {
    "ContentType": "Content-Type",
    "Accept": "Accept",
    "CustomAttributes": "X-Amzn-SageMaker-Custom-Attributes",
    "InferenceId": "X-Amzn-SageMaker-Inference-Id",
}
# For endpoints of several models, containers or components, which do not exist here.
_OTHER_KINDS = frozenset({"TargetModel", "TargetContainerHostname", "InferenceComponentName"})
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,1024}")
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)


class Invoker:
    """Keeps connections to the containers open between calls; safe in several threads."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._exchanges: dict[str, dict[Address, Exchange]] = {}
        self._slots: dict[str, tuple[float, Slots]] = {}
        self._lock = threading.Lock()

    def invoke(self, request: Document) -> Document:
        """Send ``Body`` to the variant that traffic or TargetVariant chooses.

        Raises:
            ServiceError: ValidationError for an unknown endpoint or variant or too large a body; ThrottlingException
                (429) when a serverless variant is in the middle of MaxConcurrency requests; ModelError (424) when
                the container answered other than 2xx, too late or not at all.
        """
        name, body = request["EndpointName"], request.get("Body", b"")
        endpoint = self._serving(name)
        for member in _OTHER_KINDS & request.keys():
            raise ServiceError("ValidationError", f"{member} is not allowed for endpoint {name}.")
        variant = routing.choose(routing.fleet(endpoint.facts), request.get("TargetVariant"), endpoint=name)
        limit_bytes = _checked_limit(variant, body)
        headers = _container_headers(request)
        try:
            with self._slot(endpoint, variant):
                answer = self._exchange(endpoint, variant).send(
                    "POST",
                    "/invocations",
                    body=body,
                    headers=headers,
                    timeout_seconds=self._site.settings.invocation_timeout_seconds,
                    answer_limit_bytes=limit_bytes,
                )
        except NoSlot:
            raise ServiceError("ThrottlingException", "Rate exceeded", status=429) from None
        except TimedOut as exc:
            raise self._model_error(name, 0, _TIMED_OUT) from exc
        except NoAnswer as exc:
            raise self._model_error(name, 0, f"The container gave no answer ({exc}).") from exc
        if answer.status not in _OK:
            raise self._model_error(name, answer.status, answer.body.decode(errors="replace"))
        response: Document = {"Body": answer.body, "InvokedProductionVariant": variant["name"]}
        if "content-type" in answer.headers:
            response["ContentType"] = answer.headers["content-type"]
        if custom := answer.headers.get("x-amzn-sagemaker-custom-attributes"):
            response["CustomAttributes"] = custom
        return response

    def close(self) -> None:
        """Close the idle connections."""
        for name in {*self._exchanges, *self._slots}:
            self._forget(name)

    def _serving(self, name: str) -> Resource:
        endpoint = self._site.state.find(ENDPOINT, name)
        if endpoint is None or endpoint.facts["status"] not in SERVING:
            self._forget(name)
            raise ServiceError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        return endpoint

    def _forget(self, name: str) -> None:
        """Close what is open for an endpoint."""
        with self._lock:
            for exchange in self._exchanges.pop(name, {}).values():
                exchange.close()
            if known := self._slots.pop(name, None):
                known[1].close()

    def _exchange(self, endpoint: Resource, variant: Document) -> Exchange:
        """The connections to the variant's container; a restarted one is at another address."""
        found = variant.get("address")
        if found is None:
            raise NoAnswer("it is being restarted")
        address = (found[0], found[1])
        with self._lock:
            known = self._exchanges.setdefault(endpoint.name, {})
            if address not in known:
                for gone in known.keys() - _addresses(endpoint.facts):
                    known.pop(gone).close()
                known[address] = Exchange(address)
            return known[address]

    def _slot(self, endpoint: Resource, variant: Document) -> AbstractContextManager[None]:
        if "serverless" not in variant:
            return nullcontext()
        with self._lock:
            created, slots = self._slots.get(endpoint.name, (0.0, None))
            if slots is None or created != endpoint.created:
                if slots is not None:
                    slots.close()
                slots = Slots(self._site.folder(endpoint) / "slots")
                self._slots[endpoint.name] = endpoint.created, slots
        return slots.one_of(variant["serverless"]["MaxConcurrency"])

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


def _addresses(facts: Document) -> set[Address]:
    """Where the containers listen that may be asked."""
    variants = [*facts["variants"], *facts.get("shift", {}).get("variants", [])]
    return {(address[0], address[1]) for variant in variants if (address := variant.get("address"))}


def _checked_limit(variant: Document, body: bytes) -> int:
    """How many bytes a request of *variant* and its answer may have; refuses a *body* with more."""
    if "serverless" not in variant:
        if len(body) > PAYLOAD_LIMIT_BYTES:
            raise ServiceError("ValidationError", f"Request has {len(body)} bytes; the limit is {PAYLOAD_LIMIT_BYTES}.")
        return PAYLOAD_LIMIT_BYTES
    if len(body) > SERVERLESS_PAYLOAD_LIMIT_BYTES:
        raise ServiceError("ValidationError", f"Request {uuid.uuid4()} has oversize body.")
    return SERVERLESS_PAYLOAD_LIMIT_BYTES


def _container_headers(request: Document) -> dict[str, str]:
    headers = {header: request[member] for member, header in _HEADERS.items() if member in request}
    for header, value in headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise ServiceError(
                "ValidationError", f"{header} must be at most 1024 visible ASCII characters; it was {value[:80]!r}."
            )
    return headers
