"""The page on AWS as the command line puts it up and takes it down, all of it in MiniStack and ``greenroom serve``."""

import json
import os
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backends.aws.account import AwsAccount
from backends.aws.webstack import WebStack
from backends.config import BackendConfig
from backends.memory import MemoryStore
from sentiment.bundle import CONTAINER
from sentiment.settings import IMAGE
from sentiment.webtier import STACK
from tests.aws.commands import Commands, user_of_aws
from tests.e2e.conftest import Shell, served_page
from tests.emulator import served
from tests.peers import client, peer
from tests.reviews import few_reviews


def user(folder: Path) -> Shell:
    """Somebody with credentials and a role."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GREENROOM_"))}
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    environment |= {"GREENROOM_ROLE_ARN": "arn:aws:iam::000000000000:role/sentiment"}
    folder.mkdir()
    return Shell(folder, environment)


def tags_of(resource: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource["Tags"]}


def ask(url: str, host: str = "") -> Any:
    """What is thought of a good film."""
    headers = {"content-type": "application/json"} | ({"host": host} if host else {})
    request = urllib.request.Request(f"{url}/predict", b'{"text": "a good film"}', headers)  # noqa: S310  our own server
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def let_the_hour_pass(url: str, cloud: str) -> None:
    """What the day after finds: AWS has deleted the endpoint, and the schedule is over."""
    sagemaker = client("sagemaker", url)
    sagemaker.delete_endpoint(EndpointName="sentiment")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="sentiment", WaiterConfig={"Delay": 1})
    account = AwsAccount(BackendConfig(backend="aws", endpoint_url=cloud))
    stack = WebStack(account, MemoryStore(), STACK, say=print)
    stack.apply(stack.prepare({"Expires": "2020-01-01T00:00:00"}, tags={}))


def test_an_hour_that_is_over_is_in_nobodys_way_ministack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment brings the endpoint back, with another hour or none; the next page has no schedule any more."""
    user_of_aws(monkeypatch, tmp_path)
    folder = tmp_path / "server"
    folder.mkdir()
    with peer("ministack", tmp_path) as cloud:
        (folder / "greenroom.toml").write_text(f'endpoint_url = "{cloud}"\n[images]\n"{IMAGE}" = "{CONTAINER}"\n')
        with served(folder, "--upstream", cloud) as (url, _):
            sentiment, scheduler = (
                Commands(tmp_path, "--backend", "aws", "--endpoint-url", url),
                client("scheduler", cloud),
            )
            sentiment.done("run", "--source", sentiment.source)
            sentiment.done("deploy", "--ttl", "2h", "--yes")
            let_the_hour_pass(url, cloud)
            assert "expires" not in sentiment.json("deploy", "--yes")
            (schedule,) = scheduler.list_schedules()["Schedules"]
            assert schedule["Name"] == f"{STACK}-2020-01-01T00-00-00"
            ends = sentiment.json("deploy", "--ttl", "3h", "--yes")["expires"]
            (schedule,) = scheduler.list_schedules()["Schedules"]
            assert schedule["Name"] == f"{STACK}-{ends.removesuffix('Z').replace(':', '-')}"
            let_the_hour_pass(url, cloud)
            sentiment.done("deploy", "--yes")
            assert sentiment.json("web", "--yes")["expires"] == ""
            assert scheduler.list_schedules()["Schedules"] == []
            sentiment.done("destroy", "--yes")


def test_the_page_goes_up_and_comes_down_ministack(tmp_path: Path) -> None:
    """An endpoint with an end, the page in front of it, an answer through API and function; then nothing is left."""
    shell, folder = user(tmp_path / "client"), tmp_path / "server"
    folder.mkdir()
    source = few_reviews(tmp_path / "reviews.tar.gz")
    with peer("ministack", tmp_path) as cloud:
        # Objects lie in MiniStack too, for its CloudFormation takes the function's code from there.
        (folder / "greenroom.toml").write_text(f'endpoint_url = "{cloud}"\n[images]\n"{IMAGE}" = "{CONTAINER}"\n')
        with served(folder, "--upstream", cloud) as (url, _):
            aws = ("--backend", "aws", "--endpoint-url", url)
            endpoint = shell.json(*aws, "run", "--source", str(source))["endpoint"]
            ends = shell.json(*aws, "deploy", "--ttl", "2h", "--yes")["expires"]
            ahead = datetime.fromisoformat(ends) - datetime.now(UTC)
            assert timedelta(hours=1, minutes=55) < ahead <= timedelta(hours=2)
            (schedule,) = client("scheduler", cloud).list_schedules()["Schedules"]
            found = client("scheduler", cloud).get_schedule(Name=schedule["Name"])
            assert found["ScheduleExpression"] == f"at({ends.removesuffix('Z')})"
            sagemaker = client("sagemaker", url)
            arn = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointArn"]
            tags = tags_of(sagemaker.list_tags(ResourceArn=arn))
            assert (tags["greenroom:application"], tags["greenroom:expires"]) == ("sentiment", ends)
            assert tags["greenroom:owner"]

            published = shell.json(*aws, "web", "--yes")
            assert published["url"].endswith(".cloudfront.net")
            assert (published["endpoint"], published["expires"]) == (endpoint, ends)
            again = shell(*aws, "web", stdin="")  # nothing has changed, so nothing is asked
            assert "stack sentiment-web is as it should be" in again.stderr
            assert published["url"] in again.stdout

            functions, (api,) = client("lambda", cloud), client("apigatewayv2", cloud).get_apis()["Items"]
            (function,) = functions.list_functions()["Functions"]
            told = function["Environment"]["Variables"] | {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": url}
            functions.update_function_configuration(
                FunctionName=function["FunctionName"], Environment={"Variables": told}
            )
            answer = ask(cloud, f"{api['ApiId']}.execute-api.localhost")
            assert (answer["label"], answer["endpoint"], answer["backend"]) == ("positive", endpoint, "aws")
            with served_page(shell, *aws, here=True) as page:
                assert ask(page)["label"] == "positive"

            assert shell.json(*aws, "web", "--ttl", "0", "--yes")["expires"] == ""
            assert "greenroom:expires" not in tags_of(sagemaker.list_tags(ResourceArn=arn))
            assert client("scheduler", cloud).list_schedules()["Schedules"] == []

            removed = shell.json(*aws, "destroy", "--yes")["removed"]
            assert {"stack sentiment-web", f"endpoint {endpoint}"} <= set(removed)
            assert client("cloudformation", cloud).describe_stacks()["Stacks"] == []
            assert functions.list_functions()["Functions"] == []
            assert client("cloudfront", cloud).list_distributions()["DistributionList"]["Quantity"] == 0
            assert [bucket["Name"] for bucket in client("s3", cloud).list_buckets()["Buckets"]] == []
