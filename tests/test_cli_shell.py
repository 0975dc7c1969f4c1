"""What a person at a shell sees: help, completions, the manual page, the log."""

import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_entrypoint.cli.completion import completion
from trio_entrypoint.cli.feed import Feed
from trio_entrypoint.cli.flags import COMMANDS, RUN_FLAGS
from trio_entrypoint.cli.logs import open_log
from trio_entrypoint.cli.settings import Settings
from trio_entrypoint.cli.table import render_table

COMMAND = [sys.executable, "-m", "trio_entrypoint.cli"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)


def test_help_names_every_command_and_shows_how_it_begins() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.help)}$", shown.stdout, re.MULTILINE)
    assert "trio-entrypoint run -- nginx" in shown.stdout
    assert shown.stdout == run().stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str) -> None:
    shown = run(name, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    for flag in COMMANDS[name].flags:
        assert flag.names.split()[0] in shown.stdout
    for line in COMMANDS[name].examples.splitlines():
        assert line in shown.stdout


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"trio-entrypoint \d+\.\d+\.\d+\S*\n", run("--version").stdout)


def test_each_flag_of_run_is_a_key_of_the_file() -> None:
    schema = import_module("trio_entrypoint.cli.schema").json_schema()
    for flag in RUN_FLAGS:
        definition = schema["$defs"][Settings.__name__]
        for key in flag.key.split(".") if flag.key else ():
            if key == "*":
                definition = definition["additionalProperties"]
            else:
                assert key in definition["properties"], flag.key
                definition = definition["properties"][key]
            reference = definition.get("$ref") or definition.get("anyOf", [{}])[0].get("$ref")
            if reference:
                definition = schema["$defs"][reference.rpartition("/")[2]]


def test_no_help_shows_the_name_of_what_it_should_show() -> None:
    assert not re.search(r"\{[A-Z]+_[A-Z_]+\}", Path("man/trio-entrypoint.1").read_text())


def test_the_manual_page_is_the_newest_one() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import generate; print(generate.generate(), end='')"],
        cwd="man", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path("man/trio-entrypoint.1").read_text() == ended.stdout, "run `nox -s manual`"


# --- completions --------------------------------------------------------------------------


def shell(*command: str, script: str = "") -> str:
    return subprocess.run(
        command, input=script, capture_output=True, text=True, timeout=60, check=True
    ).stdout


CASES = [
    ("trio-entrypoint st", {"start", "status", "stop"}),
    ("trio-entrypoint run --restar", {"--restart"}),
    ("trio-entrypoint run --restart ", {"always", "on-failure", "never"}),
    ("trio-entrypoint completion ", {"bash", "zsh", "fish", "--help"}),
]


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash_completes(line: str, expected: set[str]) -> None:
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""{completion("bash")}
COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
_trio_entrypoint
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    assert set(shell("bash", "-eu", script=script).split()) == expected


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish_completes(tmp_path: Path, line: str, expected: set[str]) -> None:
    (tmp_path / "completion.fish").write_text(completion("fish"))
    script = f"source '{tmp_path}/completion.fish'; complete -C '{line}'"
    completed = {row.split("\t")[0] for row in shell("fish", "-c", script).splitlines()}
    assert completed >= expected - {"--help"}
    assert not any(row.endswith(".toml") for row in completed)


def test_zsh_completes(tmp_path: Path) -> None:
    (tmp_path / "_trio-entrypoint").write_text(completion("zsh"))
    script = f"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1=; fpath=("{tmp_path}" $fpath); autoload -Uz compinit; compinit -u -D; echo re""ady'
