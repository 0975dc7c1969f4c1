"""The command line: a parser for each command, made of the tables in `flags.py`."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from trio_entrypoint.cli.flags import COMMANDS, SHELLS
from trio_entrypoint.cli.mistakes import Mistake, UsageError, did_you_mean

__all__ = ["make_parser", "overview", "parse_arguments"]

_OVERVIEW = """\
usage: trio-entrypoint COMMAND [OPTION…] [-- APPLICATION [ARGUMENT…]]

Runs an application in a container and manages it: restarts, configuration that
changes atomically, activation, readiness, and an orderly end.

{commands}

examples:
  trio-entrypoint run -- nginx -g 'daemon off;'
  trio-entrypoint run -f /etc/entrypoint.toml
  trio-entrypoint COMMAND --help
"""


def parse_arguments(words: Sequence[str]) -> Callable[[], int]:
    """Find out what is to be done.

    Raises:
        UsageError: The command line is wrong.
    """
    match words:
        case [] | ["-h" | "--help" | "help"]:
            return lambda: _print(overview())
        case ["-V" | "--version" | "version"]:
            return _print_version
        case [name, *rest] if name in COMMANDS:
            return _parse_command(name, rest)
        case [name, *_]:
            raise _wrong(f"unknown command {name}; {did_you_mean(name, COMMANDS)}")
        case _:
            raise AssertionError(words)


def overview() -> str:
    """Give the help on all commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {command.help}" for name, command in COMMANDS.items()]
    return _OVERVIEW.format(commands="\n".join(lines))


def make_parser(name: str) -> argparse.ArgumentParser:
    """Make the parser of one command."""
    command = COMMANDS[name]
    usage = f"trio-entrypoint {name} [OPTION…]"
    usage += {"": "", "--": " [-- APPLICATION [ARGUMENT…]]", "SERVICE": " [SERVICE…]"}.get(
        command.positional, f" {command.positional}"
    )
    parser = _Parser(
        prog=f"trio-entrypoint {name}",
        usage=usage + (" [SERVICE…]" if command.positional == "SIGNAL" else ""),
        description=command.description or f"{command.help[0].upper()}{command.help[1:]}.",
        epilog=f"examples:\n{command.examples}" if command.examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag in command.flags:
        names = flag.names.split()
        settings: dict[str, Any] = {"action": flag.action, "help": flag.help, "default": None}
        if flag.action != "store_true":
            settings |= {"metavar": flag.metavar, "choices": flag.choices, "type": flag.type}
        destination = max(names, key=len).removeprefix("--").replace("-", "_")
        parser.add_argument(*names, dest=destination, **settings)
    match command.positional:
        case "SERVICE":
            parser.add_argument("services", nargs="*", metavar="SERVICE")
        case "SIGNAL":
            parser.add_argument("signal", metavar="SIGNAL")
            parser.add_argument("services", nargs="*", metavar="SERVICE")
        case "SHELL":
            parser.add_argument("shell", choices=SHELLS)
        case _:
            pass
    return parser


def _parse_command(name: str, words: Sequence[str]) -> Callable[[], int]:
    application: Sequence[str] = ()
    has_application = "--" in words
    if name == "run" and has_application:
        position = words.index("--")
        words, application = words[:position], words[position + 1 :]
    parser = make_parser(name)
    options, unknown = parser.parse_known_args(words)
    if unknown:
        raise _wrong(_unknown(name, unknown[0]))
    match name:
        case "run":
            if has_application and not application:
                raise _wrong("run: there is no command after --")
            return lambda: _run(vars(options), application)
        case "check":
            from trio_entrypoint.cli.inspecting import check_file

            if options.file is None:
                raise _wrong("check: -f FILE is missing")
            return lambda: check_file(options.file)
        case "schema":
            from trio_entrypoint.cli.schema import print_schema

            return print_schema
        case "completion":
            from trio_entrypoint.cli.completion import completion

            return lambda: _print(completion(options.shell))
        case _:
            from trio_entrypoint.cli.operating import operate

            return lambda: operate(name, vars(options))


def _run(options: Mapping[str, Any], application: Sequence[str]) -> int:
    from trio_entrypoint.cli.early import early_start

    with early_start(options, application, os.environ) as start:
        from trio_entrypoint.cli.running import run  # takes longer than starting the application

        return run(options, application, start)


def _unknown(name: str, word: str) -> str:
    if not word.startswith("-"):
        if name == "run":
            return f"run: write -- before the command: trio-entrypoint run … -- {word} …"
        return f"{name}: does not take {word!r}"
    flag = word.split("=")[0]
    known = [spelling for flag in COMMANDS[name].flags for spelling in flag.names.split()]
    return f"{name}: unknown option {flag}; {did_you_mean(flag, [*known, '--help'])}"


def _wrong(message: str) -> UsageError:
    return UsageError([Mistake((), message)])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _wrong(f"{self.prog.split()[-1]}: {message}")


def _print(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _print_version() -> int:
    from importlib.metadata import version

    return _print(f"trio-entrypoint {version('trio-entrypoint')}\n")
