"""A repository in ECR: against moto, whose validation we did not write. Real AWS has not seen these exchanges."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from backends.aws.account import AwsAccount
from backends.aws.images import ImageRepository, Login, content_tag
from backends.config import BackendConfig
from backends.errors import BackendError, BackendUnavailable
from sentiment.image import PublishedImage
from sentiment.reporter import Silent

TAGS = {"greenroom:application": "sentiment"}
_MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "size": 1,
        "digest": "sha256:" + "1" * 64,
    },
    "layers": [],
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def account(url: str, monkeypatch: pytest.MonkeyPatch) -> AwsAccount:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    return AwsAccount(BackendConfig(backend="aws", endpoint_url=url, region="eu-west-1"))


@pytest.fixture
def ecr(url: str) -> Any:
    return boto3.client(
        "ecr", endpoint_url=url, region_name="eu-west-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


@pytest.fixture
def name() -> str:
    return f"team/app-{uuid.uuid4().hex[:8]}"


def put(ecr: Any, name: str, tag: str) -> None:
    """An image as a push leaves it."""
    ecr.put_image(repositoryName=name, imageTag=tag, imageManifest=json.dumps(_MANIFEST))


def test_chinas_registry_is_at_an_address_of_its_own() -> None:
    """As ECR says in ``repositoryUri``."""
    china = AwsAccount(BackendConfig(backend="aws", region="cn-north-1"))
    repository = ImageRepository(china, "app", TAGS, account_id="123456789012")
    assert repository.uri("1") == "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/app:1"


def test_a_repository_is_made_once(account: AwsAccount, ecr: Any, name: str) -> None:
    """Scanned at each push, tags that stay where they are, few images kept, and the application's tag on it."""
    repository = ImageRepository(account, name, TAGS)
    assert not repository.holds("1")
    uri = repository.ensure()
    assert (repository.ensure(), repository.uri("1")) == (uri, f"{uri}:1")
    made = ecr.describe_repositories(repositoryNames=[name])["repositories"][0]
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}
    assert ecr.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"] == [
        {"Key": "greenroom:application", "Value": "sentiment"}
    ]
    policy = json.loads(ecr.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"])
    assert [rule["selection"]["tagStatus"] for rule in policy["rules"]] == ["untagged", "any"]
    assert policy["rules"][1]["selection"]["countNumber"] == 5


def test_what_is_there_is_seen(account: AwsAccount, ecr: Any, name: str) -> None:
    """By its tag alone."""
    repository = ImageRepository(account, name, TAGS)
    repository.ensure()
    put(ecr, name, "there")
    assert repository.holds("there")
    assert not repository.holds("not-there")


def test_deleting_takes_the_images_too(account: AwsAccount, ecr: Any, name: str) -> None:
    """And is quiet where nothing is."""
    repository = ImageRepository(account, name, TAGS)
    assert not repository.delete()
    repository.ensure()
    put(ecr, name, "1")
    assert repository.delete()
    assert not repository.holds("1")


def test_a_login_hides_its_password(account: AwsAccount, name: str) -> None:
    """It is what Docker wants, and never shown."""
    login = ImageRepository(account, name, TAGS).login()
    assert login.username == "AWS"
    assert login.password
    assert login.password not in repr(login)
    assert "secret" not in str(Login("AWS", "secret"))


def test_what_ecr_refuses_is_said(account: AwsAccount) -> None:
    """In its own words, with what was tried."""
    with pytest.raises(BackendError, match="image repository 'Not A Name': CreateRepository was refused"):
        ImageRepository(account, "Not A Name", TAGS).ensure()


def test_an_ecr_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is no refusal."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "test")
    nowhere = AwsAccount(BackendConfig(backend="aws", endpoint_url="http://127.0.0.1:9"))
    with pytest.raises(BackendUnavailable, match="image repository 'app': AWS is not reached"):
        ImageRepository(nowhere, "app", TAGS).holds("1")


def test_the_tag_is_the_content(tmp_path: Path) -> None:
    """The same files in any order give one tag; a byte, a name, the base or an argument more, another."""
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    same = content_tag({"a": one, "b": two}, base="base", arguments={"x": "1"})
    assert content_tag({"b": two, "a": one}, base="base", arguments={"x": "1"}) == same
    others = {
        content_tag({"a": two, "b": one}, base="base", arguments={"x": "1"}),
        content_tag({"a": one, "c": two}, base="base", arguments={"x": "1"}),
        content_tag({"a": one, "b": two}, base="other", arguments={"x": "1"}),
        content_tag({"a": one, "b": two}, base="base", arguments={"x": "2"}),
        content_tag({"a": one, "b": two}, base="base", arguments={"x": "1"}, platform="linux/amd64"),
    }
    assert len(others | {same}) == 6


def test_unchanged_content_is_not_pushed_again(
    account: AwsAccount, ecr: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that ECR has needs no engine: none is there."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    repository = ImageRepository(account, name, TAGS)
    image = PublishedImage(repository)
    with pytest.raises(BackendUnavailable, match="Docker engine"):
        image.push(Silent())
    repository.ensure()
    put(ecr, name, image.uri.rpartition(":")[2])
    assert image.push(Silent()) == image.uri
