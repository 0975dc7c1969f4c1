"""Deciding whether a staged generation may be put in place: `validate=`.

A validator is an async function of the generation's path that raises, or returns False, to
refuse; a command that has to exit with 0 is one, too.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, final

import attrs
import trio

from trio_entrypoint._arguments import are_paths
from trio_entrypoint._nursery import open_background
from trio_entrypoint.handlers import GENERATION_VARIABLE, ExitStatus

Validator: TypeAlias = Callable[[Path], Awaitable[object]]
Validate: TypeAlias = Validator | Sequence[str]

_OUTPUT = 64 * 1024
_GRACE_PERIOD = 1.0


class ConfigurationRefusedError(Exception):
    """A configuration is sound, but must not be put in place.

    Args:
        reason: Why.
        output: What the validator printed.
    """

    def __init__(self, reason: str, output: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.output = output

    def __str__(self) -> str:
        return f"{self.reason}\n{self.output}".rstrip()


def _arguments(command: Sequence[str]) -> Sequence[str]:
    return tuple(command)


@final
@attrs.frozen
class ValidateCommand:
    """Validates a staged generation by a command that has to exit with 0.

    Args:
        command: Program and arguments; `{path}` in them becomes the generation's path, which
            is also in the environment, as `TRIO_ENTRYPOINT_GENERATION`.
        timeout: Seconds that it may take; then it is killed, and that is a refusal.

    Example::

        validate=ValidateCommand(["nginx", "-t", "-c", "{path}/nginx.conf"], timeout=10)
    """

    command: Sequence[str] = attrs.field(converter=_arguments, validator=are_paths)
    timeout: float = 30.0

    def __attrs_post_init__(self) -> None:
        if not self.command:
            raise ValueError("validate: an empty command, expected a program and its arguments")
        if not self.timeout > 0:
            raise ValueError(f"validate: timeout is {self.timeout!r}, expected seconds above 0")

    async def __call__(self, path: Path) -> None:
        """Run the command against a generation.

        Raises:
            ConfigurationRefusedError: It failed, or took too long.
        """
        # Only who validates by a command pays for what runs one.
        from trio_entrypoint.process import open_process

        command = [argument.replace("{path}", str(path)) for argument in self.command]
        reading, writing = os.pipe2(os.O_CLOEXEC)
        output, read = bytearray(), trio.Event()
        status: ExitStatus | None = None
        async with (
            trio.lowlevel.FdStream(reading) as stream,
            open_background(partial(_collect, stream, output, read)),
        ):
            try:
                with trio.move_on_after(self.timeout):
                    async with open_process(
                        command,
                        grace_period=_GRACE_PERIOD,
                        stdout=writing,
                        stderr="stdout",
                        extra_env={GENERATION_VARIABLE: str(path)},
                    ) as process:
                        status = await process.wait()
            except OSError as error:
                raise ConfigurationRefusedError(
                    f"the validator cannot be executed: {error}"
                ) from error
            finally:
                os.close(writing)
            # Whatever could write is gone, so this ends.
            await read.wait()
        text = output.decode(errors="replace")
        if status is None:
            raise ConfigurationRefusedError(
                f"the validator {self.command[0]!r} took more than {self.timeout:g} s", text
            )
        if not status.success:
            how = (
                f"exited with {status.code}"
                if status.signal is None
                else f"was killed by signal {status.signal}"
            )
            raise ConfigurationRefusedError(f"the validator {self.command[0]!r} {how}", text)


async def _collect(stream: trio.lowlevel.FdStream, output: bytearray, read: trio.Event) -> None:
    """Read to the end, so that the command never blocks; keep the end of it."""
    async for data in stream:
        output += data
        del output[:-_OUTPUT]
    read.set()


def as_validator(validate: Validate | None) -> Validator | None:
    """Make a validator of what users may write for one."""
    if validate is None or callable(validate):
        return validate
    if isinstance(validate, str):
        raise TypeError("validate: a string, expected an async function or a list of arguments")
    return ValidateCommand(validate)
