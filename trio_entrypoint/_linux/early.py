"""What has to happen before anything else is imported, so it imports next to nothing."""

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""What asks an entrypoint to end; container images use all three as their stop signal."""

_FAULTS = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}
_JOB_CONTROL = {signal.SIGCONT, signal.SIGTTIN, signal.SIGTTOU}
_OTHERS = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE}

FORWARDABLE = frozenset(signal.valid_signals() - _FAULTS - _JOB_CONTROL - _OTHERS)
"""The signals that somebody may send to an entrypoint, to tell it or its application."""


def block_signals() -> None:
    """Hold signals back until `run` is ready for them.

    The kernel throws away what is sent to a PID 1 that has no handler, and lets other
    programs die. So call this as the very first thing, before `import trio`, which takes a
    tenth of a second. `run` lets through what arrived.

    Example::

        from trio_entrypoint import block_signals

        block_signals()

        import trio
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDABLE)
