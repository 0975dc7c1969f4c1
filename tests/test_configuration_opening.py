"""What may be at a target when a handler opens, and which targets are refused, and how."""

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from configurations import archive, contents
from surroundings import in_mount_namespace

from trio_entrypoint import (
    FileSource,
    Modification,
    open_directory_configuration,
    open_etcd_configuration,
    open_file_configuration,
    open_merged_configuration,
    open_tar_configuration,
)

FILES = {"a": "1", "b/c": "2"}


def fill(directory: Path) -> None:
    (directory / "b").mkdir(parents=True)
    (directory / "a").write_text("1")
    (directory / "b" / "c").write_text("2")


@pytest.mark.parametrize("layout", ["symlink", "inside"])
async def test_an_existing_directory_is_adopted_without_a_moment_in_which_it_is_missing(
    tmp_path: Path, layout: Any
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    fill(target)
    target.chmod(0o755)
    source.write_bytes(archive({"a": "new"}))
    missing: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                missing.extend([] if (target / "b" / "c").read_text() == "2" else ["else"])
            except OSError as error:
                missing.append(str(error))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        async with open_tar_configuration(source, target, layout=layout) as configuration:
            stop.set()
            reader.join()
            assert configuration.applied
            assert contents(target) == {**FILES, "b/": ""}
            result = await configuration.update()
            assert result.changed == {
                "a": Modification.MODIFIED,
                "b": Modification.DELETED,
                "b/c": Modification.DELETED,
            }
            result = await configuration.rollback()
            assert result.error is None
            assert contents(target) == {**FILES, "b/": ""}
    finally:
        stop.set()
        reader.join()
    assert missing == []


async def test_an_empty_directory_is_nothing_applied(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    target.mkdir()
    source.write_bytes(archive({"a": "1"}))
    async with open_tar_configuration(source, target) as configuration:
        assert not configuration.applied
        assert configuration.generation is None
        with configuration.pin() as environment:
            assert environment == {}
        assert (await configuration.rollback()).error is not None
        result = await configuration.update()
        assert result.generation is not None
        assert result.generation.number == 1
        assert (await configuration.rollback()).error is not None
        assert contents(target) == {"a": "1"}


async def test_a_first_trial_that_nobody_confirmed_leaves_nothing_and_may_be_tried_again(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "1"}))
    async with (
        open_tar_configuration(source, target) as configuration,
        configuration.stage() as staged,
    ):
        await staged.commit(trial=True)
    async with open_tar_configuration(source, target) as configuration:
        assert not configuration.applied
        assert not target.exists()
        assert (await configuration.update()).error is None


