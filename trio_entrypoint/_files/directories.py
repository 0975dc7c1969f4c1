"""Open directories below a root: reached name by name, never through a link.

A path is resolved by the kernel again at each use, and somebody may have put a symlink in
it; a descriptor stays what it was. A few are kept open, because entries of one directory
mostly follow each other; no number of directories exhausts descriptors.
"""

import os
from types import TracebackType
from typing import final

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KEPT_OPEN = 32


@final
class Directories:
    """Descriptors of a directory and of those below it, by path relative to it ("" is it).

    Args:
        root: The directory; a symlink to it is followed once, here.
    """

    def __init__(self, root: str) -> None:
        self._descriptors = {"": os.open(root, DIRECTORY)}

    def descriptor(self, path: str) -> int:
        """Open a directory below the root; it belongs to this object.

        Raises:
            OSError: It is no directory (`ENOTDIR`, also for a symlink), or cannot be opened.
        """
        found = self._descriptors.get(path)
        if found is not None:
            return found
        parent, _, name = path.rpartition("/")
        opened = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=self.descriptor(parent))
        if len(self._descriptors) > _KEPT_OPEN:
            self.forget(next(path for path in self._descriptors if path))
        self._descriptors[path] = opened
        return opened

    def forget(self, path: str) -> None:
        """Close a directory that is about to be removed."""
        descriptor = self._descriptors.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Close all of them."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def __enter__(self) -> "Directories":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