zpty -r -m z out '*ready*'
zpty -w -n z $'trio-entrypoint run --resta\\t nev\\t'
zpty -r -m z out '*--restart* never*' && echo completed
"""
    assert shell("timeout", "30", "zsh", "-f", script=script) == "completed\n"


# --- the log ------------------------------------------------------------------------------


def test_the_log_is_json_lines_unless_a_person_reads_it() -> None:
    ended = run("run", "--restart", "never", "--name", "web", "--", "sh", "-c", "exit 3")
    entries = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [entry["event"] for entry in entries] == [
        "the process was executed", "the process is ready", "the process ended",
    ]  # fmt: skip
    last = entries[-1]
    assert (last["service"], last["status"], last["level"]) == ("web", "exit code 3", "info")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", last["timestamp"])


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_is_logged_is_written_soon_whoever_logs_it(
    elsewhere: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    warn = partial(logging.getLogger("somebody").warning, "look")
    shown = ""
    async with open_log("info", "json", Feed[Mapping[str, object]](1)):
        await wait_all_tasks_blocked()
        if elsewhere:
            await trio.to_thread.run_sync(warn)
        else:
            warn()
        with trio.fail_after(10):
            while not shown:
                await trio.sleep(0.01)
                shown = capfd.readouterr().err
    assert json.loads(shown)["event"] == "look"


@pytest.mark.parametrize("no_color", ["", "1"])
def test_the_log_is_coloured_columns_on_a_terminal(no_color: str) -> None:
    controller, terminal = pty.openpty()
    subprocess.run(
        [*COMMAND, "run", "--restart", "never", "--", "true"],
        stderr=terminal, env={**os.environ, "NO_COLOR": no_color}, check=True,
    )  # fmt: skip
    os.close(terminal)
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert "the process was executed" in shown
    assert ("\x1b[" in shown) == (no_color == "")


def test_an_applications_lines_are_labelled_in_the_log(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text("""\
[service.web]
command = ["sh", "-c", "echo out; echo err >&2"]
stdout = "lines"
stderr = "lines"
restart = { policy = "never" }
""")
    ended = run("run", "-f", str(file))
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    said = {
        (entry["stream"], entry["event"], entry["service"]) for entry in lines if "stream" in entry
    }
    assert said == {("stdout", "out", "web"), ("stderr", "err", "web")}


@pytest.mark.parametrize("style", ["columns", "json"])
def test_an_applications_escape_sequences_do_not_reach_the_terminal(
    tmp_path: Path, style: str
) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text(r"""
[service."a\u001b[31mb"]
command = ["printf", '\tat\033[2Jgone\r\a\302\233 \303\244\n']
stdout = "lines"
restart = { policy = "never" }
""")
    shown = run("run", "-f", str(file), "--log-format", style).stderr
    assert set(shown) & {"\x1b", "\r", "\a", "\x9b"} == set()
    if style == "columns":
        assert "\tat" + r"\x1b[2Jgone\r\x07\x9b ä" in shown
        assert r"service=a\x1b[31mb" in shown
    else:
        said = [entry for line in shown.splitlines() if "stream" in (entry := json.loads(line))]
        assert [entry["event"] for entry in said] == ["\tat\x1b[2Jgone\r\a\x9b ä"]


def test_a_log_that_nobody_reads_holds_up_nothing(tmp_path: Path) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text(f"""\
[service.loud]
command = ["sh", "-c", "seq -f 'line %g of many' 20000; touch '{tmp_path}/done'; sleep 1000"]
stdout = "lines"
""")
    process = subprocess.Popen([*COMMAND, "run", "-f", str(file)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tmp_path / "done").exists():
        assert time.monotonic() < deadline, "the application is held up"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert process.stderr
    process.stderr.close()


# --- the table ----------------------------------------------------------------------------


def test_the_table_lines_up_and_shows_no_control_characters() -> None:
    base = {
        "state": "ready", "activation": "active", "configuration": "applied", "pid": 7,
        "up_since": 10.0, "restarts": 1, "generation": 2, "changed_at": 3600.0,
        "last_change": "the process is ready", "last_error": None,
    }  # fmt: skip
    hostile = {**base, "name": "a\x1b[2Jb", "last_error": "x\ny", "last_error_at": 3690.0}
    table = render_table([{**base, "name": "web"}, hostile], colour=False, now=3700.0)
    lines = table.split("\n")
    assert [line[:18] for line in lines] == [
        "SERVICE    STATE  ",
        "web        ready  ",
        "a\\x1b[2Jb  ready  ",
        "  last error: x\\ny",
    ]
    assert lines[1].split("  ")[-1].strip() == "the process is ready, 1m 40s ago"
    assert lines[3].endswith(", 10s ago")
    column = lines[0].index("UP")
    assert lines[1][column:].startswith("1h 1m ")
