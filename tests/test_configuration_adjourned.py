"""An end in good order is no verdict on the configuration that is on trial; a kill is one."""

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import trio
from configurations import archive, move_into_place

from trio_entrypoint import (
    Cause,
    ConfigurationState,
    DescriptorProbe,
    FileSource,
    ProcessState,
    Readiness,
    Supervisor,
    TarSource,
    open_directory_configuration,
    open_file_configuration,
    open_merged_configuration,
    open_process,
    open_tar_configuration,
)
from trio_entrypoint.configuration.engine import GenerationConfiguration
from trio_entrypoint.configuration.source import Source
from trio_entrypoint.testing import recording


class Place:
    """A source and a target of some kind, with one word of configuration."""

    def __init__(self, kind: str, path: Path) -> None:
        self._kind = kind
        self._source, self._target = path / "source", path / "target"
        self._merged: list[Source] = [TarSource(self._source), FileSource(path / "more", "more")]
        (path / "more").write_text("more")

    def open(self) -> AbstractAsyncContextManager[GenerationConfiguration]:
        opened: dict[str, Callable[[], AbstractAsyncContextManager[GenerationConfiguration]]] = {
            "tar": partial(open_tar_configuration, self._source, self._target),
            "inside": partial(open_tar_configuration, self._source, self._target, layout="inside"),
            "directory": partial(open_directory_configuration, self._source, self._target),
            "file": partial(open_file_configuration, self._source, self._target),
            "merged": partial(open_merged_configuration, self._merged, self._target),
        }
        return opened[self._kind]()

    def deliver(self, word: str) -> None:
        if self._kind == "directory":
            self._source.mkdir(exist_ok=True)
            (self._source / "a").write_text(word)
        else:
            whole = word.encode() if self._kind == "file" else archive({"a": word})
            move_into_place(self._source, whole)

    def shown(self) -> str | None:
        path = self._target if self._kind == "file" else self._target / "a"
        return path.read_text() if path.exists() else None


async def begin_trial(configuration: GenerationConfiguration) -> None:
    async with configuration.stage() as staged:
        assert (await staged.commit(trial=True)).error is None
    assert configuration.on_trial


@pytest.mark.parametrize("kind", ["tar", "inside", "directory", "file", "merged"])
async def test_what_was_adjourned_is_not_trusted_at_the_next_start_and_not_refused(
    tmp_path: Path, kind: str
) -> None:
    place = Place(kind, tmp_path)
    place.deliver("good")
    async with place.open() as configuration:
        assert (await configuration.update()).error is None
        await configuration.adjourn()  # nothing is on trial: nothing happens
        place.deliver("unknown")
        await begin_trial(configuration)
        await configuration.adjourn()
        assert configuration.on_trial
        assert place.shown() == "unknown", "nothing is switched under an application"
    async with place.open() as configuration:
        assert place.shown() == "good"
        assert not configuration.on_trial
        await begin_trial(configuration)
        assert place.shown() == "unknown"
        # This time it is killed.
    async with place.open() as configuration:
        assert place.shown() == "good"
        assert "rolled back before" in str((await configuration.update()).error)


async def test_an_adjourned_first_configuration_is_tried_again(tmp_path: Path) -> None:
    place = Place("tar", tmp_path)
    place.deliver("first")
    async with place.open() as configuration:
        await begin_trial(configuration)
        await configuration.adjourn()
    async with place.open() as configuration:
        assert not configuration.applied
        assert place.shown() is None
        await begin_trial(configuration)
        assert place.shown() == "first"


async def test_what_was_adjourned_can_still_be_confirmed_or_rolled_back(tmp_path: Path) -> None:
    place = Place("tar", tmp_path)
    for word in ("good", "better"):
        place.deliver(word)
        async with place.open() as configuration:
            await begin_trial(configuration)
            await configuration.adjourn()
            await configuration.confirm()
            assert not configuration.on_trial
    place.deliver("bad")
    async with place.open() as configuration:
        assert place.shown() == "better"
        await begin_trial(configuration)
        await configuration.adjourn()
        assert (await configuration.rollback()).error is None
        assert place.shown() == "better"
    async with place.open() as configuration:
        assert "rolled back before" in str((await configuration.update()).error)


