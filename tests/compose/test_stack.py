"""`docker compose up`, as a developer has it: with compose v2 and with docker-compose 1.29."""

import json
import shutil
import subprocess

import pytest

from tests.compose.conftest import Stack, until
from tests.peers import client
from tests.requirements import require

pytestmark = pytest.mark.timeout(600)  # The first one builds the image.


@pytest.mark.parametrize(("review", "label"), [("a good film", "positive"), ("a bad film", "negative")])
def test_a_review_is_answered(stack: Stack, review: str, label: str) -> None:
    """Through gateway, handler and engine, each in a container of its own."""
    answer = stack.ask(review)
    assert (answer["label"], answer["backend"]) == (label, "local")


def test_the_page_knows_what_answers(stack: Stack) -> None:
    """A browser runs the page; it names the endpoint."""
    chromium = shutil.which("chromium")
    require("chromium", lambda: chromium is not None, "no chromium is on the PATH")
    browser = [str(chromium), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    page = subprocess.run(
        [*browser, "--virtual-time-budget=5000", "--dump-dom", stack.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert stack.about()["endpoint"] in page.stdout


def test_data_and_artifacts_lie_in_localstack(stack: Stack) -> None:
    """Channels, model and predictions; the volume of the engine holds no objects."""
    objects = client("s3", stack.s3_url).list_objects_v2(Bucket="greenroom")["Contents"]
    names = {entry["Key"].rpartition("/")[2] for entry in objects if entry["Size"]}
    assert {"train.csv", "test.csv", "model.tar.gz", "test.csv.out"} <= names
    assert "objects" not in stack("exec", "-T", "engine", "ls", "/var/lib/greenroom/home").split()


def test_containers_are_locked_in(stack: Stack) -> None:
    """Ports on loopback alone; ours run without root, without capabilities, without the Docker socket, read-only."""
    containers = stack.containers()
    assert containers.keys() == {"localstack", "engine", "gateway"}
    addresses = {
        binding["HostIp"]
        for container in containers.values()
        for bindings in container["HostConfig"]["PortBindings"].values()
        for binding in bindings
    }
    assert addresses == {"127.0.0.1"}
    assert not [
        mount for container in containers.values() for mount in container["Mounts"] if "sock" in mount["Source"]
    ]
    for name in ("engine", "gateway"):
        assert stack("exec", "-T", name, "id", "-u").strip() == "1000"
        host = containers[name]["HostConfig"]
        assert (host["CapDrop"], host["ReadonlyRootfs"]) == (["ALL"], True)
        bound = [mount for mount in containers[name]["Mounts"] if mount["Type"] == "bind"]
        assert bound
        assert not any(mount["RW"] for mount in bound)


def test_every_service_is_healthy(stack: Stack) -> None:
    """By its own check."""

    def healths() -> set[str]:
        return {container["State"]["Health"]["Status"] for container in stack.containers().values()}

    until(lambda: healths() == {"healthy"}, "all are healthy")


def test_an_edited_page_is_served(stack: Stack) -> None:
    """At the next request."""
    page = stack.folder / "web" / "index.html"
    page.write_text(page.read_text().replace("<title>", "<title>Edited: "))
    assert "<title>Edited: " in stack.get("/")


def test_an_edited_handler_answers(stack: Stack) -> None:
    """At the next request, too."""
    handler = stack.folder / "lambda" / "predict" / "handler.py"
    code = handler.read_text()
    handler.write_text(code.replace('about = {"endpoint"', 'about = {"edited": True, "endpoint"'))
    assert handler.read_text() != code
    assert stack.about()["edited"] is True


def newest_training(stack: Stack) -> str:
    found = json.loads(stack("exec", "-T", "engine", "sentiment", "status", "--json"))["resources"]
    name: str = next(resource["name"] for resource in found if resource["kind"] == "training job")
    return name


@pytest.mark.parametrize("stack", ["v2"], indirect=True)
def test_an_edited_model_is_trained_and_served(stack: Stack) -> None:
    """By the command that trained the first; nothing is built or restarted for it."""
    before = newest_training(stack)
    images = {name: container["Image"] for name, container in stack.containers().items()}
    model = stack.folder / "sentiment" / "model.py"
    model.write_text(f"{model.read_text()}# edited\n")
    stack("exec", "-T", "engine", "sentiment", "run", "--json")
    assert newest_training(stack) != before
    assert stack.ask("a good film")["label"] == "positive"
    assert {name: container["Image"] for name, container in stack.containers().items()} == images


@pytest.mark.parametrize("stack", ["v2"], indirect=True)
def test_a_restart_of_everything_leads_back(stack: Stack) -> None:
    """LocalStack has forgotten all then; the engine makes it again, and the gateway waits for it."""
    stack("stop")
    stack("up", "-d")
    until(lambda: bool(stack.about()), "the gateway answers")
    assert stack.ask("a bad film")["label"] == "negative"
