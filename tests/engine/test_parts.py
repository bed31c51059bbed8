"""The engine's parts, each by itself."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.engine import channels, layout, logs, metrics, supervision
from backends.engine.exchange import Exchange
from backends.engine.reply import NoAnswer
from backends.engine.runners import ImageMissing, Program
from backends.engine.runners.process import ProcessRunner
from backends.engine.settings import EngineSettings
from backends.engine.state import State, Taken
from backends.errors import BackendUnavailable
from backends.stores.files import FileStore
from tests.engine.conftest import PROBE

# Channels: keys become files (S13).


@pytest.mark.parametrize(
    ("prefix", "key", "relative"),
    [
        ("p/input", "p/input/a/b", "a/b"),
        ("p/input/", "p/input/a/b", "a/b"),
        ("p/in", "p/input/a", "input/a"),
        ("p/in", "p/in-2/a", "in-2/a"),
        ("p/one.txt", "p/one.txt", "one.txt"),
        ("one", "one", "one"),
        ("", "a/b", "a/b"),
        ("on", "one/two", "one/two"),
    ],
)
def test_a_key_is_placed_below_its_prefix(prefix: str, key: str, relative: str) -> None:
    """The path behind the prefix's folder (A.7)."""
    assert channels.relative_key(prefix, key) == relative


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    opened = FileStore(tmp_path / "objects")
    opened.ensure_bucket("bucket")
    return opened


@pytest.mark.parametrize(
    "keys",
    [
        ["p/../x"],
        ["p/.."],
        ["p/a/./b"],
        ["p/a//b"],
        ["p/nul\0byte"],
        ["p/" + "x" * 256],
        ["p/a", "p/a/b"],
        ["p/a", "p/a/"],
        ["p//etc/passwd"],
    ],
)
def test_keys_that_cannot_be_files_are_refused(store: FileStore, tmp_path: Path, keys: list[str]) -> None:
    """By name, and nothing appears outside the channel."""
    for key in keys:
        store.put(f"s3://bucket/{key}", b"" if key.endswith("/") else b"x")
    folder = tmp_path / "outside" / "channel"
    folder.mkdir(parents=True)
    with pytest.raises(channels.UnusableKey, match="s3://bucket/p"):
        channels.download(store, "s3://bucket/p/", folder)
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["channel"]
    store.close()


def test_keys_that_look_odd_are_fine(store: FileStore, tmp_path: Path) -> None:
    """Escapes are not decoded, backslashes are no separators, folder objects become folders."""
    names = ["%2e%2e", "back\\slash", "...", " space ", "日本/😀", "folder/", "p"]
    for name in names:
        store.put(f"s3://bucket/p/{name}", b"")
    store.put("s3://bucket/p/", b"")
    folder = tmp_path / "channel"
    folder.mkdir()
    assert channels.download(store, "s3://bucket/p/", folder) == len(names) - 1
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == {
        *(name.rstrip("/") for name in names),
        "日本",
    }
    store.close()


def test_shares_of_a_prefix_and_of_a_manifest(store: FileStore, tmp_path: Path) -> None:
    """Every object goes to one host, as evenly as can be (A.7)."""
    for name in "abcde":
        store.put(f"s3://bucket/p/{name}", name.encode())
    store.put("s3://bucket/manifest", b'[{"prefix": "s3://bucket/p/"}, "e", "c", "a"]')
    for source, is_manifest, expected in [
        ("s3://bucket/p/", False, ["ad", "be", "c"]),
        ("s3://bucket/manifest", True, ["e", "c", "a"]),
    ]:
        for host in range(3):
            folder = tmp_path / f"{is_manifest}-{host}"
            folder.mkdir()
            channels.download(store, source, folder, share=(host, 3), is_manifest=is_manifest)
            assert sorted(path.name for path in folder.iterdir()) == list(expected[host])
    store.close()


# Layout.


def test_a_tree_without_permissions_can_be_removed() -> None:
    """By a user who is not root as well; removing what is gone is quiet."""
    code = (
        "import os, sys; from pathlib import Path; from backends.engine import layout\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "tree = Path(sys.argv[1]) / 'tree'; (tree / 'a/b').mkdir(parents=True); (tree / 'a/b/file').write_text('x')\n"
        "layout.make_read_only(tree); (tree / 'a/b').chmod(0)\n"
        "layout.remove(tree); layout.remove(tree); assert not tree.exists()"
    )
    with tempfile.TemporaryDirectory() as folder:  # Below pytest's own folders only their owner may look.
        Path(folder).chmod(0o777)
        subprocess.run([sys.executable, "-c", code, folder], check=True, timeout=30, cwd=Path(__file__).parents[2])


