"""InvokeEndpoint (contract B.2, B.6): from the caller's process straight to the container."""

import re
import threading
from contextlib import suppress

from backends.engine import routing
from backends.engine.exchange import Exchange, NoAnswer, TimedOut
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
        name, body = request["EndpointName"], request.get("Body", b"")
        endpoint = self._serving(name)
        if len(body) > PAYLOAD_LIMIT_BYTES:
            raise ServiceError("ValidationError", f"Request has {len(body)} bytes; the limit is {PAYLOAD_LIMIT_BYTES}.")
        variant = routing.choose(endpoint.facts["variants"], request.get("TargetVariant"), endpoint=name)
        headers = _container_headers(request)
        try:
            answer = self._exchange(name, variant).send(
                "POST",
                "/invocations",
                body=body,
                headers=headers,
                timeout_seconds=self._site.settings.invocation_timeout_seconds,
                answer_limit_bytes=PAYLOAD_LIMIT_BYTES,
            )
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
        for exchange in self._exchanges.values():
            exchange.close()

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


def _container_headers(request: Document) -> dict[str, str]:
    headers = {header: request[member] for member, header in _HEADERS.items() if member in request}
    for header, value in headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise ServiceError(
                "ValidationError", f"{header} must be at most 1024 visible ASCII characters; it was {value[:80]!r}."
            )
    return headers
