"""From the arguments of `open_process` to a process that runs.

Everything that can be checked is checked, and opened, before the fork. From the fork on there
is always somebody who owns the process.
"""

import errno
import os
import signal as signals
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import attrs
import trio

from trio_entrypoint._linux.cgroup import Cgroup
from trio_entrypoint._linux.credentials import find_credentials
from trio_entrypoint._linux.descendants import MARKER_VARIABLE, nested_marker
from trio_entrypoint._linux.head_start import HeadStart
from trio_entrypoint._linux.launch import Launch, LimitValue, launched, through_launcher
from trio_entrypoint._linux.process_tree import KILL_TIMEOUT, Tree
from trio_entrypoint._linux.reaper import Reaper
from trio_entrypoint._linux.signals import SIGNALS
from trio_entrypoint._linux.spawn import Program, find_program, spawn
from trio_entrypoint.environment import Environment
from trio_entrypoint.output import Input, LogFile, LogLines, Output, Pump, open_output


@attrs.frozen(kw_only=True)
class Request:
    """What to start: the arguments of `open_process`, as far as they could be checked then."""

    name: str
    arguments: tuple[bytes, ...]
    env: Mapping[str, str] | Environment | None
    extra_env: Mapping[str, str]
    stdin: Input
    stdout: Output
    stderr: Output
    extra_fds: Mapping[int, int]
    user: str | int | None
    group: str | int | None
    extra_groups: Sequence[str | int] | None
    cgroup: bool
    launch: Launch


@attrs.frozen
class Started:
    """A process that was just started."""

    pid: int
    pidfd: int
    tree: Tree
    pumps: Sequence[Pump]


async def start(request: Request, reaper: Reaper, stack: ExitStack) -> Started:
    """Start a process.

    Cancellation leaves nothing behind.

    Args:
        request: What to start.
        reaper: Gets to know the process.
        stack: Closes what the process needs for its whole life.
    """
    credentials = find_credentials(request.user, request.group, request.extra_groups)
    marker = reaper.new_marker()
    cgroup = _cgroup(marker, reaper, stack) if request.cgroup else None
    launch = attrs.evolve(
        request.launch,
        cgroup=cgroup,
        credentials=credentials,
        terminal=request.launch.terminal and _in_foreground(),
        cwd=_absolute(request.launch.cwd),
    )
    environment = _environment(request, {} if credentials is None else credentials.environment)
    environment[MARKER_VARIABLE.encode()] = nested_marker(marker).encode()
    if launch.cwd is not None:
        _check_directory(launch.cwd)

    with ExitStack() as opened:
        descriptors, pumps = _descriptors(request, stack, opened)
        program = Program(
            find_program(request.arguments[0], environment, launch.cwd),
            request.arguments,
            environment,
            descriptors,
        )
        report: int | None = None
        if launch.needed:
            report, writing = os.pipe()
            stack.callback(os.close, report)
            opened.callback(os.close, writing)
            launcher = through_launcher(program, launch, writing)
            pid = spawn(launcher, new_session=not launch.terminal)
        else:
            pid = spawn(program)
        with _ended_on_error(pid):
            tree = Tree(pid, marker, reaper, session=not launch.terminal, cgroup=cgroup)
    if launch.terminal:
        stack.callback(_take_terminal_back)
    try:
        pidfd = _pidfd(pid, stack)
        if report is not None:
            await launched(program, report)
    except BaseException:
        with trio.move_on_after(KILL_TIMEOUT, shield=True):
            await tree.killed()
        tree.close()
        raise
    return Started(pid, pidfd, tree, pumps)


@contextmanager
def _ended_on_error(pid: int) -> Generator[None]:
    """End a process that nobody else knows of yet, if the block fails."""
    try:
        yield
    except BaseException:
        os.kill(pid, signals.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED)
        raise


def adopt(start: HeadStart, reaper: Reaper, stack: ExitStack) -> Started:
    """Take over a process that runs already; if that fails, `head_start` still has to end it."""
    pidfd = _pidfd(start.pid, stack)
    tree = Tree(start.pid, start.marker, reaper, session=True)
    start.claim()
    return Started(start.pid, pidfd, tree, ())


def _cgroup(marker: str, reaper: Reaper, stack: ExitStack) -> Cgroup | None:
    if reaper.hierarchy is None:
        return None
    try:
        cgroup = Cgroup.make(reaper.hierarchy, marker)
    except OSError:
        return None
    stack.callback(cgroup.remove)
    return cgroup


def _absolute(path: bytes | None) -> bytes | None:
    """The path from the root: the process itself may be somewhere else already."""
    if path is None or path.startswith(b"/"):
        return path
    return os.path.join(os.getcwdb(), path)


def _check_directory(path: bytes) -> None:
    if not os.path.isdir(path):
        code = errno.ENOTDIR if os.path.exists(path) else errno.ENOENT
        raise OSError(code, f"cwd: {os.strerror(code)}", os.fsdecode(path))


