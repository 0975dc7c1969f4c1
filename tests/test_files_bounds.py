"""Sources that ask for more than there is: of memory, of time, of numbers, of descriptors."""

import io
import os
import subprocess
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest
from configurations import archive
from test_files_archive import checksummed, member, members, pax, read, unpack

from trio_entrypoint import SourceError, open_directory_configuration
from trio_entrypoint._files.archive import unpack_archive
from trio_entrypoint._files.records import remove_tree
from trio_entrypoint._files.tree import TreeWriter


def base_256(number: int, size: int) -> bytes:
    """A number as GNU tar writes those that are too large for octal digits."""
    field = number.to_bytes(size, "big", signed=True)
    return field if number < 0 else bytes([field[0] | 0x80]) + field[1:]


def unpack_as_recorded(data: bytes, into: Path) -> os.stat_result:
    """Unpack an archive with its owners and times; return what the file in it got."""
    into.mkdir()
    with TreeWriter(str(into)) as tree:
        unpack_archive(io.BytesIO(data).read, tree, keep_owner=True, keep_time=True)
        tree.finish()
    return (into / "a").stat()


@pytest.mark.parametrize(
    ("offset", "size", "number", "message"),
    [
        (108, 8, 2**32, "uid is 4294967296, expected a 32-bit number"),
        (108, 8, 2**32 - 1, "uid is 4294967295"),
        (108, 8, -1, "uid is -1"),
        (116, 8, 2**40, "gid is 1099511627776"),
        (136, 12, 10**11, "mtime is 100000000000, expected seconds"),
        (136, 12, -(2**70), "mtime is -1180591620717411303424"),
    ],
)
def test_owners_and_times_that_no_file_can_have_are_refused(
    tmp_path: Path, offset: int, size: int, number: int, message: str
) -> None:
    block = member("a")
    data = members(checksummed(block[:offset] + base_256(number, size) + block[offset + size :]))
    with pytest.raises(SourceError, match=f"corrupt: {message}"):
        unpack_as_recorded(data, tmp_path / "out")


def test_an_owner_in_a_pax_header_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    data = members(pax(b"18 gid=4294967295\n"), member("a"))
    with pytest.raises(SourceError, match="gid is 4294967295"):
        unpack_as_recorded(data, tmp_path / "out")


def test_the_largest_owner_and_a_late_time_are_kept(tmp_path: Path) -> None:
    data = members(pax(b"18 uid=4294967294\n", b"21 mtime=10000000000\n"), member("a"))
    status = unpack_as_recorded(data, tmp_path / "out")
    assert (status.st_uid, int(status.st_mtime)) == (2**32 - 2, 10**10)


def test_memory_does_not_grow_with_extended_headers(tmp_path: Path) -> None:
    def header(number: int, kind: bytes) -> bytes:
        record = b" key-%04d=%s\n" % (number, b"v" * 100_000)
        return pax(b"%d" % (len(record) + 6) + record, kind=kind)

    data = members(*[header(n, kind) for n in range(100) for kind in (b"x", b"g")], member("a"))
    tracemalloc.start()
    try:
        unpack(data, tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert read(tmp_path / "out") == {"a": ""}
    assert peak < 3_000_000 < len(data)


def test_extended_headers_can_be_given_up_in_the_middle(tmp_path: Path) -> None:
    looks = 0

    def give_up() -> None:
        nonlocal looks
        looks += 1
        if looks == 10:
            raise KeyboardInterrupt

    data = members(*[pax(b"6 a=b\n") for _ in range(2000)], member("a"))
    with TreeWriter(str(tmp_path)) as tree, pytest.raises(KeyboardInterrupt):
        unpack_archive(io.BytesIO(data).read, tree, check=give_up)


def test_symlinks_that_multiply_each_other_are_refused_soon(tmp_path: Path) -> None:
    links = [
        member(f"s{number}", tarfile.SYMTYPE, link=f"s{number + 1}/" + "x/" * 1000)
        for number in range(40)
    ]
    began = time.monotonic()
    with pytest.raises(SourceError, match="'s0': a symlink to 's1/x/"):
        unpack(members(*links, member("s40/")), tmp_path / "out")
    assert time.monotonic() - began < 1


def test_what_symlinks_lead_to_can_be_given_up(tmp_path: Path) -> None:
    looks = 0

    def count() -> None:
        nonlocal looks
        looks += 1

    with TreeWriter(str(tmp_path), check=count) as tree:
        for number in range(10):
            tree.symlink(f"s{number}", "x")
        made, looks = looks, 0
        tree.finish()
    assert looks >= made == 10


def test_a_path_is_measured_in_bytes_so_that_it_can_be_removed_again(tmp_path: Path) -> None:
    path = "/".join(["é" * 127] * 16)
    with pytest.raises(SourceError, match="longer than 3072 bytes"):
        unpack(archive({path: "1"}), tmp_path / "out")
    unpack(archive({path[:1500]: "1"}), tmp_path / "short")
    for name in ("out", "short"):
        remove_tree(str(tmp_path / name))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("others", [30, 31, 32, 33])
@pytest.mark.parametrize("target", ["t/file", "t/u/file", "t/u/v/w/file"])
def test_a_hard_link_is_made_where_it_belongs_however_many_directories_there_are(
    tmp_path: Path, others: int, target: str
) -> None:
    files = {target: "target", "t/other": "", "here/other": ""}
    files |= {f"d{number}/other": "" for number in range(others)}
    blocks = [member(path, data=text.encode()) for path, text in files.items()]
    unpack(members(*blocks, member("here/link", tarfile.LNKTYPE, link=target)), tmp_path / "out")
    assert read(tmp_path / "out") == {**files, "here/link": "target"}


async def test_a_directory_that_is_too_deep_is_refused_and_the_handler_lives_on(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").touch()
    deep = os.open(source, os.O_RDONLY)
    for _ in range(1500):  # more than Python nests calls
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    try:
        async with open_directory_configuration(source, tmp_path / "target") as configuration:
            refused = await configuration.update()
            assert isinstance(refused.error, SourceError)
            assert "deeper than 128 directories" in str(refused.error)
            subprocess.run(["rm", "-r", source / "d"], check=True)
            (source / Path(*["d"] * 127)).mkdir(parents=True)
            (source / Path(*["d"] * 127) / "file").touch()
            accepted = await configuration.update()
            assert accepted.error is None
            assert len(accepted.changed) == 129
    finally:
        # Nor can Python's own functions remove it.
        subprocess.run(["rm", "-rf", source], check=True)
