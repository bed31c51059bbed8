"""S3 over the object store of this machine: what the pipeline stored is what `aws s3 ls` shows.

There is one owner, who may do all. Signatures are not checked, but presigned URLs expire. Not carried out, and refused
with S3's NotImplemented: versioning, object lock, encryption with a customer's key, access points, Select.
"""

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from botocore import xform_name

from backends.emulator.protocol.models import Head, Members
from backends.emulator.services import Operation, Service
from backends.emulator.services.s3.buckets import BucketOperations, check_owner, check_version
from backends.emulator.services.s3.listing import ListOperations
from backends.emulator.services.s3.objects import ObjectOperations
from backends.emulator.services.s3.payload import Payload
from backends.emulator.services.s3.uploads import UploadOperations
from backends.errors import BackendError, NotFound
from backends.sagemaker.readings import ServiceError
from backends.stores.buckets import Buckets
from backends.stores.uploads import Uploads

_MISSING = {
    "bucket": ("NoSuchBucket", "The specified bucket does not exist", "BucketName"),
    "object": ("NoSuchKey", "The specified key does not exist.", "Key"),
    "upload": (
        "NoSuchUpload",
        (
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
            "completed."
        ),
        "UploadId",
    ),
}


class S3(Service):
    """Buckets and objects."""

    name = "s3"
    streamed = frozenset({"PutObject", "UploadPart"})

    def __init__(self, buckets: Buckets, region: str) -> None:
        uploads = Uploads(buckets)
        self._operations: dict[str, Operation | None] = {}
        self._of_buckets = BucketOperations(buckets, region)
        self._rooms = (
            ObjectOperations(buckets),
            UploadOperations(buckets, uploads),
            ListOperations(buckets, uploads),
            self._of_buckets,
        )

    def operation(self, name: str) -> Operation | None:
        if name not in self._operations:
            found = self._of_buckets.setting(name)
            for room in self._rooms:
                found = getattr(room, xform_name(name), found)
            self._operations[name] = None if found is None else _guarded(found)
        return self._operations[name]

    def addressed(self, head: Head) -> Head:
        """*head* with the bucket in its path, wherever the client named it, and presigned headers among the others.

        Raises:
            ServiceError: the URL was signed for a time that is over.
        """
        _check_expiry(head)
        hoisted = {name.lower(): values[0] for name, values in head.query.items() if name.lower().startswith("x-amz-")}
        bucket = _bucket_of_host(head.headers.get("host", ""))
        if hoisted or bucket:
            path = f"/{bucket}{head.path}" if bucket else head.path
            return replace(head, path=path, headers={**hoisted, **head.headers})
        return head

    def open_body(self, head: Head, stream: AsyncIterator[bytes]) -> Payload:
        return Payload(head, stream)

    def refused(self, violation: ServiceError) -> ServiceError:
        """S3 has no constraints in its model but enumerations and members that must be there."""
        return ServiceError("InvalidArgument", violation.message)


def _guarded(carry_out: Operation) -> Operation:
    """*carry_out* with what is checked for every operation, and the store's errors in S3's words."""
    if inspect.iscoroutinefunction(carry_out):

        async def carried_out(request: Members) -> Members:
            with _in_s3s_words(request):
                answer: Members = await carry_out(request)
                return answer

        return carried_out

    def carried_out_in_a_thread(request: Members) -> Members:
        with _in_s3s_words(request):
            return carry_out(request)  # type: ignore[return-value]  # it is no coroutine

    return carried_out_in_a_thread


@contextmanager
def _in_s3s_words(request: Members) -> Iterator[None]:
    try:
        check_owner(request)
        check_version(request)
        yield
    except NotFound as exc:
        code, text, member = _MISSING[exc.kind]
        name = exc.name.split("/", 3)[-1] if exc.kind == "object" else exc.name
        raise ServiceError(code, text, status=404, **{member: name}) from exc
    except BackendError as exc:
        raise ServiceError("InternalError", str(exc), status=500) from exc


def _bucket_of_host(host: str) -> str:
    """The bucket that a virtual-host style request names: `bucket.localhost`, `bucket.s3.localhost`."""
    name = host.rpartition(":")[0] or host
    if not name.lower().endswith(".localhost"):
        return ""
    labels = name.lower().removesuffix(".localhost").split(".")
    if "s3" in labels:
        labels = labels[: len(labels) - 1 - labels[::-1].index("s3")]
    return ".".join(labels)


def _check_expiry(head: Head) -> None:
    signed, seconds, until = head.first("X-Amz-Date"), head.first("X-Amz-Expires"), head.first("Expires")
    try:
        if signed and seconds:
            ends = datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) + timedelta(seconds=int(seconds))
        elif until and head.first("Signature"):
            ends = datetime.fromtimestamp(int(until), UTC)
        else:
            return
    except (ValueError, OverflowError) as exc:
        text = "X-Amz-Date and X-Amz-Expires must be a time and a number of seconds"
        raise ServiceError("AuthorizationQueryParametersError", text) from exc
    now = datetime.now(UTC)
    if now > ends:
        times = {"Expires": ends.strftime("%Y-%m-%dT%H:%M:%SZ"), "ServerTime": now.strftime("%Y-%m-%dT%H:%M:%SZ")}
        raise ServiceError("AccessDenied", "Request has expired", status=403, **times)
