"""InvokeEndpoint, streamed or not (contract B.2, B.6, B.7): from the caller's process straight to the container."""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress

from backends.engine import routing
from backends.engine.exchange import Arriving, Exchange, NoAnswer, TimedOut
from backends.engine.hosting import PAYLOAD_LIMIT_BYTES, SERVING
from backends.engine.settings import ACCOUNT
from backends.engine.site import ENDPOINT, Site
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
        self._exchanges: dict[tuple[str, str], Exchange] = {}
        self._lock = threading.Lock()

    def invoke(self, request: Document) -> Document:
        """Send ``Body`` to the variant that traffic or TargetVariant chooses.

        Raises:
            ServiceError: ValidationError for an unknown endpoint or variant or too large a body; ModelError (424)
                when the container answered other than 2xx, too late or not at all.
        """
        name, variant = request["EndpointName"], self._chosen(request)
        with self._answering(name):
            answer = self._exchange(name, variant).send(
                "POST",
                "/invocations",
                body=request.get("Body", b""),
                headers=_container_headers(request),
                timeout_seconds=self._site.settings.invocation_timeout_seconds,
                answer_limit_bytes=PAYLOAD_LIMIT_BYTES,
            )
        if answer.status not in _OK:
            raise self._model_error(name, answer.status, answer.body.decode(errors="replace"))
        return {"Body": answer.body, **_head(variant, answer.headers)}

    def stream(self, request: Document) -> Document:
        """As :meth:`invoke`, with ``Body`` as the events of the answer: a PayloadPart for each piece that arrives.

        Raises:
            ServiceError: as invoke. While the events are read, ModelStreamError: the answer took too long (ErrorCode
                ModelInvocationTimeExceeded) or broke off (StreamBroken).
        """
        name, variant = request["EndpointName"], self._chosen(request)
        with self._answering(name):
            arriving = self._exchange(name, variant).open(
                "/invocations",
                body=request.get("Body", b""),
                headers=_container_headers(request),
                timeout_seconds=self._site.settings.stream_timeout_seconds,
            )
            if arriving.status not in _OK:
                with closing(arriving):
                    raise self._model_error(name, arriving.status, b"".join(arriving).decode(errors="replace"))
        return {"Body": _events(arriving), **_head(variant, arriving.headers)}

    def close(self) -> None:
        """Close the idle connections."""
        for exchange in self._exchanges.values():
            exchange.close()

    def _chosen(self, request: Document) -> Document:
        """The variant that is to answer the request, if it is one that may be asked."""
        name, size = request["EndpointName"], len(request.get("Body", b""))
        endpoint = self._serving(name)
        if size > PAYLOAD_LIMIT_BYTES:
            raise ServiceError("ValidationError", f"Request has {size} bytes; the limit is {PAYLOAD_LIMIT_BYTES}.")
        for member in _OTHER_KINDS & request.keys():
            raise ServiceError("ValidationError", f"{member} is not allowed for endpoint {name}.")
        return routing.choose(endpoint.facts["variants"], request.get("TargetVariant"), endpoint=name)

    @contextmanager
    def _answering(self, name: str) -> Iterator[None]:
        """Say as ModelError that the container of the endpoint *name* did not answer."""
        try:
            yield
        except TimedOut as exc:
            raise self._model_error(name, 0, _TIMED_OUT) from exc
        except NoAnswer as exc:
            raise self._model_error(name, 0, f"The container gave no answer ({exc}).") from exc

    def _serving(self, name: str) -> Resource:
        endpoint = self._site.state.find(ENDPOINT, name)
        if endpoint is None or endpoint.facts["status"] not in SERVING:
            for key in [key for key in list(self._exchanges) if key[0] == name]:
                with suppress(KeyError):
                    self._exchanges.pop(key).close()
            raise ServiceError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        return endpoint

    def _exchange(self, endpoint: str, variant: Document) -> Exchange:
        """The connections to the variant's container; a restarted one is at another address."""
        found = variant.get("address")
        if found is None:
            raise NoAnswer("it is being restarted")
        address = (found[0], found[1])
        with self._lock:
            known = self._exchanges.get((endpoint, variant["name"]))
            if known is not None and known.address == address:
                return known
            if known is not None:
                known.close()
            self._exchanges[endpoint, variant["name"]] = fresh = Exchange(address)
            return fresh

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


def _head(variant: Document, headers: Mapping[str, str]) -> Document:
    """What the response says beside its body."""
    head = {"InvokedProductionVariant": variant["name"]}
    if "content-type" in headers:
        head["ContentType"] = headers["content-type"]
    if custom := headers.get("x-amzn-sagemaker-custom-attributes"):
        head["CustomAttributes"] = custom
    return head


def _events(arriving: Arriving) -> Iterator[Document]:
    with closing(arriving):
        try:
            for piece in arriving:
                yield {"PayloadPart": {"Bytes": piece}}
        except TimedOut as exc:
            raise ServiceError("ModelStreamError", str(exc), ErrorCode="ModelInvocationTimeExceeded") from exc
        except NoAnswer as exc:
            text = f"The container's answer broke off ({exc})."
            raise ServiceError("ModelStreamError", text, ErrorCode="StreamBroken") from exc


def _container_headers(request: Document) -> dict[str, str]:
    headers = {header: request[member] for member, header in _HEADERS.items() if member in request}
    for header, value in headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise ServiceError(
                "ValidationError", f"{header} must be at most 1024 visible ASCII characters; it was {value[:80]!r}."
            )
    return headers
