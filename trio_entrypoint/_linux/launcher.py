"""The program that becomes the application: sets what `posix_spawn` cannot set, and executes.

Run as `python -I -S -B launcher.py DESCRIPTOR NAME=VALUE… -- PATH ARGUMENT…`, in a process of
its own with one thread, so that nothing of the entrypoint is at risk between fork and exec.
What fails is written to DESCRIPTOR as `NAME ERRNO`; the end of that pipe means success.

It imports nothing that is not needed: this is in the way of the application's start.
"""

import errno
import os
import signal
import sys


def set_limit(value: str) -> None:
    """Set a resource limit: NUMBER:SOFT:HARD."""
    import resource

    number, soft, hard = map(int, value.split(":"))
    resource.setrlimit(number, (soft, hard))


def set_oom_score_adj(value: str) -> None:
    """Say how much sooner or later than others this is killed when memory runs out."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(value)


def set_no_new_privileges(_value: str) -> None:
    """Have set-user-ID and file capabilities ignored from now on."""
    import ctypes

    pr_set_no_new_privs = 38
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(pr_set_no_new_privs, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def take_terminal(_value: str) -> None:
    """Become the foreground process group of the terminal, as a shell does for a job."""
    # Whoever is in the background is stopped for trying, unless it holds that signal back.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    os.tcsetpgrp(0, os.getpgrp())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})


def set_groups(value: str) -> None:
    """Set the supplementary groups: numbers, separated by commas."""
    os.setgroups([int(number) for number in value.split(",") if number])


def set_group(value: str) -> None:
    """Set the group for good."""
    os.setresgid(int(value), int(value), int(value))


def set_user(value: str) -> None:
    """Set the user for good."""
    os.setresuid(int(value), int(value), int(value))


def set_niceness(value: str) -> None:
    """Set the niceness."""
    os.setpriority(os.PRIO_PROCESS, 0, int(value))


def set_umask(value: str) -> None:
    """Set the mode bits that new files do not get."""
    os.umask(int(value))


def enter_cgroup(value: str) -> None:
    """Move into a cgroup, by its `cgroup.procs`."""
    with open(value, "w") as file:
        file.write("0")


SETTERS = {
    "cgroup": enter_cgroup,
    "oom_score_adj": set_oom_score_adj,
    "nice": set_niceness,
    "limits": set_limit,
    "umask": set_umask,
    "terminal": take_terminal,
    "extra_groups": set_groups,
    "group": set_group,
    "user": set_user,
    "no_new_privileges": set_no_new_privileges,
    "cwd": os.chdir,
}


def main() -> None:
    """Do what the arguments say, in their order, then execute."""
    report = int(sys.argv[1])
    os.set_inheritable(report, False)
    end = sys.argv.index("--")
    field = "command"
    try:
        variables = environment()
        restore_signals()
        for argument in sys.argv[2:end]:
            field, _, value = argument.partition("=")
            SETTERS[field.partition(".")[0]](value)
        field = "command"
        path, *arguments = map(os.fsencode, sys.argv[end + 1 :])
        os.execve(path, arguments, variables)  # noqa: S606 - that is the point
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not look like success
        # Python has words of its own for some refusals: `setrlimit` raises `ValueError`.
        code = getattr(error, "errno", None) or errno.EPERM
        os.write(report, f"{field} {code}".encode())
        os._exit(127)


def restore_signals() -> None:
    """Undo what Python did at its start."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def environment() -> dict[bytes, bytes]:
    """The environment as it was given: Python may add to its own (LC_CTYPE)."""
    with open("/proc/self/environ", "rb") as file:
        entries = file.read().split(b"\0")
    return dict(entry.split(b"=", 1) for entry in entries if b"=" in entry)


if __name__ == "__main__":
    main()
