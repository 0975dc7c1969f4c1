"""Writing a tree whose names, links and sizes nobody vouches for, into a directory of ours.

Whatever a source says, nothing is written outside the directory, through a link, or beyond
the limits:

* A path is split into names; `..`, absolute paths and NUL are refused.
* The parent of an entry has to be a directory that was made here. It is opened name by name
  with `O_NOFOLLOW`, relative to its parent's descriptor; files are made with `O_EXCL`.
* Symlinks are followed on paper, over all entries, when the tree is complete: one that leads
  outside refuses the whole tree, whatever other links it leads through.

Unchanged files are linked from the previous generation when that is asked for, unless
somebody wrote to them after they were sealed. (Large ones are not: what they contain is
known only when they have been written.)
"""

import os
import stat
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from types import TracebackType
from typing import final

import attrs

from trio_entrypoint._files.contents import CHUNK, Attributes, stream_file, write_file
from trio_entrypoint._files.directories import Directories
from trio_entrypoint._files.errors import SourceError
from trio_entrypoint._files.manifest import Entry, Kind, leads_outside

MAX_DEPTH = 128
_MAX_PATH = 3072  # PATH_MAX is 4096, and the path of the generation comes before it
_NAMES = {Kind.FILE: "a file", Kind.DIRECTORY: "a directory", Kind.SYMLINK: "a symlink"}


@attrs.frozen
class Limits:
    """How much a tree may hold."""

    members: int = 100_000
    size: int = 256 * 1024 * 1024
    """Bytes of file contents, unpacked."""

    def __attrs_post_init__(self) -> None:
        if self.members < 1:
            raise ValueError(f"max_members is {self.members}, expected at least 1")
        if self.size < 0:
            raise ValueError(f"max_size is {self.size}, expected bytes, at least 0")


@attrs.frozen
class Previous:
    """A tree to share unchanged files with."""

    path: str
    entries: Mapping[str, Entry]


