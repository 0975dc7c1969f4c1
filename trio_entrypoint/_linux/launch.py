"""Starting a program with what only the process itself can set: see `launcher.py`."""

import os
import sys
from collections.abc import Mapping
from typing import Literal, TypeAlias, final

import attrs
import trio

from trio_entrypoint._linux.cgroup import Cgroup
from trio_entrypoint._linux.credentials import Credentials
from trio_entrypoint._linux.spawn import Program, explained

LimitValue: TypeAlias = int | Literal["unlimited"]
"""A resource limit, in the units of setrlimit(2)."""

_LAUNCHER = os.path.join(os.path.dirname(__file__), "launcher.py")


@final
class SettingError(OSError):
    """A setting of a process that the kernel refused; `field` names it."""

    exit_code = 126

    field: str = ""


@attrs.frozen(kw_only=True)
class Launch:
    """What is set between fork and exec."""

    cgroup: Cgroup | None = None
    oom_score_adj: int | None = None
    nice: int | None = None
    limits: Mapping[str, tuple[int, int, int]] = attrs.field(
        factory=dict[str, tuple[int, int, int]]
    )
    """By name: number, soft limit, hard limit."""

    umask: int | None = None
    terminal: bool = False
    credentials: Credentials | None = None
    no_new_privileges: bool = False
    cwd: bytes | None = None

    @property
    def needed(self) -> bool:
        """Whether anything is to be set at all."""
        return bool(self.settings())

    def settings(self) -> list[bytes]:
        """The launcher's arguments, in the order in which they have to be done."""
        words: list[str] = []
        if self.oom_score_adj is not None:
            words.append(f"oom_score_adj={self.oom_score_adj}")
        if self.nice is not None:
            words.append(f"nice={self.nice}")
        for name, (number, soft, hard) in self.limits.items():
            words.append(f"limits.{name}={number}:{soft}:{hard}")
        if self.umask is not None:
            words.append(f"umask={self.umask}")
        if self.terminal:
            words.append("terminal=")
        if self.credentials is not None:
            if set(self.credentials.groups) != set(os.getgroups()):
                words.append(f"extra_groups={','.join(map(str, self.credentials.groups))}")
            words.append(f"group={self.credentials.gid}")
            words.append(f"user={self.credentials.uid}")
        if self.no_new_privileges:
            words.append("no_new_privileges=")
        found = [word.encode() for word in words]
        if self.cgroup is not None:
            found.insert(0, b"cgroup=" + self.cgroup.entrance)
        if self.cwd is not None:
            found.append(b"cwd=" + self.cwd)
        return found


def through_launcher(program: Program, launch: Launch, report: int) -> Program:
    """The launcher as a program that becomes another one.

    Args:
        program: What it becomes.
        launch: What it sets before.
        report: The writing end of a pipe, for `launched`.
    """
    number = max([2, *program.descriptors]) + 1
    python = os.fsencode(sys.executable)
    return Program(
        python,
        (
            *(python, b"-I", b"-S", b"-B", os.fsencode(_LAUNCHER), b"%d" % number),
            *launch.settings(),
            *(b"--", program.path, *program.arguments),
        ),
        program.environment,
        {**program.descriptors, number: report},
    )


async def launched(program: Program, report: int) -> None:
    """Wait until the launcher has executed the program.

    Args:
        program: What it becomes.
        report: The reading end of the pipe; nobody else here has the writing end open.

    Raises:
        SettingError: Something could not be set.
        CommandError: The program cannot be executed.
    """
    await trio.lowlevel.wait_readable(report)
    answer = os.read(report, 4096).decode()
    if not answer:
        return
    field, _, code = answer.partition(" ")
    number = int(code)
    if field == "command":
        raise explained(OSError(number, os.strerror(number)), program.path)
    error = SettingError(number, f"{field}: {os.strerror(number)}")
    error.field = field
    raise error
