"""`trio-entrypoint run`: from the command line and the file to running services."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from trio_entrypoint._linux.head_start import HeadStart
from trio_entrypoint.cli.checking import check
from trio_entrypoint.cli.flags import (
    FORMAT_VARIABLE,
    LEVEL_VARIABLE,
    RUN_FLAGS,
)
from trio_entrypoint.cli.loading import Source, load, merge
from trio_entrypoint.cli.mistakes import Mistake, UsageError, did_you_mean
from trio_entrypoint.cli.settings import Settings

__all__ = ["read_settings", "run"]

ErrorT = TypeVar("ErrorT", bound=BaseException)


def run(
    options: Mapping[str, Any], application: Sequence[str], started: HeadStart | None = None
) -> int:
    """Run what the command line and the file say, and end with the application's status."""
    settings = read_settings(options, application)
    if options["print_config"]:
        from trio_entrypoint.cli.printing import to_toml

        sys.stdout.write(to_toml(settings))
        return 0
    if any(one.user or one.group or one.extra_groups for one in settings.service.values()):
        from trio_entrypoint.cli.inspecting import unknown_people

        if mistakes := list(unknown_people(settings)):
            raise UsageError(mistakes)
    return _serve(settings, started)


def _serve(settings: Settings, started: HeadStart | None) -> int:
    """Run until the end; what `run` gives is given by leaving the program."""
    from trio_entrypoint.cli.serving import serve
    from trio_entrypoint.entrypoint import run as run_entrypoint
    from trio_entrypoint.handlers import ExitStatus

    async def main() -> ExitStatus:
        try:
            return await serve(settings, started)
        except* OSError as errors:
            raise _CannotRunError(next(_causes(errors))) from None
        except* ModuleNotFoundError as errors:
            raise _MissingExtraError(next(_causes(errors))) from None

    options: dict[str, Any] = {}
    if settings.termination_message is not None:
        options["termination_message"] = settings.termination_message
    run_entrypoint(main, init=settings.init, **options)


class _CannotRunError(Exception):
    """Something cannot be opened or executed; `run` says only this, and exits with its code."""

    def __init__(self, error: OSError) -> None:
        path = f": {os.fsdecode(error.filename)}" if error.filename else ""
        super().__init__(f"{error.strerror or error}{path}")
        self.exit_code = getattr(error, "exit_code", 1)


class _MissingExtraError(Exception):
    """What was asked for needs a package that is not installed."""

    exit_code = 1

    def __init__(self, error: ModuleNotFoundError) -> None:
        extras = {"prometheus_client": "http", "yaml": "kubernetes", "httpcore": "etcd,kubernetes"}
        extra = extras.get(str(error.name).partition(".")[0])
        hint = f": pip install 'trio-entrypoint[{extra}]'" if extra else ""
        super().__init__(f"the package {error.name} is not installed{hint}")


def _causes(group: BaseExceptionGroup[ErrorT]) -> Iterator[ErrorT]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _causes(cast("BaseExceptionGroup[ErrorT]", error))
        else:
            yield error


def read_settings(
    options: Mapping[str, Any],
    application: Sequence[str],
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Merge the file, the environment and the flags, the later ones winning, and check it all.

    Raises:
        UsageError: With every mistake.
    """
    tree: dict[str, object] = {}
    sources: list[Source] = []
    if options["file"] is not None:
        tree, sources = load(options["file"], environment)
    for variable, key in (
        (LEVEL_VARIABLE, ("log", "level")),
        (FORMAT_VARIABLE, ("log", "format")),
    ):
        if environment.get(variable):
            tree = merge(tree, _nested(key, environment[variable]))
    name = _service_name(options, application, tree)
    for flag in RUN_FLAGS:
        value = options[_destination(flag.names)]
        if flag.key and value is not None:
            keys = tuple(name if key == "*" else key for key in flag.key.split("."))
            if "*" in flag.key and name is None:
                raise _wrong(f"run: {flag.names.split()[0]} is about one service: add --name")
            tree = merge(tree, _flag_value(flag.names, cast("tuple[str, ...]", keys), value))
    if application:
        assert name is not None
        tree = merge(tree, _nested(("service", name, "command"), tuple(application)))
    if not tree.get("service"):
        raise _wrong("run: nothing to run: give a command after --, or a file with -f")
    return check(Settings, tree, sources)


def _service_name(
    options: Mapping[str, Any], application: Sequence[str], tree: Mapping[str, object]
) -> str | None:
    """The service that the flags are about."""
    services = tree.get("service")
    names = list(cast("Mapping[str, object]", services)) if isinstance(services, dict) else []
    if options["name"] is not None:
        if names and options["name"] not in names and not application:
            raise _wrong(
                f'run: no service "{options["name"]}"; {did_you_mean(options["name"], names)}'
            )
        return str(options["name"])
    if len(names) == 1:
        return names[0]
    if names and application:
        raise _wrong("run: the file has several services: --name NAME says whose command it is")
    if not names:
        return os.path.basename(application[0]) if application and application[0] else "app"
    return None


def _destination(names: str) -> str:
    return max(names.split(), key=len).removeprefix("--").replace("-", "_")


def _flag_value(names: str, keys: tuple[str, ...], value: Any) -> dict[str, object]:
    flag = names.split()[0]
    if keys[-2:-1] == ("configuration",):
        source, colon, target = str(value).rpartition(":")
        if not colon or not source or not target:
            raise _wrong(f'run: {flag} takes SOURCE:TARGET, not "{value}"')
        return merge(_nested(keys, source), _nested((*keys[:-1], "target"), target))
    if flag == "--env":
        variables: dict[str, object] = {}
        for assignment in cast("list[str]", value):
            variable, equals, text = assignment.partition("=")
            if not equals or not variable:
                raise _wrong(f'run: --env takes NAME=VALUE, not "{assignment}"')
            variables[variable] = text
        value = variables
    return _nested(keys, value)


def _nested(keys: tuple[str, ...], value: object) -> dict[str, object]:
    for key in reversed(keys):
        value = {key: value}
    return cast("dict[str, object]", value)


def _wrong(message: str) -> UsageError:
    return UsageError([Mistake((), message)])