def test_a_failure_file_may_be_anything(tmp_path: Path) -> None:
    """Absent, a folder, not UTF-8."""
    (tmp_path / "output").mkdir()
    assert layout.failure_text(tmp_path) == ""
    (tmp_path / "output/failure").mkdir()
    assert layout.failure_text(tmp_path) == ""
    (tmp_path / "output/failure").rmdir()
    (tmp_path / "output/failure").write_bytes(b"\xff broken")
    assert layout.failure_text(tmp_path) == "\ufffd broken"


# Logs (S9).


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("key AKIAABCDEFGHIJKLMNOP.", "key ****."),
        ("AWS_SECRET_ACCESS_KEY=abc/def+ghi", "AWS_SECRET_ACCESS_KEY=****"),
        ('{"SecretAccessKey": "abc/def", "x": 1}', '{"SecretAccessKey": "****", "x": 1}'),
        ("aws_session_token : IQoJb3Jp", "aws_session_token : ****"),
        ("token ghp_" + "a" * 36, "token ****"),
        ("hf_" + "a" * 34, "****"),
        ("nothing secret here", "nothing secret here"),
    ],
)
def test_credentials_are_masked(line: str, shown: str) -> None:
    """Known patterns, and values that are assigned to AWS's names."""
    assert logs.masked(line) == shown


def test_a_growing_log_is_followed(tmp_path: Path) -> None:
    """Whole lines as they come, the rest at the end; CRLF and bytes that are no UTF-8 do no harm."""
    path = tmp_path / "algo-1.log"
    path.write_bytes(b"one\r\ntw")
    over = False
    lines = logs.follow(tmp_path, lambda: over)
    assert next(lines) == "one"
    with path.open("ab") as log:
        log.write(b"o\n\xff\nlast")
    assert [next(lines), next(lines)] == ["two", "\ufffd"]
    over = True
    assert list(lines) == ["last"]


def test_a_line_without_end_does_not_gather(tmp_path: Path) -> None:
    """It is cut, as CloudWatch does."""
    (tmp_path / "algo-1.log").write_bytes(b"x" * 1_000_000)
    assert max(map(len, logs.follow(tmp_path, None))) <= 400_000


def test_the_tail_is_short(tmp_path: Path) -> None:
    """The last lines, masked; nothing if there is no log."""
    assert logs.tail(tmp_path / "none.log") == ""
    (tmp_path / "a.log").write_text("\n".join(f"line\u2028{number}" for number in range(100)) + "\n")
    assert logs.tail(tmp_path / "a.log", lines=2) == "line\u202898\nline\u202899"


# Metrics (S22).


def test_a_regex_that_never_ends_is_given_up(tmp_path: Path) -> None:
    """The other metrics are found all the same."""
    log = tmp_path / "a.log"
    log.write_text("loss=1;\n" + "a" * 60 + "\nloss=0.5;\n")
    definitions = [{"Name": "evil", "Regex": "(a+)+b=(.*)"}, {"Name": "loss", "Regex": "loss=(.*);"}]
    began, handler = time.monotonic(), signal.getsignal(signal.SIGALRM)
    found, given_up = metrics.final_metrics(log, definitions, timeout_seconds=0.2)
    assert time.monotonic() - began < 5
    assert ([entry["Value"] for entry in found], given_up) == ([0.5], ["evil"])
    assert signal.getsignal(signal.SIGALRM) is handler


@pytest.mark.parametrize("text", ["nan", "inf", "1e39", "word", ""])
def test_what_is_no_float32_is_passed_over(tmp_path: Path, text: str) -> None:
    """The last usable value stays."""
    log = tmp_path / "a.log"
    log.write_text(f"v=2;\nv={text};\n")
    found, _ = metrics.final_metrics(log, [{"Name": "v", "Regex": "v=(.*);"}], timeout_seconds=5)
    assert [entry["Value"] for entry in found] == [2.0]


def test_a_regex_without_group_finds_nothing(tmp_path: Path) -> None:
    """The value is the first group."""
    (tmp_path / "a.log").write_text("v=2;\n")
    assert metrics.final_metrics(tmp_path / "a.log", [{"Name": "v", "Regex": "v=2"}], timeout_seconds=5) == ([], [])


