"""InvokeEndpoint (contract B.2, B.6): from the caller's process straight to the container."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from backends.engine import routing
from backends.engine.exchange import Answer, Exchange, NoAnswer, TimedOut
from backends.engine.hosting import PAYLOAD_LIMIT_BYTES, SERVING
from backends.engine.settings import ACCOUNT
from backends.engine.site import ENDPOINT, Site
from backends.engine.state import Document
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


class Invocation:
    """One InvokeEndpoint, on its way to the variant that traffic or TargetVariant chooses."""

    def __init__(self, site: Site, request: Document) -> None:
        """Raises ServiceError: ValidationError for an unknown endpoint or variant or too large a body."""
        self._site = site
        self.endpoint, self.body = request["EndpointName"], request.get("Body", b"")
        endpoint = site.state.find(ENDPOINT, self.endpoint)
        if endpoint is None or endpoint.facts["status"] not in SERVING:
            raise _invalid(f"Endpoint {self.endpoint} of account {ACCOUNT} not found.")
        if len(self.body) > PAYLOAD_LIMIT_BYTES:
            raise _invalid(f"Request has {len(self.body)} bytes; the limit is {PAYLOAD_LIMIT_BYTES}.")
        for member in _OTHER_KINDS & request.keys():
            raise _invalid(f"{member} is not allowed for endpoint {self.endpoint}.")
        self._variant = routing.choose(endpoint.facts["variants"], request.get("TargetVariant"), endpoint=self.endpoint)
        self.headers = _container_headers(request)
        self.timeout_seconds = site.settings.invocation_timeout_seconds

    @property
    def variant(self) -> str:
        """The variant's name."""
        name: str = self._variant["name"]
        return name

    @property
    def address(self) -> tuple[str, int]:
        """Where the container listens. Raises NoAnswer: nowhere."""
        found = self._variant.get("address")
        if found is None:
            raise NoAnswer("it is being restarted")
        return found[0], found[1]

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Restate that the container answers too late or not at all. Raises ServiceError: ModelError (424)."""
        try:
            yield
        except TimedOut as exc:
            raise self._model_error(0, _TIMED_OUT) from exc
        except NoAnswer as exc:
            raise self._model_error(0, f"The container gave no answer ({exc}).") from exc

    def response(self, answer: Answer) -> Document:
        """What the caller gets. Raises ServiceError: ModelError (424), the container answered other than 2xx."""
        if answer.status not in _OK:
            raise self._model_error(answer.status, answer.body.decode(errors="replace"))
        response: Document = {"Body": answer.body, "InvokedProductionVariant": self.variant}
        if "content-type" in answer.headers:
            response["ContentType"] = answer.headers["content-type"]
        if custom := answer.headers.get("x-amzn-sagemaker-custom-attributes"):
            response["CustomAttributes"] = custom
        return response

    def _model_error(self, status: int, body: str) -> ServiceError:
        region = self._site.settings.region
        group = f"/aws/sagemaker/Endpoints/{self.endpoint}"
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


class Invoker:
    """Keeps connections to the containers open between calls; safe in several threads."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._exchanges: dict[tuple[str, str], Exchange] = {}
        self._lock = threading.Lock()

    def invoke(self, request: Document) -> Document:
        """Carry out one :class:`Invocation`, whose errors are raised."""
        try:
            invocation = Invocation(self._site, request)
        except ServiceError:
            self._forget(request["EndpointName"])
            raise
        with invocation.answering():
            answer = self._exchange(invocation).send(
                "POST",
                "/invocations",
                body=invocation.body,
                headers=invocation.headers,
                timeout_seconds=invocation.timeout_seconds,
                answer_limit_bytes=PAYLOAD_LIMIT_BYTES,
            )
        return invocation.response(answer)

    def close(self) -> None:
        """Close the idle connections."""
        for exchange in self._exchanges.values():
            exchange.close()

    def _forget(self, endpoint: str) -> None:
        for key in [key for key in list(self._exchanges) if key[0] == endpoint]:
            with suppress(KeyError):
                self._exchanges.pop(key).close()

    def _exchange(self, invocation: Invocation) -> Exchange:
        """The connections to the variant's container; a restarted one is at another address."""
        key, address = (invocation.endpoint, invocation.variant), invocation.address
        with self._lock:
            known = self._exchanges.get(key)
            if known is not None and known.address == address:
                return known
            if known is not None:
                known.close()
            self._exchanges[key] = fresh = Exchange(address)
            return fresh


def _invalid(text: str) -> ServiceError:
    return ServiceError("ValidationError", text)


def _container_headers(request: Document) -> dict[str, str]:
    headers = {header: request[member] for member, header in _HEADERS.items() if member in request}
    for header, value in headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise _invalid(f"{header} must be at most 1024 visible ASCII characters; it was {value[:80]!r}.")
    return headers
