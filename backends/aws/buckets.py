"""The bucket of an application: private, tagged, encrypted as S3 encrypts every new bucket (SSE-S3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.aws.account import refused_as, translated
from backends.specs import Request

_UNNAMED_REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One bucket of *account*. It is ours to remove if it carries *tags*, which it is given when it is made."""

    name: str
    account: str
    region: str
    tags: Mapping[str, str]

    @property
    def requests(self) -> tuple[Request, ...]:
        """What makes it, natively."""
        create: dict[str, object] = {"Bucket": self.name}
        if self.region != _UNNAMED_REGION:
            create["CreateBucketConfiguration"] = {"LocationConstraint": self.region}
        everything = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        block = dict.fromkeys(everything, True)
        return (
            Request("CreateBucket", create),
            Request("PutBucketTagging", {"Bucket": self.name, "Tagging": {"TagSet": self._tag_set}}),
            Request("PutPublicAccessBlock", {"Bucket": self.name, "PublicAccessBlockConfiguration": block}),
        )

    def ensure(self, s3: Any) -> bool:
        """Make it unless it is there; True if it was made.

        Raises:
            BackendError: S3 refuses, as where a bucket of that name is another account's.
        """
        with translated(f"bucket {self.name!r}"):
            with refused_as("404", "NoSuchBucket"):
                # A name that can be guessed may be somebody else's by now: they would read what is put there.
                s3.head_bucket(Bucket=self.name, ExpectedBucketOwner=self.account)
                return False
            create, tag, block = self.requests
            s3.create_bucket(**create.document)
            s3.put_bucket_tagging(**tag.document)
            s3.put_public_access_block(**block.document)
            return True

    def remove(self, s3: Any) -> bool:
        """Remove it, which has to be empty by then; False if there is none that was made here.

        Raises:
            BackendError: S3 refuses, as where others' objects are in it.
        """
        with translated(f"bucket {self.name!r}"), refused_as("NoSuchBucket", "NoSuchTagSet"):
            found = s3.get_bucket_tagging(Bucket=self.name, ExpectedBucketOwner=self.account)["TagSet"]
            if all(tag in found for tag in self._tag_set):
                s3.delete_bucket(Bucket=self.name)
                return True
        return False

    def abort_uploads(self, s3: Any, prefix: str) -> int:
        """Give up uploads below *prefix* that were never finished, which no listing shows; return how many."""
        with translated(f"bucket {self.name!r}"), refused_as("NoSuchBucket"):
            pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=self.name, Prefix=prefix)
            begun = [upload for page in pages for upload in page.get("Uploads", ())]
            for upload in begun:
                s3.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
            return len(begun)
        return 0

    @property
    def _tag_set(self) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in sorted(self.tags.items())]