async def test_an_existing_file_is_adopted(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "app.conf"
    target.write_text("1")
    inode = target.stat().st_ino
    source.write_text("2")
    async with open_file_configuration(source, target) as configuration:
        assert configuration.applied
        assert target.stat().st_ino == inode
        await configuration.update()
        assert target.read_text() == "2"
        await configuration.rollback()
        assert target.read_text() == "1"


async def test_a_symlink_of_somebody_else_at_the_target_is_followed(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    target.symlink_to("data/app")
    source.write_bytes(archive({"a": "1"}))
    async with open_tar_configuration(source, target) as configuration:
        assert (await configuration.update()).error is None
    assert os.readlink(target) == "data/app"
    assert contents(tmp_path / "data" / "app") == {"a": "1"}


async def test_a_symlink_of_somebody_else_at_the_target_of_a_file_is_followed(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "in", tmp_path / "app.conf"
    target.symlink_to("data/other.conf")
    source.write_text("1")
    async with open_file_configuration(source, target) as configuration:
        assert (await configuration.update()).error is None
    assert os.readlink(target) == "data/other.conf"
    assert (tmp_path / "data" / "other.conf").read_text() == "1"


async def test_the_target_of_a_file_is_a_file_also_with_a_slash_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("1")
    async with open_file_configuration(tmp_path / "in", f"{tmp_path}/app.conf/") as configuration:
        assert (await configuration.update()).error is None
    assert (tmp_path / "app.conf").read_text() == "1"


@pytest.mark.parametrize(
    ("make", "error"), [(os.mkdir, IsADirectoryError), (os.mkfifo, FileExistsError)]
)
async def test_what_is_at_the_target_of_a_file_and_is_none_is_an_error_that_says_which(
    tmp_path: Path, make: Callable[[Path], None], error: type[OSError]
) -> None:
    make(tmp_path / "app.conf")
    with pytest.raises(error, match="expected one"):
        async with open_file_configuration(tmp_path / "in", tmp_path / "app.conf"):
            pass
    assert os.listdir(tmp_path) == ["app.conf"]


OpenBadly = Callable[[Path], AbstractAsyncContextManager[object]]
BAD: dict[str, tuple[OpenBadly, str]] = {
    "file-as-directory": (
        lambda path: open_tar_configuration(path / "s", path / "file"),
        r"a file, expected a directory.*/file'",
    ),
    "directory-as-file": (
        lambda path: open_file_configuration(path / "s", path / "directory"),
        r"no regular file, expected one.*/directory'",
    ),
    "parent-is-a-file": (
        lambda path: open_tar_configuration(path / "s", path / "file" / "app"),
        r"/file",
    ),
    "root": (lambda path: open_tar_configuration(path / "s", "/"), r"root directory.*'/'"),
    "keep": (
        lambda path: open_tar_configuration(path / "s", path / "t", keep=0),
        r"keep is 0, expected at least 1",
    ),
    "share": (
        lambda path: open_tar_configuration(path / "s", path / "t", share="x"),  # type: ignore[arg-type]
        r"share is 'x', expected one of link, copy",
    ),
    "layout": (
        lambda path: open_tar_configuration(path / "s", path / "t", layout="x"),  # type: ignore[arg-type]
        r"layout is 'x', expected one of auto, symlink, inside",
    ),
    "durability": (
        lambda path: open_tar_configuration(path / "s", path / "t", durability="x"),  # type: ignore[arg-type]
        r"durability is 'x'",
    ),
    "settle": (
        lambda path: open_tar_configuration(path / "s", path / "t", settle=-1),
        r"settle is -1, expected seconds",
    ),
    "mode": (
        lambda path: open_file_configuration(path / "s", path / "t", mode=0o7777),
        r"mode is 0o7777, expected permission bits",
    ),
    "mode-of-a-merged-file": (
        lambda path: open_merged_configuration([FileSource("/s", "a", mode=-1)], path / "t"),
        r"mode is -0o1, expected permission bits",
    ),
    "mode-from-etcd": (
        lambda path: open_etcd_configuration(["http://e:1"], "/s", path / "t", mode=0o1000),
        r"mode is 0o1000, expected permission bits",
    ),
    "owner": (
        lambda path: open_file_configuration(path / "s", path / "t", owner=(-1, 0)),
        r"owner is \(-1, 0\), expected the numbers",
    ),
    "owner-too-large": (
        lambda path: open_file_configuration(path / "s", path / "t", owner=(0, 2**32 - 1)),
        r"owner is \(0, 4294967295\), expected the numbers",
    ),
    "name-that-leads-outside": (
        lambda path: open_merged_configuration([FileSource("/s", "../a")], path / "t"),
        r"name is '../a', expected a path in the configuration",
    ),
    "name-that-is-absolute": (
        lambda path: open_merged_configuration([FileSource("/s", "/a")], path / "t"),
        r"name is '/a', expected a path in the configuration",
    ),
    "name-of-the-whole": (
        lambda path: open_merged_configuration([FileSource("/s", ".")], path / "t"),
        r"name is '.', expected a path in the configuration",
    ),
    "max_size": (
        lambda path: open_file_configuration(path / "s", path / "t", max_size=-1),
        r"max_size is -1, expected bytes",
    ),
    "max_members": (
        lambda path: open_directory_configuration(path / "s", path / "t", max_members=0),
        r"max_members is 0, expected at least 1",
    ),
    "max_members-from-etcd": (
        lambda path: open_etcd_configuration(["http://e:1"], "/s", path / "t", max_members=0),
        r"max_members is 0, expected at least 1",
    ),
    "durability-from-etcd": (
        lambda path: open_etcd_configuration(["http://e:1"], "/s", path / "t", durability="x"),  # type: ignore[arg-type]
        r"durability is 'x'",
    ),
    "validate-string": (
        lambda path: open_tar_configuration(path / "s", path / "t", validate="nginx -t"),
        r"validate: a string, expected",
    ),
    "validate-empty": (
        lambda path: open_tar_configuration(path / "s", path / "t", validate=[]),
        r"validate: an empty command",
    ),
    "no-sources": (
        lambda path: open_merged_configuration([], path / "t"),
        r"sources: none, expected at least one",
    ),
    "other-layout": (
        lambda path: open_tar_configuration(path / "s", path / "managed", layout="inside"),
        r"has the layout 'symlink', expected 'inside'.*/managed'",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_target_or_an_argument_that_cannot_be_is_an_error_at_opening(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    async with open_tar_configuration(tmp_path / "c.tar", tmp_path / "managed") as configuration:
        (tmp_path / "c.tar").write_bytes(archive({"a": "1"}))
        await configuration.update()
    before = sorted(tmp_path.rglob("*"))
    open_badly, message = BAD[name]
    with pytest.raises((OSError, ValueError, TypeError), match=message):
        async with open_badly(tmp_path):
            pass
    assert sorted(path for path in tmp_path.rglob("*") if path.name != ".t.generations") == before


async def test_a_name_that_is_taken_in_a_directory_that_stays_is_an_error_before_the_switch(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "1"}))
    async with open_tar_configuration(source, target, layout="inside") as configuration:
        await configuration.update()
        (target / "mine").write_text("by hand")
        source.write_bytes(archive({"a": "2", "mine": "", "new": ""}))
        result = await configuration.update()
        assert isinstance(result.error, FileExistsError)
        assert "mine" in str(result.error)
        assert contents(target) == {"a": "1", "mine": "by hand"}
        assert not (target / "new").is_symlink()


PROGRAM = """
import os, subprocess, trio
from trio_entrypoint import open_tar_configuration
def show():
    return subprocess.getoutput("cd -P app/..data/ && find . -type f | sort | xargs grep -H .")
async def main():
    async with open_tar_configuration("c.tar", "app") as configuration:
        before = show()
        assert configuration.applied == EXPECTED_APPLIED, before
        if configuration.applied:
            assert before.split() == ["./a:1", "./b/c:2"], before
            assert open("app/b/c").read() == "2", before
        result = await configuration.update()
        assert result.error is None, result
        assert show() == "./a:new", show()
        assert sorted(set(os.listdir("app")) - {"lost+found"}) == ["..data", "..generations", "a"]
    async with open_tar_configuration("c.tar", "app") as configuration:
        assert not (await configuration.update()).changed
        if EXPECTED_APPLIED:
            assert (await configuration.rollback()).error is None
            assert show() == before
trio.run(main)
"""


@pytest.mark.parametrize("kind", ["empty", "bind", "tmpfs", "overlay"])
def test_a_directory_that_cannot_be_replaced_gets_its_pointer_inside(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "c.tar").write_bytes(archive({"a": "new"}))
    image = tmp_path / "image"
    image.mkdir()
    fill(image / "app" if kind != "empty" else image / "other")
    setup = {
        "empty": "mkdir app; mount -t tmpfs none app; mkdir app/lost+found",
        "bind": "mkdir app; mount --bind image/app app",
        "tmpfs": "mkdir app; mount -t tmpfs none app; cp -a image/app/. app/",
        "overlay": (
            "mkdir t; mount -t tmpfs none t; mkdir t/u t/w t/m; "
            "mount -t overlay none -o lowerdir=image,upperdir=t/u,workdir=t/w t/m; "
            "mv c.tar t/m/; cd t/m"
        ),
    }[kind]
    program = PROGRAM.replace("EXPECTED_APPLIED", str(kind != "empty"))
    in_mount_namespace(tmp_path, setup, program)


def test_a_file_that_is_a_mount_point_is_refused_with_advice(tmp_path: Path) -> None:
    program = """
import trio
from trio_entrypoint import open_file_configuration
async def main():
    try:
        async with open_file_configuration("s", "my app.conf"):
            pass
    except OSError as error:
        assert "mount its directory instead" in str(error), error
        assert "my app.conf" in str(error), error
    else:
        raise AssertionError
trio.run(main)
"""
    in_mount_namespace(
        tmp_path, 'touch image "my app.conf"; mount --bind image "my app.conf"', program
    )


async def test_what_a_read_only_mode_protects_from_nobody_but_us_is_collected(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "in", tmp_path / "app"
    fill(source)
    (source / "b").chmod(0o555)
    source.chmod(0o555)
    async with open_directory_configuration(source, target, keep=1) as configuration:
        assert (await configuration.update()).error is None
        assert target.stat().st_mode & 0o777 == 0o555
    shutil.rmtree(tmp_path / ".app.generations")
