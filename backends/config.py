"""Which backend, and where: the one reader of the environment and of ``greenroom.toml``.

Flags win over environment variables (``GREENROOM_…``), these over the file, the file over the defaults.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from backends.errors import BackendUnavailable, InvalidSpec

DEFAULT_FILE = Path("greenroom.toml")
_PREFIX = "GREENROOM_"
# docker-compose.yml's: the image of the whole stack.
_NO_SETTING = "GREENROOM_IMAGE"
_ALMOST = 0.9


class DockerConfig(BaseModel):
    """How the docker runner treats containers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_mib: int = Field(default=0, ge=0, description="memory of a container; 0 is nine tenths of the machine's")
    pids: int = Field(default=4096, ge=1, description="processes of a container")
    shm_mib: int = Field(default=1024, ge=1, description="shared memory of a container")
    capabilities: tuple[str, ...] = Field(default=(), description="capabilities given back after all were taken")
    emulates_instances: bool = Field(default=False, description="as many processors and as much memory as the type has")
    prints_command: bool = Field(default=False, description="the equivalent command at the head of each log")
    debug: Literal["off", "listen", "wait"] = Field(
        default="off", description="a debugger in each container: debugpy listens, or waits for a client too"
    )
    debug_port: int = Field(default=5678, ge=0, le=65535, description="where, on loopback; 0 is a free port")


class BackendConfig(BaseSettings):
    """Everything that decides where the pipeline runs. Immutable; made by :func:`load_config`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid", env_nested_delimiter="__")

    backend: Literal["local", "aws"] = Field(default="local", description="where to run: this machine, or AWS")
    runner: Literal["process", "docker"] = Field(default="process", description="how the local backend runs programs")
    home: Path = Field(
        default=Path(".greenroom"), description="the folder that holds everything the local backend makes"
    )
    durable: bool = Field(
        default=False, description="each object that the local backend stores waits for the disk, as its state does"
    )
    endpoint_url: str = Field(
        default="",
        description="another server than AWS's own, for the local backend its S3 store; 'localstack': where that is",
    )
    region: str = Field(default="us-east-1", description="the AWS region, named in ARNs and documents")
    role_arn: str = Field(default="", description="the execution role that jobs on AWS assume; empty: one is made")
    expected_account: str = Field(
        default="", pattern=r"^([0-9]{12})?$", description="the only AWS account that may be touched; empty: any"
    )
    bucket: str = Field(
        default="greenroom",
        description="the bucket that holds data and artifacts; unless it is set, on AWS greenroom-ACCOUNT-REGION",
    )
    images: dict[str, Path] = Field(
        default_factory=dict, description="process runner: image name → folder with its train and serve programs"
    )

    docker: DockerConfig = Field(default=DockerConfig(), description="docker runner: limits of a container")

    @field_validator("endpoint_url")
    @classmethod
    def _find_localstack(cls, given: str) -> str:
        """Looked up once, here: whatever process is told of the address later has the same."""
        if given and given != "localstack" and not given.startswith(("http://", "https://")):
            raise ValueError(f"{given!r} is neither a URL, such as http://127.0.0.1:4566, nor 'localstack'")
        return _localstack_url() if given == "localstack" else given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags and file arrive by argument (:func:`load_config` merges them around the environment)."""
        return init_settings, env_settings


def load_config(path: Path | None = None, **flags: Any) -> BackendConfig:
    """Merge *flags* (None: not given), the environment, the file and the defaults.

    *path* None means ``greenroom.toml`` in the working folder, if there is one. Paths in the file are relative to it.

    Raises:
        InvalidSpec: the file cannot be read, a key or value is not known, or a variable is misspelt; the text names the
            nearest key.
    """
    _check_spelling(os.environ)
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        from_environment = BackendConfig().model_dump(exclude_unset=True)
        document = _read(path)
        merged = document | from_environment | given
        sections = [source["docker"] for source in (document, from_environment, given) if "docker" in source]
        if all(isinstance(section, dict) for section in sections):  # Key by key.
            merged["docker"] = {key: value for section in sections for key, value in section.items()}
        return BackendConfig(**merged)
    except ValidationError as exc:
        raise InvalidSpec(_explain(exc, path), kind="configuration") from exc


def _check_spelling(variables: Iterable[str]) -> None:
    """Refuse what is almost a setting: the setting itself would silently keep its default."""
    known = [f"{_PREFIX}{name.upper()}" for name in BackendConfig.model_fields]
    for variable in variables:
        name = variable.partition("__")[0]
        if not name.startswith(_PREFIX) or name in known or name == _NO_SETTING:
            continue
        if near := difflib.get_close_matches(name, known, n=1, cutoff=_ALMOST):
            raise InvalidSpec(f"the variable {name} is not a setting; did you mean {near[0]}?", kind="configuration")


def _localstack_url() -> str:
    try:
        from localstack_client.config import get_service_endpoint  # noqa: PLC0415  an extra, and heavy
    except ModuleNotFoundError as exc:
        raise BackendUnavailable("LocalStack needs its client: pip install 'greenroom[localstack]'.") from exc
    try:
        return str(get_service_endpoint("s3"))
    except RuntimeError as exc:
        raise ValueError(f"LOCALSTACK_HOST: {exc}") from exc


def _read(path: Path | None) -> dict[str, Any]:
    file = path or DEFAULT_FILE
    if path is None and not file.exists():
        return {}
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise InvalidSpec(f"cannot read the configuration {file}: {reason}.", kind="configuration") from exc
    if isinstance(document.get("home"), str):
        document["home"] = file.parent / document["home"]
    images = document.get("images")
    if isinstance(images, dict):
        document["images"] = {name: file.parent / str(folder) for name, folder in images.items()}
    return document


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        text = f"{key}: {problem['msg'].removeprefix('Value error, ')}"
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, BackendConfig.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(BackendConfig.model_fields)}."
            text = f"{key!r} is not a setting; {hint}"
        lines.append(text)
    return f"the configuration ({path or DEFAULT_FILE}, GREENROOM_… variables, flags) is wrong: " + "; ".join(lines)
