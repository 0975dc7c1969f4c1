"""`trio-entrypoint run` as its users run it: real processes, real signals, exit statuses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import pytest
from configurations import archive, move_into_place

COMMAND = [sys.executable, "-m", "trio_entrypoint.cli"]
ENTRYPOINT = [*COMMAND, "run"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def wait_until(condition: Callable[[], object], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def start() -> Generator[Callable[..., subprocess.Popen[str]], None, None]:
    """Start `trio-entrypoint run` with some arguments; it is stopped at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*ENTRYPOINT, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.wait(30)
        assert process.stdout
        process.stdout.close()


def switches(pid: int) -> int:
    """How often the threads of a process have been switched to, or away from."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if "voluntary_ctxt_switches" in line:
                found += int(line.split()[1])
    return found


def test_a_command_to_which_nothing_happens_never_wakes_up(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    process = start("--", "sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    woken: list[int] = []
    while 0 not in woken:  # it may still be at its start: who wakes up by habit is never quiet
        before = switches(process.pid)
        time.sleep(1)
        woken.append(switches(process.pid) - before)
        assert len(woken) < 20, woken


def put_tar(path: Path, **files: str) -> None:
    move_into_place(path, archive(files))


# --- statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--restart", "never", "--", "true"], 0),
        (["--restart", "never", "--", "sh", "-c", "exit 3"], 3),
        (["--restart", "on-failure", "--", "true"], 0),
        (["--restart", "never", "--", "sh", "-c", "kill -9 $$"], 137),
    ],
)
def test_the_status_is_the_applications(arguments: list[str], status: int) -> None:
    assert run("run", *arguments).returncode == status


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["run", "--", "no-such-program"], 127, "command not found in PATH: no-such-program"),
        (["run", "--", "/no/such"], 127, "command not found: /no/such"),
        (["run", "--", "/tmp"], 126, "command is a directory: /tmp"),
        (["run", "--", "/etc/passwd"], 126, "command is not executable: /etc/passwd"),
        (["run"], 64, "run: nothing to run: give a command after --, or a file with -f"),
        (["run", "--"], 64, "run: there is no command after --"),
        (["run", "true"], 64, "run: write -- before the command: trio-entrypoint run … -- true …"),
        (["run", "--restrat", "never", "--", "true"], 64, 'did you mean "--restart"?'),
        (["run", "--restart", "nevr", "--", "true"], 64, "argument --restart: invalid choice"),
        (["run", "--grace", "-1", "--", "true"], 64, "'grace_period' must be >= 0: -1.0"),
        (["run", "--grace", "soon", "--", "true"], 64, "invalid float value: 'soon'"),
        (["run", "--stop-signal", "TRM", "--", "true"], 64, '"TRM" is not a signal; did you mean'),
        (["run", "--config-tar", "x", "--", "true"], 64, "--config-tar takes SOURCE:TARGET"),
        (["run", "--env", "x", "--", "true"], 64, "--env takes NAME=VALUE"),
        (["run", "-f", "/no/such.toml"], 64, "/no/such.toml: cannot be read: No such file"),
        (["run", "--active-file", "/tmp", "--", "true"], 1, "/tmp"),
        (["run", "--control", "/no/such/socket", "--", "true"], 1, "control socket: No such"),
        (["run", "--user", "nobodyx", "--", "true"], 64, 'there is no user "nobodyx"'),
        (["run", "--group", "nobodyx", "--", "true"], 64, 'there is no group "nobodyx"'),
        (["run", "--cwd", "/no/such", "--", "true"], 1, "cwd: No such file or directory: /no"),
        (["run", "--", ""], 64, "service.app.command: expected a program and its arguments"),
        (["rnu"], 64, 'unknown command rnu; did you mean "run"?'),
        (["check"], 64, "check: -f FILE is missing"),
        (["status", "--sokcet", "x"], 64, 'did you mean "--socket"?'),
        (["completion", "tcsh"], 64, "argument shell: invalid choice"),
        (["signal"], 64, "the following arguments are required: SIGNAL"),
    ],
)
def test_wrong_usage_gets_one_line_and_a_status(
    arguments: list[str], status: int, told: str
) -> None:
    ended = run(*arguments, TRIO_ENTRYPOINT_LOG_LEVEL="error")
    assert (ended.returncode, ended.stdout) == (status, "")
    assert told in ended.stderr
    assert ended.stderr.startswith("trio-entrypoint: ")
    assert ended.stderr.count("\n") == 1


def test_a_service_that_gives_up_ends_the_entrypoint_with_its_status(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text("""\
[service.web]
command = ["sh", "-c", "exit 7"]
restart = { limit = { count = 2, within = 60 }, backoff = { initial = 0 } }
[service.other]
command = ["sleep", "1000"]
""")
    ended = run("run", "-f", str(file), "--log-format", "json")
    assert ended.returncode == 7
    logged = [json.loads(line) for line in ended.stderr.splitlines()]
    executions = [line for line in logged if line["event"] == "the process was executed"]
    assert [line["service"] for line in executions].count("web") == 3
    assert any(line["level"] == "error" and line["service"] == "web" for line in logged)


def test_the_rest_goes_on_after_a_failure_if_the_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text(f"""\
on_failure = "continue"
[service.broken]
command = ["sh", "-c", "exit 7"]
restart = {{ policy = "never" }}
[service.other]
command = ["sh", "-c", "sleep 1; echo done > '{tmp_path}/other'"]
restart = {{ policy = "never" }}
""")
    assert run("run", "-f", str(file)).returncode == 7
    assert (tmp_path / "other").read_text() == "done\n"
    file.write_text(file.read_text().replace('["sh", "-c", "exit 7"]', '["/no/such"]'))
    assert run("run", "-f", str(file)).returncode == 127


def test_a_target_that_is_managed_already_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    configuration = f'configuration = {{ file = "{tmp_path}/a", target = "{tmp_path}/b" }}'
    services = [f'[service.{name}]\ncommand = ["true"]\n{configuration}\n' for name in "xy"]
    file.write_text("".join(services))
    ended = run("run", "-f", str(file), "--log-level", "error")
    assert ended.returncode == 1
    assert "another configuration handler manages this target" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('kubernetes = { namespace = "n", name = "x" }', "not in a Kubernetes pod"),
        (
            'kubernetes = { namespace = "n", name = "x", kubeconfig = "missing" }',
            "No such file or directory: missing",
        ),
        (
            'kubernetes = { namespace = "n", name = "x", kubeconfig = "empty" }',
            "empty: expected a mapping, got None",
        ),
        (
            'kubernetes = { namespace = "n", name = "x", kubeconfig = "garbled" }',
            "garbled: expected YAML: while parsing a flow sequence",
        ),
        (
            'etcd = { endpoints = ["http://e"], name = "x", user = "u", password_file = "empty" }',
            "empty: expected a password",
        ),
        (
            'etcd = { endpoints = ["https://e:1"], name = "x", tls = { ca = "empty" } }',
            "tls: ca cannot be loaded",
        ),
    ],
)
def test_what_leads_to_no_cluster_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").touch()
    Path("garbled").write_text("a: [b\n")
    Path("entrypoint.toml").write_text(
        f'[service.app]\ncommand = ["true"]\n[service.app.activation]\n{settings}\n'
        '[service.other]\ncommand = ["sleep", "1000"]\nactivation = { file = "active" }\n'
    )
    ended = run("run", "-f", "entrypoint.toml", "--log-level", "error")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("trio-entrypoint: ")
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_services_start_after_those_that_they_come_after(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text(f"""\
[service.web]
command = ["sh", "-c", "test -e '{tmp_path}/ready' && echo web-after-db"]
after = ["db"]
restart = {{ policy = "never" }}
[service.db]
command = ["sh", "-c", "sleep 0.3; touch '{tmp_path}/ready'; sleep 0.5"]
readiness = {{ file = "{tmp_path}/ready" }}
restart = {{ policy = "never" }}
""")
    ended = run("run", "-f", str(file))
    assert (ended.returncode, ended.stdout) == (0, "web-after-db\n")


def test_a_service_whose_predecessor_never_got_ready_is_not_started(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text("""\
on_failure = "continue"
[service.db]
command = ["sh", "-c", "exit 4"]
readiness = { file = "/no/such/file" }
restart = { policy = "never" }
[service.web]
command = ["echo", "web"]
after = ["db"]
[service.page]
command = ["echo", "page"]
after = ["web"]
""")
    ended = run("run", "-f", str(file))
    assert (ended.returncode, ended.stdout) == (4, "")


# --- signals ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_stops_the_application_with_its_own(
    start: Callable[..., subprocess.Popen[str]], number: int
) -> None:
    script = "trap 'echo quit; exit 5' QUIT; echo up; while :; do sleep 0.05; done"
    process = start("--stop-signal", "QUIT", "--", "sh", "-c", script)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.wait(60) == 5
    assert process.stdout.read() == "quit\n"


def test_a_signal_during_the_start_is_not_lost() -> None:
    for delay in (0.0, 0.05, 0.2):
        process = subprocess.Popen([*ENTRYPOINT, "--", "sleep", "1000"], stderr=subprocess.DEVNULL)
        # From here on the command's own code runs: the interpreter alone has no say before.
        wait_until(partial(_blocks, process.pid, signal.SIGTERM))
        time.sleep(delay)
        process.terminate()
        assert process.wait(60) == 143


def _holds(path: Path, text: str) -> bool:
    return path.read_text() == text


def _blocks(pid: int, number: int) -> bool:
    """Whether a signal is blocked or handled in a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    mask = int(fields["SigBlk"], 16) | int(fields["SigCgt"], 16)
    return bool(mask >> (number - 1) & 1)


