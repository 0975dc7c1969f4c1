"""What a tar archive may put into a target: policy over `tar` (the format) and `tree`.

Accepted are files, directories, symlinks and hard links that stay inside. Refused, with
nothing applied, is everything else, naming the member and the reason.
"""

import os
import sys
from collections.abc import Callable

from trio_entrypoint._files.compression import open_compressed
from trio_entrypoint._files.errors import SourceError
from trio_entrypoint._files.tar import Blocks, read_members
from trio_entrypoint._files.tree import TreeWriter

# What `os.fsdecode` does, at a fifth of its time.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_REFUSED = {
    "3": "a character device",
    "4": "a block device",
    "6": "a FIFO",
    "M": "a file continued from another volume",
}


def unpack_archive(
    read: Callable[[int], bytes],
    tree: TreeWriter,
    *,
    keep_owner: bool = False,
    keep_time: bool = False,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write what a tar archive holds into a tree.

    Args:
        read: Gives at most so many bytes of the archive, packed or not, and none at its end.
        tree: What to write to; its limits count for what is no member, too.
        keep_owner: Give the members the numeric user and group of the archive.
        keep_time: Give them their times of modification.
        check: Called often; it may raise to give up.

    Raises:
        SourceError: It is no tar archive, a broken one, or a member must not be applied.
    """
    blocks = Blocks(open_compressed(read), tree.limits.size, check)
    empty = True
    # A long name is two headers more; git writes one for the whole archive.
    for member in read_members(blocks, 3 * tree.limits.members + 1):
        empty = False
        name = member.name.decode(_ENCODING, _ERRORS)
        owner = member.owner if keep_owner else None
        time = member.time if keep_time else None
        match member.kind:
            case "0":
                tree.file(name, member.mode, member.size, member.read, owner=owner, time=time)
            case "5" | "D":
                tree.directory(name, member.mode, owner=owner, time=time)
            case "1":
                tree.hardlink(name, os.fsdecode(member.link))
            case "2":
                tree.symlink(name, os.fsdecode(member.link), owner=owner, time=time)
            case kind:
                what = _REFUSED.get(kind, f"of an unknown type, {kind!r}")
                raise SourceError(f"{name!r} is {what}; expected files, directories and links")
    if empty:
        raise SourceError("an archive without members")