def _pidfd(pid: int, stack: ExitStack) -> int:
    pidfd = os.pidfd_open(pid)
    stack.callback(os.close, pidfd)
    return pidfd


def _environment(request: Request, user: Mapping[str, str]) -> dict[bytes, bytes]:
    """The variables: the user's own (HOME), unless they were given, then what is added."""
    env = request.env
    found: dict[bytes, bytes] = {}
    if env is None:
        found.update(os.environb)
        found.update(_encoded(user))
    elif isinstance(env, Environment):
        found.update(_encoded(env.variables()))
        given = {*env.set, *env.remove}
        found.update(_encoded({n: value for n, value in user.items() if n not in given}))
    else:
        found.update(_encoded(user))
        found.update(_encoded(env))
    found.update(_encoded(request.extra_env))
    return found


def _encoded(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in variables.items()}


def _descriptors(
    request: Request, stack: ExitStack, opened: ExitStack
) -> tuple[dict[int, int], list[Pump]]:
    """What the process has open, and who reads what it writes."""
    descriptors = dict(request.extra_fds)
    pumps: list[Pump] = []
    if request.stdin != "inherit":
        descriptors[0] = _open(opened, request.stdin, os.O_RDONLY)
    for number, stream, output in ((1, "stdout", request.stdout), (2, "stderr", request.stderr)):
        same = number == 2 and isinstance(output, LogFile) and output == request.stdout
        if output == "stdout" or same:
            descriptors[2] = descriptors.get(1, 1)
        elif isinstance(output, LogFile | LogLines):
            descriptors[number], pump = open_output(stack, opened, output, request.name, stream)
            pumps.append(pump)
        elif output != "inherit":
            descriptors[number] = _open(opened, output, os.O_WRONLY)
    return descriptors, pumps


def _open(opened: ExitStack, file: "int | str | os.PathLike[str]", flags: int) -> int:
    if isinstance(file, int):
        return file
    path = os.devnull if file == "null" else file
    # A FIFO without a writer, or a line without a carrier, would be waited for here.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    opened.callback(os.close, descriptor)
    os.set_blocking(descriptor, True)
    return descriptor


def _in_foreground() -> bool:
    """Whether standard input is our terminal, and we have it to give away."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _take_terminal_back() -> None:
    before = signals.pthread_sigmask(signals.SIG_BLOCK, {signals.SIGTTOU})
    try:
        os.tcsetpgrp(0, os.getpgrp())
    except OSError:
        return  # it hung up
    finally:
        signals.pthread_sigmask(signals.SIG_SETMASK, before)


# --- what can be checked before anything is started ----------------------------------------


def check_signal(field: str, number: int) -> None:
    """Raise `ValueError` if there is no such signal."""
    if number not in SIGNALS:
        raise ValueError(f"{field}: expected a signal's number, got {number!r}")


def check_range(field: str, value: int | None, least: int, most: int) -> int | None:
    """Return a value, or raise `ValueError` if it is out of range."""
    if value is not None and not least <= value <= most:
        raise ValueError(f"{field}: expected {least} to {most}, got {value!r}")
    return value


def check_limits(
    limits: Mapping[str, LimitValue | tuple[LimitValue, LimitValue]],
) -> dict[str, tuple[int, int, int]]:
    """Numbers for the names of resource limits, or `ValueError`."""
    if not limits:
        return {}
    import resource  # most processes need none of this

    known = {
        name.removeprefix("RLIMIT_").lower(): number
        for name, number in vars(resource).items()
        if name.startswith("RLIMIT_")
    }
    found: dict[str, tuple[int, int, int]] = {}
    for name, value in limits.items():
        if name not in known:
            raise ValueError(f"limits: there is no {name!r}; there are {', '.join(sorted(known))}")
        pair = value if isinstance(value, tuple | list) else (value, value)
        if len(pair) != 2:
            raise ValueError(f"limits.{name}: expected the soft and the hard limit, got {value!r}")
        soft, hard = (_limit(name, each) for each in pair)
        if _above(soft, hard):
            raise ValueError(f"limits.{name}: the soft limit {soft} is above the hard one, {hard}")
        _, hard_now = resource.getrlimit(known[name])
        if _above(hard, hard_now) and os.geteuid() != 0:
            raise ValueError(
                f"limits.{name}: {hard} is above the hard limit of this program, {hard_now}, "
                "which only root may raise"
            )
        found[name] = (known[name], soft, hard)
    return found


def _limit(name: str, value: LimitValue) -> int:
    if value == "unlimited":
        return -1
    if not value >= 0:
        raise ValueError(f"limits.{name}: expected a number or 'unlimited', got {value!r}")
    return value


def _above(value: int, bound: int) -> bool:
    return bound != -1 and (value == -1 or value > bound)
