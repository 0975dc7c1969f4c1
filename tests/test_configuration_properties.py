"""For any pair of trees: the target is what `tar -x` makes of the new archive, and the
report is what a naive comparison finds. `TRIO_ENTRYPOINT_TESTS=thorough` tries many more.
"""

import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import attrs
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_entrypoint import Modification, open_directory_configuration, open_tar_configuration
from trio_entrypoint._files.opening import Layout, Share

THOROUGH = os.environ.get("TRIO_ENTRYPOINT_TESTS") == "thorough"


@attrs.frozen
class File:
    data: bytes
    mode: int


@attrs.frozen
class Link:
    target: bytes


@attrs.frozen
class Directory:
    mode: int
    entries: Mapping[bytes, "Node"]


Node: TypeAlias = File | Link | Directory

# A few names often, so that the two trees of a pair have many in common.
NAMES = st.one_of(
    st.sampled_from([b"a", b"b c", b"new\nline", b"\xff\xfe", "ü".encode(), b"-x", b".hidden"]),
    st.binary(min_size=1, max_size=60).filter(
        lambda name: b"/" not in name and b"\0" not in name and not name.startswith(b"..")
    ),
).filter(lambda name: name != b".")
FILES = st.builds(
    File,
    st.one_of(st.sampled_from([b"", b"1", b"2", bytes(600)]), st.binary(max_size=2000)),
    st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o444, 0]),
)
LINKS = st.builds(Link, st.lists(NAMES, min_size=1, max_size=3).map(b"/".join))
NODES: st.SearchStrategy[Node] = st.recursive(
    st.one_of(FILES, FILES, LINKS),
    lambda nodes: st.builds(
        Directory,
        st.sampled_from([0o755, 0o700, 0o555, 0o2775]),
        st.dictionaries(NAMES, nodes, max_size=5),
    ),
    max_leaves=20,
)
TREES = st.dictionaries(NAMES, NODES, min_size=1, max_size=6)


def pack(tree: Mapping[bytes, Node], tar_format: int, listed: bool) -> bytes:
    """A tar archive of a tree; directories may be left unlisted if they are not empty."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tar_format, encoding="utf-8", errors="surrogateescape"
    ) as tar:

        def add(path: bytes, node: Node) -> None:
            info = tarfile.TarInfo(os.fsdecode(path))
            match node:
                case File(data, mode):
                    info.size, info.mode = len(data), mode
                    tar.addfile(info, io.BytesIO(data))
                case Link(target):
                    info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(target)
                    tar.addfile(info)
                case Directory(mode, entries):
                    info.type, info.mode = tarfile.DIRTYPE, mode
                    if listed or not entries or mode != 0o755:
                        tar.addfile(info)
                    for name, entry in entries.items():
                        add(path + b"/" + name, entry)

        for name, node in tree.items():
            add(b"./" + name, node)
    return buffer.getvalue()


Found: TypeAlias = dict[str, tuple[int, bytes]]


def read(root: str) -> Found:
    """Everything below a directory: type and mode, and contents or target."""
    found: Found = {}

    def look(directory: str, prefix: str) -> None:
        for entry in os.scandir(directory):
            if not prefix and entry.name.startswith(".."):
                continue
            status = entry.stat(follow_symlinks=False)
            data = b""
            if stat.S_ISLNK(status.st_mode):
                data = os.fsencode(os.readlink(entry.path))
            elif stat.S_ISREG(status.st_mode):
                data = Path(entry.path).read_bytes()
            kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode) & 0o777
            found[prefix + entry.name] = (kind | (0 if stat.S_ISLNK(kind) else mode), data)
            if stat.S_ISDIR(status.st_mode):
                look(entry.path, prefix + entry.name + "/")

    look(root, "")
    return found


def naive_difference(old: Found, new: Found) -> dict[str, Modification]:
    changed = {path: Modification.CREATED for path in new if path not in old}
    changed |= {path: Modification.DELETED for path in old if path not in new}
    return changed | {
        path: Modification.MODIFIED for path in new if path in old and old[path] != new[path]
    }


def untar(data: bytes, into: Path) -> Found:
    """What GNU tar makes of an archive."""
    into.mkdir()
    subprocess.run(["tar", "-C", into, "-xpf", "-"], input=data, umask=0o022, check=True)
    return read(str(into))


@settings(
    max_examples=1000 if THOROUGH else 50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    old=TREES,
    new=TREES,
    tar_format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    listed=st.booleans(),
    share=st.sampled_from(["link", "copy"]),
    layout=st.sampled_from(["symlink", "inside"]),
)
def test_the_target_is_what_tar_makes_and_the_report_what_a_naive_comparison_finds(
    old: Mapping[bytes, Node],
    new: Mapping[bytes, Node],
    tar_format: int,
    listed: bool,
    share: Share,
    layout: Layout,
) -> None:
    archives = [pack(tree, tar_format, listed) for tree in (old, new)]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        first, second = (
            untar(data, directory / f"expected{number}") for number, data in enumerate(archives)
        )

        async def main() -> None:
            source, target = directory / "source", directory / "target"
            async with open_tar_configuration(
                source, target, share=share, layout=layout
            ) as configuration:
                before: Found = {}
                for data, expected in zip(archives, (first, second), strict=True):
                    source.write_bytes(data)
                    result = await configuration.update()
                    assert result.error is None
                    assert result.generation is not None
                    assert read(str(result.generation.path)) == expected
                    if layout == "symlink":
                        assert read(str(target)) == expected
                    assert dict(result.changed) == naive_difference(before, expected)
                    before = expected
                back = await configuration.rollback()
                if first != second:
                    assert dict(back.changed) == naive_difference(second, first)

            # The same from a directory: nothing is lost or added on the way.
            async with open_directory_configuration(
                directory / "expected1", directory / "copied"
            ) as copied:
                result = await copied.update()
                assert result.error is None
                assert read(str(directory / "copied")) == second

        trio.run(main)
        if layout == "inside":
            shutil.rmtree(directory / "target", onerror=lambda *_: None)
