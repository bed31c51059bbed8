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
class Variant:
    """One model behind an endpoint; its share of the traffic is weight / sum of weights."""

    model: ModelSpec
    name: str = "AllTraffic"
    weight: float = 1.0
    instance_type: str = "ml.m5.large"
    instance_count: int = 1
    startup_timeout_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointSpec:
    """An endpoint: a name in front of one or more variants."""

    name: str
    variants: tuple[Variant, ...]
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
    """What is known of an endpoint; *weights* maps each variant to its present weight."""

    name: str
    state: EndpointState
    created: datetime
    reason: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)


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
