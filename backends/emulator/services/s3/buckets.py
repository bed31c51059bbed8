"""S3's operations on buckets, and the settings that hang on them."""

import base64
import binascii
from functools import partial
from typing import NamedTuple

from backends.emulator.protocol.models import Members, load_model
from backends.emulator.services import Operation
from backends.engine.settings import ACCOUNT
from backends.errors import AlreadyExists, Conflict, InvalidSpec
from backends.naming import split_uri
from backends.sagemaker.readings import ServiceError
from backends.stores.buckets import Buckets

OWNER = {"ID": "b" * 64, "DisplayName": "greenroom"}
FULL_CONTROL = {
    "Owner": OWNER,
    "Grants": [
        {
            "Grantee": {"Type": "CanonicalUser", "ID": OWNER["ID"], "DisplayName": "greenroom"},
            "Permission": "FULL_CONTROL",
        }
    ],
}
_FIRST_REGION = "us-east-1"  # the one that is not named
_MOST_BUCKETS = 10_000


class _Setting(NamedTuple):
    """What a GET says before anything was set, and whether it can be set: it is kept and told, not acted upon."""

    unset: Members | tuple[str, str]
    can_be_set: bool = False


_SETTINGS = {
    "BucketAcl": _Setting(FULL_CONTROL),
    "BucketAccelerateConfiguration": _Setting({}),
    "BucketCors": _Setting(("NoSuchCORSConfiguration", "The CORS configuration does not exist"), can_be_set=True),
    "BucketEncryption": _Setting(
        {
            "ServerSideEncryptionConfiguration": {
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
            }
        },
        can_be_set=True,
    ),
    "BucketLifecycleConfiguration": _Setting(
        ("NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"), can_be_set=True
    ),
    "BucketLogging": _Setting({}),
    "BucketNotificationConfiguration": _Setting({}),
    "BucketOwnershipControls": _Setting(
        ("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"), can_be_set=True
    ),
    "BucketPolicy": _Setting(("NoSuchBucketPolicy", "The bucket policy does not exist"), can_be_set=True),
    "BucketReplication": _Setting(
        ("ReplicationConfigurationNotFoundError", "The replication configuration was not found")
    ),
    "BucketRequestPayment": _Setting({"Payer": "BucketOwner"}),
    "BucketTagging": _Setting(("NoSuchTagSet", "The TagSet does not exist"), can_be_set=True),
    "BucketVersioning": _Setting({}),
    "BucketWebsite": _Setting(
        ("NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration")
    ),
    "ObjectLockConfiguration": _Setting(
        ("ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket")
    ),
    "PublicAccessBlock": _Setting(
        ("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found"), can_be_set=True
    ),
}
# What every bucket has that is made through the API, since April 2023.
_AT_CREATION: dict[str, Members] = {
    "BucketOwnershipControls": {"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}},
    "PublicAccessBlock": {
        "PublicAccessBlockConfiguration": dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        )
    },
}
_DELETED_AS = {"BucketLifecycle": "BucketLifecycleConfiguration"}


