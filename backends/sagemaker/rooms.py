"""The jobs and endpoints of every backend that speaks SageMaker's documents.

A backend gives one function, ``call(operation, document) -> document``, which raises
:class:`~backends.sagemaker.readings.ServiceError`: boto3 on AWS, the engine on this machine. Everything
else is the same code, so the two cannot drift apart.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from backends.base import Endpoints, TrainingJobs, TransformJobs
from backends.errors import AlreadyExists, BackendError, Conflict, NotFound
from backends.sagemaker import plans, readings
from backends.sagemaker.readings import ServiceError
from backends.specs import (
    EndpointSpec,
    EndpointState,
    EndpointStatus,
    JobStatus,
    Plan,
    Reply,
    Request,
    TrainingSpec,
    TransformSpec,
)

Call = Callable[[str, dict[str, Any]], dict[str, Any]]


class LogReader(Protocol):
    """Where a place keeps the output of the programs it ran; *kind* is ours: "training job" and so on."""

    def __call__(self, kind: str, name: str, *, follow: bool) -> Iterator[str]:
        """Yield lines; with *follow* go on until the program has ended."""
        ...


class _Room(ABC):
    """What the three rooms share: where calls go and how their errors are restated."""

    kind: str

    def __init__(
        self,
        call: Call,
        *,
        place: str,
        role_arn: str,
        read_log: LogReader,
        poll_seconds: float,
    ) -> None:
        self._call = call
        self._place = place
        self._role_arn = role_arn
        self._read_log = read_log
        self.poll_seconds = poll_seconds

    def log_lines(self, name: str, *, follow: bool = False) -> Iterator[str]:
        self.status(name)  # Raises NotFound now rather than at the first line.
        return self._read_log(self.kind, name, follow=follow)

    @abstractmethod
    def status(self, name: str) -> object: ...

    def _send(self, name: str, operation: str, **document: object) -> dict[str, Any]:
        with self._restating(name):
            return self._call(operation, document)

    def _submit(
        self, plan: Plan, *, is_reused: Callable[[Request], bool] = lambda _: False, shares: bool = False
    ) -> None:
        """Send the requests in order; if one is refused, take back what was created before it.

        Where what a request creates is there already, *is_reused* says whether it will do. One that *shares* takes
        nothing back if somebody else was quicker: they may have reused it.
        """
        done: list[tuple[str, Mapping[str, Any]]] = []
        for request in plan.requests:
            try:
                with self._restating(plan.name):
                    self._call(request.operation, dict(request.document))
            except BackendError as error:
                is_taken = isinstance(error, AlreadyExists)
                if is_taken and is_reused(request):
                    continue
                if not (is_taken and shares):
                    self._take_back(done)
                raise
            if request.operation.startswith("Create"):
                done.append((request.operation.removeprefix("Create"), request.document))

    def _take_back(self, done: list[tuple[str, Mapping[str, Any]]]) -> None:
        for resource, document in reversed(done):
            with suppress(ServiceError):
                self._call(f"Delete{resource}", {f"{resource}Name": document[f"{resource}Name"]})

    def _walk(self, operation: str, result: str, member: str, **filters: str) -> Iterator[str]:
        """Yield *member* of every summary in all pages of a List operation, newest first."""
        query: dict[str, object] = {"SortBy": "CreationTime", "SortOrder": "Descending", "MaxResults": 100, **filters}
        while True:
            page = self._send("", operation, **query)
            for summary in page[result]:
                yield summary[member]
            if not page.get("NextToken"):
                return
            query["NextToken"] = page["NextToken"]

    @contextmanager
    def _restating(self, name: str) -> Iterator[None]:
        try:
            yield
        except ServiceError as error:
            raise readings.restated(error, kind=self.kind, name=name, place=self._place) from error


class SageMakerTraining(_Room, TrainingJobs):
    """Training jobs through CreateTrainingJob, DescribeTrainingJob, StopTrainingJob and their kin."""

    def plan(self, spec: TrainingSpec) -> Plan:
        return plans.training_plan(spec, role_arn=self._role_arn)

    def submit(self, plan: Plan) -> None:
        self._submit(plan)

    def status(self, name: str) -> JobStatus:
        return readings.training_status(self._send(name, "DescribeTrainingJob", TrainingJobName=name))

    def stop(self, name: str) -> None:
        if not self.status(name).state.is_terminal:
            _quiet_if_ended(lambda: self._send(name, "StopTrainingJob", TrainingJobName=name))

    def names(self) -> Iterator[str]:
        return self._walk("ListTrainingJobs", "TrainingJobSummaries", "TrainingJobName")

    def discard(self, name: str) -> None:
        with suppress(NotFound):
            self._send(name, "DeleteTrainingJob", TrainingJobName=name)


class SageMakerTransform(_Room, TransformJobs):
    """Batch transforms through CreateModel and CreateTransformJob; the model carries the job's name."""

    def plan(self, spec: TransformSpec) -> Plan:
        return plans.transform_plan(spec, role_arn=self._role_arn)

    def submit(self, plan: Plan) -> None:
        self._submit(plan, is_reused=self._is_this_model)

    def status(self, name: str) -> JobStatus:
        return readings.transform_status(self._send(name, "DescribeTransformJob", TransformJobName=name))

    def stop(self, name: str) -> None:
        if not self.status(name).state.is_terminal:
            _quiet_if_ended(lambda: self._send(name, "StopTransformJob", TransformJobName=name))

    def names(self) -> Iterator[str]:
        return self._walk("ListTransformJobs", "TransformJobSummaries", "TransformJobName")

    def discard(self, name: str) -> None:
        # SageMaker has no DeleteTransformJob: the record stays, the model goes.
        with suppress(NotFound):
            self._send(name, "DeleteModel", ModelName=name)

    def _is_this_model(self, request: Request) -> bool:
        """Whether the model that is there is the one asked for: a start that was cut short, or another's, left it."""
        if request.operation != "CreateModel":
            return False
        found = self._send("", "DescribeModel", ModelName=request.document["ModelName"])
        return readings.says(found, {member: value for member, value in request.document.items() if member != "Tags"})


