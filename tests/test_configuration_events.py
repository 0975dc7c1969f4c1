"""Changes of a source: none is missed, none is told too early, one is one."""

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from configmap import ConfigMap
from configurations import DELIVERIES, archive, contents, move_into_place
from surroundings import TESTS, overflow_inotify

from trio_entrypoint import (
    ConfigurationChanged,
    ConfigurationDeleted,
    ConfigurationFailed,
    DirectorySource,
    FileSource,
    GenerationConfiguration,
    TarSource,
    open_directory_configuration,
    open_file_configuration,
    open_merged_configuration,
    open_tar_configuration,
)
from trio_entrypoint._files.errors import SourceChangedError

SOON = 20.0
"""Seconds; an event that does not come within them was missed."""


async def follow(configuration: GenerationConfiguration, reached: Callable[[], bool]) -> None:
    """Do what an entrypoint does: update at each event, until the newest is there."""
    with trio.fail_after(SOON):
        while not reached():
            event = await configuration.events.receive()
            if event == ConfigurationChanged():
                await configuration.update()


async def test_swaps_of_a_configmap_arrive_whole_and_the_last_one_wins(
    tmp_path: Path, configmap: ConfigMap
) -> None:
    configmap.write(a="0", b="0")
    target = tmp_path / "app"
    seen: list[dict[str, str]] = []

    async def swap() -> None:
        for number in range(1, 101):
            configmap.write(a=str(number), b=str(number))
            await trio.sleep(0.002)

    async with (
        open_directory_configuration(configmap.directory, target) as configuration,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(swap)
        while not seen or seen[-1] != {"a": "100", "b": "100"}:
            with trio.fail_after(SOON):
                await configuration.events.receive()
            if (await configuration.update()).error is None:
                seen.append(contents(target))
    assert all(found["a"] == found["b"] for found in seen)
    assert configuration.applied


@pytest.mark.parametrize("published", ["..data", "."], ids=["a ConfigMap", "a checkout"])
def test_what_is_left_of_a_replaced_directory_is_not_taken_for_a_configuration(
    tmp_path: Path, published: str
) -> None:
    for version in ("1", "2"):
        (tmp_path / version / "conf.d").mkdir(parents=True)
        (tmp_path / version / "conf.d" / "site").write_text(version)
    source = tmp_path / "source"
    if published == "..data":
        source.mkdir()
    link = source / published if published == "..data" else source
    link.symlink_to(tmp_path / "1")

    def replace() -> None:  # in the middle of the reading
        if (tmp_path / "1" / "conf.d" / "site").exists():
            new = link.with_name("new")
            new.symlink_to(tmp_path / "2")
            new.rename(link)
            (tmp_path / "1" / "conf.d" / "site").unlink()

    with pytest.raises(SourceChangedError), DirectorySource(source).snapshot(replace):
        pass
    with (
        DirectorySource(source).snapshot(replace) as found,
        DirectorySource(tmp_path / "2").snapshot(replace) as expected,
    ):
        assert found.digest == expected.digest


async def test_a_file_in_a_configmap_is_followed(tmp_path: Path, configmap: ConfigMap) -> None:
    configmap.write(key="1")
    target = tmp_path / "app.conf"
    async with open_file_configuration(configmap.directory / "key", target) as configuration:
        for text in ("1", "2", "3"):
            configmap.write(key=text)
            await follow(configuration, lambda: target.exists() and target.read_text() == text)  # noqa: B023


async def test_files_written_one_after_the_other_arrive_as_one_change(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "app"
    source.mkdir()
    async with open_directory_configuration(source, target, settle=0.3) as configuration:
        assert await configuration.events.receive() == ConfigurationChanged()
        results = configuration.results
        for name in "abcdef":
            (source / name).write_text("1")
            await trio.sleep(0.01)
            assert configuration.events.statistics().current_buffer_used == 0
        with trio.fail_after(SOON):
            assert await configuration.events.receive() == ConfigurationChanged()
        result = await configuration.update()
        assert len(result.changed) == 6
        with trio.move_on_after(0.5) as quiet:
            await configuration.events.receive()
        assert quiet.cancelled_caught
        assert results.statistics().current_buffer_used == 1


async def test_a_slow_writer_in_place_is_waited_for(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "old"}))
    async with open_tar_configuration(source, target) as configuration:
        await configuration.update()
        await configuration.events.receive()
        with source.open("wb") as file:
            for byte in archive({"a": "new"})[:1000], archive({"a": "new"}):
                file.seek(0)
                file.write(byte)
                file.flush()
                await trio.sleep(0.02)
                result = await configuration.update()
                assert "being written" in str(result.error)
                assert contents(target) == {"a": "old"}
        await follow(configuration, lambda: contents(target) == {"a": "new"})


