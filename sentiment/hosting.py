"""How the model is served: serverless, or on instances that stay up."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from backends.specs import Canary, EndpointSpec, ModelSpec, Scaling, Serverless, Variant

# The options of one kind of capacity, by the fields of Hosting.
_REAL_TIME = ("instance_type", "instances", "autoscale", "canary")
_SERVERLESS = ("memory_mb", "concurrency", "provisioned_concurrency")


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """What the options of ``sentiment deploy`` say; None: the kind of capacity decides.

    *autoscale* is the fewest and the most instances as ``1:4``, *canary* a percentage of the traffic and the seconds
    that it bakes as ``10:300``. *replaces* a deployed endpoint by a new one, for changes that SageMaker cannot make.

    Raises:
        ValueError: options of the other kind of capacity, or a range that is none.
    """

    real_time: bool = False
    instance_type: str | None = None
    instances: int | None = None
    autoscale: str | None = None
    canary: str | None = None
    memory_mb: int | None = None
    concurrency: int | None = None
    provisioned_concurrency: int | None = None
    replaces: bool = False

    def __post_init__(self) -> None:
        kind, other, strangers = (
            ("real-time", "serverless", _SERVERLESS) if self.real_time else ("serverless", "real-time", _REAL_TIME)
        )
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in strangers:
            if given[name] is not None:
                option = name.removesuffix("_mb").replace("_", "-")
                hint = f"leave it out, or add --{other}" + ("" if self.real_time else ", which bills while it is up")
                raise ValueError(f"--{option} is for {other} endpoints, but this one is {kind}: {hint}.")
        self._scaling()
        self._canary()

    def spec(self, name: str, model: ModelSpec, *, tags: Mapping[str, str]) -> EndpointSpec:
        """The endpoint that serves *model* so."""
        if not self.real_time:
            given = {
                "memory_mb": self.memory_mb,
                "max_concurrency": self.concurrency,
                "provisioned_concurrency": self.provisioned_concurrency,
            }
            serverless = Serverless(**{key: value for key, value in given.items() if value is not None})
            return EndpointSpec(name=name, variants=(Variant(model=model, serverless=serverless),), tags=tags)
        scaling = self._scaling()
        usual = scaling.min_instances if scaling else 1
        variant = Variant(
            model=model,
            instance_type=self.instance_type or Variant.instance_type,
            instance_count=self.instances or usual,
            scaling=scaling,
        )
        return EndpointSpec(name=name, variants=(variant,), canary=self._canary(), tags=tags)

    def _scaling(self) -> Scaling | None:
        if self.autoscale is None:
            return None
        if not (found := re.fullmatch(r"(\d+):(\d+)", self.autoscale)):
            raise ValueError(f"--autoscale {self.autoscale!r} is no range of instances, such as 1:4.")
        return Scaling(min_instances=int(found[1]), max_instances=int(found[2]))

    def _canary(self) -> Canary | None:
        if self.canary is None:
            return None
        if not (found := re.fullmatch(r"(\d+)(?::(\d+))?", self.canary)):
            raise ValueError(f"--canary {self.canary!r} is no percentage, such as 10, or one with seconds, as 10:300.")
        return Canary(percent=int(found[1]), wait_seconds=int(found[2] or Canary.wait_seconds))