class SageMakerEndpoints(_Room, Endpoints):
    """Endpoints through CreateModel, CreateEndpointConfig, CreateEndpoint, UpdateEndpoint and InvokeEndpoint."""

    def plan(self, spec: EndpointSpec) -> Plan:
        return plans.endpoint_plan(spec, role_arn=self._role_arn)

    def plan_update(self, spec: EndpointSpec) -> Plan:
        return plans.update_plan(spec, role_arn=self._role_arn)

    def submit(self, plan: Plan) -> None:
        # These have the same name because they are the same.
        reused = {"CreateModel", "CreateEndpointConfig"}
        self._submit(plan, is_reused=lambda request: request.operation in reused, shares=True)

    def serves(self, spec: EndpointSpec) -> bool:
        return self._config_in_use(spec.name) == plans.config_name(spec, role_arn=self._role_arn)

    def tidy(self, name: str) -> None:
        self._discard(name, keep=self._config_in_use(name))

    def status(self, name: str) -> EndpointStatus:
        return readings.endpoint_status(self._send(name, "DescribeEndpoint", EndpointName=name))

    def invoke(
        self,
        name: str,
        body: bytes,
        *,
        content_type: str | None = None,
        accept: str | None = None,
        variant: str | None = None,
    ) -> Reply:
        members = {"ContentType": content_type, "Accept": accept, "TargetVariant": variant}
        given = {member: value for member, value in members.items() if value is not None}
        response = self._send(name, "InvokeEndpoint", EndpointName=name, Body=body, **given)
        return Reply(
            body=response["Body"],
            content_type=response.get("ContentType"),
            variant=response["InvokedProductionVariant"],
        )

    def delete(self, name: str) -> None:
        """Remove the endpoint, then its configurations and its models. Quiet where one is gone."""
        with suppress(NotFound):
            if self.status(name).state is not EndpointState.DELETING:
                self._send(name, "DeleteEndpoint", EndpointName=name)
        self._discard(name, keep="")

    def names(self) -> Iterator[str]:
        return self._walk("ListEndpoints", "Endpoints", "EndpointName")

    def _config_in_use(self, name: str) -> str:
        config: str = self._send(name, "DescribeEndpoint", EndpointName=name)["EndpointConfigName"]
        return config

    def _discard(self, name: str, *, keep: str) -> None:
        """Remove the configurations and models made for the endpoint, but for configuration *keep* and its models."""
        kept = {keep}
        if keep:
            config = self._send(name, "DescribeEndpointConfig", EndpointConfigName=keep)
            kept |= {variant["ModelName"] for variant in config["ProductionVariants"]}
        made = plans.names_made_for(name)
        for kind, result in (("EndpointConfig", "EndpointConfigs"), ("Model", "Models")):
            member = f"{kind}Name"
            for found in list(self._walk(f"List{result}", result, member, NameContains=name[: plans.STEM_CHARS])):
                if made.fullmatch(found) and found not in kept:
                    with suppress(NotFound):
                        self._send(name, f"Delete{kind}", **{member: found})


def _quiet_if_ended(stop: Callable[[], object]) -> None:
    """Stop, taking "it has just ended by itself" for success."""
    with suppress(Conflict):
        stop()
