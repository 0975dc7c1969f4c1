"""Archives: every format that is accepted, and every trick that is refused."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from configurations import archive

from trio_entrypoint import SourceError
from trio_entrypoint._files.archive import unpack_archive
from trio_entrypoint._files.manifest import Entry, Kind
from trio_entrypoint._files.tree import Limits, TreeWriter

# Has types of its own, but not for the type checkers of those who do not install it.
zstd: Any = import_module("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
FILES = {"a": "1", "b/c": "2" * 3000, "b/d/": "", "e/f/g": ""}


def unpack(data: bytes, into: Path, **limits: int) -> dict[str, Entry]:
    """Unpack an archive as an update does."""
    into.mkdir()
    with TreeWriter(str(into), limits=Limits(**limits)) as tree:
        unpack_archive(io.BytesIO(data).read, tree)
        return tree.finish()


def read(directory: Path) -> dict[str, str]:
    """All files and empty directories below a directory."""
    found: dict[str, str] = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_text()
        elif not any(path.iterdir()):
            found[name + "/"] = ""
    return found


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        zstd.compress,
        lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
        lambda data: bz2.compress(data[:5000]) + bz2.compress(data[5000:]),
        lambda data: lzma.compress(data[:5000]) + lzma.compress(data[5000:]) + bytes(8),
        lambda data: zstd.compress(data[:5000]) + zstd.compress(data[5000:]),
    ],
    ids=["plain", "gzip", "bzip2", "xz", "zstd", "gzip2", "bzip2-2", "xz2", "zstd2"],
)
def test_an_archive_is_unpacked_whatever_it_is_packed_with(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    unpack(pack(archive(FILES)), tmp_path / "out")
    assert read(tmp_path / "out") == FILES


@pytest.mark.parametrize("dialect", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_every_format_of_gnu_tar_is_unpacked(tmp_path: Path, dialect: str) -> None:
    source = tmp_path / "in"
    long = "/".join(["directory" * 5] * 3) if dialect in {"gnu", "posix", "oldgnu"} else "short"
    files = {**FILES, f"{long}/file": "deep", "empty/": ""}
    for path, text in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (source / path).mkdir()
        else:
            (source / path).write_text(text)
    (source / "link").symlink_to("b/c")
    os.link(source / "a", source / "zz-hard")
    data = subprocess.run(
        ["tar", "-C", source, f"--format={dialect}", "-cf", "-", "."],
        check=True,
        capture_output=True,
    ).stdout
    unpack(data, tmp_path / "out")
    assert read(tmp_path / "out") == read(source)


@pytest.mark.parametrize("version", ["old", "0.0", "0.1", "1.0"])
def test_every_format_of_sparse_files_is_unpacked(tmp_path: Path, version: str) -> None:
    sparse = tmp_path / "in" / "sparse"
    sparse.parent.mkdir()
    with sparse.open("wb") as file:
        for position in range(0, 60 * 65536, 65536):
            file.seek(position)
            file.write(b"%d" % position)
        file.truncate(5_000_000)
    how = (
        ["--format=oldgnu"]
        if version == "old"
        else ["--format=posix", f"--sparse-version={version}"]
    )
    data = subprocess.run(
        ["tar", "-C", sparse.parent, "--sparse", *how, "-cf", "-", "sparse"],
        check=True,
        capture_output=True,
    ).stdout
    assert len(data) < 2_000_000
    entries = unpack(data, tmp_path / "out")
    assert (tmp_path / "out" / "sparse").read_bytes() == sparse.read_bytes()
    assert entries["sparse"].size == 5_000_000
    with pytest.raises(SourceError, match=r"'sparse': more than 4000000 bytes"):
        unpack(data, tmp_path / "small", size=4_000_000)


def test_an_archive_of_git_is_unpacked(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "file").write_text("1")
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "m"]):
        subprocess.run([*git, *command], check=True)
    data = subprocess.run([*git, "archive", "HEAD"], check=True, capture_output=True).stdout
    assert data[156:157] == b"g"
    unpack(data, tmp_path / "out")
    assert read(tmp_path / "out") == {"file": "1"}


def test_modes_lose_what_is_beyond_permissions(tmp_path: Path) -> None:
    data = members(member("setuid", mode=0o4755), member("sticky/", tarfile.DIRTYPE, mode=0o3710))
    entries = unpack(data, tmp_path / "out")
    assert (tmp_path / "out" / "setuid").stat().st_mode == 0o100755
    assert (tmp_path / "out" / "sticky").stat().st_mode == 0o040710
    assert entries["setuid"].mode == 0o755


def test_a_header_full_of_large_bytes_has_a_sum_like_any_other(tmp_path: Path) -> None:
    name = os.fsdecode(b"/".join([b"\xff" * 90] * 2))
    data = members(
        member(name, data=b"1"), member("link", tarfile.SYMTYPE, link=os.fsdecode(b"\xfe" * 100))
    )
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, os.fsdecode(b"\xff" * 100)
    ustar = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    assert sum(ustar) > 65521
    unpack(data, tmp_path / "gnu")
    unpack(members(ustar), tmp_path / "ustar")
    assert os.readlink(tmp_path / "ustar" / name) == info.linkname


def test_of_two_members_of_one_name_the_later_wins(tmp_path: Path) -> None:
    data = members(member("a", data=b"1"), member("a", data=b"22"))
    unpack(data, tmp_path / "out")
    assert read(tmp_path / "out") == {"a": "22"}


def member(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    data: bytes = b"",
    link: str = "",
    mode: int = 0o644,
    size: int | None = None,
) -> bytes:
    """One member, as its blocks."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = len(data) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def members(*blocks: bytes) -> bytes:
    """A whole archive."""
    return b"".join(blocks) + bytes(1024)


