"""Runs updates in processes that can be traced from their first system call on.

A program of its own, because it forks: `python fault_server.py` reads a line
`SCENARIO DIRECTORY`, forks a process that stops itself, prints its number, and prints
another line when that has ended: its status, and what the update said, as JSON.

Everything runs in the main thread there, because strace counts system calls by thread.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio.testing

from trio_entrypoint import UpdateResult, open_file_configuration, open_tar_configuration
from trio_entrypoint.configuration.engine import GenerationConfiguration

OpenConfiguration = Callable[[Path, int], AbstractAsyncContextManager[GenerationConfiguration]]
"""Opens source and target in a directory, and keeps so many generations."""


def tar_configuration(**options: Any) -> OpenConfiguration:
    return lambda directory, keep: open_tar_configuration(
        directory / "source", directory / "target", keep=keep, **options
    )


def file_configuration(directory: Path, keep: int) -> Any:
    return open_file_configuration(directory / "source", directory / "target", keep=keep)


OPEN = {
    "symlink": tar_configuration(layout="symlink"),
    "copy": tar_configuration(layout="symlink", share="copy"),
    "inside": tar_configuration(layout="inside"),
    "disk": tar_configuration(layout="symlink", durability="disk"),
    "file": file_configuration,
}


async def update(configuration: GenerationConfiguration) -> UpdateResult:
    result = await configuration.update()
    await _settle()
    return result


async def trial(configuration: GenerationConfiguration) -> UpdateResult:
    """What a supervisor does with a configuration that proves itself."""
    async with configuration.stage() as staged:
        result = await staged.commit(trial=True)
    if result.error is None:
        await configuration.confirm()
    await _settle()
    return result


async def rollback(configuration: GenerationConfiguration) -> UpdateResult:
    result = await configuration.rollback("it was bad")
    await _settle()
    return result


async def unconfirmed(configuration: GenerationConfiguration) -> UpdateResult:
    """An entrypoint that is killed before it confirms."""
    async with configuration.stage() as staged:
        await staged.commit(trial=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


async def adjourned(configuration: GenerationConfiguration) -> UpdateResult:
    """An entrypoint that ends in good order before it confirms."""
    async with configuration.stage() as staged:
        result = await staged.commit(trial=True)
    if result.error is None:
        await configuration.adjourn()
    return result


async def opening(configuration: GenerationConfiguration) -> UpdateResult:
    """Nothing but the recovery and the collection at a start."""
    await _settle()
    return UpdateResult(generation=configuration.generation)


async def _settle() -> None:
    """Let the collector finish, which is the only other task with something to do."""
    await trio.testing.wait_all_tasks_blocked()


ACTIONS = {
    action.__name__: action
    for action in (update, trial, rollback, unconfirmed, adjourned, opening)
}
_KEEP, _KEEP_ALL = 1, 9


async def run(kind: str, action: str, directory: Path) -> dict[str, object]:
    """Do what an action is called after; `kept-` before its name keeps all generations."""
    keep = _KEEP_ALL if action.startswith("kept-") else _KEEP
    try:
        async with OPEN[kind](directory, keep) as configuration:
            result = await ACTIONS[action.removeprefix("kept-")](configuration)
    except OSError as error:
        return {"opened": False, "error": str(error)}
    return {
        "opened": True,
        "error": None if result.error is None else str(result.error),
        "changed": {path: what.value for path, what in result.changed.items()},
        "durability": repr(result.durability_error),
    }


@contextmanager
def _last_name_first(path: Any, scandir: Callable[..., Any] = os.scandir) -> Generator[Any]:
    """A file system's own order is as good as any; this one has a tree before its manifest."""
    with scandir(path) as entries:
        yield iter(sorted(entries, key=lambda entry: entry.name, reverse=True))


async def _inline(function: Callable[..., Any], *args: object, **_: object) -> object:
    await trio.lowlevel.checkpoint()
    return function(*args)


def serve() -> None:
    trio.to_thread.run_sync = _inline  # type: ignore[assignment]
    trio.from_thread.check_cancelled = lambda: None
    os.scandir = _last_name_first  # type: ignore[assignment]
    # The order in which tasks run decides the order of system calls.
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(0)
    with tempfile.TemporaryDirectory() as warm:  # whatever is imported at first use
        Path(warm, "source").write_bytes(b"")
        for kind in OPEN:
            trio.run(run, kind, "update", Path(warm))
            shutil.rmtree(Path(warm, ".target.generations"), ignore_errors=True)
            if Path(warm, "target").is_dir():
                shutil.rmtree(Path(warm, "target"))
    for line in sys.stdin:
        kind, action, directory = line.rstrip("\n").split(" ", 2)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.kill(os.getpid(), signal.SIGSTOP)
            answer = trio.run(partial(run, kind, action, Path(directory)))
            os.write(writing, json.dumps(answer).encode())
            os._exit(0)
        os.close(writing)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        print(pid, flush=True)  # noqa: T201
        with open(reading, "rb") as answered:
            text = answered.read().decode()
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), text or "null", flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
