"""The /opt/ml tree as SageMaker lays it out; what a container may rely on to read and to write.

Source: developer guide, "How Amazon SageMaker Provides Training Information"; contract A.2-A.5.
"""

import json
import os
import posixpath
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Document = dict[str, Any]

FAILURE_LIMIT_CHARS = 1024
_DIRECTORY_MODE = 0o777


def lay_out_training(root: Path, request: Document, *, host: str, hosts: Sequence[str]) -> None:
    """Make the tree of one host's training container below *root*: configuration files and empty folders.

    *request* is the CreateTrainingJob document. Folders are world-writable so that images with a user of
    their own can write them; the run's folder above *root* is closed to others.
    """
    channels = request.get("InputDataConfig", [])
    folders = ["input/config", "input/data", "model", "output/data", "output/metrics/sagemaker"]
    folders += checkpoint_folders(request)
    _make(root, [*folders, *(f"input/data/{channel['ChannelName']}" for channel in channels)])
    mode = request["AlgorithmSpecification"].get("TrainingInputMode", "File")
    config = root / "input" / "config"
    _write(config / "hyperparameters.json", request.get("HyperParameters", {}))
    _write(config / "inputdataconfig.json", {c["ChannelName"]: _channel(c, mode) for c in channels})
    _write(config / "resourceconfig.json", _resources(request["ResourceConfig"], host, sorted(hosts)))
    if "CheckpointConfig" in request:
        _write(config / "checkpointconfig.json", {"LocalPath": _checkpoint_path(request)})


def lay_out_serving(root: Path) -> Path:
    """Make the tree of a serving container below *root*; returns the model's folder, still writable."""
    _make(root, ["model"])
    return root / "model"


def checkpoint_folders(request: Document) -> list[str]:
    """Where the program keeps its checkpoints, seen from /opt/ml; empty without a CheckpointConfig, else one."""
    return [posixpath.relpath(_checkpoint_path(request), "/opt/ml")] if "CheckpointConfig" in request else []


def training_environment(request: Document, job_arn: str, region: str) -> dict[str, str]:
    """The variables that the platform sets in a training container, the request's own among them (A.5)."""
    return {
        "AWS_REGION": region,
        **request.get("Environment", {}),
        "TRAINING_JOB_NAME": request["TrainingJobName"],
        "TRAINING_JOB_ARN": job_arn,
    }


def failure_text(root: Path) -> str:
    """What the program left in ``output/failure``, at most 1024 characters; empty if it left nothing."""
    try:
        with (root / "output" / "failure").open(encoding="utf-8", errors="replace") as file:
            return file.read(FAILURE_LIMIT_CHARS).strip()
    except OSError:
        return ""


def host_names(count: int) -> list[str]:
    """The hosts of a training job, in the order of their numbers (A.4)."""
    return [f"algo-{number}" for number in range(1, count + 1)]


def merge(source: Path, target: Path) -> None:
    """Move what is in *source* to *target*, folder into folder; where both have a file, *target*'s stays (A.8)."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir() and not path.is_symlink() and place.is_dir():
            merge(path, place)
        elif not place.exists():
            path.rename(place)


def make_read_only(folder: Path) -> None:
    """Take the write permission from *folder* and all below it, as /opt/ml/model is in hosting."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)


def remove(folder: Path) -> None:
    """Delete *folder* and all below it, whatever permissions a program or we have taken; quiet if it is gone."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except PermissionError:
        folder.chmod(0o700)
        for parent, names, _ in os.walk(folder):
            for path in (Path(parent, name) for name in names):
                if not path.is_symlink():  # A link's target is none of ours.
                    path.chmod(0o700)
        shutil.rmtree(folder)


def _checkpoint_path(request: Document) -> str:
    return str(request["CheckpointConfig"].get("LocalPath", "/opt/ml/checkpoints"))


def _channel(channel: Document, default_mode: str) -> Document:
    source = channel.get("DataSource", {}).get("S3DataSource", {})
    mode = channel.get("InputMode", default_mode)
    document = {
        "TrainingInputMode": "File" if mode == "FastFile" else mode,  # What AWS shows by now (A.3).
        "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": channel.get("RecordWrapperType", "None"),
    }
    if "ContentType" in channel:
        document["ContentType"] = channel["ContentType"]
    return document


def _resources(config: Document, host: str, hosts: list[str]) -> Document:
    instance_type = config.get("InstanceType", "ml.m5.large")
    group = {
        "instance_group_name": "homogeneousCluster",
        "instance_type": instance_type,
        "hosts": hosts,
    }
    return {
        "current_host": host,
        "current_instance_type": instance_type,
        "current_group_name": "homogeneousCluster",
        "hosts": hosts,
        "instance_groups": [group],
        "network_interface_name": "eth0",
        "topology": None,
    }


def _make(root: Path, folders: Iterable[str]) -> None:
    for folder in folders:
        path = root / folder
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(_DIRECTORY_MODE)


def _write(path: Path, document: Document) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
