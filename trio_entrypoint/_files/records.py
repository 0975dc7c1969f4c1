"""The files that a store keeps about its generations, each in the generation's directory.

They are what `trio_entrypoint._files.generations` goes by after a crash, so each comes into
being by one system call: by a rename, or empty.
"""

import os
import stat
from contextlib import suppress
from typing import final

from trio_entrypoint._files.manifest import Manifest
from trio_entrypoint._files.pointers import MANIFEST

NOTHING = 0
"""The number of the empty directory that was at the target before the first generation."""

TRIAL = "trial"
"""The mark of a generation that was put in place, and that nobody has confirmed."""

ADJOURNED = "adjourned"
"""The same mark under another name: nobody has confirmed it, and nobody will any more."""

REFUSED = "refused"
"""The mark of a generation that was, or is just being, rolled back; it says why."""


@final
class Records:
    """The manifests and marks in a store."""

    def __init__(self, store: str) -> None:
        self._store = store

    def path(self, number: int, *names: str) -> str:
        """The path of a generation's directory, or of something in it."""
        return os.path.join(self._store, str(number), *names)

    def numbers(self) -> list[int]:
        """The numbers of all generations that there is anything of."""
        return [int(name) for name in os.listdir(self._store) if name.isdecimal()]

    def next_number(self) -> int:
        """A number that no generation has had, of those that anybody remembers."""
        return max([NOTHING, *self.numbers()]) + 1

    def seal(self, number: int, manifest: Manifest) -> None:
        """Write a generation's manifest: from now on it is complete."""
        self._write(number, MANIFEST, manifest.dumps())

    def manifest(self, number: int) -> Manifest | None:
        """A generation's manifest; None when it is not complete."""
        try:
            return Manifest.loads(_read(self.path(number, MANIFEST)))
        except (OSError, ValueError):
            return None

    def digest(self, number: int) -> str | None:
        """The digest of a generation's source; None when it is not complete."""
        try:
            with open(self.path(number, MANIFEST), "rb") as file:
                return file.readline().strip().decode()
        except FileNotFoundError:
            return None

    def mark(self, number: int, name: str) -> str | None:
        """What a mark says; None when it is not set."""
        try:
            return _read(self.path(number, name)).decode(errors="surrogateescape")
        except FileNotFoundError:
            return None

    def set_mark(self, number: int, name: str, text: str = "") -> None:
        """Set a mark."""
        self._write(number, name, text.encode(errors="surrogateescape"))

    def rename_mark(self, number: int, name: str, to: str) -> None:
        """Set one mark in the place of another, in one step that needs no space on the disk."""
        os.rename(self.path(number, name), self.path(number, to))

    def remove_mark(self, number: int, name: str) -> None:
        """Remove a mark."""
        os.unlink(self.path(number, name))

    def trusted(self, number: int) -> bool:
        """Whether a generation may be gone back to."""
        return all(self.mark(number, name) is None for name in (TRIAL, ADJOURNED, REFUSED))

    def remove(self, number: int) -> None:
        """Remove a generation that is not in place."""
        # First what makes it count as complete.
        with suppress(FileNotFoundError):
            os.unlink(self.path(number, MANIFEST))
        remove_tree(self.path(number))

    def _write(self, number: int, name: str, data: bytes) -> None:
        path = self.path(number, name)
        descriptor = os.open(
            path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644
        )
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(descriptor)
        os.rename(path + ".new", path)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def remove_tree(path: str) -> None:
    """Remove a directory, or a link in its place, whatever the modes of those below it."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode):
        os.unlink(path)
        return
    if status.st_mode & 0o700 != 0o700:
        os.chmod(path, 0o700)
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(path)
