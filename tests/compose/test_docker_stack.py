"""The stack whose jobs and endpoint are containers of the machine's own engine: docker-compose.docker.yml."""

import subprocess
from pathlib import Path

import pytest

from tests.compose.conftest import stack_up
from tests.docker_engine import sentiment_image

SOCKET = Path("/var/run/docker.sock")


def containers_of(image: str, network: str) -> list[str]:
    """The containers of *image* in *network*, whatever their state."""
    chosen = ["--filter", f"ancestor={image}", "--filter", f"network={network}"]
    found = subprocess.run(["docker", "ps", "-aq", *chosen], capture_output=True, check=True, text=True)
    return found.stdout.split()


@pytest.mark.timeout(600)
def test_the_endpoint_is_a_container_beside_the_stack(tmp_path: Path) -> None:
    """It answers the page's gateway, and goes when the stack is stopped, or the network could not be removed."""
    image = sentiment_image()
    with stack_up(
        "v2",
        tmp_path,
        "engine",
        "gateway",  # The service "model" only builds the image, which is here.
        COMPOSE_FILE="docker-compose.yml:docker-compose.docker.yml",
        COMPOSE_PROFILES="docker",
        DOCKER_GID=str(SOCKET.stat().st_gid),
        SENTIMENT_IMAGE=image,
    ) as stack:
        assert stack.ask("a good film")["label"] == "positive"
        assert len(containers_of(image, f"{stack.project}_default")) == 1
        stack("stop")
        assert containers_of(image, f"{stack.project}_default") == []
