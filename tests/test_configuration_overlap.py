"""A source in its own target is refused, however it gets there; one beside it is not."""

import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from configurations import archive, contents
from surroundings import in_mount_namespace

from trio_entrypoint import (
    DirectorySource,
    FileSource,
    GenerationConfiguration,
    TarSource,
    open_directory_configuration,
    open_file_configuration,
    open_merged_configuration,
    open_tar_configuration,
)

Open = Callable[[Path, Path], AbstractAsyncContextManager[GenerationConfiguration]]

OPEN: dict[str, Open] = {
    "tar": open_tar_configuration,
    "file": open_file_configuration,
    "directory": open_directory_configuration,
    "merged-tar": lambda source, target: open_merged_configuration(
        [FileSource("/proc/version", "version"), TarSource(source)], target
    ),
    "merged-file": lambda source, target: open_merged_configuration(
        [FileSource(source, "name")], target
    ),
    "merged-directory": lambda source, target: open_merged_configuration(
        [DirectorySource(source)], target
    ),
}

MAKE = {
    "nothing": "",
    "target": "mkdir -p etc/app/sub; echo 1 > etc/app/file",
    "link": "mkdir -p etc/app/sub data; echo 1 > etc/app/file; ln -s ../etc data/etc",
    "link-in-target": "mkdir -p etc/app data; echo 1 > data/file; ln -s ../../data etc/app/data",
    "target-is-a-link": "mkdir -p etc data/app; echo 1 > data/app/file; ln -s ../data/app etc/app",
    "link-to-target": "mkdir -p etc/app; echo 1 > etc/app/file; ln -s app etc/link",
}
"""What is there, by shell."""

IN_A_DIRECTORY = ["tar", "directory", "merged-tar", "merged-file", "merged-directory"]
OVERLAPPING = [
    # What is there, the source, the target, what is said, and whom it concerns.
    ("nothing", "etc/app", "etc/app", "is the target itself", OPEN),
    ("nothing", "etc/app/c.tar", "etc/app", "leads through", IN_A_DIRECTORY),
    ("target", "etc/app", "etc/app", "is the target itself", IN_A_DIRECTORY),
    ("target", "etc/app/file", "etc/app/file", "is the target itself", ["file"]),
    ("target", "etc/./app/../app/file", "etc//app/file", "is the target itself", ["file"]),
    ("target", "etc/app/file", "etc/app", "leads through", IN_A_DIRECTORY),
    ("target", "etc/app/sub/deep/c.tar", "etc/app", "leads through", IN_A_DIRECTORY),
    ("target", "etc/app/../c.tar", "etc/app", "leads through", IN_A_DIRECTORY),
    ("target", "etc/.app.generations/c.tar", "etc/app", "leads through", IN_A_DIRECTORY),
    ("target", "etc/app/.file.generations/1", "etc/app/file", "leads through", ["file"]),
    ("target", "etc", "etc/app", "contains the target", ["directory", "merged-directory"]),
    ("target", "/", "etc/app", "contains the target", ["directory", "merged-directory"]),
    ("nothing", "etc", "etc/app/x", "contains the target", ["directory", "merged-directory"]),
    ("link", "data/etc/app/file", "etc/app", "leads through", IN_A_DIRECTORY),
    ("link", "etc/app/file", "data/etc/app", "leads through", IN_A_DIRECTORY),
    ("link", "data/etc/app/file", "etc/app/file", "is the target itself", ["file"]),
    ("link", "data/etc", "etc/app", "contains the target", ["directory", "merged-directory"]),
    ("link-in-target", "etc/app/data/file", "etc/app", "leads through", IN_A_DIRECTORY),
    ("target-is-a-link", "data/app/file", "etc/app", "leads through", IN_A_DIRECTORY),
    ("target-is-a-link", "data", "etc/app", "contains the target", ["directory"]),
    ("link-to-target", "etc/link/file", "etc/app", "leads through", IN_A_DIRECTORY),
    ("link-to-target", "etc/link", "etc/app", "is the target itself", IN_A_DIRECTORY),
]


@pytest.mark.parametrize("kind", OPEN)
async def test_a_source_in_its_own_target_or_around_it_is_refused_with_advice(
    tmp_path: Path, kind: str
) -> None:
    cases = [case for case in OVERLAPPING if kind in case[4]]
    assert cases
    for number, (made, source, target, what, _) in enumerate(cases):
        directory = tmp_path / str(number)
        directory.mkdir()
        subprocess.run(["sh", "-ec", MAKE[made]], cwd=directory, check=True)
        before = sorted(directory.rglob("*"))
        with pytest.raises(OSError, match=what) as raised:
            async with OPEN[kind](directory / source, directory / target):
                pass
        message = str(raised.value)
        assert f"'{directory / source}'" in message, message
        assert f"'{os.path.realpath(directory / target)}'" in message, message
        assert "have it delivered elsewhere" in message, message
        assert sorted(directory.rglob("*")) == before


async def test_a_source_in_a_target_that_is_already_managed_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "1", "c.tar": "2"}))
    async with open_tar_configuration(source, target) as configuration:
        await configuration.update()
    for inside in (target / "c.tar", Path(os.path.realpath(target), "c.tar")):
        with pytest.raises(OSError, match="leads through the target"):
            async with open_tar_configuration(inside, target):
                pass
    assert contents(target) == {"a": "1", "c.tar": "2"}


async def test_a_source_behind_a_bind_mount_of_its_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc/app").mkdir(parents=True)
    (tmp_path / "etc/app/c.tar").write_bytes(archive({"a": "1"}))
    (tmp_path / "bind").mkdir()
    program = """if True:
        import trio
        from trio_entrypoint import open_tar_configuration, open_directory_configuration
        async def refused(open_configuration, source):
            try:
                async with open_configuration(source, "etc/app"):
                    raise AssertionError(source)
            except OSError as error:
                return str(error)
        async def main():
            assert "leads through" in await refused(open_tar_configuration, "bind/app/c.tar")
            assert "contains" in await refused(open_directory_configuration, "bind")
        trio.run(main)
    """
    in_mount_namespace(tmp_path, "mount --bind etc bind", program)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("etc/c.tar", "etc/app"),
        ("etc/app2/c.tar", "etc/app"),
        ("etc/app.tar", "etc/app"),
        ("etc/app/c.tar", "etc/app/app"),
        ("etc/app/incoming/c.tar", "etc/app/live"),
        ("etc/.generations/c.tar", "etc/app"),
    ],
)
async def test_a_source_beside_its_target_is_applied(
    tmp_path: Path, source: str, target: str
) -> None:
    async with open_tar_configuration(tmp_path / source, tmp_path / target) as configuration:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / source).write_bytes(archive({"a": "1"}))
        assert (await configuration.update()).error is None
        assert contents(tmp_path / target) == {"a": "1"}
    async with open_tar_configuration(tmp_path / source, tmp_path / target) as configuration:
        assert (await configuration.update()).error is None


async def test_a_directory_beside_its_target_and_a_file_that_shares_its_inode_are_applied(
    tmp_path: Path,
) -> None:
    (tmp_path / "app2").mkdir()
    (tmp_path / "app2" / "a").write_text("1")
    async with open_directory_configuration(tmp_path / "app2", tmp_path / "app") as configuration:
        assert (await configuration.update()).error is None
    (tmp_path / "target").write_text("1")
    os.link(tmp_path / "target", tmp_path / "source")
    async with open_file_configuration(tmp_path / "source", tmp_path / "target") as configuration:
        assert (await configuration.update()).error is None
