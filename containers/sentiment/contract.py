"""The SageMaker contract as this image reads it: files under /opt/ml, variables, the failure file.

    $SAGEMAKER_BASE_DIR, else /opt/ml
      input/config/{hyperparameters,inputdataconfig,resourceconfig}.json    what was asked for
      input/data/<channel>/                                                 File mode data
      checkpoints/      there if the job keeps checkpoints: what an earlier job left, and what a later one will find
      model/            what becomes model.tar.gz, and where `serve` finds it again
      output/data/      what becomes output.tar.gz
      output/failure    why it failed; its first 1024 characters become the job's FailureReason

Source: SageMaker developer guide, "How Amazon SageMaker AI Provides Training Information" and "... Processes
Training Output".
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_FAILURE = 1024
DEFAULT_BASE = "/opt/ml"
DEFAULT_PORT = 8080
DEFAULT_MAX_PAYLOAD_MIB = 25
_MIB = 1024 * 1024


class ContractError(Exception):
    """What the platform or the user handed in cannot be used; the text is meant for the user."""


@dataclass(frozen=True)
class Channel:
    """A named folder of input files; ``content_type`` is empty when the request named none."""

    name: str
    folder: Path
    content_type: str

    def files(self) -> list[Path]:
        """Every file of the channel, folders included, in the order of their names.

        Raises:
            ContractError: there is none.
        """
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        if not found:
            raise ContractError(f"channel '{self.name}' holds no files")
        return found


@dataclass(frozen=True)
class Tree:
    """The contract's folders under one base."""

    base: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Tree":
        """The tree that *environment* points to."""
        return cls(Path(environment.get("SAGEMAKER_BASE_DIR", DEFAULT_BASE)))

    @property
    def is_rerooted(self) -> bool:
        """Whether this runs on somebody's machine rather than in a container of its own."""
        return self.base != Path(DEFAULT_BASE)

    @property
    def model(self) -> Path:
        """The model's folder."""
        return self.base / "model"

    @property
    def output_data(self) -> Path:
        """Where files beside the model go."""
        return self.base / "output" / "data"

    @property
    def checkpoints(self) -> Path | None:
        """Where checkpoints are kept; None if this job keeps none. Another folder of the request's is not used."""
        folder = self.base / "checkpoints"
        return folder if folder.is_dir() else None

    def hyperparameters(self) -> dict[str, str]:
        """The hyperparameters as text. Values that a client wrote as JSON strings lose their quotes.

        Raises:
            ContractError: the file is not one flat object of strings.
        """
        values = self._config("hyperparameters.json")
        if not all(isinstance(value, str) for value in values.values()):
            raise ContractError("hyperparameters.json: every value must be a string, as SageMaker delivers them")
        return {name: _unquoted(value) for name, value in values.items()}

    def channels(self) -> dict[str, Channel]:
        """The channels by name.

        Raises:
            ContractError: a channel is not delivered as files.
        """
        channels = {}
        for name, settings in self._config("inputdataconfig.json").items():
            if settings.get("TrainingInputMode", "File") == "Pipe":
                raise ContractError(f"channel '{name}': this image reads File and FastFile mode, not Pipe")
            folder = self.base / "input" / "data" / name
            channels[name] = Channel(name, folder, settings.get("ContentType", ""))
        return channels

    def is_first_host(self) -> bool:
        """Whether this host is the one that trains; the work is too small to be shared out."""
        cluster = self._config("resourceconfig.json")
        hosts = cluster.get("hosts", [])
        return not hosts or cluster.get("current_host") == hosts[0]

    def fail(self, reason: str) -> None:
        """Leave *reason* where the platform looks for it."""
        path = self.base / "output" / "failure"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(reason[:LONGEST_FAILURE], encoding="utf-8", errors="replace")

    def _config(self, name: str) -> dict[str, Any]:
        path = self.base / "input" / "config" / name
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            # Run by hand, not every file of the platform's is there.
            return {}
        except ValueError as error:
            raise ContractError(f"{name} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ContractError(f"{name} is not a JSON object")
        return document


@dataclass(frozen=True)
class Serving:
    """How to serve, from the environment. ``max_payload_bytes`` is None for no limit."""

    host: str
    port: int
    workers: int
    max_payload_bytes: int | None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Serving":
        """Read the serving variables.

        Raises:
            ContractError: one of them is no number.
        """
        max_payload_mib = _number(environment, "SAGEMAKER_MAX_PAYLOAD_IN_MB", DEFAULT_MAX_PAYLOAD_MIB)
        return cls(
            # A machine that runs this outside a container must not offer it to its network.
            host="127.0.0.1" if Tree.of(environment).is_rerooted else "0.0.0.0",  # noqa: S104 - the contract
            port=_number(environment, "SAGEMAKER_BIND_TO_PORT", DEFAULT_PORT),
            workers=max(_number(environment, "SAGEMAKER_MODEL_SERVER_WORKERS", _cores()), 1),
            # To SageMaker, 0 stands for a payload of any size.
            max_payload_bytes=max_payload_mib * _MIB or None,
        )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not value.isascii() or not value.isdigit():
        raise ContractError(f"{name} must be a whole number, not {value!r}")
    return int(value)


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            text = json.loads(value)
        except ValueError:
            return value
        return text if isinstance(text, str) else value
    return value
