"""The scripts that start the servers."""

import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from backends.config import BackendConfig
from sentiment.doctor import examine
from tests.peers import PEERS, client, peer, script


@pytest.mark.parametrize("name", PEERS)
def test_a_stopped_server_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a listener nor a file, however narrow the terminal; one that runs is not started again."""
    monkeypatch.setenv("COLUMNS", "20")
    with peer(name, tmp_path) as url:
        again = subprocess.run([script(name), "start", tmp_path], stdout=subprocess.PIPE, check=True, text=True)
        assert again.stdout.strip() == url
    address = urlsplit(url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port))
    assert not list(tmp_path.iterdir())


def test_sagemaker_is_not_theirs(url: str) -> None:
    """Why jobs and endpoints run in the engine."""
    with pytest.raises(ClientError, match="ListTrainingJobs"):
        client("sagemaker", url).list_training_jobs()


def test_the_doctor_looks_for_the_server(url: str) -> None:
    """One that listens is fine; one that does not keeps the local backend from working."""
    found = {finding.what: finding for finding in examine(BackendConfig(endpoint_url=url))}
    assert found["object store"].is_fine
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = {finding.what: finding for finding in examine(BackendConfig(endpoint_url=f"http://127.0.0.1:{port}"))}
    assert found["object store"].is_fatal
