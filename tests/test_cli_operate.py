"""`trio-entrypoint status` and its kin, against a running entrypoint."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "trio_entrypoint.cli"]


class World:
    """An entrypoint with two services: `db`, and `web` with activation and configuration."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "socket"
        self.active = directory / "active"
        self.source = directory / "app.conf"
        self.target = directory / "etc/app.conf"
        self.file = directory / "entrypoint.toml"
        self.file.write_text(f"""\
[control]
socket = "{self.socket}"
[log]
format = "json"
[service.db]
command = ["sh", "-c", "trap 'exit 6' USR1; while :; do sleep 0.02; done"]
[service.web]
command = ["sleep", "1000"]
activation = {{ file = "{self.active}" }}
configuration = {{ file = "{self.source}", target = "{self.target}" }}
""")
        self.process = subprocess.Popen(
            [*COMMAND, "run", "-f", str(self.file)], stderr=subprocess.DEVNULL
        )
        self.until(self.socket.exists)

    def ask(self, *arguments: str, status: int = 0) -> str:
        ended = subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "TRIO_ENTRYPOINT_SOCKET": str(self.socket)},
        )
        assert ended.returncode == status, (ended.stdout, ended.stderr)
        return ended.stderr if status else ended.stdout

    def service(self, name: str) -> dict[str, object]:
        [service] = json.loads(self.ask("status", "--json", name))["services"]
        assert isinstance(service, dict)
        return service

    def replace_source(self, text: str) -> None:
        self.source.with_suffix(".new").write_text(text)
        self.source.with_suffix(".new").rename(self.source)

    def has_target(self, text: str) -> bool:
        return self.target.exists() and self.target.read_text() == text

    @staticmethod
    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) in (143, 6)


@pytest.fixture
def world(tmp_path: Path) -> Generator[World, None, None]:
    world = World(tmp_path)
    yield world
    world.end()


@pytest.fixture(scope="module")
def steady_world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World, None, None]:
    """One for all tests that change nothing in it."""
    world = World(tmp_path_factory.mktemp("steady"))
    yield world
    world.end()


def test_an_operator_sees_and_changes_everything(world: World) -> None:
    world.ask("wait-ready", "--timeout", "20", "db")
    table = world.ask("status")
    assert table.split("\n")[0].split()[:3] == ["SERVICE", "STATE", "ACTIVATION"]
    assert "db       ready     -           -" in table
    assert "web      inactive  inactive    waiting" in table
    assert world.ask("status", "--names") == "db\nweb\n"
    assert "\x1b" not in table, "colours that nobody can see"

    told = world.ask("wait-ready", "--timeout", "0.1", status=75)
    assert "not ready within 0.1 s: web (inactive)" in told

    world.replace_source("one")
    world.active.touch()
    world.ask("wait-ready", "--timeout", "20")
    first = world.service("web")
    assert (first["generation"], first["restarts"], first["last_error"]) == (1, 0, None)

    world.ask("restart", "web")
    world.until(lambda: world.service("web")["pid"] not in (None, first["pid"]))
    world.ask("stop", "web")
    world.until(lambda: world.service("web")["state"] == "stopped")
    assert world.service("db")["state"] == "ready"
    world.ask("start", "web")
    world.ask("wait-ready", "--timeout", "20", "web")

    world.ask("signal", "usr1", "db")
    world.until(lambda: world.service("db")["last_exit"] == 6)

    events = world.ask("events", "--lines", "1000", "web")
    assert "[web] the operator asked for it" in events
    assert "[db]" not in events
    logged = [json.loads(line) for line in world.ask("logs", "--json", "db").splitlines()]
    assert {"the process was executed", "the process ended"} <= {one["event"] for one in logged}


def test_waiting_begins_before_the_entrypoint_does(tmp_path: Path) -> None:
    environment = {**os.environ, "TRIO_ENTRYPOINT_SOCKET": str(tmp_path / "socket")}
    waiter = subprocess.Popen([*COMMAND, "wait-ready", "--timeout", "30", "db"], env=environment)
    time.sleep(0.5)  # it may come later than the entrypoint as well
    world = World(tmp_path)
    assert waiter.wait(30) == 0
    world.end()


