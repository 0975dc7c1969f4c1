"""The command `trio-entrypoint`: the ready-made entrypoint, and the client that looks after it.

Start-up time is a feature: the application waits for it. So each module here is imported by the
one that needs it, when it needs it, and signals are blocked before anything else: what comes
while Python imports is answered afterwards, and not lost (a process with number 1 has no default
action for a signal).
"""

import signal
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line of this process, and return its exit status."""
    if sys.argv[1:2] == ["run"]:
        from trio_entrypoint._linux.early import block_signals

        block_signals()
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
