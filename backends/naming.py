"""Names, ARNs and URIs: the one place where their grammar is written.

Source: the SageMaker API model's patterns (TrainingJobName, ModelName, EndpointName …).
"""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from backends.errors import InvalidSpec

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
LONGEST_NAME_CHARS = 63  # Which the pattern does not say: any number of hyphens may stand between two letters.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
MAX_KEY_BYTES = 1024


@dataclass(frozen=True)
class Partition:
    """A part of AWS that shares no accounts with the others: its name in ARNs, and how its hosts' names end."""

    name: str
    domain: str


_COMMERCIAL = Partition("aws", "amazonaws.com")
# By the beginning of a region's name. Not asked of botocore, which the local engine does without; a test compares.
_PARTITIONS = {
    "cn-": Partition("aws-cn", "amazonaws.com.cn"),
    "eu-isoe-": Partition("aws-iso-e", "cloud.adc-e.uk"),
    "eusc-": Partition("aws-eusc", "amazonaws.eu"),
    "us-gov-": Partition("aws-us-gov", "amazonaws.com"),
    "us-iso-": Partition("aws-iso", "c2s.ic.gov"),
    "us-isob-": Partition("aws-iso-b", "sc2s.sgov.gov"),
    "us-isof-": Partition("aws-iso-f", "csp.hci.ic.gov"),
}


@lru_cache(maxsize=64)
def partition_of(region: str) -> Partition:
    """The partition that *region* belongs to; a region that no other knows is in ``aws``, as AWS's SDKs have it."""
    return next((found for start, found in _PARTITIONS.items() if region.startswith(start)), _COMMERCIAL)


def check_name(kind: str, name: str) -> str:
    """Return *name* if SageMaker would take it for a *kind* of thing.

    Raises:
        InvalidSpec: it is not 1-63 letters, digits and inner hyphens.
    """
    if len(name) > LONGEST_NAME_CHARS or not _NAME.fullmatch(name):
        raise InvalidSpec(
            f"{kind} name {name!r} is not allowed: 1 to 63 letters, digits and hyphens, "
            "starting and ending with a letter or digit.",
            kind=kind,
            name=name,
        )
    return name


def fresh_name(stem: str) -> str:
    """A name that has not been used: *stem*, the UTC time to the second, four random hex digits."""
    moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return check_name("job", f"{stem[:40].rstrip('-')}-{moment}-{os.urandom(2).hex()}")


def arn(region: str, account: str, kind: str, name: str) -> str:
    """The ARN of a SageMaker resource; its name part is lower-cased, as AWS does."""
    return f"arn:{partition_of(region).name}:sagemaker:{region}:{account}:{kind}/{name.lower()}"


def split_uri(uri: str, *, key_required: bool = True) -> tuple[str, str]:
    """Cut ``s3://bucket/key`` into bucket and key; the key may be empty unless it is required.

    Raises:
        InvalidSpec: another scheme, no legal bucket, or a key that is empty, too long or not UTF-8.
    """
    scheme, found, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not found or not _BUCKET.fullmatch(bucket):
        raise InvalidSpec(
            f"{uri!r} is not an S3 URI; expected s3://bucket/key with a bucket of 3 to 63 lower-case "
            "letters, digits, dots and hyphens.",
            kind="uri",
            name=uri,
        )
    try:
        length = len(key.encode())
    except UnicodeEncodeError as exc:
        raise InvalidSpec(f"the key of {uri!r} is not valid Unicode.", kind="uri", name=uri) from exc
    if length > MAX_KEY_BYTES or (key_required and not key):
        raise InvalidSpec(
            f"the key of {uri!r} has {length} bytes; allowed are 1 to {MAX_KEY_BYTES}.",
            kind="uri",
            name=uri,
        )
    return bucket, key


def join_uri(prefix: str, *parts: str) -> str:
    """Append *parts* to the URI *prefix* with single slashes; a slash at its end is not doubled."""
    return "/".join([prefix.rstrip("/"), *parts])


def training_output_uri(prefix: str, job_name: str, file_name: str) -> str:
    """Where SageMaker puts *file_name* among a training job's outputs below its S3OutputPath (contract A.8)."""
    return join_uri(prefix, job_name, "output", file_name)
