"""Which applications are started before anything else is imported, and starting them.

An application that depends on nothing (no activation, no configuration, no file, no sockets of
the entrypoint) is started anyway, whatever all the imports and checks that follow find. So it
need not wait for them. Whatever is not certain to be right goes the ordinary way, which knows
how to complain.
"""

import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from trio_entrypoint.cli.flags import FORMAT_VARIABLE, LEVEL_VARIABLE
from trio_entrypoint.cli.mistakes import is_bare

if TYPE_CHECKING:
    from trio_entrypoint._linux.head_start import HeadStart

__all__ = ["early_start"]

_HARMLESS = frozenset(
    {"name", "restart", "stop_signal", "grace_period", "stop_scope", "log_level", "log_format"}
)
"""Flags that neither the start depends on, nor whether there is one."""

_LONGEST_GRACE_PERIOD = 1e6  # seconds; poll(2) counts milliseconds in an int


@contextmanager
def early_start(
    options: Mapping[str, Any], application: Sequence[str], environment: Mapping[str, str]
) -> "Generator[HeadStart | None]":
    """Start the application if it needs nothing else.

    Args:
        options: The flags of `run`, as argparse checked them.
        application: The command.
        environment: The variables of this program.

    Returns:
        A context manager that gives the process, or None; at its end nothing of a process that
        nobody has claimed is left.
    """
    with ExitStack() as stack:
        start = None
        number = _stop_signal(options)
        grace_period = 10.0 if options["grace_period"] is None else options["grace_period"]
        if (
            application
            and number is not None
            and 0 <= grace_period < _LONGEST_GRACE_PERIOD
            and _is_plain(options, environment)
        ):
            from trio_entrypoint._linux.head_start import head_start

            # A command that cannot be executed is met again, and reported, on the ordinary way.
            with suppress(OSError, ValueError):
                start = stack.enter_context(
                    head_start(application, stop_signal=number, grace_period=grace_period)
                )
        yield start


def _is_plain(options: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    if any(environment.get(name) for name in (FORMAT_VARIABLE, LEVEL_VARIABLE)):
        return False
    given = {name for name, value in options.items() if value is not None}
    return given <= _HARMLESS and (options["name"] is None or is_bare(options["name"]))


def _stop_signal(options: Mapping[str, Any]) -> int | None:
    name = options["stop_signal"]
    if name is None:
        return signal.SIGTERM
    found = signal.Signals.__members__.get(name)
    return None if found in (None, signal.SIGKILL, signal.SIGSTOP) else found