def test_signals_are_forwarded_rewritten_and_ignored_by_the_files_table(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text("""\
[signals]
SIGUSR2 = "SIGHUP"
SIGWINCH = "ignore"
""")
    script = """
trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo winch' WINCH
echo up; while :; do sleep 0.02; done"""
    process = start("-f", str(file), "--", "sh", "-c", script)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    for number, told in ((signal.SIGUSR1, "usr1\n"), (signal.SIGUSR2, "hup\n")):
        process.send_signal(signal.SIGWINCH)
        process.send_signal(number)
        assert process.stdout.readline() == told


def test_hup_makes_the_application_reload(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    script = "trap 'echo reloaded' USR1; echo up; while :; do sleep 0.02; done"
    process = start("--on-change", "USR1", "--", "sh", "-c", script)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGHUP)
    assert process.stdout.readline() == "reloaded\n"


# --- activation and configuration ---------------------------------------------------------


def test_activations_and_new_configurations_lose_nothing(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    active, source = tmp_path / "active", tmp_path / "config.tar"
    put_tar(source, number="0")
    process = start(
        "--active-file", str(active), "--config-tar", f"{source}:{tmp_path}/target",
        "--", "sh", "-c", f"read n < '{tmp_path}/target/number'; echo up $n; exec sleep 1000",
    )  # fmt: skip
    assert process.stdout
    for number in range(40):
        active.touch()
        assert process.stdout.readline() == f"up {2 * number}\n"
        put_tar(source, number=f"{2 * number + 1}")
        assert process.stdout.readline() == f"up {2 * number + 1}\n"
        active.unlink()
        put_tar(source, number=f"{2 * number + 2}")
        wait_until(partial(_holds, tmp_path / "target/number", str(2 * number + 2)))


def test_a_file_is_a_configuration_too(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    source, target = tmp_path / "app.conf", tmp_path / "etc/app.conf"
    process = start(
        "--config-file", f"{source}:{target}", "--", "sh", "-c", f"cat '{target}'; exec sleep 1000"
    )
    assert process.stdout
    for text in ("one\n", "two\n"):
        source.with_suffix(".part").write_text(text)
        source.with_suffix(".part").rename(source)
        assert process.stdout.readline() == text


# --- flags, file, environment -------------------------------------------------------------


def test_flags_file_and_environment_are_merged_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text("""\
[log]
level = "error"
format = "json"
[service.web]
command = ["web"]
grace_period = 3
stop_signal = "SIGQUIT"
""")
    printed = run(
        "run", "-f", str(file), "--grace", "4", "--log-format", "columns", "--print-config",
        "--env", "A=1=2", "--", "other", "--flag",
        TRIO_ENTRYPOINT_LOG_LEVEL="debug", TRIO_ENTRYPOINT_LOG_FORMAT="auto",
    )  # fmt: skip
    assert printed.returncode == 0
    for line in (
        'level = "debug"',
        'format = "columns"',
        'command = ["other", "--flag"]',
        "grace_period = 4.0",
        'stop_signal = "SIGQUIT"',
        'A = "1=2"',
        "[service.web]",
    ):
        assert line in printed.stdout.splitlines()


def test_a_printed_configuration_can_be_run(tmp_path: Path) -> None:
    file = tmp_path / "printed.toml"
    file.write_text(run("run", "--restart", "never", "--print-config", "--", "echo", "hi").stdout)
    assert run("run", "-f", str(file)).stdout == "hi\n"


def test_a_shared_activation_is_printed_as_it_is_read(tmp_path: Path) -> None:
    file, printed = tmp_path / "entrypoint.toml", tmp_path / "printed.toml"
    file.write_text("""\
[activation.leader.etcd]
endpoints = ["http://127.0.0.1:1"]
name = "/leader"
[service.web]
command = ["web"]
activation = "leader"
""")
    printed.write_text(run("run", "-f", str(file), "--print-config").stdout)
    assert 'activation = "leader"' in printed.read_text().splitlines()
    again = run("run", "-f", str(printed), "--print-config").stdout
    assert again == printed.read_text()


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text(
        "raise ModuleNotFoundError(name='prometheus_client')"
    )
    ended = run("run", "--http", "127.0.0.1:1", "--", "true", PYTHONPATH=str(tmp_path))
    told = "the package prometheus_client is not installed: pip install 'trio-entrypoint[http]'"
    assert (ended.returncode, ended.stderr) == (1, f"trio-entrypoint: {told}\n")