class BucketOperations:
    """The operations of :class:`S3` on buckets."""

    def __init__(self, buckets: Buckets, region: str) -> None:
        self._buckets = buckets
        self._region = region

    def setting(self, name: str) -> Operation | None:
        """The operation *name*, if it gets, puts or deletes a setting."""
        for verb, act in (("Get", self._get), ("Put", self._put), ("Delete", self._delete)):
            setting = name.removeprefix(verb)
            setting = _DELETED_AS.get(setting, setting) if verb == "Delete" else setting
            if name.startswith(verb) and setting in _SETTINGS and (verb == "Get" or _SETTINGS[setting].can_be_set):
                return partial(act, setting)
        return None

    def create_bucket(self, request: Members) -> Members:
        """CreateBucket. To make one's own again is an error, except in the first region."""
        bucket = request["Bucket"]
        try:
            split_uri(f"s3://{bucket}", key_required=False)
        except InvalidSpec as exc:
            raise ServiceError("InvalidBucketName", "The specified bucket is not valid.", BucketName=bucket) from exc
        self._check_place(request.get("CreateBucketConfiguration", {}).get("LocationConstraint"))
        if request.get("ObjectLockEnabledForBucket"):
            raise not_implemented("object lock")
        try:
            self._buckets.create(bucket)
        except AlreadyExists as exc:
            if self._region == _FIRST_REGION:
                return {"Location": f"/{bucket}"}
            text = "Your previous request to create the named bucket succeeded and you already own it."
            raise ServiceError("BucketAlreadyOwnedByYou", text, status=409, BucketName=bucket) from exc
        for name, document in _AT_CREATION.items():
            self._buckets.set(bucket, name, document)
        if tags := request.get("CreateBucketConfiguration", {}).get("Tags"):
            self._buckets.set(bucket, "BucketTagging", {"TagSet": tags})
        return {"Location": f"/{bucket}"}

    def delete_bucket(self, request: Members) -> Members:
        """DeleteBucket."""
        try:
            self._buckets.remove(request["Bucket"])
        except Conflict as exc:
            text = "The bucket you tried to delete is not empty"
            raise ServiceError("BucketNotEmpty", text, status=409, BucketName=request["Bucket"]) from exc
        return {}

    def head_bucket(self, request: Members) -> Members:
        """HeadBucket."""
        self._buckets.require(request["Bucket"])
        return {"BucketRegion": self._region}

    def list_buckets(self, request: Members) -> Members:
        """ListBuckets, a page at a time."""
        prefix, size = request.get("Prefix", ""), request.get("MaxBuckets", _MOST_BUCKETS)
        found = self._buckets.names(prefix=prefix, after=read_token(request.get("ContinuationToken")))
        page = found[:size]
        answer: Members = {
            "Buckets": [
                {"Name": name, "CreationDate": created, "BucketRegion": self._region} for name, created in page
            ],
            "Owner": OWNER,
        }
        if len(found) > size:
            answer["ContinuationToken"] = token_behind(page[-1][0])
        return answer | ({"Prefix": prefix} if prefix else {})

    def get_bucket_location(self, request: Members) -> Members:
        """GetBucketLocation."""
        self._buckets.require(request["Bucket"])
        return {"LocationConstraint": "" if self._region == _FIRST_REGION else self._region}

    def get_bucket_policy_status(self, request: Members) -> Members:
        """GetBucketPolicyStatus: nothing here is open to the public."""
        self._get("BucketPolicy", request)
        return {"PolicyStatus": {"IsPublic": False}}

    def put_bucket_versioning(self, request: Members) -> Members:
        """PutBucketVersioning: only what is so anyway."""
        self._buckets.require(request["Bucket"])
        if request["VersioningConfiguration"].get("Status") == "Enabled":
            raise not_implemented("versioning")
        return {}

    def put_bucket_acl(self, request: Members) -> Members:
        """PutBucketAcl: only what is so anyway."""
        self._buckets.require(request["Bucket"])
        check_acl(request)
        return {}

    def _get(self, setting: str, request: Members) -> Members:
        found = self._buckets.setting(request["Bucket"], setting)
        if found is not None:
            return dict(found)
        unset = _SETTINGS[setting].unset
        if isinstance(unset, tuple):
            code, text = unset
            raise ServiceError(code, text, status=404, BucketName=request["Bucket"])
        return unset

    def _put(self, setting: str, request: Members) -> Members:
        service = load_model("s3").service
        sent = service.operation_model(f"Put{setting}").input_shape
        told = service.operation_model(f"Get{setting}").output_shape
        assert sent is not None
        assert told is not None
        document, payload = request[sent.serialization["payload"]], told.serialization.get("payload")
        self._buckets.set(request["Bucket"], setting, {payload: document} if payload else document)
        return {}

    def _delete(self, setting: str, request: Members) -> Members:
        self._buckets.set(request["Bucket"], setting, None)
        return {}

    def _check_place(self, place: str | None) -> None:
        if place == _FIRST_REGION:
            text = "The specified location-constraint is not valid"
            raise ServiceError("InvalidLocationConstraint", text, LocationConstraint=place)
        if (place or _FIRST_REGION) != self._region:
            text = (
                f"The {place or 'unspecified'} location constraint is incompatible for the region specific endpoint "
                f"this request was sent to; the region here is {self._region}."
            )
            raise ServiceError("IllegalLocationConstraintException", text)


def check_acl(request: Members) -> None:
    """Refuse access control lists, as buckets do whose owner owns all that is in them; sending the owner's is no harm.

    Raises:
        ServiceError: AccessControlListNotSupported.
    """
    granted = any(name.startswith("Grant") for name in request) or "AccessControlPolicy" in request
    if granted or request.get("ACL", "private") not in {"private", "bucket-owner-full-control"}:
        raise ServiceError("AccessControlListNotSupported", "The bucket does not allow ACLs")


def check_owner(request: Members) -> None:
    """Raises ServiceError: the caller expects the bucket to be another account's."""
    if {request.get("ExpectedBucketOwner"), request.get("ExpectedSourceBucketOwner")} - {None, ACCOUNT}:
        raise ServiceError("AccessDenied", "Access Denied", status=403)


def check_version(request: Members) -> None:
    """Raises ServiceError: another version is asked for than the one that there is."""
    if request.get("VersionId") not in {None, "null"}:
        raise ServiceError("NoSuchVersion", "The specified version does not exist.", status=404)


def not_implemented(what: str) -> ServiceError:
    """The error for what S3 has and Greenroom has not."""
    text = f"A header you provided implies functionality that is not implemented: {what}."
    return ServiceError("NotImplemented", text, status=501)


def token_behind(name: str) -> str:
    """The opaque token of a listing that goes on behind *name*."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def read_token(token: str | None) -> str:
    """The opposite of :func:`token_behind`. Raises ServiceError."""
    try:
        return base64.b64decode((token or "").encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        raise ServiceError("InvalidArgument", "The continuation token provided is incorrect") from exc
