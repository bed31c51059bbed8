"""The main job, end to end, through the command line, on the real reviews."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Shell


def test_a_run_reports_what_it_did(first_run: Any) -> None:
    """All seven steps' results are in one JSON object, and the accuracy is that of the model's measurements."""
    assert first_run["train_size"] + first_run["test_size"] == 25_000
    assert first_run["accuracy"] > 0.915
    assert first_run["auc"] > 0.97
    assert list(first_run["seconds"]) == ["prepare", "upload", "train", "evaluate", "deploy"]


def test_the_report_has_figures_and_pictures(sentiment: Shell, first_run: Any) -> None:
    """Figures as JSON that agree with the run's, pictures that are well-formed SVG."""
    report = sentiment.folder / first_run["report"]
    figures = json.loads((report / "figures.json").read_text())
    assert figures["accuracy"] == pytest.approx(first_run["accuracy"])
    assert figures["ece"] < 0.02
    pictures = list(report.glob("*.svg"))
    assert len(pictures) >= 3
    for picture in pictures:
        assert ET.parse(picture).getroot().tag.endswith("svg")  # noqa: S314  our own file


def test_a_second_run_does_nothing_again(sentiment: Shell, first_run: Any) -> None:
    """What is done is found by its name: same jobs, same endpoint, same figures."""
    before = sentiment.json("status")["resources"]
    again = sentiment.json("run")
    assert {key: again[key] for key in ("dataset", "accuracy", "endpoint")} == {
        key: first_run[key] for key in ("dataset", "accuracy", "endpoint")
    }
    assert sentiment.json("status")["resources"] == before


@pytest.mark.usefixtures("first_run")
@pytest.mark.parametrize(
    ("review", "label"),
    [
        ("A wonderful film, moving and beautifully acted.", "positive"),
        ("Dull, badly written, a waste of time.", "negative"),
    ],
)
def test_a_review_is_predicted(sentiment: Shell, review: str, label: str) -> None:
    """From another process than the one that deployed; words come on request and join to the review."""
    prediction = sentiment.json("predict", review, "--explain")
    assert prediction["label"] == label
    assert (prediction["probability"] > 0.5) == (label == "positive")
    assert "".join(word["text"] for word in prediction["words"]) == review
    assert sentiment("predict", "-", stdin=review).stdout.startswith(label)


