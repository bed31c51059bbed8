"""What an engine is told when it is opened; it travels unchanged to the supervisors that it starts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

ACCOUNT = "000000000000"


@dataclass(frozen=True, kw_only=True)
class DockerSettings:
    """How the docker runner treats containers.

    *memory_mib* 0 leaves a tenth of the machine's memory to others. *capabilities* are given back after all were
    taken. *emulates_instances* limits processors and memory to those of the instance type. *prints_command* puts the
    equivalent command at the head of each log. *debug* puts debugpy into containers: the first Python there has it
    "listen", or "wait" for a client, at *debug_port* on loopback (0: a free port, told in the log).
    """

    memory_mib: int = 0
    pids: int = 4096
    shm_mib: int = 1024
    capabilities: tuple[str, ...] = ()
    emulates_instances: bool = False
    prints_command: bool = False
    debug: Literal["off", "listen", "wait"] = "off"
    debug_port: int = 5678


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Where the engine keeps its state, how it runs programs and where its objects lie.

    *images* maps an image's name to the folder that holds its ``train`` and ``serve`` programs (process runner).
    *aws_endpoint_url* is where programs of the process runner find AWS; empty, they find none.
    *s3_endpoint_url* empty means the file store below *home*; else objects lie in that S3 server. With
    *durable_objects* what that file store has acknowledged survives a power cut, as the state does.
    The limits are SageMaker's own (developer guide, "Use Your Own Inference Code"), but for
    *metric_timeout_seconds*, which ends a metric's regex that would search for ever, *pings_to_lose*: how many
    pings in a row a container misses before it is taken for dead, and *checkpoint_pause_seconds*: how long changed
    checkpoints may lie before they are looked for.
    """

    home: Path
    runner: str = "process"
    images: Mapping[str, str] = field(default_factory=dict)
    docker: DockerSettings = DockerSettings()
    durable_objects: bool = False
    region: str = "us-east-1"
    aws_endpoint_url: str = ""
    s3_endpoint_url: str = ""
    training_grace_seconds: float = 120.0
    serving_grace_seconds: float = 30.0
    ping_timeout_seconds: float = 2.0
    startup_timeout_seconds: float = 480.0
    serverless_startup_timeout_seconds: float = 180.0
    pings_to_lose: int = 3
    invocation_timeout_seconds: float = 60.0
    stream_timeout_seconds: float = 480.0
    metric_timeout_seconds: float = 10.0
    checkpoint_pause_seconds: float = 5.0

    def as_json(self) -> dict[str, Any]:
        """Plain values for the way to another process."""
        return asdict(self) | {"home": str(self.home), "images": dict(self.images)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "EngineSettings":
        """The inverse of :meth:`as_json`."""
        docker = document["docker"]
        docker = DockerSettings(**(docker | {"capabilities": tuple(docker["capabilities"])}))
        return cls(**(document | {"home": Path(document["home"]), "docker": docker}))

    @property
    def place(self) -> str:
        """Where this engine is, for error texts."""
        return f"local ({self.runner}, {self.home})"
