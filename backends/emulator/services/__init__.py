"""The AWS services that the emulator carries out, and how a request names the one that it wants."""

import re
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import ClassVar

from botocore import xform_name

from backends.emulator.protocol.models import Head, Members
from backends.sagemaker.readings import ServiceError

Operation = Callable[[Members], Members | Awaitable[Members]]

_TARGETS = {
    "SageMaker": "sagemaker",
    "Logs_20140328": "logs",
    "ResourceGroupsTaggingAPI_20170126": "resourcegroupstaggingapi",
}
_CREDENTIAL = re.compile(r"[^/\s,]+/\d{8}/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request")
_RUNTIME_PATH = "/endpoints/"


class Service:
    """One service. Its operations are methods with the names that boto3 gives them.

    An operation takes the members of its input and returns those of its output; an ``async`` one runs on the event
    loop, any other in a thread. Those of *streamed* get their payload as a stream, at the latest when it has ended
    refused if it is not what it claims to be. What an operation refuses is a ServiceError.
    """

    name: ClassVar[str]
    is_global: ClassVar[bool] = False
    streamed: ClassVar[frozenset[str]] = frozenset()

    def operation(self, name: str) -> Operation | None:
        """What carries out *name* of the service's model; None: it is not emulated."""
        operation: Operation | None = getattr(self, xform_name(name), None)
        return operation

    def addressed(self, head: Head) -> Head:
        """*head* as the service's model writes it, whatever other ways there are to say the same."""
        return head

    def refused(self, violation: ServiceError) -> ServiceError:
        """The service's own error for members that its model does not allow."""
        return violation

    def open_body(self, head: Head, stream: AsyncIterator[bytes]) -> AsyncIterable[bytes]:
        """*stream* with the service's own transfer coding undone."""
        del head
        return stream


def wanted_service(head: Head) -> tuple[str, str | None]:
    """The service that a request names, and the region that its signature names, if any.

    By the target of the json protocol, else by the signature's scope (SigV4 header or presigned query), else by
    the path; a request that says none of it is an anonymous one to S3. Signatures are accepted, never checked.
    """
    scope = _CREDENTIAL.search(head.headers.get("authorization", "") or head.first("X-Amz-Credential") or "")
    region, service = scope.groups() if scope else (None, "")
    target = head.headers.get("x-amz-target", "").rpartition(".")[0]
    if target in _TARGETS:
        return _TARGETS[target], region
    if head.path.startswith(_RUNTIME_PATH) and service in {"", "sagemaker"}:
        return "sagemaker-runtime", region
    if service:
        return service, region
    if target:
        return target, None
    return "s3", None


def check_region(service: Service, region: str | None, served: str) -> None:
    """Refuse a signature for another region than the one *served*, as AWS does."""
    if region is None or service.is_global or region == served:
        return
    text = (
        f"Credential should be scoped to a valid region: this is {served}, not {region}. Set AWS_DEFAULT_REGION="
        f"{served} for the client, or `region` in greenroom.toml for the server."
    )
    if service.name == "s3":
        raise ServiceError("AuthorizationHeaderMalformed", text, Region=served)
    raise ServiceError("InvalidSignatureException", text, status=403)
