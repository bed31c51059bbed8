"""InvokeEndpoint (contract B.2, B.6): from the caller's process straight to the container."""

import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from backends.engine import routing
from backends.engine.exchange import Arriving, Exchange
from backends.engine.hosting import PAYLOAD_LIMIT_BYTES, SERVERLESS_PAYLOAD_LIMIT_BYTES, SERVING
from backends.engine.reply import Answer, NoAnswer, TimedOut
from backends.engine.runners import Address
from backends.engine.settings import ACCOUNT
from backends.engine.site import ENDPOINT, Site
from backends.engine.slots import NoSlot, Slots
from backends.engine.state import Document, Resource
from backends.naming import partition_of
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
    """One request to an endpoint, on its way to the variant that was chosen for it.

    *body* and *headers* are for the container, which may take *timeout_seconds*; the answer has at most
    *answer_limit_bytes*.
    """

    def __init__(self, site: Site, variant: Document, request: Document, slots: Slots | None) -> None:
        self.endpoint: str = request["EndpointName"]
        self.body: bytes = request.get("Body", b"")
        self.answer_limit_bytes = _checked_limit(variant, self.body)
        self.headers = _container_headers(request)
        self.timeout_seconds = site.settings.invocation_timeout_seconds
        self._region = site.settings.region
        self._variant = variant
        self._slots = slots

    @property
    def address(self) -> Address:
        """Where the container listens. Raises NoAnswer: nowhere."""
        found = self._variant.get("address")
        if found is None:
            raise NoAnswer("it is being restarted")
        return found[0], found[1]

    @contextmanager
    def answering(self) -> Iterator[None]:
        """The time in which the container is asked: it takes one of a serverless variant's places.

        Raises:
            ServiceError: ThrottlingException (429), no place is free; ModelError (424), the container answered
                too late or not at all.
        """
        try:
            with self._place():
                yield
        except NoSlot:
            raise ServiceError("ThrottlingException", "Rate exceeded", status=429) from None
        except TimedOut as exc:
            raise self._model_error(0, _TIMED_OUT) from exc
        except NoAnswer as exc:
            raise self._model_error(0, f"The container gave no answer ({exc}).") from exc

    def response(self, answer: Answer) -> Document:
        """What the caller gets. Raises ServiceError: ModelError (424), the container answered other than 2xx."""
        if answer.status not in _OK:
            raise self.refused(answer.status, answer.body)
        return {"Body": answer.body, **self.head(answer.headers)}

    def head(self, headers: Mapping[str, str]) -> Document:
        """What the response says beside its body, by the *headers* of the container's answer."""
        head = {"InvokedProductionVariant": self._variant["name"]}
        if "content-type" in headers:
            head["ContentType"] = headers["content-type"]
        if custom := headers.get("x-amzn-sagemaker-custom-attributes"):
            head["CustomAttributes"] = custom
        return head

    def refused(self, status: int, body: bytes) -> ServiceError:
        """The ModelError (424) for an answer other than 2xx."""
        return self._model_error(status, body.decode(errors="replace"))

    def _place(self) -> AbstractContextManager[None]:
        return self._slots.one_of(self._variant["serverless"]["MaxConcurrency"]) if self._slots else nullcontext()

    def _model_error(self, status: int, body: str) -> ServiceError:
        region = self._region
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
            LogStreamArn=f"arn:{partition_of(region).name}:logs:{region}:{ACCOUNT}:log-group:{group}",
        )


