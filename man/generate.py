"""Writes `trio-entrypoint.1` from the command's tables, its settings' docstrings, and the docs.

Run by `nox -s manual`; a test sees to it that the page in the repository is the newest one.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from trio_entrypoint.cli.flags import (
    COMMANDS,
    FORMAT_VARIABLE,
    LEVEL_VARIABLE,
    SOCKET_VARIABLE,
    Flag,
)
from trio_entrypoint.cli.schema import key_descriptions, section_classes
from trio_entrypoint.cli.settings import Settings

EXIT_STATUS = Path(__file__).parent.parent / "docs/reference/exit-status.md"


def generate() -> str:
    """Give the page, in the macros of man(7)."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield '.TH TRIO-ENTRYPOINT 1 "" "trio-entrypoint" "User Commands"'
    yield ".SH NAME"
    yield "trio-entrypoint \\- run and manage an application in a container"
    yield ".SH SYNOPSIS"
    yield ".B trio-entrypoint run"
    yield "[\\fIOPTION\\fR...] [\\fB\\-f\\fR \\fIFILE\\fR]"
    yield "[\\fB\\-\\-\\fR \\fIAPPLICATION\\fR ...]"
    yield ".br"
    yield ".B trio-entrypoint"
    yield "\\fICOMMAND\\fR [\\fIOPTION\\fR...] [\\fISERVICE\\fR...]"
    yield ".SH DESCRIPTION"
    yield _text(COMMANDS["run"].description)
    yield ".SH COMMANDS"
    for name, command in COMMANDS.items():
        yield f".SS {_escape(name)}"
        yield _text(f"{command.help[0].upper()}{command.help[1:]}.")
        if name != "run" and command.description:
            yield _text(command.description)
        for flag in command.flags:
            yield from _flag(flag)
        if command.examples:
            yield from (".PP", ".nf", ".RS")
            yield _escape(command.examples)
            yield from (".RE", ".fi")
    yield ".SH CONFIGURATION FILE"
    yield _text(
        "The file is TOML. The files FILE.d/*.toml are merged over it in the order of their "
        "names. In strings, ${NAME} stands for a variable of the environment, ${NAME:-default} "
        "for one that may be missing, and $${ for a literal ${."
    )
    for cls in section_classes(Settings):
        yield from _section(cls)
    yield ".SH ENVIRONMENT"
    for variable, meaning in (
        (SOCKET_VARIABLE, "the control socket that clients ask"),
        (LEVEL_VARIABLE, "the log's level"),
        (FORMAT_VARIABLE, "the log's format"),
        ("NO_COLOR", "no colours if it is set"),
    ):
        yield from (".TP", f".B {variable}", _text(meaning))
    yield ".SH EXIT STATUS"
    yield from _page(EXIT_STATUS.read_text())


def _page(text: str) -> Iterator[str]:
    """A page of the documentation below its title: sections, tables and paragraphs."""
    for block in text.strip().split("\n\n")[1:]:
        if block.startswith("## "):
            yield f".SS {_text(block.removeprefix('## '))}"
        elif block.startswith("|"):
            for row in block.splitlines()[2:]:
                first, *others = re.split(r" *(?<!\\)\| *", row.strip("| "))
                meaning = ": ".join(filter(None, others)).replace("\\|", "|")
                yield from (".TP", f".B {_text(first)}", _text(meaning))
        else:
            yield from (".PP", _text(block))


def _flag(flag: Flag) -> Iterator[str]:
    names = ", ".join(f"\\fB{_escape(name)}\\fR" for name in flag.names.split())
    value = flag.metavar or ("|".join(flag.choices) if flag.choices else "")
    yield ".TP"
    yield names + (f" \\fI{_escape(value)}\\fR" if value else "")
    yield _text(flag.help + (f" (in the file: {flag.key})" if flag.key else ""))


def _section(cls: type[Any]) -> Iterator[str]:
    yield f".SS {cls.__name__.removesuffix('Settings') or 'The file'}"
    yield _text((cls.__doc__ or "").split("\n\n")[0])
    descriptions = key_descriptions(cls)
    for field in attrs.fields(cls):
        yield ".TP"
        yield f".B {_escape(field.name)}"
        default = field.default
        plain = isinstance(default, str | int | float) and not isinstance(default, bool)
        shown = f" (default: {default})" if plain else ""
        yield _text(descriptions.get(field.name, "") + shown)


def _text(text: str) -> str:
    return _escape(re.sub(r"`([^`]*)`", r"\1", " ".join(text.split())))


def _escape(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return re.sub(r"^\.", "\\&.", text, flags=re.MULTILINE)


if __name__ == "__main__":
    Path(sys.argv[0]).with_name("trio-entrypoint.1").write_text(generate())
