"""The scripts that start the servers."""

import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.peers import PEERS, peer, script


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
