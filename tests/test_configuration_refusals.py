"""What was rolled back is refused until another source is trusted; what cannot be staged, too.

By real handlers and fakes.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import programs
import pytest
from configurations import archive, move_into_place

from trio_entrypoint import ConfigurationRefusedError, open_tar_configuration
from trio_entrypoint.handlers import RevertibleConfigurationHandler, UpdateResult
from trio_entrypoint.testing import FakeConfiguration

Opened: TypeAlias = tuple[RevertibleConfigurationHandler[UpdateResult], Callable[[str], None]]


@asynccontextmanager
async def opened(kind: str, path: Path) -> AsyncGenerator[Opened]:
    """A configuration, and what changes its source."""
    if kind == "fake":
        fake = FakeConfiguration()
        yield fake, fake.change
        return

    def deliver(word: str) -> None:
        move_into_place(path / "config.tar", archive({"a": word}))

    async with open_tar_configuration(path / "config.tar", path / "target") as configuration:
        yield configuration, deliver


async def update(configuration: RevertibleConfigurationHandler[UpdateResult]) -> bool:
    return (await configuration.update()).error is None


KINDS = pytest.mark.parametrize("kind", ["tar", "fake"])


@KINDS
async def test_a_source_is_refused_until_another_one_is_trusted(tmp_path: Path, kind: str) -> None:
    async with opened(kind, tmp_path) as (configuration, deliver):
        for word in ("one", "two"):
            deliver(word)
            assert await update(configuration)
        assert (await configuration.rollback("bad")).error is None
        assert not await update(configuration)
        deliver("three")
        async with configuration.stage() as staged:
            assert (await staged.commit(trial=True)).error is None
        deliver("two")
        assert not await update(configuration)
        await configuration.confirm()
        assert await update(configuration)


@KINDS
async def test_a_source_is_not_refused_any_more_when_another_one_was_applied_without_a_trial(
    tmp_path: Path, kind: str
) -> None:
    async with opened(kind, tmp_path) as (configuration, deliver):
        for word in ("one", "two"):
            deliver(word)
            assert await update(configuration)
        await configuration.rollback("bad")
        deliver("three")
        assert await update(configuration)
        deliver("two")
        assert await update(configuration)


@KINDS
@pytest.mark.parametrize("new", [False, True])
async def test_what_is_rolled_back_while_it_is_staged_again_is_refused_and_not_said_to_be_in_place(
    tmp_path: Path, kind: str, new: bool
) -> None:
    async with opened(kind, tmp_path) as (configuration, deliver):
        for word in ("one", "two"):
            deliver(word)
            assert await update(configuration)
        if new:
            deliver("three")
        async with configuration.stage() as staged:
            await configuration.rollback("bad")
            result = await staged.commit()
        assert (result.error is None) is new
        assert result.generation is not None
        assert result.generation.number == (3 if new else 1)


@KINDS
async def test_what_is_in_place_again_is_not_refused(tmp_path: Path, kind: str) -> None:
    async with opened(kind, tmp_path) as (configuration, deliver):
        for word in ("one", "two", "one"):
            deliver(word)
            assert await update(configuration)
        for _ in range(2):  # to two, and to the first of those that are 'one'
            assert (await configuration.rollback("bad")).error is None
        assert await update(configuration)


async def test_an_update_without_a_place_for_it_is_an_error_in_its_result(tmp_path: Path) -> None:
    async with opened("tar", tmp_path) as (configuration, deliver):
        deliver("one")
        assert await update(configuration)
        deliver("two")
        (tmp_path / ".target.generations").rename(tmp_path / "elsewhere")
        assert isinstance((await configuration.update()).error, FileNotFoundError)
        (tmp_path / "elsewhere").rename(tmp_path / ".target.generations")
        assert await update(configuration)


@pytest.mark.parametrize("when", ["before", "validating"])
async def test_an_update_without_a_descriptor_for_it_is_an_error_in_its_result(
    tmp_path: Path, when: str
) -> None:
    async with AsyncExitStack() as stack:
        give_back: list[Callable[[], None]] = []

        def exhaust() -> None:
            give_back.append(stack.enter_context(programs.exhausted(0)))

        async def validate(_: Path) -> bool:
            if when == "validating" and not give_back:
                exhaust()  # nor can it be removed that was staged
                return False
            return True

        move_into_place(tmp_path / "config.tar", archive({"a": "one"}))
        configuration = await stack.enter_async_context(
            open_tar_configuration(tmp_path / "config.tar", tmp_path / "target", validate=validate)
        )
        if when == "before":
            exhaust()
        error = (await configuration.update()).error
        expected = OSError if when == "before" else ConfigurationRefusedError
        assert isinstance(error, expected)
        for function in give_back:
            function()
        assert await update(configuration)