@pytest.mark.usefixtures("first_run")
def test_an_empty_review_is_refused(sentiment: Shell) -> None:
    """An error is never a label: nothing on stdout, the reason on stderr, an exit code."""
    done = sentiment("predict", "   ", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the review is empty, so there is nothing to judge.\n"


@pytest.mark.usefixtures("first_run")
def test_words_are_added_up(sentiment: Shell) -> None:
    """Whatever their case; what weighs nothing is not shown."""
    verdict, *words = sentiment("predict", "Dull dull DULL qzqzqz", "--explain").stdout.splitlines()
    assert verdict.startswith("negative")
    assert [line.split()[1:] for line in words] == [["dull", "\u00d73"]]


@pytest.mark.usefixtures("first_run")
def test_what_the_model_refuses_is_told_in_its_words(sentiment: Shell) -> None:
    """With its status and the way to its log."""
    done = sentiment("predict", "\udce9", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the model of endpoint 'sentiment' answered 400" in done.stderr
    assert "record 1 holds half a surrogate pair" in done.stderr
    assert "`sentiment logs sentiment`" in done.stderr


@pytest.mark.usefixtures("first_run")
def test_a_file_of_reviews_is_predicted(sentiment: Shell, tmp_path: Path) -> None:
    """One row out for each row in, in order; formulas are defused; a bad row is named and leaves no output."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    reviews = ["Great,\nreally great", "=cmd|'x'!A1 awful and boring", "loved it " * 30]
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *([str(number), text] for number, text in enumerate(reviews))])
    assert sentiment.json("predict", "--file", str(source), "--out", str(target))["reviews"] == 3
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [reviews[0], f"'{reviews[1]}", reviews[2]]
    assert [row["label"] for row in rows] == ["positive", "negative", "positive"]
    source.write_text('text\nfine\n""\n')
    target.unlink()
    done = sentiment("predict", "--file", str(source), "--out", str(target), check=False)
    assert done.returncode == 2
    assert "row 3" in done.stderr
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.usefixtures("first_run")
def test_a_labelled_file_is_evaluated(sentiment: Shell, tmp_path: Path) -> None:
    """Through a batch transform of its own, with the same kind of report."""
    source = tmp_path / "mine.csv"
    rows = [("wonderful, a joy to watch", "positive"), ("terrible\nand dull", "negative"), ("awful mess", "positive")]
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    evaluated = sentiment.json("evaluate", "--data", str(source))
    assert evaluated["figures"]["accuracy"] == pytest.approx(2 / 3)
    shown = dict(line.split(maxsplit=1) for line in sentiment("evaluate", "--data", str(source)).stdout.splitlines())
    assert list(shown) == ["transform", "reviews", "accuracy", "auc", "log_loss", "ece", "report"]
    assert shown["accuracy"] == "0.6667"
    assert any(
        row["kind"] == "transform job" and row["name"] == evaluated["transform"]
        for row in sentiment.json("status")["resources"]
    )
    source.write_text("text,label\nfine,positive\nhm,perhaps\n")
    done = sentiment("evaluate", "--data", str(source), check=False)
    assert done.returncode == 2
    assert "perhaps" in done.stderr


@pytest.mark.usefixtures("first_run")
def test_logs_are_there_afterwards(sentiment: Shell) -> None:
    """What the training program printed can be read again, by the job's name."""
    (job,) = [row["name"] for row in sentiment.json("status")["resources"] if row["kind"] == "training job"]
    assert sentiment("logs", job).stdout.strip()
    done = sentiment("logs", "no-such-job", check=False)
    assert (done.returncode, "no-such-job" in done.stderr) == (3, True)


def test_a_dry_run_prints_the_documents(sentiment: Shell) -> None:
    """Every request of a first run in order; nothing is created."""
    before = sentiment.json("status")["resources"]
    requests = json.loads(sentiment("run", "--dry-run").stdout)["requests"]
    assert [request["operation"] for request in requests] == [
        "CreateTrainingJob", "CreateModel", "CreateTransformJob",
        "CreateModel", "CreateEndpointConfig", "CreateEndpoint",
    ]  # fmt: skip
    assert sentiment.json("status")["resources"] == before


@pytest.mark.usefixtures("first_run")
def test_a_dry_run_shows_how_an_endpoint_is_changed(sentiment: Shell) -> None:
    """As serverless capacity, unless instances are asked for in so many words, which could bill."""
    create, config, update = json.loads(sentiment("deploy", "--dry-run", "--memory", "4096").stdout)["requests"]
    assert (create["operation"], update["operation"]) == ("CreateModel", "UpdateEndpoint")
    (variant,) = config["document"]["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 4096, "MaxConcurrency": 10}
    options = ["--real-time", "--instances", "2", "--canary", "20:60"]
    *_, config, update = json.loads(sentiment("deploy", "--dry-run", *options).stdout)["requests"]
    assert config["document"]["ProductionVariants"][0]["InitialInstanceCount"] == 2
    routing = update["document"]["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert (routing["CanarySize"]["Value"], routing["WaitIntervalInSeconds"]) == (20, 60)
    for wrong, said in (
        (["--instances", "2"], "add --real-time, which bills"),
        (["--real-time", "--autoscale", "1:4"], "nothing to scale"),
    ):
        refused = sentiment("deploy", "--dry-run", *wrong, check=False)
        assert (refused.returncode in {1, 2}, said in refused.stderr, refused.stdout) == (True, True, "")


@pytest.mark.usefixtures("first_run")
def test_credentials_reach_neither_state_nor_logs(sentiment: Shell) -> None:
    """The user's AWS keys are nowhere in the state folder."""
    for path in sentiment.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"AKIAIOSFODNN7EXAMPLE" not in content, path
            assert b"never-to-be-seen" not in content, path


@pytest.mark.usefixtures("first_run")
def test_everything_lies_in_the_state_folder(sentiment: Shell) -> None:
    """A run leaves nothing else where it was started."""
    assert [path.name for path in sentiment.folder.iterdir()] == [".greenroom"]


@pytest.mark.usefixtures("first_run")
def test_the_page_answers_until_it_is_interrupted(sentiment: Shell) -> None:
    """Page, gateway, handler, runtime API and endpoint in a row; Ctrl-C, which all processes get, ends it quietly."""
    import urllib.request  # noqa: PLC0415

    command = [str(Path(sys.executable).with_name("sentiment")), "web", "--port", "0", "--json"]
    with subprocess.Popen(
        command,
        cwd=sentiment.folder,
        env=sentiment.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        request = urllib.request.Request(  # noqa: S310  our own server
            f"{url}/predict",
            data=json.dumps({"text": "A delight."}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer = json.load(response)
        os.killpg(server.pid, signal.SIGINT)
        _, complaints = server.communicate(timeout=20)
    assert (answer["label"], answer["backend"]) == ("positive", "local")
    assert server.returncode == 0
    assert [line for line in complaints.splitlines() if " POST /predict 200 " not in line] == []


def test_help_names_every_command(sentiment: Shell) -> None:
    """The commands of the seven steps and those around them."""
    text = sentiment("--help").stdout
    commands = {"prepare", "upload", "train", "evaluate", "deploy", "predict", "web", "run", "status", "logs"}
    commands |= {"destroy", "doctor", "config"}
    assert [command for command in commands if not re.search(rf"^\s+{command}\b", text, re.MULTILINE)] == []


def test_doctor_finds_this_machine_fit(sentiment: Shell) -> None:
    """Nothing fatal here; every finding that is not fine says what to do."""
    findings = sentiment.json("doctor")["findings"]
    assert not [finding for finding in findings if finding["is_fatal"]]
    assert all(finding["is_fine"] or finding["remedy"] for finding in findings)


def test_doctor_fails_where_nothing_can_run(sentiment: Shell) -> None:
    """A fatal finding is an exit code too."""
    nowhere = Shell(sentiment.folder, sentiment.environment | {"DOCKER_HOST": "unix:///nonexistent/docker.sock"})
    done = nowhere("--runner", "docker", "doctor", "--json", check=False)
    assert done.returncode == 1
    assert [finding["what"] for finding in json.loads(done.stdout)["findings"] if finding["is_fatal"]] == ["Docker"]


def test_wrong_usage_is_explained(sentiment: Shell) -> None:
    """Exit code 2 and a sentence, never a traceback."""
    for arguments in (["--backend", "azure", "status"], ["predict"], ["train", "-p", "novalue"], ["nonsense"]):
        done = sentiment(*arguments, check=False)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert done.stderr.strip()


def test_a_state_folder_that_cannot_be_is_explained(sentiment: Shell, tmp_path: Path) -> None:
    """Which, why, and what to do."""
    (tmp_path / "file").touch()
    nowhere = Shell(sentiment.folder, sentiment.environment | {"GREENROOM_HOME": str(tmp_path / "file" / "home")})
    done = nowhere("status", check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert f"the state folder {tmp_path}/file/home cannot be used: Not a directory" in done.stderr
    assert "GREENROOM_HOME" in done.stderr.removeprefix("error: the state folder")


@pytest.mark.usefixtures("first_run")
def test_what_is_missing_is_named(sentiment: Shell, tmp_path: Path) -> None:
    """Without an error number before it."""
    done = sentiment("evaluate", "--data", str(tmp_path / "none.csv"), check=False)
    assert (done.returncode, done.stderr) == (3, f"error: {tmp_path}/none.csv: No such file or directory\n")
