"""Faults on demand, so that a client's retries can be tested: ``greenroom serve --faults faults.toml``.

[[fault]]
operation = "sagemaker:CreateTrainingJob"   # "s3:*" is every operation of a service, "*" is every one
error = "ThrottlingException"               # leave it out for latency alone
message = "Rate exceeded"
status = 400
latency_ms = 200
rate = 0.5                                  # the share of requests that it meets
"""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backends.errors import InvalidSpec


class Fault(BaseModel):
    """What happens to a share *rate* of the requests for an operation: first the latency, then the error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: str = Field(pattern=r"^(\*|[a-z0-9-]+:(\*|[A-Za-z0-9]+))$")
    error: str = Field(default="", pattern=r"^[A-Za-z0-9.]*$")
    message: str = "This fault was asked for."
    status: int = Field(default=400, ge=400, le=599)
    latency_ms: float = Field(default=0.0, ge=0.0, le=600_000.0)
    rate: float = Field(default=1.0, ge=0.0, le=1.0)

    def concerns(self, service: str, operation: str) -> bool:
        """True if this fault may meet *operation* of *service*."""
        return self.operation in {"*", f"{service}:*", f"{service}:{operation}"}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    fault: tuple[Fault, ...]


def load_faults(path: Path) -> tuple[Fault, ...]:
    """The faults of *path*.

    Raises:
        InvalidSpec: the file cannot be read or says what no fault is; the text names the place.
    """
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return _File(**document).fault
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise InvalidSpec(f"cannot read the faults in {path}: {exc}", kind="faults") from exc
    except ValidationError as exc:
        lines = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in exc.errors())
        raise InvalidSpec(f"the faults in {path} are wrong: {lines}", kind="faults") from exc