@final
class TreeWriter:
    """Fills an empty directory, and knows what is in it. Close it, or use it in `with`.

    Args:
        root: The directory: empty, and nobody else writes to it.
        limits: How much is accepted.
        previous: The tree to link unchanged files from; None writes all of them.
        check: Called often; it may raise to give up.
    """

    def __init__(
        self,
        root: str,
        *,
        limits: Limits | None = None,
        previous: Previous | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.entries: dict[str, Entry] = {".": Entry(Kind.DIRECTORY, 0o755)}
        self._root = root
        self.limits: Limits = Limits() if limits is None else limits
        self._check = check
        self._members = 0
        self._size = 0
        self._earlier: set[str] = set()
        self._previous_entries: Mapping[str, Entry] = {}
        self._previous: Directories | None = None
        self._directories = Directories(root)
        if previous is not None:
            try:
                self._previous = Directories(previous.path)
                self._previous_entries = previous.entries
            except OSError:
                pass  # sharing only saves time and space

    def __enter__(self) -> "TreeWriter":
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._directories.close()
        if self._previous is not None:
            self._previous.close()

    def next_layer(self) -> None:
        """What comes now wins over what is there, also where the types differ."""
        self._earlier = set(self.entries)

    def directory(
        self,
        path: str,
        mode: int = 0o755,
        *,
        owner: tuple[int, int] | None = None,
        time: int | None = None,
    ) -> None:
        """Make a directory, or give one that is there another mode, owner and time."""
        path = self._normalise(path)
        if path != "." and not self._is_directory(path):
            parent, name = self._place(path, Kind.DIRECTORY)
            with _naming(path):
                os.mkdir(name, 0o700, dir_fd=parent)
        self.entries[path] = Entry(Kind.DIRECTORY, mode & 0o777, owner=owner, time=time)
        self._earlier.discard(path)

    def file(
        self,
        path: str,
        mode: int,
        size: int,
        read: Callable[[int], bytes],
        *,
        owner: tuple[int, int] | None = None,
        time: int | None = None,
    ) -> None:
        """Make a file.

        Args:
            path: Where, relative to the tree.
            mode: Permission bits; others are dropped.
            size: Its size in bytes; it counts against the limit before anything is read.
            read: Gives at most so many bytes of its contents, and none at its end.
            owner: User and group; None for those of this process.
            time: Time of modification (ns); None for now.
        """
        path = self._normalise(path)
        if size > self.limits.size - self._size:
            raise SourceError(
                f"{path!r}: more than {self.limits.size} bytes in all (max_size), unpacked"
            )
        self._size += size
        parent, name = self._place(path, Kind.FILE)
        attributes = Attributes(mode & 0o777, owner, time)
        try:
            data = read(min(size, CHUNK)) if size else b""
            if len(data) == size:
                entry = self._write(path, parent, name, data, attributes)
            else:
                content, sealed = stream_file(
                    parent, name, size, data, read, attributes, self._check
                )
                entry = Entry(Kind.FILE, mode & 0o777, content, size, owner, time, sealed)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        self.entries[path] = entry

    def symlink(
        self,
        path: str,
        target: str,
        *,
        owner: tuple[int, int] | None = None,
        time: int | None = None,
    ) -> None:
        """Make a symlink; where it leads is checked when the tree is complete."""
        path = self._normalise(path)
        if not target or "\0" in target:
            raise SourceError(f"{path!r}: a symlink without a proper target: {target!r}")
        parent, name = self._place(path, Kind.SYMLINK)
        with _naming(path):
            os.symlink(target, name, dir_fd=parent)
            if owner is not None:
                os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
            if time is not None:
                os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)
        self.entries[path] = Entry(Kind.SYMLINK, 0, target, 0, owner, time)

    def hardlink(self, path: str, target: str) -> None:
        """Make another name for a file or symlink that is in the tree already."""
        path = self._normalise(path)
        target = self._normalise(target, of=path)
        entry = self.entries.get(target)
        if entry is None or entry.kind is Kind.DIRECTORY:
            raise SourceError(
                f"{path!r}: a hard link to {target!r}, which is no file that came before it"
            )
        if target == path:
            return
        before, _, old = target.rpartition("/")
        with _naming(path):
            # A copy: to open the one directory may close the other.
            source = os.dup(self._directories.descriptor(before))
            try:
                parent, name = self._place(path, entry.kind)
                os.link(old, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)
        self.entries[path] = entry

    def finish(self) -> dict[str, Entry]:
        """Check where the symlinks lead, give the directories their modes; return all entries.

        Raises:
            SourceError: A symlink leads outside.
        """
        for path, entry in self.entries.items():
            self._check()
            if entry.kind is Kind.SYMLINK and leads_outside(path, entry.content, self.entries):
                raise SourceError(
                    f"{path!r}: a symlink to {entry.content!r}, which leads outside the target"
                )
        # From the deepest up: a directory may be given a mode that keeps us out, too.
        for path in sorted(filter(self._is_directory, self.entries), reverse=True):
            entry = self.entries[path]
            with _naming(path):
                descriptor = self._directories.descriptor("" if path == "." else path)
                if entry.owner is not None:
                    os.fchown(descriptor, *entry.owner)
                os.fchmod(descriptor, entry.mode)
                if entry.time is not None:
                    os.utime(descriptor, ns=(entry.time, entry.time))
        return self.entries

    def _normalise(self, path: str, of: str | None = None) -> str:
        """The path without `.` and repeated slashes; refuse one that leads elsewhere."""
        names = path.split("/")
        if "" in names or "." in names or ".." in names or "\0" in path:
            what = repr(path) if of is None else f"{of!r}: a hard link to {path!r}"
            if path.startswith("/"):
                raise SourceError(f"{what}: an absolute path, expected a relative one")
            if ".." in names:
                raise SourceError(f"{what}: leads outside the target by '..'")
            if "\0" in path:
                raise SourceError(f"{what}: a name with a NUL byte")
            names = [name for name in names if name not in ("", ".")]
            path = "/".join(names) or "."
        # A character has up to 4 bytes.
        long = 4 * len(path) > _MAX_PATH and len(os.fsencode(path)) > _MAX_PATH
        if long or len(names) > MAX_DEPTH:
            raise SourceError(
                f"{path[:100]!r}...: deeper than {MAX_DEPTH} directories "
                f"or longer than {_MAX_PATH} bytes"
            )
        return path

    def _is_directory(self, path: str) -> bool:
        entry = self.entries.get(path)
        return entry is not None and entry.kind is Kind.DIRECTORY

    def _place(self, path: str, kind: Kind) -> tuple[int, str]:
        """Make room for an entry; return its parent's descriptor and its name there."""
        self._check()
        self._members += 1
        if self._members > self.limits.members:
            raise SourceError(f"{path!r}: more than {self.limits.members} entries (max_members)")
        parent, _, name = path.rpartition("/")
        if parent and not self._is_directory(parent):
            self._make_parent(parent, path)
        if path in self.entries:
            self._replace(path, kind)
        self._earlier.discard(path)
        return self._directories.descriptor(parent), name

    def _make_parent(self, path: str, child: str) -> None:
        entry = self.entries.get(path)
        if entry is not None and path not in self._earlier:
            what = "a symlink" if entry.kind is Kind.SYMLINK else "a file"
            raise SourceError(f"{child!r}: {path!r} is {what}, not a directory to write into")
        self.directory(path)

    def _replace(self, path: str, kind: Kind) -> None:
        """Remove what an entry of another kind, or a later one of the same path, replaces."""
        entry = self.entries[path]
        if path == ".":
            raise SourceError(f"'.': {_NAMES[kind]} where the target's directory is")
        if entry.kind is Kind.DIRECTORY:
            below = [other for other in self.entries if other.startswith(path + "/")]
            if not self._earlier.issuperset([path, *below]):
                raise SourceError(f"{path!r}: {_NAMES[kind]} where a directory is")
            for other in sorted(below, reverse=True):
                self._remove(other)
            self._remove(path)
        elif kind is Kind.DIRECTORY and path not in self._earlier:
            raise SourceError(f"{path!r}: a directory where {_NAMES[entry.kind]} is")
        else:
            self._remove(path)

    def _remove(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        entry = self.entries.pop(path)
        descriptor = self._directories.descriptor(parent)
        with _naming(path):
            if entry.kind is Kind.DIRECTORY:
                self._directories.forget(path)
                os.rmdir(name, dir_fd=descriptor)
            else:
                os.unlink(name, dir_fd=descriptor)

    def _write(
        self, path: str, parent: int, name: str, data: bytes, attributes: Attributes
    ) -> Entry:
        """Make a file of contents in memory: a link to the same one before, or a new one."""
        mode, owner, time = attributes
        content = sha256(data).hexdigest()
        before = self._previous_entries.get(path)
        if (
            before is not None
            and before.content == content
            and (before.kind, before.mode, before.owner, before.time)
            == (Kind.FILE, mode, owner, time)
            and self._link_unchanged(path, before, parent, name)
        ):
            return before
        sealed = write_file(parent, name, data, attributes)
        return Entry(Kind.FILE, mode, content, len(data), owner, time, sealed)

    def _link_unchanged(self, path: str, before: Entry, parent: int, name: str) -> bool:
        """Link a file of the previous tree, unless somebody wrote to it since it was sealed."""
        if self._previous is None:
            return False
        try:
            directory = self._previous.descriptor(path.rpartition("/")[0])
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if (status.st_mtime_ns, status.st_size, status.st_mode) != (
                before.sealed,
                before.size,
                stat.S_IFREG | before.mode,
            ):
                return False
            os.link(name, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except OSError:  # too many links, say; sharing only saves time and space
            return False
        return True


@contextmanager
def _naming(path: str) -> Generator[None]:
    """Name the path that the user knows in an error that knows only its last name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
