"""What is asked for (specs) and what is reported back (statuses), as frozen values.

Names of AWS's own documents stop at :mod:`backends.sagemaker`; here every unit is in the name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class JobState(StrEnum):
    """Where a training or transform job stands."""

    IN_PROGRESS = "in progress"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_terminal(self) -> bool:
        """True when the job will never change again."""
        return self in {JobState.COMPLETED, JobState.FAILED, JobState.STOPPED}


class EndpointState(StrEnum):
    """Where an endpoint stands; only in the first group does it still move by itself."""

    CREATING = "creating"
    UPDATING = "updating"
    SYSTEM_UPDATING = "system updating"
    ROLLING_BACK = "rolling back"
    DELETING = "deleting"
    IN_SERVICE = "in service"
    OUT_OF_SERVICE = "out of service"
    UPDATE_ROLLBACK_FAILED = "update rollback failed"
    FAILED = "failed"

    @property
    def is_settled(self) -> bool:
        """True when the endpoint stays as it is until somebody asks for a change."""
        return self in {
            EndpointState.IN_SERVICE,
            EndpointState.OUT_OF_SERVICE,
            EndpointState.UPDATE_ROLLBACK_FAILED,
            EndpointState.FAILED,
        }


class Split(StrEnum):
    """How an input object is cut into records."""

    NONE = "None"
    LINE = "Line"


class Strategy(StrEnum):
    """How many records travel in one request."""

    SINGLE_RECORD = "SingleRecord"
    MULTI_RECORD = "MultiRecord"


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One named input of a training job: every object whose URI starts with *uri*."""

    name: str
    uri: str
    content_type: str | None = None


@dataclass(frozen=True, kw_only=True)
class Script:
    """A program that one of SageMaker's framework images runs, rather than one of its own (script mode).

    *program* is a file in the tar.gz at *code_uri*; *region* is where the job runs.
    """

    program: str
    code_uri: str
    region: str


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """A training job: a container image, what it reads and where its artifacts go.

    *entrypoint* and *arguments* replace the image's own, as in Docker; empty means ``train``.
    *metrics* maps a metric's name to the regular expression that finds it in the log.

    *checkpoint_uri* is what the program finds in ``/opt/ml/checkpoints``, and where that goes, so that a later job goes
    on with it. *max_spot_seconds* asks for spare capacity, cheaper and taken back at any time: waiting for it and
    running together take no longer; at least *max_runtime_seconds*. None is capacity on demand.
    """

    name: str
    image: str
    output_uri: str
    channels: tuple[Channel, ...] = ()
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    script: Script | None = None
    role_arn: str | None = None
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    volume_size_gb: int = 30
    max_runtime_seconds: int = 86_400
    checkpoint_uri: str | None = None
    max_spot_seconds: int | None = None
    network_isolation: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model: a container image and the artifacts that it serves.

    With *script* the image is one of SageMaker's framework images, and the artifact has the script in its folder
    ``code``.
    """

    image: str
    artifact_uri: str | None = None
    script: Script | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    role_arn: str | None = None
    network_isolation: bool = False


@dataclass(frozen=True, kw_only=True)
class TransformSpec:
    """A batch transform: a model run over every object below *input_uri*.

    None means "let the container or the platform decide". *join_input* joins each record with
    its prediction; the filters are SageMaker's JSONPath subset.
    """

    name: str
    model: ModelSpec
    input_uri: str
    output_uri: str
    content_type: str | None = None
    accept: str | None = None
    split: Split = Split.NONE
    assemble: Split = Split.NONE
    strategy: Strategy | None = None
    max_payload_mb: int | None = None
    max_concurrency: int | None = None
    gzip_input: bool = False
    input_filter: str = "$"
    output_filter: str = "$"
    join_input: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    invocation_timeout_seconds: int | None = None
    invocation_retries: int | None = None
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Serverless:
    """Capacity that is there, and is paid for, while requests are answered.

    *memory_mb* is 1024, 2048 … 6144; at most *max_concurrency* requests (1 to 200) are answered at once, the next
    one is throttled; *provisioned_concurrency* of them find a container that is up.
    """

    memory_mb: int = 2048
    max_concurrency: int = 10
    provisioned_concurrency: int | None = None


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How many instances follow the traffic: as many as keep each near *invocations_per_minute*."""

    min_instances: int
    max_instances: int
    invocations_per_minute: float = 1200.0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One model behind an endpoint; its share of the traffic is weight / sum of weights.

    It runs on instances that stay up, or *serverless*, which takes their place.
    """

    model: ModelSpec
    name: str = "AllTraffic"
    weight: float = 1.0
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    scaling: Scaling | None = None
    serverless: Serverless | None = None
    startup_timeout_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Canary:
    """How a change of an endpoint is tried: *percent* (1 to 50) of the traffic for *wait_seconds* (0 to 3600).

    On AWS it is taken back if in a minute more than *error_share* of the answers are 5xx, or one in ten takes longer
    than *latency_ms*; everywhere if a container is lost.
    """

    percent: int = 10
    wait_seconds: int = 300
    error_share: float = 0.01
    latency_ms: int = 1000


@dataclass(frozen=True, kw_only=True)
class EndpointSpec:
    """An endpoint: a name in front of one or more variants. A *canary* goes before each change of it."""

    name: str
    variants: tuple[Variant, ...]
    canary: Canary | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One step in a training job's life (SageMaker: a secondary status transition)."""

    name: str
    message: str
    started: datetime
    ended: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What is known of a job. Times are aware; *reason* is empty unless the job failed."""

    name: str
    state: JobState
    created: datetime
    phase: str = ""
    reason: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    artifact_uri: str | None = None
    output_uri: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EndpointStatus:
    """What is known of an endpoint: the present weight of each variant, the capacity of those that are serverless."""

    name: str
    state: EndpointState
    created: datetime
    reason: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    serverless: Mapping[str, Serverless] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A model's answer to one invocation."""

    body: bytes
    content_type: str | None
    variant: str


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One stored object: *etag* is the MD5 in hex, without quotes, of an object put in one piece."""

    uri: str
    size_bytes: int
    etag: str
    modified: datetime
    content_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Request:
    """One native request: the operation's name and its document."""

    operation: str
    document: Mapping[str, object]


@dataclass(frozen=True)
class Plan:
    """The native requests that carry out one spec, in the order in which they are sent."""

    kind: str
    name: str
    requests: tuple[Request, ...]
