"""The commands in this process, against moto in AWS's place or against ``greenroom serve``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from moto import mock_aws
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend

from tests.aws.commands import Commands, user_of_aws

HOME, ABROAD = "us-east-1", "eu-west-1"


@contextmanager
def fresh_account() -> Iterator[None]:
    """An empty account, 123456789012, with two regions: asking moto's 34 takes a quarter of a minute."""
    every: Any = RegionsAndZonesBackend.regions
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        near = [region for region in every if region.name in {HOME, ABROAD}]
        patch.setattr(RegionsAndZonesBackend, "regions", near)
        yield


@pytest.fixture
def moto() -> Iterator[None]:
    """An account for the test."""
    with fresh_account():
        yield


@pytest.fixture
def sentiment(moto: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """``sentiment --backend aws`` in a folder and an account of its own."""
    user_of_aws(monkeypatch, tmp_path)
    return Commands(tmp_path, "--backend", "aws")


def client(service: str, region: str = HOME) -> Any:
    """The account's owner, beside the commands."""
    return cast("Any", boto3).client(service, region_name=region)
