"""The application's image: built with the Docker engine, and pushed to ECR under a tag that stands for its content."""

from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING

from backends.errors import BackendUnavailable
from backends.specs import Plan
from sentiment.bundle import DOCKERFILE, build_context
from sentiment.reporter import Reporter
from sentiment.settings import APPLICATION_TAG, PROJECT

if TYPE_CHECKING:
    from backends.aws.account import AwsAccount
    from backends.aws.images import ImageRepository

BASE = "python:3.11-slim-bookworm"
REPOSITORY = "greenroom-sentiment"
# Of SageMaker's instances, whatever machine the image is built on.
_PLATFORM = "linux/amd64"


def build_image(tag: str, base: str, reporter: Reporter, *, platform: str = "") -> str:
    """Build the application's image on *base*, call it *tag*, and return its id.

    Raises:
        BackendUnavailable: Docker's client is not installed, or no engine answers.
        BuildFailed: a step failed.
        NotFound: the base image, or a file of the build context, is not to be had.
    """
    build: str = _images().build(
        build_context(),
        dockerfile=DOCKERFILE,
        tag=tag,
        base=base,
        arguments={"BASE_IMAGE": base},
        say=reporter.say,
        platform=platform,
    )
    return build


def published_image(account: "AwsAccount", account_id: str, base: str = BASE) -> "PublishedImage":
    """The image as it is, or is to be, in the ECR of *account*, whose number is *account_id*."""
    from backends.aws.images import ImageRepository  # noqa: PLC0415

    tags = {APPLICATION_TAG: PROJECT}
    return PublishedImage(ImageRepository(account, REPOSITORY, tags, account_id=account_id), base)


@dataclass(frozen=True)
class PublishedImage:
    """The application's image, built on *base*, in a repository of ECR."""

    repository: "ImageRepository"
    base: str = BASE

    @property
    def uri(self) -> str:
        """Its URI, of this content, whether it has been pushed or not. Asks AWS whose account it is."""
        return self.repository.uri(self._tag)

    @property
    def plan(self) -> Plan:
        """The native request that makes its repository; the image itself goes there by the Docker engine."""
        return Plan("image repository", REPOSITORY, (self.repository.request,))

    def push(self, reporter: Reporter) -> str:
        """Build and push it unless it is there already; returns its URI.

        Raises:
            PushFailed: the registry did not take it.
            BackendError: ECR refuses; and whatever :func:`build_image` raises.
        """
        if self.repository.holds(self._tag):
            reporter.say(f"image {self._tag} is in ECR already")
            return self.uri
        local = f"{REPOSITORY}:{self._tag}"
        build_image(local, self.base, reporter, platform=_PLATFORM)
        uri = f"{self.repository.ensure()}:{self._tag}"
        login = self.repository.login()
        with reporter.progress(f"pushing {uri}") as advance:
            _images().push(local, uri, username=login.username, password=login.password, advance=advance)
        reporter.say(f"image → {uri}")
        return uri

    @cached_property
    def _tag(self) -> str:
        from backends.aws.images import content_tag  # noqa: PLC0415

        return content_tag(build_context(), base=self.base, arguments={"BASE_IMAGE": self.base}, platform=_PLATFORM)


def _images() -> ModuleType:
    try:
        from backends import images  # noqa: PLC0415  an extra
    except ModuleNotFoundError as exc:
        raise BackendUnavailable("building an image needs Docker's client: pip install 'greenroom[docker]'.") from exc
    return images