def pax(*records: bytes, kind: bytes = b"x") -> bytes:
    """An extended header."""
    return member("pax", kind, b"".join(records))


def checksummed(block: bytes) -> bytes:
    """A header block with its sum put right."""
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


OK = member("before", data=b"1")
PLAIN = archive(FILES)

HOSTILE: dict[str, tuple[bytes, str]] = {
    "dot-dot": (members(OK, member("../x")), r"'\.\./x': leads outside the target by '\.\.'"),
    "dot-dot-within": (members(member("a/../../x")), r"leads outside the target"),
    "absolute": (members(member("/etc/x")), r"'/etc/x': an absolute path"),
    "absolute-long": (
        members(pax(b"18 path=/etc/cron\n"), member("x")),
        r"'/etc/cron': an absolute path",
    ),
    "nul": (members(pax(b"12 path=a\0b\n"), member("x")), r"a name with a NUL byte"),
    "symlink-out": (
        members(member("l", tarfile.SYMTYPE, link="../x")),
        r"'l': a symlink to '\.\./x', which leads outside",
    ),
    "symlink-absolute": (
        members(member("l", tarfile.SYMTYPE, link="/etc/passwd")),
        r"'l': a symlink to '/etc/passwd'",
    ),
    "symlink-out-by-another": (
        members(
            member("d/e/up", tarfile.SYMTYPE, link="../.."),
            member("l", tarfile.SYMTYPE, link="d/e/up/../x"),
        ),
        r"'l': a symlink to 'd/e/up/\.\./x', which leads outside",
    ),
    "symlink-out-by-a-later-one": (
        members(
            member("l", tarfile.SYMTYPE, link="a/b/../../../x"),
            member("a/b", tarfile.SYMTYPE, link="."),
        ),
        r"'l': a symlink",
    ),
    "through-a-symlink": (
        members(member("l", tarfile.SYMTYPE, link="."), member("l/x", data=b"1")),
        r"'l/x': 'l' is a symlink, not a directory",
    ),
    "through-a-file": (members(member("l"), member("l/x")), r"'l/x': 'l' is a file"),
    "hardlink-out": (
        members(member("h", tarfile.LNKTYPE, link="../../etc/passwd")),
        r"'h': a hard link to '../../etc/passwd': leads outside",
    ),
    "hardlink-absolute": (
        members(member("h", tarfile.LNKTYPE, link="/etc/passwd")),
        r"'h': a hard link to '/etc/passwd': an absolute path",
    ),
    "hardlink-to-nothing": (
        members(member("h", tarfile.LNKTYPE, link="x")),
        r"'h': a hard link to 'x', which is no file that came before",
    ),
    "hardlink-through-a-symlink": (
        members(
            member("l", tarfile.SYMTYPE, link="."),
            member("a"),
            member("h", tarfile.LNKTYPE, link="l/a"),
        ),
        r"'h': a hard link to 'l/a', which is no file",
    ),
    "device": (members(member("null", tarfile.CHRTYPE)), r"'null' is a character device"),
    "block-device": (members(member("sda", tarfile.BLKTYPE)), r"'sda' is a block device"),
    "fifo": (members(member("fifo", tarfile.FIFOTYPE)), r"'fifo' is a FIFO"),
    "unknown-type": (members(member("s", b"s")), r"'s' is of an unknown type, 's'"),
    "file-over-directory": (members(member("a/b"), member("a")), r"'a': a file where a directory"),
    "directory-over-file": (
        members(member("a"), member("a", tarfile.DIRTYPE)),
        r"'a': a directory where a file is",
    ),
    "file-as-root": (members(member("./.")), r"'\.': a file where the target's directory is"),
    "empty": (b"", r"an empty file"),
    "only-zeros": (bytes(10240), r"an archive without members"),
    "text": (b"#!/bin/sh\n" * 200, r"not a tar archive"),
    "short-text": (b"hello", r"truncated"),
    "truncated-header": (PLAIN[:200], r"truncated"),
    "truncated-at-a-header": (PLAIN[:1024], r"truncated"),
    "truncated-contents": (PLAIN[:2100], r"truncated"),
    "corrupt-header": (PLAIN[:1024] + b"x" + PLAIN[1025:], r"corrupt: the checksum of header 2"),
    "truncated-gzip": (gzip.compress(PLAIN)[:-9], r"truncated: the gzip stream"),
    "truncated-gzip-sum": (gzip.compress(PLAIN)[:-2], r"truncated: the gzip stream"),
    "corrupt-gzip-sum": (gzip.compress(PLAIN)[:-5] + bytes(5), r"corrupt gzip stream"),
    "corrupt-bzip2": (
        bz2.compress(PLAIN)[:40] + b"x" + bz2.compress(PLAIN)[41:],
        r"corrupt bzip2 stream",
    ),
    "truncated-xz": (lzma.compress(PLAIN)[:-20], r"(truncated|corrupt).*xz"),
    "truncated-zstd": (zstd.compress(PLAIN)[:-4], r"truncated: the zstd stream"),
    "rubbish-after-gzip": (gzip.compress(PLAIN) + b"rubbish", r"corrupt gzip stream"),
    "large-name": (
        members(member("x", b"L", size=1 << 40)),
        r"an extended header of 1099511627776 bytes",
    ),
    "large-pax": (members(member("x", b"x", size=1 << 33)), r"an extended header of \d+ bytes"),
    "negative-size": (
        members(checksummed(member("x")[:124] + b"\xff" * 12 + member("x")[136:])),
        r"corrupt: a size of -1 bytes",
    ),
    "rubbish-size": (
        members(checksummed(member("x")[:124] + b"9" * 11 + b"\0" + member("x")[136:])),
        r"corrupt: .* where an octal number should be",
    ),
    "pax-without-a-length": (members(pax(b"path=a\n"), member("x")), r"not made of records"),
    "pax-length-too-long": (members(pax(b"99 path=a\n"), member("x")), r"not made of records"),
    "pax-length-zero": (members(pax(b"0 path=a\n"), member("x")), r"not made of records"),
    "pax-digits": (members(pax(b"1" * 100_000), member("x")), r"not made of records"),
    "pax-size-rubbish": (members(pax(b"11 size=-5\n"), member("x")), r"size is b'-5'"),
    "pax-without-a-member": (members(pax(b"10 path=a\n")), r"without its member"),
    "sparse-overlap": (
        members(
            pax(
                b"22 GNU.sparse.major=1\n",
                b"22 GNU.sparse.minor=0\n",
                b"28 GNU.sparse.realsize=1000\n",
            ),
            member("x", data=b"2\n0\n10\n5\n10\n".ljust(512, b"\0") + bytes(20)),
        ),
        r"parts overlap",
    ),
    "sparse-beyond": (
        members(
            pax(
                b"22 GNU.sparse.major=1\n",
                b"22 GNU.sparse.minor=0\n",
                b"26 GNU.sparse.realsize=10\n",
            ),
            member("x", data=b"1\n0\n20\n".ljust(512, b"\0") + bytes(20)),
        ),
        r"parts do not fit",
    ),
    "sparse-map-endless": (
        members(
            pax(b"22 GNU.sparse.major=1\n", b"26 GNU.sparse.realsize=10\n"),
            member("x", data=b"99999999\n".ljust(512, b"\0")),
        ),
        r"without a proper map",
    ),
    "too-deep": (members(member("a/" * 200 + "x")), r"deeper than 128"),
    "too-long": (members(member(("a" * 200 + "/") * 20 + "x")), r"longer than 3072"),
    "long-component": (members(member("a" * 300)), r"File name too long: 'a"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_archive_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    data, message = HOSTILE[name]
    with pytest.raises((SourceError, OSError), match=message):
        unpack(data, tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]


def test_more_members_or_bytes_than_allowed_are_refused(tmp_path: Path) -> None:
    data = archive({f"f{number}": "12345" for number in range(10)})
    unpack(data, tmp_path / "enough", members=10, size=50)
    with pytest.raises(SourceError, match=r"'f9': more than 9 entries"):
        unpack(data, tmp_path / "members", members=9)
    with pytest.raises(SourceError, match=r"'f9': more than 49 bytes in all"):
        unpack(data, tmp_path / "size", size=49)


def test_headers_without_members_count(tmp_path: Path) -> None:
    data = members(*[pax(b"10 path=a\n")] * 100)
    with pytest.raises(SourceError, match=r"more than 31 headers"):
        unpack(data, tmp_path / "out", members=10)


def test_what_follows_the_end_is_not_read_for_ever(tmp_path: Path) -> None:
    data = gzip.compress(members(OK) + bytes(50_000_000))
    with pytest.raises(SourceError, match=r"too much .* belongs to no file"):
        unpack(data, tmp_path / "out", size=1_000_000)


def test_a_thousand_directories_need_few_descriptors(tmp_path: Path) -> None:
    files = {f"d{number}/e{number}/f": str(number) for number in range(1000)}
    before = len(os.listdir("/proc/self/fd"))
    peak = 0

    def look() -> None:
        nonlocal peak
        peak = max(peak, len(os.listdir("/proc/self/fd")))

    (tmp_path / "out").mkdir()
    with TreeWriter(str(tmp_path / "out"), check=look) as tree:
        unpack_archive(io.BytesIO(archive(files)).read, tree)
        tree.finish()
    assert peak - before < 50
    assert read(tmp_path / "out") == files


def test_a_later_layer_wins_whatever_the_types(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with TreeWriter(str(tmp_path / "out")) as tree:
        for layer in (
            {"a": "1", "b/c/d": "1", "e": "1", "f/g": "1"},
            {"a/x": "2", "b": "2", "f/h": "2"},
        ):
            tree.next_layer()
            unpack_archive(io.BytesIO(archive(layer)).read, tree)
        entries = tree.finish()
    assert read(tmp_path / "out") == {"a/x": "2", "b": "2", "e": "1", "f/g": "1", "f/h": "2"}
    assert entries.keys() == {".", "a", "a/x", "b", "e", "f", "f/g", "f/h"}
    assert entries["b"].kind is Kind.FILE