async def test_a_full_disk_does_not_keep_a_trial_from_being_adjourned(tmp_path: Path) -> None:
    """It takes one rename, and no new entry."""
    place = Place("tar", tmp_path)
    place.deliver("good")
    async with place.open() as configuration:
        await configuration.update()
        place.deliver("unknown")
        await begin_trial(configuration)
        number = configuration.generation and configuration.generation.number
        directory = tmp_path / ".target.generations" / str(number)
        before = set(os.listdir(directory))
        await configuration.adjourn()
        assert set(os.listdir(directory)) ^ before == {"trial", "adjourned"}


@pytest.mark.parametrize("killed", [False, True])
async def test_a_supervisor_that_is_cancelled_adjourns_before_its_process_has_ended(
    tmp_path: Path, killed: bool
) -> None:
    """So that it counts even if the platform's patience ends before the process does."""
    place = Place("tar", tmp_path)
    stubborn = partial(
        open_process,
        ["sh", "-c", "trap '' TERM; echo >&3; while :; do sleep 0.01; done"],
        grace_period=0.3,
    )

    def supervisor_of(configuration: GenerationConfiguration) -> Supervisor:
        return Supervisor(
            stubborn,
            configuration=configuration,
            readiness=Readiness(DescriptorProbe(3)),  # it ignores the signal by then
            confirm_within=60.0,
        )

    place.deliver("good")
    async with place.open() as configuration:
        await configuration.update()
        place.deliver("unknown")
        supervisor = supervisor_of(configuration)
        async with recording(supervisor.events) as seen, trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            with trio.fail_after(10):
                await supervisor.wait_for(lambda state: state.ready)
            assert place.shown() == "unknown"
            if not killed:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True), trio.fail_after(10):
                    await supervisor.wait_for(lambda state: state.process is ProcessState.STOPPING)
                    await trio.testing.wait_all_tasks_blocked()
                    assert (tmp_path / ".target.generations" / "2" / "adjourned").exists()
                    assert supervisor.state.pid is not None
            else:
                # What is on the disk now is what a SIGKILL leaves.
                os.rename(tmp_path / ".target.generations", tmp_path / "left")
                (tmp_path / ".target.generations").mkdir()
                nursery.cancel_scope.cancel()
    assert (Cause.ADJOURN_FAILED in [one.cause for one in seen]) is killed
    if killed:
        os.rmdir(tmp_path / ".target.generations")
        os.rename(tmp_path / "left", tmp_path / ".target.generations")
    async with place.open() as configuration:
        assert place.shown() == "good"
        refused = "rolled back before" in str((await configuration.update()).error)
        assert refused is killed


async def test_a_second_supervisor_of_the_same_handler_goes_on_with_the_trial(
    tmp_path: Path,
) -> None:
    place = Place("tar", tmp_path)
    place.deliver("good")
    sleeping = partial(open_process, ["sleep", "1000"])
    async with place.open() as configuration:
        await configuration.update()
        place.deliver("unknown")
        first = Supervisor(sleeping, configuration=configuration, confirm_within=60.0)
        async with trio.open_nursery() as nursery:
            await nursery.start(first.run)
            nursery.cancel_scope.cancel()
        second = Supervisor(sleeping, configuration=configuration, confirm_within=0.1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.run)
            with trio.fail_after(10):
                trial = ConfigurationState.TRIAL
                await second.wait_for(lambda state: state.configuration is trial)
                applied = ConfigurationState.APPLIED
                await second.wait_for(lambda state: state.ready and state.configuration is applied)
            nursery.cancel_scope.cancel()
        assert not configuration.on_trial
    async with place.open() as configuration:
        assert place.shown() == "unknown"
