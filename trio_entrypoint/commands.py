"""Commands that a supervisor runs beside its process: for hooks, probes and reloads.

A command runs as every process here does: nothing that it started outlives it, and what takes
too long is stopped.
"""

from collections.abc import Iterable, Mapping
from typing import final

import attrs
import trio
from attrs.validators import deep_iterable, gt, instance_of, min_len

from trio_entrypoint._arguments import are_paths
from trio_entrypoint.handlers import ExitStatus

__all__ = ["Command", "CommandFailedError"]


def _words(command: Iterable[str]) -> tuple[str, ...]:
    if isinstance(command, str):
        raise TypeError(f"a command is a sequence of words, not the string {command!r}")
    return tuple(command)


@final
@attrs.frozen
class Command:
    """A command and the time that it may take.

    Example::

        Reload(Command(["nginx", "-s", "reload"], timeout=5.0))
    """

    command: tuple[str, ...] = attrs.field(
        converter=_words, validator=[min_len(1), deep_iterable(instance_of(str)), are_paths]
    )
    """The program and its arguments; no shell is involved."""

    timeout: float = attrs.field(default=30.0, validator=gt(0), kw_only=True)
    """Seconds after which it is stopped and counts as failed."""

    async def run(self, extra_env: Mapping[str, str] | None = None) -> None:
        """Run the command to its end. Cancellation stops it.

        Args:
            extra_env: Variables added to this process's environment.

        Raises:
            CommandFailedError: It ended with another status than 0, took too long, or could not be
                executed.
        """
        # The fakes' users never run a command, and do not pay for the real thing.
        from trio_entrypoint.process import open_process

        try:
            with trio.fail_after(self.timeout):
                async with open_process(
                    self.command, grace_period=1.0, extra_env=extra_env
                ) as process:
                    status = await process.wait()
        except trio.TooSlowError:
            raise CommandFailedError(self, f"took longer than {self.timeout:g} s") from None
        except OSError as error:
            raise CommandFailedError(self, str(error)) from error
        if not status.success:
            raise CommandFailedError(self, f"ended with {status}", status)


@final
class CommandFailedError(Exception):
    """A command failed: it could not be executed, took too long, or ended with a status not 0."""

    def __init__(self, command: Command, problem: str, status: ExitStatus | None = None) -> None:
        super().__init__(f"{' '.join(command.command)}: {problem}")
        self.command = command
        """What was to be run."""
        self.status = status
        """How it ended; None when it did not end by itself."""
