"""`trio-entrypoint check`: the file, and what it names, without running anything."""

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs

from trio_entrypoint.cli.checking import check
from trio_entrypoint.cli.loading import load
from trio_entrypoint.cli.mistakes import Mistake, UsageError
from trio_entrypoint.cli.settings import ServiceSettings, Settings
from trio_entrypoint.commands import Command

__all__ = ["check_file", "unknown_people"]


def check_file(file: str) -> int:
    """Check a file, and that the programs that it names exist.

    Raises:
        UsageError: With every mistake.
    """
    tree, sources = load(file)
    settings = check(Settings, tree, sources)
    mistakes = [
        mistake
        for name, service in settings.service.items()
        for mistake in _missing(name, service)
    ] + list(unknown_people(settings))
    if mistakes:
        raise UsageError([mistake._replace(file=file) for mistake in mistakes])
    count = len(settings.service)
    sys.stdout.write(f"{file}: right, with {count} service{'s' if count > 1 else ''}\n")
    return 0


def _missing(name: str, service: ServiceSettings) -> Iterator[Mistake]:
    from trio_entrypoint._linux.spawn import find_program

    try:
        variables = service.env.variables()
    except (OSError, ValueError) as error:
        yield Mistake(("service", name, "env", "files"), str(error))
        variables = dict(os.environ)
    environment = {os.fsencode(key): os.fsencode(value) for key, value in variables.items()}
    target = service.configuration and service.configuration.target
    for keys, words in _commands(service):
        # What comes with the configuration need not be there yet.
        if target and os.path.abspath(words[0]).startswith(os.path.abspath(target) + os.sep):
            continue
        try:
            find_program(os.fsencode(words[0]), environment)
        except OSError as error:
            yield Mistake(("service", name, *keys), f"{error.strerror}: {words[0]}")


def unknown_people(settings: Settings) -> Iterator[Mistake]:
    """Find users and groups that this machine does not know."""
    import grp
    import pwd

    for name, service in settings.service.items():
        groups = [("group", service.group)]
        groups += [("extra_groups", group) for group in service.extra_groups or ()]
        for key, person in (("user", service.user), *groups):
            if isinstance(person, str) and not person.isdecimal():
                kind = "user" if key == "user" else "group"
                try:
                    pwd.getpwnam(person) if kind == "user" else grp.getgrnam(person)
                except KeyError:
                    yield Mistake(("service", name, key), f'there is no {kind} "{person}"')


def _commands(service: ServiceSettings) -> Iterator[tuple[tuple[str | int, ...], tuple[str, ...]]]:
    yield ("command",), service.command
    by_path = isinstance(service.on_change, Mapping)
    changes: Any = service.on_change if by_path else {None: service.on_change}
    for pattern, action in changes.items():
        if not isinstance(action, str):
            yield ("on_change",) if pattern is None else ("on_change", pattern), action
    if service.health is not None and not isinstance(service.health.on_failure, str):
        yield ("health", "on_failure"), service.health.on_failure
    for section in ("configuration", "readiness", "health", "hooks"):
        values: Any = getattr(service, section)
        if values is None:
            continue
        for field in attrs.fields(cast("Any", type(values))):
            value: Any = getattr(values, field.name)
            if field.name in ("command", "validate") and value is not None:
                yield (section, field.name), _words(value)
            elif section == "hooks" and field.name != "timeout":
                for number, words in enumerate(cast("tuple[Any, ...]", value)):
                    yield (section, field.name, number), _words(words)


def _words(value: Command | tuple[str, ...]) -> tuple[str, ...]:
    return value.command if isinstance(value, Command) else value
