"""Active while a file exists: `open_file_activation`.

Who creates and removes the file decides (a cluster manager, an operator, a sidecar); the
handler only tells.
"""

import logging
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import trio

from trio_entrypoint._arguments import AnyPath, check_path
from trio_entrypoint._channels import NewestChannel
from trio_entrypoint._linux.watch import PathWatch, open_path_watch
from trio_entrypoint._nursery import open_background
from trio_entrypoint.handlers import ActivationChanged

_logger = logging.getLogger(__name__)


@final
class FileActivation:
    """Whether the file exists. `open_file_activation` makes it."""

    def __init__(
        self, path: AnyPath, watch: PathWatch, channel: NewestChannel[ActivationChanged]
    ) -> None:
        self._path = os.fsdecode(path)
        self._watch = watch
        self._channel = channel
        self._active = self._exists()
        channel.send(ActivationChanged(self._active))

    @property
    def events(self) -> "trio.MemoryReceiveChannel[ActivationChanged]":
        """The newest state; the first is the state at opening time."""
        return self._channel.events

    @property
    def active(self) -> bool:
        """Whether the file exists, as far as was seen."""
        return self._active

    @property
    def token(self) -> None:
        """None: a file is no lease."""
        return None

    async def tell(self) -> None:
        """Tell each change, for ever."""
        while True:
            await self._watch.changed()
            if self._watch.error is not None and not _is_absence(self._watch.error):
                # Not knowing is no reason to start or to stop an application.
                _logger.warning(
                    "cannot tell whether activation file %s exists (%s): staying %s",
                    self._path,
                    self._watch.error,
                    "active" if self._active else "inactive",
                )
                continue
            active = self._exists()
            if active != self._active:
                self._active = active
                self._channel.send(ActivationChanged(active))

    def _exists(self) -> bool:
        identity = self._watch.identity
        if identity is None:
            return False
        if stat.S_ISDIR(identity.mode):
            _logger.warning(
                "activation file %s is a directory, which activates nothing: put a file there",
                self._path,
            )
            return False
        return True


@asynccontextmanager
async def open_file_activation(path: AnyPath) -> AsyncGenerator[FileActivation]:
    """Be active while a file exists.

    Every way in which it can come and go counts, at once: created, moved into place, moved
    away, a directory on the way removed, re-created or renamed, a symlink on the way replaced.
    What the file contains, and whether somebody has it open, does not matter.

    Args:
        path: The file; neither it nor the directories on the way need to exist yet. A
            relative path counts from the working directory of this moment.

    Raises:
        IsADirectoryError: There is a directory at `path`.
        OSError: It cannot be found out whether the file exists (no permission, a loop of
            symlinks). Should that happen later, the handler warns and keeps its state.

    Example::

        async with open_file_activation("/run/app/active") as activation:
            async for event in activation.events:
                print("active" if event.active else "backup")
    """
    check_path("path", path)
    async with open_path_watch(path, contents=False) as watch:
        if watch.error is not None and not _is_absence(watch.error):
            raise watch.error
        if watch.identity is not None and stat.S_ISDIR(watch.identity.mode):
            raise IsADirectoryError(
                f"activation file {os.fsdecode(path)} is a directory: name a file in it"
            )
        with NewestChannel[ActivationChanged]() as channel:
            activation = FileActivation(path, watch, channel)
            async with open_background(activation.tell):
                yield activation


def _is_absence(error: OSError) -> bool:
    """Whether an error says that there is no such file: a file stands where a directory was."""
    return isinstance(error, NotADirectoryError)
