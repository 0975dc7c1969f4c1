"""Making what is already at a target its first generation, without a moment without it.

| the target is | how |
| --- | --- |
| a directory that may be replaced | it changes places with the symlink to it, in one step |
| a directory that has to stay | each of its entries does, one after the other |
| a file | it gets a second name in the store |

An entry that is itself a directory of an image's layer (overlayfs) can change places with
nothing. It is copied, then removed, then replaced by the symlink: the only gap there is, at
the first start in a new container, before anything reads it.

What a crash interrupts is continued: `store/1/adopting` says so until all is done.
"""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from trio_entrypoint._files.directories import Directories
from trio_entrypoint._files.generations import Store
from trio_entrypoint._files.manifest import Entry, Manifest, tree_digest
from trio_entrypoint._files.pointers import FilePointer, InsidePointer, SymlinkPointer
from trio_entrypoint._files.records import NOTHING, remove_tree
from trio_entrypoint._files.scan import scan_tree
from trio_entrypoint._linux.syscalls import exchange

_ADOPTING = "adopting"


def adopt_directory(store: Store, pointer: SymlinkPointer) -> None:
    """Adopt a directory as it is. An empty one becomes generation 0, `NOTHING`.

    Raises:
        OSError: It cannot be replaced (`EBUSY`, `EXDEV`, ...), and is as it was.
    """
    entries = _scan(pointer.target)
    number = store.records.next_number() if len(entries) > 1 else NOTHING
    os.makedirs(os.path.dirname(pointer.published(number)), exist_ok=True)
    store.records.seal(number, Manifest(entries, tree_digest(entries)))
    try:
        pointer.adopt(number)
    except OSError:
        store.records.remove(number)
        raise
    store.recover()


def adopt_file(store: Store, pointer: FilePointer) -> None:
    """Adopt a file: give it another name, in a generation."""
    number = store.records.next_number()
    tree = os.path.dirname(pointer.published(number))
    os.makedirs(tree)
    pointer.adopt(number)
    entries = _scan(tree)
    store.records.seal(number, Manifest(entries, entries[pointer.name].content))
    store.recover()


def adopt_entries(store: Store, pointer: InsidePointer) -> None:
    """Adopt the entries of a directory that has to stay, or continue doing so."""
    if pointer.read() is None:
        entries = _scan(pointer.target, ignore=pointer.foreign)
        if len(entries) == 1:
            return
        number = store.records.next_number()
        os.makedirs(pointer.published(number))
        os.close(os.open(_mark(pointer, number), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        store.records.seal(number, Manifest(entries, tree_digest(entries)))
        pointer.prepare(number, ())
        pointer.switch()
        store.recover()
    current = store.current
    if current is None or not os.path.exists(_mark(pointer, current.number)):
        return
    for name in current.manifest.top_level:
        _adopt_entry(pointer, current.number, name)
    os.unlink(_mark(pointer, current.number))


def _mark(pointer: InsidePointer, number: int) -> str:
    return os.path.join(pointer.store, str(number), _ADOPTING)


def _adopt_entry(pointer: InsidePointer, number: int, name: str) -> None:
    if pointer.is_own(name):
        return
    inside = os.path.join(pointer.published(number), name)
    outside = os.path.join(pointer.target, name)
    if not os.path.lexists(inside):
        os.symlink(pointer.link(name), inside)
    if os.path.islink(inside) and os.readlink(inside) == pointer.link(name):
        try:
            exchange(inside, outside)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS):
                raise
        else:
            return
        copy = inside + ".copy"
        remove_tree(copy)
        _copy(outside, copy)
        os.unlink(inside)
        os.rename(copy, inside)
    remove_tree(outside)
    os.symlink(pointer.link(name), outside)


def _copy(path: str, to: str) -> None:
    """Copy an entry with all that is below it, owners, modes and times included."""
    status = os.lstat(path)
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFLNK:
            os.symlink(os.readlink(path), to)
        case stat.S_IFDIR:
            os.mkdir(to, 0o700)
            for name in os.listdir(path):
                _copy(os.path.join(path, name), os.path.join(to, name))
        case stat.S_IFREG:
            with open(path, "rb") as source, open(to, "xb") as copy:
                while data := source.read(1024 * 1024):
                    copy.write(data)
        case _:
            return
    with suppress(PermissionError):  # only root may give away what is his
        os.chown(to, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(to, stat.S_IMODE(status.st_mode))
        os.utime(to, ns=(status.st_atime_ns, status.st_mtime_ns))


def _scan(path: str, ignore: Callable[[str], bool] = lambda _: False) -> dict[str, Entry]:
    with Directories(path) as directories:
        return scan_tree(directories, ignore=ignore, strict=False)