def test_nobody_waits_for_a_service_that_is_never_started(tmp_path: Path) -> None:
    """Whether the client came before that was clear, or after it."""
    file, socket, end = tmp_path / "entrypoint.toml", tmp_path / "socket", tmp_path / "end"
    file.write_text(f"""\
on_failure = "continue"
[control]
socket = "{socket}"
[service.db]
command = ["sh", "-c", "while ! test -e '{end}'; do sleep 0.02; done; exit 4"]
readiness = {{ file = "/no/such/file" }}
restart = {{ policy = "never" }}
[service.web]
command = ["touch", "{tmp_path}/started"]
after = ["db"]
[service.other]
command = ["sleep", "1000"]
""")
    entrypoint = subprocess.Popen([*COMMAND, "run", "-f", str(file)], stderr=subprocess.DEVNULL)
    wait = [*COMMAND, "wait-ready", "--timeout", "60", "--socket", str(socket), "web"]
    try:
        World.until(socket.exists)
        early = subprocess.Popen(wait, stderr=subprocess.PIPE, text=True)
        time.sleep(0.3)
        end.touch()
        assert "web is not going to be ready: stopped" in early.communicate(timeout=30)[1]
        late = subprocess.run(wait, capture_output=True, text=True, timeout=30)
        assert "web is not going to be ready: stopped" in late.stderr
        assert not (tmp_path / "started").exists()
    finally:
        entrypoint.terminate()
        assert entrypoint.wait(60) == 143


def test_a_rollback_brings_the_configuration_before_back(world: World) -> None:
    world.active.touch()
    for text in ("one", "two"):
        world.replace_source(text)
        world.until(partial(world.has_target, text))
    world.ask("wait-ready", "--timeout", "20")
    world.ask("rollback", "web")
    world.until(lambda: world.target.read_text() == "one")
    history = world.ask("history")
    assert "[web] generation 1\n    + app.conf" in history
    assert "[web] generation 2\n    ~ app.conf" in history


def test_following_shows_what_happens_and_ends_with_the_entrypoint(world: World) -> None:
    environment = {**os.environ, "TRIO_ENTRYPOINT_SOCKET": str(world.socket)}
    follower = subprocess.Popen(
        [*COMMAND, "events", "-f", "-n", "1", "--json", "web"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    watcher = subprocess.Popen(
        [*COMMAND, "status", "--watch", "--json", "web"],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert follower.stdout
    assert watcher.stdout
    assert json.loads(watcher.stdout.readline())["services"][0]["activation"] == "inactive"
    assert json.loads(follower.stdout.readline())["event"] == "the supervisor began"
    world.active.touch()
    assert json.loads(follower.stdout.readline())["event"] == "activated"
    assert json.loads(watcher.stdout.readline())["services"][0]["activation"] == "active"
    world.process.terminate()
    assert follower.wait(60) == watcher.wait(60) == 69
    assert follower.stderr
    assert "the entrypoint ended" in follower.stderr.read()
    for stream in (follower.stdout, follower.stderr, watcher.stdout):
        stream.close()


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["stop", "wbe"], 64, "no service 'wbe'; did you mean \"web\"?"),
        (["stop"], 64, "which of the services? There are: db, web"),
        (["signal", "USR9", "db"], 1, '"USR9" is not a signal; did you mean'),
        (["signal", "HUP", "web"], 1, "trio-entrypoint: web: there is no process"),
        (["rollback", "db"], 1, "trio-entrypoint: db: there is no configuration"),
        (["logs", "--lines", "-1"], 64, "-n/--lines: invalid count value: '-1'"),
        (["wait-ready", "--timeout", "nan"], 64, "--timeout: invalid seconds value: 'nan'"),
        (["wait-ready", "--timeout", "inf"], 64, "--timeout: invalid seconds value: 'inf'"),
        (["status", "--socket", "/no/such"], 69, "/no/such: no entrypoint listens there"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    steady_world: World, arguments: list[str], status: int, told: str
) -> None:
    said = steady_world.ask(*arguments, status=status)
    assert told in said
    assert said.count("\n") == 1


def test_a_second_entrypoint_does_not_take_the_socket(steady_world: World) -> None:
    said = steady_world.ask("run", "--control", str(steady_world.socket), "--", "true", status=1)
    assert "control socket: another entrypoint listens there" in said
    assert steady_world.ask("status", "--names") == "db\nweb\n"


def test_a_terminal_gets_colours_unless_it_wants_none(steady_world: World) -> None:
    steady_world.ask("wait-ready", "db")
    for no_color in ("", "1"):
        controller, terminal = pty.openpty()
        environment = {**os.environ, "TRIO_ENTRYPOINT_SOCKET": str(steady_world.socket)}
        subprocess.run(
            [*COMMAND, "status", "db"],
            stdout=terminal,
            env={**environment, "NO_COLOR": no_color},
            check=True,
        )
        os.close(terminal)
        shown = os.read(controller, 4096)
        os.close(controller)
        assert (b"\x1b[32mready" in shown) == (no_color == "")
