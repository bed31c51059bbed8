"""CloudFormation as others carry it out: moto, LocalStack and MiniStack, whose checks of a template are not ours."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers import PEERS, client, moto_server, peer

_IN_ALL = {
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
}
_IN_LOCALSTACK = _IN_ALL | {"AWS::S3::BucketPolicy", "AWS::Scheduler::Schedule"}
_IN_MINISTACK = _IN_LOCALSTACK | {
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Integration",
    "AWS::ApiGatewayV2::Route",
    "AWS::ApiGatewayV2::Stage",
    "AWS::CloudFront::CachePolicy",
    "AWS::CloudFront::Distribution",
    "AWS::CloudFront::OriginAccessControl",
    "AWS::CloudFront::ResponseHeadersPolicy",
}
# Which types of resources each carries out. The rest of a template passes there unseen.
KNOWN = {"moto": _IN_ALL, "localstack": _IN_LOCALSTACK, "ministack": _IN_MINISTACK}


@dataclass(frozen=True)
class Place:
    """A server with CloudFormation."""

    name: str
    url: str

    def client(self, service: str) -> Any:
        return client(service, self.url)

    def require(self, kind: str) -> None:
        """Skip what needs a type of resource that the server leaves out."""
        if not self.knows(kind):
            pytest.skip(f"{self.name} does not carry out {kind}")

    def require_changes(self) -> None:
        """Skip what changes a stack more than once."""
        if self.name == "moto":
            pytest.skip("moto compares with the parameters that the stack was made with, and shows these")

    def knows(self, kind: str) -> bool:
        return kind in KNOWN[self.name]


@pytest.fixture(autouse=True)
def _known_gaps(request: pytest.FixtureRequest) -> None:
    """What one of the servers does otherwise than AWS has to fail there, so that we learn when it does no more."""
    for gap in request.node.iter_markers("differs"):
        if gap.args[0] == request.getfixturevalue("place").name:
            request.applymarker(pytest.mark.xfail(reason=gap.kwargs["reason"], strict=True))


@pytest.fixture(scope="module", params=["moto", *PEERS])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Each of the servers in turn."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    with moto_server() if request.param == "moto" else peer(request.param, folder) as url:
        yield Place(request.param, url)
