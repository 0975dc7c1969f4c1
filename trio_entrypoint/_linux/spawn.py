"""Starting a program: found, checked, then executed with a clean slate.

The program gets default dispositions of all signals, the signal mask that is meant for it, a
session of its own and no descriptors but those meant for it. `posix_spawn(3)` does all of that
without copying the entrypoint's memory and without running Python between fork and exec; it
returns when the program is executed, or with the reason why it cannot be.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Collection, Mapping
from functools import partial
from typing import NamedTuple, final

from trio_entrypoint._linux.signals import DEFAULTED


class CommandError(OSError):
    """A command that exists but cannot be executed."""

    exit_code = 126
    """The exit status that says so, as shells do."""


@final
class CommandNotFoundError(CommandError, FileNotFoundError):
    """A command that does not exist."""

    exit_code = 127


@final
class CommandNotExecutableError(CommandError, PermissionError):
    """A command that may not be executed."""


class Program(NamedTuple):
    """A program to execute."""

    path: bytes
    arguments: tuple[bytes, ...]
    environment: Mapping[bytes, bytes]
    descriptors: Mapping[int, int]
    """What the program has open: its number there, to the number here."""


def find_program(
    name: bytes, environment: Mapping[bytes, bytes], cwd: bytes | None = None
) -> bytes:
    """The file to execute for a command's name, as a shell finds it.

    Args:
        name: A path if it contains a slash, else a name to look for in `PATH`.
        environment: The environment that the program will have.
        cwd: Its working directory, as an absolute path, if that is another than ours.

    Raises:
        CommandNotFoundError: There is none.
        CommandNotExecutableError: There is one, but it is a directory or not executable.
    """
    if b"/" in name:
        candidates = [name if cwd is None else os.path.join(cwd, name)]
    else:
        search = environment.get(b"PATH", os.fsencode(os.defpath))
        entries = [entry or b"." for entry in search.split(b":")]
        candidates = [os.path.join(cwd or b"", entry, name) for entry in entries]
    denied: bytes | None = None
    for candidate in candidates:
        try:
            mode = os.stat(candidate).st_mode
        except PermissionError:
            denied = denied or candidate
            continue
        except OSError:
            continue
        if stat.S_ISREG(mode) and os.access(candidate, os.X_OK):
            return candidate
        denied = denied or candidate
    if denied is not None:
        reason = "is a directory" if os.path.isdir(denied) else "is not executable"
        raise CommandNotExecutableError(errno.EACCES, f"command {reason}", os.fsdecode(denied))
    where = "" if b"/" in name else " in PATH"
    raise CommandNotFoundError(errno.ENOENT, f"command not found{where}", os.fsdecode(name))


def spawn(program: Program, *, new_session: bool = True, blocked: Collection[int] = ()) -> int:
    """Start a program as a child of this one, in a process group of its own; return its pid.

    Args:
        program: What to start.
        new_session: Begin a session too, which leaves the terminal.
        blocked: Its signal mask, from the very beginning.

    Raises:
        CommandError: The program cannot be executed; `filename` is its path.
    """
    held: list[int] = []
    beyond: list[int] = []
    try:
        actions: list[tuple[int, ...]] = []
        # Moved out of the way first, so that no source is overwritten before it is copied.
        above = max([2, *program.descriptors]) + 1
        for target, source in program.descriptors.items():
            copy = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above)
            held.append(copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, target))
        kept = {*program.descriptors, *held}
        others = [fd for fd in _inheritable() if fd not in kept]
        # posix_spawn(3) refuses to close what is not below the present limit.
        limit = os.sysconf("SC_OPEN_MAX")
        beyond = [fd for fd in others if fd >= limit > 0]
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in others if fd not in beyond]
        for descriptor in beyond:
            os.set_inheritable(descriptor, False)
        call = partial(
            os.posix_spawn,
            program.path,
            program.arguments,
            program.environment,
            file_actions=actions,
            setsigmask=blocked,
            setsigdef=DEFAULTED,
        )
        return call(setsid=True) if new_session else call(setpgroup=0)
    except OSError as error:
        raise explained(error, program.path) from None
    finally:
        for descriptor in held:
            os.close(descriptor)
        for descriptor in beyond:
            os.set_inheritable(descriptor, True)


def _inheritable() -> list[int]:
    """Descriptors above 2 that a program would inherit: Python opens none, others may."""
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        try:
            if descriptor > 2 and os.get_inheritable(descriptor):
                found.append(descriptor)
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def explained(error: OSError, path: bytes) -> CommandError:
    """Why a program could not be executed, in words."""
    code = error.errno
    reason = error.strerror
    if code == errno.ENOENT and (interpreter := _interpreter(path)) is not None:
        reason = f"the script's interpreter does not exist: {os.fsdecode(interpreter)}"
    elif code == errno.ENOENT:
        reason = "the program, or the loader that it needs, does not exist"
    elif code == errno.ENOEXEC:
        reason = "neither a program for this machine nor a script with an interpreter (#!)"
    kind = CommandNotExecutableError if code == errno.EACCES else CommandError
    return kind(code, reason, os.fsdecode(path))


def _interpreter(path: bytes) -> bytes | None:
    """The interpreter that a script names in its first line."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return None
    if not line.startswith(b"#!"):
        return None
    words = line[2:].split()
    return words[0] if words else None
