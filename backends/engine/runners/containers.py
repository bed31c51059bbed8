"""A program as a container: the document that the Docker Engine API takes, and the command line that says the same.

Source of the members' names: Docker Engine API v1.41, ContainerCreate.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.engine.runners.base import DUMMY_CREDENTIALS, Program
from backends.engine.runners.instances import has_gpu, size_of
from backends.engine.settings import DockerSettings

RUN_LABEL = "greenroom.run"
NAME_LABEL = "greenroom.name"
SERVING_PORT = 8080  # Contract B.1.
DEBUG_PORT = 5678
LOOPBACK = "127.0.0.1"
_ROOT = "/opt/ml"
_MODEL = "/opt/ml/model"
_MEBIBYTE = 1024**2
_MACHINE_SHARE = 0.9
_LOG_LIMITS = {"max-size": "10m", "max-file": "2"}

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a Docker engine says of its machine: bytes of memory, processors, whether it can hand out GPUs."""

    memory_bytes: int
    processors: int
    has_gpus: bool


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How the engine gets to a serving container: through a port published at *published_at*, or over *network*."""

    network: str = ""
    published_at: str = ""


def labels(label: str, name: str) -> dict[str, str]:
    """What marks everything that belongs to the program *name* whose run is marked by *label*."""
    return {RUN_LABEL: label, NAME_LABEL: name}


def create_document(
    program: Program, *, image: str, volume: str, settings: DockerSettings, machine: Machine, reach: Reach
) -> Document:
    """The body of ContainerCreate for *program*.

    /opt/ml hides what the image has there, as on SageMaker (A.1): a new volume for training, the filled *volume*,
    read-only, at /opt/ml/model for serving. Nothing of the host is mounted. All capabilities are dropped but those
    that *settings* give back; processes, memory and log are limited.
    """
    memory, processors = _limits(program, settings, machine)
    host: Document = {
        "CapDrop": ["ALL"],
        "CapAdd": list(settings.capabilities),
        "SecurityOpt": ["no-new-privileges"],
        "PidsLimit": settings.pids,
        "Memory": memory,
        "MemorySwap": memory,
        "ShmSize": settings.shm_mib * _MEBIBYTE,
        "LogConfig": {"Type": "json-file", "Config": _LOG_LIMITS},
        "Mounts": [_model_mount(volume) if program.serves else _training_mount(program)],
        "NetworkMode": program.network or reach.network or ("none" if program.is_isolated else "default"),
        "PortBindings": {},
    }
    if processors:
        host["NanoCpus"] = processors * 10**9
    if machine.has_gpus and has_gpu(program.instance_type):
        host["DeviceRequests"] = [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]
    if host["NetworkMode"] == "none" and program.host:
        host["ExtraHosts"] = [f"{program.host}:127.0.0.1"]
    document: Document = {
        "Image": image,
        "Labels": labels(program.label, program.name),
        "Env": [f"{name}={value}" for name, value in _environment(program).items()],
        "ExposedPorts": {},
        "HostConfig": host,
    }
    if program.entrypoint:
        document["Entrypoint"] = list(program.entrypoint)
        document["Cmd"] = list(program.arguments)
    else:
        document["Cmd"] = list(program.arguments or (program.argument,))
    if program.host and host["NetworkMode"] != "none":
        document["Hostname"] = program.host
    if program.network:
        document["NetworkingConfig"] = {"EndpointsConfig": {program.network: {"Aliases": [program.host]}}}
    if program.serves and reach.published_at:
        _publish(document, SERVING_PORT, reach.published_at, "")
    if settings.debug != "off":
        _publish(document, DEBUG_PORT, LOOPBACK, str(settings.debug_port or ""))
    return document


def filler_document(program: Program, *, image: str, volume: str) -> Document:
    """The body of ContainerCreate for a container that never runs: through it files get into *volume*."""
    mount = _model_mount(volume) | {"ReadOnly": False}
    mount["VolumeOptions"] = {"NoCopy": True, "Labels": labels(program.label, program.name)}
    return {
        "Image": image,
        "Cmd": ["fill"],
        "Labels": labels(program.label, program.name),
        "HostConfig": {"Mounts": [mount], "NetworkMode": "none"},
    }


def command(document: Document, name: str, root: Path) -> str:
    """What to type for a second container like the one that *document* describes: create it, copy *root*, start it.

    Without the labels, by which the engine would take it for its own and remove it.
    """
    host = document["HostConfig"]
    flags = ["--name", name]
    for capability in host["CapDrop"]:
        flags += ["--cap-drop", capability]
    for capability in host["CapAdd"]:
        flags += ["--cap-add", capability]
    flags += ["--security-opt", *host["SecurityOpt"], "--pids-limit", str(host["PidsLimit"])]
    flags += ["--memory", str(host["Memory"]), "--memory-swap", str(host["MemorySwap"])]
    flags += ["--shm-size", str(host["ShmSize"])]
    if "NanoCpus" in host:
        flags += ["--cpus", f"{host['NanoCpus'] / 10**9:g}"]
    if "DeviceRequests" in host:
        flags += ["--gpus", "all"]
    flags += ["--log-driver", host["LogConfig"]["Type"]]
    for option, value in host["LogConfig"]["Config"].items():
        flags += ["--log-opt", f"{option}={value}"]
    flags += _network_flags(document)
    for mount in host["Mounts"]:
        flags += ["--mount", _mount_flag(mount)]
    for variable in document["Env"]:
        flags += ["--env", variable]
    if "Entrypoint" in document:
        flags += ["--entrypoint", document["Entrypoint"][0]]
    words = [*flags, document["Image"], *document.get("Entrypoint", [])[1:], *document["Cmd"]]
    create = shlex.join(["docker", "create", *words])
    copy = shlex.join(["docker", "cp", f"{root}/.", f"{name}:{_ROOT}"])
    start = shlex.join(["docker", "start", "--attach", name])
    return f"{create} && {start}" if host["Mounts"][0].get("ReadOnly") else f"{create} && {copy} && {start}"


def _limits(program: Program, settings: DockerSettings, machine: Machine) -> tuple[int, int]:
    """Bytes of memory, and processors (0: all). Docker refuses more processors than there are."""
    share = int(machine.memory_bytes * _MACHINE_SHARE)
    memory = min(settings.memory_mib * _MEBIBYTE, machine.memory_bytes) if settings.memory_mib else share
    if program.memory_mib:
        return min(memory, program.memory_mib * _MEBIBYTE), 0
    size = size_of(program.instance_type) if settings.emulates_instances else None
    if size is None:
        return memory, 0
    return min(memory, size.gib * 1024 * _MEBIBYTE), min(size.vcpus, machine.processors)


def _environment(program: Program) -> Mapping[str, str]:
    return {**DUMMY_CREDENTIALS, "PYTHONUNBUFFERED": "1", **program.environment}


def _training_mount(program: Program) -> Document:
    options = {"NoCopy": True, "Labels": labels(program.label, program.name)}
    return {"Type": "volume", "Target": _ROOT, "VolumeOptions": options}


def _model_mount(volume: str) -> Document:
    return {"Type": "volume", "Source": volume, "Target": _MODEL, "ReadOnly": True}


def _publish(document: Document, port: int, address: str, host_port: str) -> None:
    document["ExposedPorts"][f"{port}/tcp"] = {}
    document["HostConfig"]["PortBindings"][f"{port}/tcp"] = [{"HostIp": address, "HostPort": host_port}]


def _network_flags(document: Document) -> list[str]:
    host = document["HostConfig"]
    flags = [] if host["NetworkMode"] == "default" else ["--network", host["NetworkMode"]]
    for endpoint in document.get("NetworkingConfig", {}).get("EndpointsConfig", {}).values():
        flags += [word for alias in endpoint["Aliases"] for word in ("--network-alias", alias)]
    if "Hostname" in document:
        flags += ["--hostname", document["Hostname"]]
    for line in host.get("ExtraHosts", []):
        flags += ["--add-host", line]
    for port, bindings in host["PortBindings"].items():
        flags += ["--publish", f"{bindings[0]['HostIp']}:{bindings[0]['HostPort']}:{port.partition('/')[0]}"]
    return flags


def _mount_flag(mount: Document) -> str:
    words = [f"type={mount['Type']}", f"target={mount['Target']}"]
    if "Source" in mount:
        words.append(f"source={mount['Source']}")
    if mount.get("ReadOnly"):
        words.append("readonly")
    if mount.get("VolumeOptions", {}).get("NoCopy"):
        words.append("volume-nocopy")
    return ",".join(words)
