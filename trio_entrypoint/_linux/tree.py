"""Watching a directory with all that is below it: say when anything in it changed.

The rules are those of `watch`: every directory is watched before it is read, an event only
says 'look again', and what was seen is compared with what is there. A look goes through the
whole tree, some entries at a time, and lets other tasks run in between.

A symlink counts as itself and as what it leads to; it is followed to a directory, not into
it. So a mounted ConfigMap (`key -> ..data/key`, `..data -> ..2026_11_24…`) tells its swap.
"""

import os
import stat
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import final

import trio

from trio_entrypoint._arguments import AnyPath
from trio_entrypoint._linux.dispatch import Dispatcher, Interest, shared_dispatcher
from trio_entrypoint._linux.inotify import Mask
from trio_entrypoint._linux.watch import (
    Identity,
    absolute,
    follow,
    is_being_written,
    known_mounts,
    watch_mounted,
)

_ENTRIES = (
    Mask.CREATE
    | Mask.DELETE
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.CLOSE_WRITE
    | Mask.ATTRIB
    | Mask.ONLYDIR
)
_WRITTEN = Mask.CLOSE_WRITE | Mask.MOVED_TO
# Looking at a file, and whether somebody writes it, takes some 15 microseconds.
_AT_A_TIME = 64


@final
class TreeWatch:
    """The state of a directory and all that is below it. `open_tree_watch` makes it."""

    identity: Mapping[bytes, Identity] | None = None
    """What was last seen, by path relative to the directory; None when there was none.

    What a symlink leads to is added by its absolute path.
    """

    error: OSError | None = None
    """Why it could not be looked at, when it was last tried; None when it could."""

    def __init__(self, path: bytes, dispatcher: Dispatcher) -> None:
        self._path = path
        self._dispatcher = dispatcher
        self._interest = Interest(news=Mask.CREATE)
        # News that no finished look has answered: a cancelled one must not lose it.
        self._unanswered = 0

    async def changed(self) -> None:
        """Wait until anything in the tree is not as last seen, or was written anew.

        A file that somebody still writes counts as what it was before. Cancellation loses
        nothing: the next call reports what happened in between.
        """
        while not await self.look_again():
            await self._dispatcher.wait(self._interest)

    async def look_again(self) -> bool:
        """Look if there is news; say whether anything changed."""
        await trio.lowlevel.checkpoint()
        self._unanswered |= self._interest.news
        self._interest.news = 0
        if not self._unanswered:
            return False
        before = (self.identity, repr(self.error))
        writing = False
        wanted: set[int] = set()
        try:
            seen, writing = await self._look(wanted)
        except OSError as error:
            self.identity, self.error = None, error
        else:
            self.identity, self.error = seen, None
        self._dispatcher.retain(self._interest, wanted)
        written = bool(self._unanswered & _WRITTEN) and self.identity is not None
        # What somebody is still writing is told when it is closed.
        self._unanswered = 0
        return (self.identity, repr(self.error)) != before or (written and not writing)

    def close(self) -> None:
        """Give up all watches."""
        self._dispatcher.retain(self._interest, set())

    async def _look(self, wanted: set[int]) -> tuple[dict[bytes, Identity] | None, bool]:
        """Read the truth: what is there, and whether some of it is just being written."""
        entry, status = follow(
            self._dispatcher, self._interest, self._path, wanted, contents=False
        )
        if status is None:
            return None, False
        seen = {b"": Identity.of(status)._replace(modified=0, size=0)}
        known: Mapping[bytes, Identity] = self.identity or {}
        mounts = known_mounts()
        writing = False
        todo = [b""] if stat.S_ISDIR(status.st_mode) else []
        while todo:
            await trio.lowlevel.checkpoint()
            directory = todo.pop()
            path = os.path.join(entry.path, directory)
            for number, name in enumerate(self._names(path, wanted), 1):
                if number % _AT_A_TIME == 0:
                    await trio.lowlevel.checkpoint()
                relative, full = os.path.join(directory, name), os.path.join(path, name)
                try:
                    if full in mounts:
                        watch_mounted(self._dispatcher, self._interest, full, wanted)
                    status = os.lstat(full)
                except FileNotFoundError:
                    continue  # an event about it is waiting
                identity = Identity.of(status)
                if stat.S_ISDIR(status.st_mode):
                    # Its time and size change with a file in it that is only being written.
                    identity = identity._replace(modified=0, size=0)
                    todo.append(relative)
                elif stat.S_ISLNK(status.st_mode):
                    self._see_target(full, seen, wanted, mounts)
                elif identity != known.get(relative) and is_being_written(
                    self._dispatcher, self._interest, full, status, wanted
                ):
                    writing = True
                    if relative in known:
                        seen[relative] = known[relative]
                    continue
                seen[relative] = identity
        return seen, writing

    def _names(self, path: bytes, wanted: set[int]) -> list[bytes]:
        """What is in a directory, watched from before it was read."""
        try:
            wd = self._dispatcher.watch(self._interest, path, _ENTRIES, None)
            wanted.update(() if wd is None else (wd,))
            return os.listdir(path)
        except (FileNotFoundError, NotADirectoryError):
            return []  # an event about it is waiting

    def _see_target(
        self,
        link: bytes,
        seen: dict[bytes, Identity],
        wanted: set[int],
        mounts: Collection[bytes],
    ) -> None:
        try:
            entry, status = follow(
                self._dispatcher, self._interest, link, wanted, contents=True, mounts=mounts
            )
        except OSError:
            return  # a loop, or a way that is barred: the link counts as itself
        if status is not None and not stat.S_ISDIR(status.st_mode):
            seen[entry.path] = Identity.of(status)


@asynccontextmanager
async def open_tree_watch(path: AnyPath) -> AsyncGenerator[TreeWatch]:
    """Watch a directory and all that is below it, whether or not it exists yet.

    Args:
        path: The directory, or a symlink to it; a relative path counts from the working
            directory of this moment.

    Example::

        async with open_tree_watch("/etc/config") as watch:
            while True:
                await watch.changed()
                print("something in it changed")
    """
    with shared_dispatcher() as dispatcher:
        watch = TreeWatch(absolute(path), dispatcher)
        try:
            await watch.look_again()
            yield watch
        finally:
            watch.close()
