"""Containers and instances as data: what Docker is told, without Docker."""

from pathlib import Path

import pytest

from backends.engine.runners.base import Program
from backends.engine.runners.containers import Machine, Reach, create_document
from backends.engine.runners.instances import Instance, has_gpu, size_of
from backends.engine.settings import DockerSettings

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("ml.m5.large", Instance(2, 8)),
        ("ml.m5.xlarge", Instance(4, 16)),
        ("ml.c5.2xlarge", Instance(8, 16)),
        ("ml.r5.12xlarge", Instance(48, 384)),
        ("ml.t3.medium", Instance(2, 4)),
        ("ml.p4d.24xlarge", None),
        ("ml.m5.medium", None),
        ("m5.large", None),
    ],
)
def test_sizes_follow_from_the_name(name: str, size: Instance | None) -> None:
    """As AWS's pages give them; what is not in the table is not emulated."""
    assert size_of(name) == size


@pytest.mark.parametrize(("name", "gpu"), [("ml.p3.2xlarge", True), ("ml.g4dn.xlarge", True), ("ml.m5.large", False)])
@pytest.mark.parametrize("has_gpus", [False, True])
def test_gpus_are_asked_for_where_both_have_them(name: str, gpu: bool, has_gpus: bool) -> None:  # noqa: FBT001
    """The type's family and the engine's machine."""
    assert has_gpu(name) == gpu
    host = create_document(
        Program(
            label="seat",
            name="job",
            image="image",
            root=Path("root"),
            log_path=Path("log"),
            argument="train",
            environment={},
            instance_type=name,
        ),
        image="sha256:1",
        volume="",
        settings=DockerSettings(),
        machine=Machine(memory_bytes=10 * GIB, processors=2, has_gpus=has_gpus),
        reach=Reach(),
    )["HostConfig"]
    assert ("DeviceRequests" in host) == (gpu and has_gpus)
