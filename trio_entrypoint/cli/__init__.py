"""The command `trio-entrypoint`: the ready-made entrypoint, and the client that looks after it.

Start-up time is a feature: the application waits for it. So each module here is imported by the
one that needs it, when it needs it, and signals are blocked before anything else: what comes
while Python imports is answered afterwards, and not lost (a process with number 1 has no default
action for a signal).
"""

import gc
import os
import signal
import sys
from typing import NoReturn

__all__ = ["main", "program"]


def program() -> NoReturn:
    """Be the program: do what `main` does, and be gone.

    Python would take itself apart first, object by object. After Trio was imported that takes
    20 ms, in which a container that has been stopped is waited for.
    """
    try:
        status = main()
    except SystemExit as error:
        if not isinstance(error.code, int):
            raise
        status = error.code
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more, or it was closed for that
            continue
    os._exit(status)


def main() -> int:
    """Run the command line of this process, and return its exit status."""
    if sys.argv[1:2] == ["run"]:
        from trio_entrypoint._linux.early import block_signals

        block_signals()
        # Nothing that imports make is garbage; looking for it takes a tenth of the start.
        # `serve` turns it on again.
        gc.disable()
    from trio_entrypoint.cli.arguments import parse_arguments
    from trio_entrypoint.cli.mistakes import EX_USAGE, UsageError, complain

    try:
        call = parse_arguments(sys.argv[1:])
        return call()
    except UsageError as error:
        for mistake in error.mistakes:
            complain(str(mistake))
        return EX_USAGE
    except BrokenPipeError:  # `trio-entrypoint logs | head`
        sys.stderr.close()
        return 128 + signal.SIGPIPE