async def test_a_directory_on_the_way_may_go_and_come_back(tmp_path: Path) -> None:
    source, target = tmp_path / "x" / "y" / "c.tar", tmp_path / "app"
    async with open_tar_configuration(source, target) as configuration:
        assert await configuration.events.receive() == ConfigurationDeleted()
        for text in ("1", "2"):
            source.parent.mkdir(parents=True)
            move_into_place(source, archive({"a": text}))
            await follow(configuration, lambda: target.exists() and contents(target)["a"] == text)  # noqa: B023
            (tmp_path / "x").rename(tmp_path / f"away{text}")
            with trio.fail_after(SOON):
                while await configuration.events.receive() != ConfigurationDeleted():
                    pass
            assert isinstance((await configuration.update()).error, FileNotFoundError)
            assert contents(target) == {"a": text}


@pytest.mark.parametrize("spelling", ["./in/c.tar", "in//c.tar", "x/../in/c.tar", "link/c.tar"])
async def test_a_source_is_found_however_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("x").mkdir()
    Path("link").symlink_to("in")
    async with open_tar_configuration(spelling, "./etc//app") as configuration:
        for text in ("1", "2"):
            move_into_place(Path("in/c.tar"), archive({"a": text}))
            await follow(
                configuration,
                lambda: Path("etc/app").exists() and contents("etc/app")["a"] == text,  # noqa: B023
            )


async def test_thousands_of_renames_lose_nothing_and_the_last_one_is_applied(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    async with open_tar_configuration(source, target) as configuration:

        async def rename() -> None:
            for number in range(3001):
                move_into_place(source, archive({"a": str(number)}))
                if number % 20 == 0:
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rename)
            with trio.fail_after(60):
                while not target.exists() or contents(target) != {"a": "3000"}:
                    if await configuration.events.receive() == ConfigurationChanged():
                        await configuration.update()


@pytest.mark.parametrize("kind", DELIVERIES)
async def test_an_overflow_of_the_queue_loses_no_configuration(tmp_path: Path, kind: str) -> None:
    source, target, delivery = tmp_path / "source", tmp_path / "target", DELIVERIES[kind]
    delivery.deliver(source, "1")
    async with delivery.open_configuration(source, target) as configuration:
        assert await configuration.events.receive() == ConfigurationChanged()
        before = (await configuration.update()).generation
        overflow_inotify(tmp_path)
        delivery.deliver(source, "2")  # its own events do not fit any more
        with trio.fail_after(SOON):
            assert await configuration.events.receive() == ConfigurationChanged()
        result = await configuration.update()
        assert result.error is None
        assert result.generation != before
        # And the watches live on.
        delivery.withdraw(source)
        with trio.fail_after(SOON):
            while await configuration.events.receive() != ConfigurationDeleted():
                pass


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_without_inotify_a_configuration_tells_the_same_after_one_warning(
    tmp_path: Path, limit: str
) -> None:
    program = [sys.executable, str(TESTS / "inotify_exhausted.py"), limit, str(tmp_path)]
    run = subprocess.run(
        ["unshare", "--user", "--map-root-user", *program], stdout=subprocess.PIPE, text=True
    )
    assert run.returncode == 0
    warnings = dict(line.split(": ", 1) for line in run.stdout.splitlines())
    assert warnings.keys() == DELIVERIES.keys()
    assert all("max_user_instances or max_user_watches" in text for text in warnings.values())


