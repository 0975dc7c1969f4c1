"""Active exactly while the file exists, whatever way it comes and goes."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_entrypoint import ActivationChanged, ActivationHandler, open_file_activation


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run" / "active"


async def next_state(activation: ActivationHandler) -> bool:
    with trio.fail_after(5):
        event = await activation.events.receive()
    assert event == ActivationChanged(activation.active)
    return event.active


async def test_the_first_event_is_the_state_at_opening_time(file: Path) -> None:
    async with open_file_activation(file) as activation:
        assert not await next_state(activation)
    file.parent.mkdir()
    file.touch()
    async with open_file_activation(file) as activation:
        assert await next_state(activation)


def move_away(file: Path) -> None:
    file.rename(file.with_name("active.off"))


def remove_with_its_directory(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()


def rename_its_directory(file: Path) -> None:
    file.parent.rename(file.parent.with_name("elsewhere"))


def replace_its_directory_by_a_file(file: Path) -> None:
    rename_its_directory(file)
    file.parent.touch()


@pytest.mark.parametrize(
    "take_away",
    [
        Path.unlink,
        move_away,
        remove_with_its_directory,
        rename_its_directory,
        replace_its_directory_by_a_file,
    ],
    ids=lambda function: function.__name__,
)
async def test_every_way_to_take_the_file_away_deactivates(
    file: Path, take_away: Callable[[Path], None]
) -> None:
    async with open_file_activation(file) as activation:
        assert not await next_state(activation)
        file.parent.mkdir()
        file.touch()
        assert await next_state(activation)
        take_away(file)
        assert not await next_state(activation)


async def test_a_slow_consumer_gets_the_newest_state_only(file: Path) -> None:
    file.parent.mkdir()
    async with open_file_activation(file) as activation:
        for _ in range(10):
            file.touch()
            await trio.testing.wait_all_tasks_blocked(0.005)
            file.unlink()
            await trio.testing.wait_all_tasks_blocked(0.005)
        file.touch()
        await trio.testing.wait_all_tasks_blocked(0.005)
        assert await next_state(activation)
        with pytest.raises(trio.WouldBlock):
            activation.events.receive_nowait()


async def test_the_channel_ends_when_the_handler_does(file: Path) -> None:
    async with open_file_activation(file) as activation:
        pass
    assert [event.active async for event in activation.events] == [False]


async def test_what_was_raised_in_the_block_comes_out_as_it_is(file: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_file_activation(file):
            raise ZeroDivisionError


async def test_a_directory_is_refused_at_opening(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        async with open_file_activation(tmp_path):
            pass


async def test_a_loop_of_symlinks_is_refused_at_opening(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        async with open_file_activation(tmp_path / "loop"):
            pass


async def test_not_knowing_changes_nothing_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "link").symlink_to("directory")
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory" / "active").touch()
    async with open_file_activation(tmp_path / "link" / "active") as activation:
        assert await next_state(activation)
        with caplog.at_level(logging.WARNING):
            (tmp_path / "loop").symlink_to("link")
            (tmp_path / "loop").rename(tmp_path / "link")
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert activation.active
        assert "staying active" in caplog.text
        (tmp_path / "link").unlink()
        assert not await next_state(activation)


async def test_a_directory_that_appears_later_activates_nothing(file: Path) -> None:
    file.parent.mkdir()
    async with open_file_activation(file) as activation:
        assert not await next_state(activation)
        file.mkdir()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert not activation.active
        file.rmdir()
        file.touch()
        assert await next_state(activation)


async def test_a_file_that_somebody_holds_open_is_there(file: Path) -> None:
    file.parent.mkdir()
    async with open_file_activation(file) as activation:
        assert not await next_state(activation)
        with file.open("w"):
            assert await next_state(activation)