# Exchange.


class Server:
    """Answers each connection with what it is given, then closes it if asked."""

    def __init__(self, *replies: bytes, close: bool = True) -> None:
        self.requests = 0
        self.closed = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve, args=(replies, close), daemon=True)
        self._thread.start()

    def _serve(self, replies: tuple[bytes, ...], close: bool) -> None:  # noqa: FBT001
        with self._listener:
            for reply in replies:
                connection, _ = self._listener.accept()
                with connection:
                    connection.recv(65536)
                    self.requests += 1
                    connection.sendall(reply)
                    if not close:
                        connection.recv(65536)
                self.closed.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Mixed: y\r\n\r\nok"


def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    """The next request opens another one; none is sent twice."""
    with Server(OK, OK) as server:
        exchange = Exchange(server.address)
        for _ in range(2):
            answer = exchange.send("GET", "/", timeout_seconds=5)
            assert (answer.status, answer.body, answer.headers["x-mixed"]) == (200, b"ok", "y")
            assert server.closed.acquire(timeout=10)
        exchange.close()
    assert server.requests == 2


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (b"", "closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "before the answer was whole"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal", "before the answer was whole"),
        (b"nonsense\r\n\r\n", "nonsense"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000, "larger than 1000"),
    ],
)
def test_half_an_answer_is_none(reply: bytes, text: str) -> None:
    """Cut off, malformed or over the limit."""
    with Server(reply) as server:
        exchange = Exchange(server.address)
        with pytest.raises(NoAnswer, match=text):
            exchange.send("GET", "/", timeout_seconds=5, answer_limit_bytes=1000)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nuntil\r\n8\r\n the end\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\nuntil the end",
    ],
)
def test_every_framing_is_read(reply: bytes) -> None:
    """By length, in chunks, to the connection's end."""
    with Server(reply) as server:
        exchange = Exchange(server.address)
        assert exchange.send("GET", "/", timeout_seconds=5).body == b"until the end"
        exchange.close()


def test_nobody_listening_is_no_answer() -> None:
    """Refused at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    with pytest.raises(NoAnswer, match="refused"):
        Exchange(address).send("GET", "/ping", timeout_seconds=5)


# The process runner.


def program(tmp_path: Path, **changes: object) -> Program:
    root = tmp_path / "ml"
    root.mkdir(exist_ok=True)
    values: dict[str, object] = {
        "label": "label-1",
        "name": "job-1",
        "image": "probe",
        "root": root,
        "log_path": tmp_path / "log",
        "argument": "train",
    }
    return Program(**(values | changes))  # type: ignore[arg-type]


def test_what_runs_is_found_by_its_label(tmp_path: Path) -> None:
    """Its whole group ends with kill, what left the group is found by sweep; another label's is untouched."""
    runner = ProcessRunner({"probe": str(PROBE)})
    script = "sleep 300 & setsid sleep 300 & wait"
    running = runner.start(program(tmp_path, entrypoint=("sh", "-c", script)))
    assert running.wait(0.1) is None
    running.kill()
    assert running.wait(5) == 137
    assert runner.sweep("label-2") == 0
    assert runner.sweep("label-1") == 1
    assert runner.sweep("label-1") == 0


def test_the_user_cannot_break_the_contracts_variables(tmp_path: Path) -> None:
    """The request's environment wins over the platform's courtesies, never over root, port and label."""
    runner = ProcessRunner({"probe": str(PROBE)})
    own = {"SAGEMAKER_BASE_DIR": "/", "GREENROOM_RUN": "x", "SAGEMAKER_BIND_TO_PORT": "1", "LANG": "de_DE"}
    running = runner.start(program(tmp_path, entrypoint=("env",), environment=own, serves=True))
    assert running.wait(10) == 0
    seen = dict(line.split("=", 1) for line in (tmp_path / "log").read_text().splitlines())
    assert seen["SAGEMAKER_BASE_DIR"] == str(tmp_path / "ml")
    assert (seen["GREENROOM_RUN"], seen["LANG"]) == ("label-1", "de_DE")
    assert int(seen["SAGEMAKER_BIND_TO_PORT"]) == running.address[1] > 20_000