async def test_a_source_in_a_read_only_directory_on_another_file_system_is_applied(
    tmp_path: Path,
) -> None:
    shared = Path("/dev/shm") / f"test-{os.getpid()}"
    shared.mkdir()
    try:
        assert shared.stat().st_dev != tmp_path.stat().st_dev
        move_into_place(shared / "c.tar", archive({"a": "1"}))
        shared.chmod(0o555)
        async with open_tar_configuration(shared / "c.tar", tmp_path / "app") as configuration:
            assert (await configuration.update()).error is None
            assert contents(tmp_path / "app") == {"a": "1"}
            assert os.listdir(shared) == ["c.tar"]
    finally:
        shared.chmod(0o755)
        (shared / "c.tar").unlink()
        shared.rmdir()


async def test_what_cannot_be_a_source_is_told_as_an_error_and_may_mend_itself(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.symlink_to("c.tar")
    async with open_tar_configuration(source, target) as configuration:
        match await configuration.events.receive():
            case ConfigurationFailed(error=OSError()):
                pass
            case event:
                raise AssertionError(event)
        assert isinstance((await configuration.update()).error, OSError)
        source.unlink()
        source.mkdir()
        result = await configuration.update()
        assert "no regular file" in str(result.error)
        source.rmdir()
        move_into_place(source, archive({"a": "1"}))
        await follow(configuration, lambda: target.exists() and contents(target) == {"a": "1"})


async def test_a_chmod_of_the_source_counts(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "app.conf"
    source.write_text("1")
    source.chmod(0o600)
    async with open_file_configuration(source, target) as configuration:
        await configuration.update()
        await configuration.events.receive()
        source.chmod(0o640)
        await follow(configuration, lambda: target.stat().st_mode & 0o777 == 0o640)


async def test_merged_sources_wait_for_each_other_and_the_last_wins(
    tmp_path: Path, configmap: ConfigMap
) -> None:
    base, secret, target = tmp_path / "base.tar", tmp_path / "key", tmp_path / "app"
    async with open_merged_configuration(
        [
            TarSource(base),
            DirectorySource(configmap.directory),
            FileSource(secret, "tls/key.pem", mode=0o600),
        ],
        target,
    ) as configuration:
        assert await configuration.events.receive() == ConfigurationDeleted()
        move_into_place(base, archive({"a": "base", "b": "base", "tls": "a file"}))
        configmap.write(b="override")
        assert (await configuration.update()).error is not None
        assert not target.exists()
        move_into_place(secret, b"secret")
        expected = {"a": "base", "b": "override", "tls/": "", "tls/key.pem": "secret"}
        await follow(configuration, lambda: target.exists() and contents(target) == expected)
        assert (target / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
        configmap.write(b="again")
        await follow(configuration, lambda: contents(target)["b"] == "again")
        secret.unlink()
        with trio.fail_after(SOON):
            while await configuration.events.receive() != ConfigurationDeleted():
                pass


async def test_a_change_during_an_update_is_announced_afterwards(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "1"}))

    async def change(_: Path) -> None:
        if not target.exists():
            move_into_place(source, archive({"a": "2"}))
            await trio.testing.wait_all_tasks_blocked(0.01)

    validate: Callable[[Path], Awaitable[None]] = change
    async with open_tar_configuration(source, target, validate=validate) as configuration:
        assert await configuration.events.receive() == ConfigurationChanged()
        await configuration.update()
        assert contents(target) == {"a": "1"}
        await follow(configuration, lambda: contents(target) == {"a": "2"})
