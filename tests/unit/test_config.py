import os
from dataclasses import replace
from pathlib import Path

import pytest

from backends.config import load_config
from backends.engine.settings import DockerSettings
from backends.errors import InvalidSpec
from backends.local.backend import engine_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("GREENROOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_flags_win_over_environment_over_file_over_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each layer shows where the one above it says nothing."""
    (tmp_path / "greenroom.toml").write_text('region = "file"\nbucket = "from-file"\nrole_arn = "file"\n')
    monkeypatch.setenv("GREENROOM_REGION", "environment")
    monkeypatch.setenv("GREENROOM_ROLE_ARN", "environment")
    config = load_config(role_arn="flag", runner=None)
    assert (config.role_arn, config.region, config.bucket, config.runner) == (
        "flag",
        "environment",
        "from-file",
        "process",
    )


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    """A configuration means the same from every working folder."""
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "my.toml"
    file.write_text('home = "state"\n[images]\n"mine:1" = "programs"\n')
    config = load_config(file)
    assert config.home == tmp_path / "deep" / "state"
    assert config.images == {"mine:1": tmp_path / "deep" / "programs"}


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    """A typing error is refused and explained."""
    (tmp_path / "greenroom.toml").write_text('reigon = "x"\n')
    with pytest.raises(InvalidSpec, match="'reigon' is not a setting; did you mean 'region'"):
        load_config()


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("GREENROOM_RUNER", "GREENROOM_RUNNER"),
        ("GREENROOM_BACKENDS", "GREENROOM_BACKEND"),
        ("GREENROOM_ENDPOINTURL", "GREENROOM_ENDPOINT_URL"),
        ("GREENROOM_DOCKERS__PIDS", "GREENROOM_DOCKER"),
    ],
)
def test_a_misspelt_variable_names_the_nearest_setting(
    monkeypatch: pytest.MonkeyPatch, misspelt: str, meant: str
) -> None:
    """Rather than that the default is taken."""
    monkeypatch.setenv(misspelt, "docker")
    with pytest.raises(InvalidSpec, match=f"did you mean {meant}"):
        load_config()


@pytest.mark.parametrize("name", ["GREENROOM_IMAGE", "GREENROOM_TOKEN", "GREENROOM_RUN", "GREENROOM_REQUIRE"])
def test_other_variables_are_let_be(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Those that other parts of the project read."""
    monkeypatch.setenv(name, "x")
    assert load_config().runner == "process"


@pytest.mark.parametrize("text", ["= broken", "\xff", 'backend = "azure"', "home = 3"])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    """Nothing is guessed."""
    (tmp_path / "greenroom.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidSpec, match=r"greenroom\.toml"):
        load_config()


def test_another_server_is_named_by_its_url() -> None:
    """An address without a scheme is refused at once, and told how it should look."""
    assert load_config(endpoint_url="http://localhost:4566").endpoint_url == "http://localhost:4566"
    with pytest.raises(InvalidSpec, match="'localhost:4566' is neither a URL"):
        load_config(endpoint_url="localhost:4566")


def test_localstack_is_where_its_client_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The word is looked up once, so that every process that is told of the configuration has the same address."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("LOCALSTACK_HOST", "127.0.0.1:4599")
    config = load_config(endpoint_url="localstack")
    monkeypatch.setenv("LOCALSTACK_HOST", "elsewhere")
    assert engine_settings(config).s3_endpoint_url == "http://127.0.0.1:4599"


def test_an_address_of_localstack_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("LOCALSTACK_HOST", "localhost:port")
    with pytest.raises(InvalidSpec, match="LOCALSTACK_HOST"):
        load_config(endpoint_url="localstack")


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    """Only the default file may be missing."""
    with pytest.raises(InvalidSpec, match=r"nowhere\.toml"):
        load_config(tmp_path / "nowhere.toml")


def test_the_docker_section_reaches_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key, from the file and from the environment."""
    file = tmp_path / "greenroom.toml"
    file.write_text('[docker]\nmemory_mib = 512\ncapabilities = ["SYS_PTRACE"]\nprints_command = true\n')
    monkeypatch.setenv("GREENROOM_DOCKER__PIDS", "99")
    docker = engine_settings(load_config(file)).docker
    assert docker == DockerSettings(memory_mib=512, capabilities=("SYS_PTRACE",), prints_command=True, pids=99)
    flagged = engine_settings(load_config(file, docker={"memory_mib": 1})).docker
    assert flagged == replace(docker, memory_mib=1)


def test_a_program_under_a_debugger_is_not_hurried() -> None:
    """A breakpoint neither fails an endpoint nor restarts its container; processes have no debugger."""
    slow = engine_settings(load_config(runner="docker", docker={"debug": "wait"}))
    usual = engine_settings(load_config(docker={"debug": "wait"}))
    for name in ("startup_timeout_seconds", "pings_to_lose", "invocation_timeout_seconds", "stream_timeout_seconds"):
        assert getattr(slow, name) > 100 * getattr(usual, name)
