"""What the command line takes: every command with its flags, as tables.

The flags of `run` say the same as keys of the configuration file; `RUN_FLAGS` names the key of
each. The parser, the help texts, the completions and the manual page are made of these tables.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = [
    "COMMANDS",
    "DEFAULT_SOCKET",
    "FORMAT_VARIABLE",
    "LEVEL_VARIABLE",
    "RUN_FLAGS",
    "SHELLS",
    "SOCKET_VARIABLE",
    "Command",
    "Flag",
]

SOCKET_VARIABLE = "TRIO_ENTRYPOINT_SOCKET"
LEVEL_VARIABLE = "TRIO_ENTRYPOINT_LOG_LEVEL"
FORMAT_VARIABLE = "TRIO_ENTRYPOINT_LOG_FORMAT"

DEFAULT_SOCKET = "/run/trio-entrypoint.sock"


class Flag(NamedTuple):
    """One flag, and the key of the file that it sets: `service.*` means that of the service."""

    names: str
    """Its spellings, separated by blanks; the first is the one that is documented."""

    help: str
    key: str = ""
    metavar: str | None = None
    choices: tuple[str, ...] | None = None
    type: Callable[[str], object] = str
    action: str = "store"


class Command(NamedTuple):
    """One command of the program."""

    help: str
    flags: tuple[Flag, ...] = ()
    positional: str = ""
    """The name of what follows the flags: `SERVICE` any number, `SIGNAL` one, `--` a command."""

    description: str = ""
    examples: str = ""


_FILE = Flag(
    "-f --file", "the configuration file, in TOML; its drop-ins are in FILE.d/*.toml", "", "FILE"
)

RUN_FLAGS = (
    _FILE,
    Flag(
        "--name",
        "the service's name in the log and in `status` (default: the command's)",
        "",
        "NAME",
    ),
    Flag(
        "--active-file",
        "run the application only while this file exists",
        "service.*.activation.file",
        "PATH",
    ),
    Flag(
        "--config-file",
        "apply the file SOURCE as TARGET whenever it changes",
        "service.*.configuration.file",
        "SOURCE:TARGET",
    ),
    Flag(
        "--config-tar",
        "unpack the archive SOURCE as the directory TARGET whenever it changes",
        "service.*.configuration.tar",
        "SOURCE:TARGET",
    ),
    Flag(
        "--config-directory",
        "copy the directory SOURCE (a mounted ConfigMap) as TARGET whenever it changes",
        "service.*.configuration.directory",
        "SOURCE:TARGET",
    ),
    Flag(
        "--on-change",
        "what a new configuration does: restart, ignore, or a signal such as SIGHUP",
        "service.*.on_change",
        "ACTION",
    ),
    Flag(
        "--restart",
        "what happens when the application ends by itself (default: always)",
        "service.*.restart.policy",
        choices=("always", "on-failure", "never"),
    ),
    Flag("--stop-signal", "the polite signal (default: SIGTERM)", "service.*.stop_signal", "NAME"),
    Flag(
        "--grace --grace-period",
        "seconds from the polite signal to SIGKILL (default: 10)",
        "service.*.grace_period",
        "SECONDS",
        type=float,
    ),
    Flag(
        "--stop-scope",
        "who gets the polite signal (default: main)",
        "service.*.stop_scope",
        choices=("main", "group"),
    ),
    Flag("--user", "run the application as this user", "service.*.user", "USER"),
    Flag("--group", "run the application in this group", "service.*.group", "GROUP"),
    Flag("--cwd", "run the application in this directory", "service.*.cwd", "PATH"),
    Flag(
        "--env",
        "set a variable of the application's environment; may be repeated",
        "service.*.env.set",
        "NAME=VALUE",
        action="append",
    ),
    Flag(
        "--init",
        "end orphans at the end, as init does, although this is not process 1",
        "init",
        action="store_true",
    ),
    Flag(
        "--control",
        "listen on this socket for `trio-entrypoint status` and its kin",
        "control.socket",
        "PATH",
    ),
    Flag("--http", "serve health, metrics and a page there", "http.listen", "[HOST]:PORT"),
    Flag(
        "--log-level",
        "what is less important is not logged (default: info)",
        "log.level",
        choices=("debug", "info", "warning", "error"),
    ),
    Flag(
        "--log-format",
        "how the log looks (default: columns on a terminal, otherwise json)",
        "log.format",
        choices=("auto", "columns", "json"),
    ),
    Flag(
        "--print-config",
        "print the merged configuration as TOML, and run nothing",
        action="store_true",
    ),
)

_SOCKET = Flag(
    "--socket",
    f"the entrypoint's control socket (default: ${SOCKET_VARIABLE}, else {DEFAULT_SOCKET})",
    "",
    "PATH",
)


def count(text: str) -> int:
    """A whole number, not negative; argparse names this function when it is none."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(text)
    return int(text)