class Invoker:
    """Keeps connections to the containers open between calls; safe in several threads."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._exchanges: dict[str, dict[Address, Exchange]] = {}
        self._slots: dict[str, tuple[float, Slots]] = {}
        self._lock = threading.Lock()

    def begin(self, request: Document) -> Invocation:
        """Choose the variant by traffic or TargetVariant; nothing is sent.

        Raises:
            ServiceError: ValidationError for an unknown endpoint or variant or too large a body.
        """
        name = request["EndpointName"]
        endpoint, facts = self._serving(name)
        for member in _OTHER_KINDS & request.keys():
            raise _invalid(f"{member} is not allowed for endpoint {name}.")
        variant = routing.choose(routing.fleet(facts), request.get("TargetVariant"), endpoint=name)
        return Invocation(self._site, variant, request, self._slots_of(endpoint) if "serverless" in variant else None)

    def invoke(self, request: Document) -> Document:
        """Carry out one :class:`Invocation`, whose errors are raised."""
        invocation = self.begin(request)
        with invocation.answering():
            answer = self._exchange(invocation).send(
                "POST",
                "/invocations",
                body=invocation.body,
                headers=invocation.headers,
                timeout_seconds=invocation.timeout_seconds,
                answer_limit_bytes=invocation.answer_limit_bytes,
            )
        return invocation.response(answer)

    def stream(self, request: Document) -> Document:
        """As :meth:`invoke`, with ``Body`` as the events of the answer: a PayloadPart for each piece that arrives.

        Raises:
            ServiceError: as invoke. While the events are read, ModelStreamError: the answer took too long (ErrorCode
                ModelInvocationTimeExceeded) or broke off (StreamBroken).
        """
        invocation = self.begin(request)
        with ExitStack() as opened:
            opened.enter_context(invocation.answering())
            arriving = self._exchange(invocation).open(
                "/invocations",
                body=invocation.body,
                headers=invocation.headers,
                timeout_seconds=self._site.settings.stream_timeout_seconds,
            )
            opened.callback(arriving.close)
            if arriving.status not in _OK:
                raise invocation.refused(arriving.status, b"".join(arriving))
            return {"Body": _events(arriving, opened.pop_all()), **invocation.head(arriving.headers)}

    def close(self) -> None:
        """Close the idle connections."""
        for name in {*self._exchanges, *self._slots}:
            self._forget(name)

    def _serving(self, name: str) -> tuple[Resource, Document]:
        """The endpoint and its facts, which are not to be changed."""
        endpoint = self._site.state.find(ENDPOINT, name)
        if endpoint is None or (facts := endpoint.facts)["status"] not in SERVING:
            self._forget(name)
            raise _invalid(f"Endpoint {name} of account {ACCOUNT} not found.")
        return endpoint, facts

    def _forget(self, name: str) -> None:
        """Close what is open for an endpoint."""
        with self._lock:
            for exchange in self._exchanges.pop(name, {}).values():
                exchange.close()
            if known := self._slots.pop(name, None):
                known[1].close()

    def _exchange(self, invocation: Invocation) -> Exchange:
        """The connections to the variant's container; a restarted one is at another address."""
        address = invocation.address
        with self._lock:
            known = self._exchanges.setdefault(invocation.endpoint, {})
            if address not in known:
                endpoint = self._site.state.find(ENDPOINT, invocation.endpoint)
                for gone in known.keys() - (_addresses(endpoint.facts) if endpoint else set()):
                    known.pop(gone).close()
                known[address] = Exchange(address)
            return known[address]

    def _slots_of(self, endpoint: Resource) -> Slots:
        with self._lock:
            created, slots = self._slots.get(endpoint.name, (0.0, None))
            if slots is None or created != endpoint.created:
                if slots is not None:
                    slots.close()
                slots = Slots(self._site.folder(endpoint) / "slots")
                self._slots[endpoint.name] = endpoint.created, slots
            return slots


def _addresses(facts: Document) -> set[Address]:
    """Where the containers listen that may be asked."""
    variants = [*facts["variants"], *facts.get("shift", {}).get("variants", [])]
    return {(address[0], address[1]) for variant in variants if (address := variant.get("address"))}


def _checked_limit(variant: Document, body: bytes) -> int:
    """How many bytes a request of *variant* and its answer may have; refuses a *body* with more."""
    if "serverless" not in variant:
        if len(body) > PAYLOAD_LIMIT_BYTES:
            raise _invalid(f"Request has {len(body)} bytes; the limit is {PAYLOAD_LIMIT_BYTES}.")
        return PAYLOAD_LIMIT_BYTES
    if len(body) > SERVERLESS_PAYLOAD_LIMIT_BYTES:
        raise _invalid(f"Request {uuid.uuid4()} has oversize body.")
    return SERVERLESS_PAYLOAD_LIMIT_BYTES


def _events(arriving: Arriving, opened: ExitStack) -> Iterator[Document]:
    """PayloadParts until the answer ends; then what was *opened* for it is closed."""
    with opened:
        try:
            for piece in arriving:
                yield {"PayloadPart": {"Bytes": piece}}
        except TimedOut as exc:
            raise ServiceError("ModelStreamError", str(exc), ErrorCode="ModelInvocationTimeExceeded") from exc
        except NoAnswer as exc:
            text = f"The container's answer broke off ({exc})."
            raise ServiceError("ModelStreamError", text, ErrorCode="StreamBroken") from exc


def _invalid(text: str) -> ServiceError:
    return ServiceError("ValidationError", text)


def _container_headers(request: Document) -> dict[str, str]:
    headers = {header: request[member] for member, header in _HEADERS.items() if member in request}
    for header, value in headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise _invalid(f"{header} must be at most 1024 visible ASCII characters; it was {value[:80]!r}.")
    return headers