def test_arguments_are_never_a_shells(tmp_path: Path) -> None:
    """What looks like shell is text (S11)."""
    runner = ProcessRunner({"probe": str(PROBE)})
    running = runner.start(program(tmp_path, entrypoint=("echo",), arguments=("$(id); `id` && id",)))
    assert running.wait(10) == 0
    assert (tmp_path / "log").read_text() == "$(id); `id` && id\n"


@pytest.mark.parametrize("image", ["other", "probe/other", ""])
def test_an_image_without_a_folder_is_missing(image: str) -> None:
    """The text says what is known."""
    with pytest.raises(ImageMissing, match="known: probe"):
        ProcessRunner({"probe": str(PROBE)}).check(image)


def test_an_image_whose_folder_is_gone_is_missing() -> None:
    """The text names the folder."""
    with pytest.raises(ImageMissing, match="/no/such/folder"):
        ProcessRunner({"probe": "/no/such/folder"}).check("probe")


# State and seats.


def test_a_name_has_one_life_at_a_time(tmp_path: Path) -> None:
    """Edits meant for a resource that is gone do not touch the next one of its name."""
    state = State(tmp_path / "state.db")
    first = state.insert("model", "m", {}, {"x": 1})
    with pytest.raises(Taken):
        state.insert("model", "m", {}, {})
    state.remove(first)
    second = state.insert("model", "m", {}, {"x": 2})
    assert state.edit(first, lambda facts: facts.update(x=3)) is None
    state.remove(first)
    assert state.again(first) is None
    assert state.again(second) == second
    state.close()


def test_a_failed_edit_changes_nothing(tmp_path: Path) -> None:
    """The transaction is rolled back."""
    state = State(tmp_path / "state.db")
    resource = state.insert("model", "m", {}, {"x": 1})

    def change(facts: dict[str, object]) -> None:
        facts["x"] = 2
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        state.edit(resource, change)
    assert state.again(resource) == resource
    state.close()


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["insert", "edit", "fail", "remove"])), max_size=30))
def test_every_reader_sees_the_last_change(steps: list[tuple[int, str]]) -> None:
    """What was found before is forgotten when anybody changes the file: another process, this one, or nobody at all.

    A state of its own stands for another process, as its connection does for SQLite.
    """
    with tempfile.TemporaryDirectory() as folder:
        states = [State(Path(folder) / "state.db") for _ in range(3)]
        truth: int | None = None
        for number, (who, what) in enumerate(steps):
            state = states[who]
            if what == "insert" and truth is None:
                state.insert("model", "m", {}, {"x": number})
                truth = number
            elif found := state.find("model", "m"):
                if what == "edit":
                    state.update(found, x=number)
                    truth = number
                elif what == "fail":
                    with pytest.raises(ZeroDivisionError):
                        state.edit(found, lambda facts: facts.update(x=1 // 0))
                elif what == "remove":
                    state.remove(found)
                    truth = None
            for reader in states:
                seen = reader.find("model", "m")
                assert (seen.facts["x"] if seen else None) == truth
        for state in states:
            state.close()


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to look like one" * 20, None])
def test_a_state_that_cannot_be_opened_says_so(tmp_path: Path, content: bytes | None) -> None:
    """With its path and what to do."""
    path = tmp_path / "state.db"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(BackendUnavailable, match=r"state\.db"):
        State(path)


def test_a_newer_state_is_not_touched(tmp_path: Path) -> None:
    """Better no answer than a wrong one."""
    State(tmp_path / "state.db").close()
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(BackendUnavailable, match="newer Greenroom"):
        State(tmp_path / "state.db")


def test_a_seat_is_alive_as_long_as_its_supervisor(tmp_path: Path) -> None:
    """One that is dismissed or has nothing to carry leaves none; the seat of one that never came is dead."""
    nursery = supervision.Nursery(EngineSettings(home=tmp_path))
    dismissed = supervision.Supervisor(nursery)
    assert supervision.is_alive(tmp_path, dismissed.seat)
    dismissed.dismiss()
    assert list(supervision.seats(tmp_path)) == []
    idle = supervision.Supervisor(nursery)
    idle.carry("training job", "unknown")
    deadline = time.monotonic() + 20
    while list(supervision.seats(tmp_path)):
        assert time.monotonic() < deadline
    lost = supervision.Supervisor(nursery)
    nursery.close()
    os.close(lost._lock)
    assert list(supervision.seats(tmp_path)) == [lost.seat]
    assert not supervision.is_alive(tmp_path, lost.seat)