def seconds(text: str) -> float:
    """Seconds, not negative; argparse names this function when they are none."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise ValueError(text)
    return number


_FOLLOW = Flag("-F --follow -f", "go on with what comes", action="store_true")
_LINES = Flag(
    "-n --lines",
    "how many of the last entries to begin with (default: 100)",
    "",
    "COUNT",
    type=count,
)
_JSON = Flag("--json", "print JSON, for programs", action="store_true")

COMMANDS: Mapping[str, Command] = {
    "run": Command(
        "run an application, or the services of a file",
        RUN_FLAGS,
        "--",
        "Runs the application exactly while it is active and configured, applies every new "
        "configuration whole or not at all, and ends with the application's status. With FILE, "
        "the flags change what the file says; they are about its only service, or the one that "
        "--name names.",
        """\
  trio-entrypoint run -- nginx -g 'daemon off;'
  trio-entrypoint run --active-file /run/app/active --config-tar /in/app.tar:/etc/app -- app
  trio-entrypoint run --config-file /in/app.conf:/etc/app.conf --on-change SIGHUP -- app
  trio-entrypoint run -f /etc/entrypoint.toml
exit status:
  the application's own, or 128 plus the signal that ended it; 64 wrong usage,
  126 not executable, 127 not found; the last status, or 1, when it gave up restarting""",
    ),
    "check": Command(
        "check a configuration file, and that the programs and users that it names exist",
        (_FILE,),
        description="Prints every mistake in one line each, and exits with 64 if there is one.",
        examples="  trio-entrypoint check -f /etc/entrypoint.toml",
    ),
    "schema": Command(
        "print the JSON Schema of the configuration file, for editors",
        examples="  trio-entrypoint schema > entrypoint.schema.json",
    ),
    "status": Command(
        "show the services",
        (
            _SOCKET,
            _JSON,
            Flag("--watch", "show it again whenever it changes", action="store_true"),
            Flag("--names", "print the services' names only", action="store_true"),
        ),
        "SERVICE",
        examples="""\
  trio-entrypoint status --watch
  trio-entrypoint status --json | jq .services""",
    ),
    "start": Command("start services that were stopped", (_SOCKET,), "SERVICE"),
    "stop": Command("stop services until they are started again", (_SOCKET,), "SERVICE"),
    "restart": Command("restart services", (_SOCKET,), "SERVICE"),
    "reload": Command(
        "have the applications read their configuration again", (_SOCKET,), "SERVICE"
    ),
    "rollback": Command("go back to the configuration before", (_SOCKET,), "SERVICE"),
    "signal": Command(
        "send a signal to the application",
        (_SOCKET,),
        "SIGNAL",
        examples="  trio-entrypoint signal SIGUSR1 web",
    ),
    "logs": Command("show the entrypoint's log", (_SOCKET, _FOLLOW, _LINES, _JSON), "SERVICE"),
    "events": Command(
        "show what happened to the services", (_SOCKET, _FOLLOW, _LINES, _JSON), "SERVICE"
    ),
    "history": Command(
        "show the configurations that were applied, with their differences",
        (_SOCKET, _JSON),
        "SERVICE",
    ),
    "wait-ready": Command(
        "wait until the services are ready",
        (_SOCKET, Flag("--timeout", "seconds to wait at most", "", "SECONDS", type=seconds)),
        "SERVICE",
        "Exits with 0 as soon as all of them are ready, with 75 when the time is over, and with 1 "
        "when one of them has ended, or will not be started: it is not going to be ready. With "
        "--timeout it waits for the entrypoint, too, if none listens yet.",
        "  trio-entrypoint wait-ready --timeout 30 web db",
    ),
    "completion": Command(
        "print the completions for a shell",
        positional="SHELL",
        examples="""\
  trio-entrypoint completion bash > /etc/bash_completion.d/trio-entrypoint
  trio-entrypoint completion zsh > /usr/share/zsh/site-functions/_trio-entrypoint
  trio-entrypoint completion fish > ~/.config/fish/completions/trio-entrypoint.fish""",
    ),
}

SHELLS = ("bash", "zsh", "fish")
