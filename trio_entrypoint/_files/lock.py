"""One target, one handler: the lock on a store, which the kernel gives back with its holder."""

import fcntl
import os


class InUseError(Exception):
    """Another handler, of this entrypoint or of another one, manages the same target."""

    exit_code = 1  # its message is all that `run` has to say


def lock_store(store: str, target: str) -> int:
    """Lock the store of a target; closing the descriptor unlocks it.

    Raises:
        InUseError: Somebody else has locked it.
    """
    descriptor = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise InUseError(
            f"{target}: another configuration handler manages this target; "
            "one target has one handler"
        ) from None
    return descriptor
