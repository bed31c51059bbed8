"""A repository of Amazon ECR: made on demand, scanned, tidied by a life-cycle policy, its tags never moved."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backends.aws.account import AwsAccount, translated
from backends.naming import partition_of
from backends.specs import Request

_KEPT_IMAGES = 5
_UNTAGGED_DAYS = 1
_TAG_CHARS = 16


@dataclass(frozen=True)
class Login:
    """What the Docker engine shows a registry; good for 12 hours, and kept nowhere."""

    username: str
    password: str = field(repr=False)


def content_tag(files: Mapping[str, Path], *, base: str, arguments: Mapping[str, str], platform: str = "") -> str:
    """A tag that stands for what an image is built from: the files, the base image's name, arguments and platform."""
    whole = hashlib.sha256(repr((base, sorted(arguments.items()), platform)).encode())
    for name, path in sorted(files.items()):
        whole.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()[:_TAG_CHARS]


class ImageRepository:
    """The repository *name* in the account's own registry; it and nothing else bears *tags*.

    Without *account_id* the account is asked for its number.

    All methods raise BackendUnavailable when ECR is not reached, BackendError when it refuses.
    """

    def __init__(self, account: AwsAccount, name: str, tags: Mapping[str, str], *, account_id: str = "") -> None:
        self._account = account
        self._account_id = account_id
        self._ecr = account.client("ecr")
        self._name = name
        self._what = f"image repository {name!r}"
        self._tags = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]

    def uri(self, tag: str) -> str:
        """What jobs and models name the image *tag* by, whether it is there or not."""
        region = self._account.region
        host = f"{self._account_id or self._account.id}.dkr.ecr.{region}.{partition_of(region).domain}"
        return f"{host}/{self._name}:{tag}"

    def holds(self, tag: str) -> bool:
        """Whether the image *tag* is there, whole."""
        missing = self._ecr.exceptions.RepositoryNotFoundException, self._ecr.exceptions.ImageNotFoundException
        with translated(self._what):
            try:
                self._ecr.describe_images(repositoryName=self._name, imageIds=[{"imageTag": tag}])
            except missing:
                return False
        return True

    @property
    def request(self) -> Request:
        """What makes it, natively."""
        document = {
            "repositoryName": self._name,
            "tags": self._tags,
            "imageTagMutability": "IMMUTABLE",
            "imageScanningConfiguration": {"scanOnPush": True},
        }
        return Request("CreateRepository", document)

    def ensure(self) -> str:
        """Make the repository unless it is there; returns its URI, which has no tag.

        It scans what is pushed, never moves a tag, and keeps the newest five images: an older one stays usable for
        endpoints that run, but not for new instances of theirs.
        """
        with translated(self._what):
            try:
                made = self._ecr.create_repository(**self.request.document)["repository"]
            except self._ecr.exceptions.RepositoryAlreadyExistsException:
                made = self._ecr.describe_repositories(repositoryNames=[self._name])["repositories"][0]
            # Also for one that was there: whoever made it may have been interrupted at this point.
            self._ecr.put_lifecycle_policy(repositoryName=self._name, lifecyclePolicyText=json.dumps(_POLICY))
        return str(made["repositoryUri"])

    def login(self) -> Login:
        """Credentials to push with."""
        with translated(self._what):
            token = self._ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
        username, _, password = base64.b64decode(token).decode().partition(":")
        return Login(username, password)

    def delete(self) -> bool:
        """Remove the repository and all images in it; False if there was none."""
        with translated(self._what):
            try:
                self._ecr.delete_repository(repositoryName=self._name, force=True)
            except self._ecr.exceptions.RepositoryNotFoundException:
                return False
        return True


def _expiring(priority: int, description: str, **selection: object) -> dict[str, object]:
    return {
        "rulePriority": priority,
        "description": description,
        "selection": selection,
        "action": {"type": "expire"},
    }


# Source: Amazon ECR user guide, "Lifecycle policy properties".
_POLICY = {
    "rules": [
        _expiring(
            1,
            "what was pushed in part or lost its tag",
            tagStatus="untagged",
            countType="sinceImagePushed",
            countUnit="days",
            countNumber=_UNTAGGED_DAYS,
        ),
        _expiring(2, "all but the newest", tagStatus="any", countType="imageCountMoreThan", countNumber=_KEPT_IMAGES),
    ]
}
