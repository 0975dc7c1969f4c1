"""The handlers of configurations, by their public means."""

import os
from pathlib import Path

import attrs
import pytest
import trio
from configurations import archive, contents, move_into_place

from trio_entrypoint import (
    ConfigurationChanged,
    ConfigurationDeleted,
    ConfigurationRefusedError,
    Modification,
    open_custom_configuration,
    open_file_configuration,
    open_tar_configuration,
)


async def test_a_tar_that_is_moved_into_place_is_announced_and_applied(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "etc" / "app"
    async with open_tar_configuration(source, target) as configuration:
        assert await configuration.events.receive() == ConfigurationDeleted()
        move_into_place(source, archive({"a": "1", "b/c": "2"}))
        assert await configuration.events.receive() == ConfigurationChanged()
        assert not configuration.applied
        result = await configuration.update()
        assert result.error is None
        assert configuration.applied
        assert contents(target) == {"a": "1", "b/": "", "b/c": "2"}
        assert result.changed == dict.fromkeys(["a", "b", "b/c"], Modification.CREATED)
        assert result.generation is not None
        assert result.generation.number == 1
        assert contents(result.generation.path) == contents(target)


@pytest.mark.parametrize("there", [True, False])
async def test_the_state_at_opening_time_is_told_before_anybody_can_ask(
    tmp_path: Path, there: bool
) -> None:
    """A supervisor that looks at once must not start on the old one, to restart right away."""
    source = tmp_path / "source"
    if there:
        source.write_bytes(archive({"a": "1"}))
    first = ConfigurationChanged() if there else ConfigurationDeleted()
    async with open_tar_configuration(source, tmp_path / "app") as configuration:
        assert configuration.events.receive_nowait() == first
    async with open_file_configuration(source, tmp_path / "file") as configuration:
        assert configuration.events.receive_nowait() == first
    async with open_custom_configuration(source, lambda path: Loaded(path.read_text())) as custom:
        assert custom.events.receive_nowait() == first


async def test_a_deleted_source_is_never_applied_by_a_later_update(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "1"}))
    async with open_tar_configuration(source, target) as configuration:
        assert (await configuration.update()).error is None
        move_into_place(source, archive({"a": "2"}))
        source.unlink()
        while await configuration.events.receive() != ConfigurationDeleted():
            pass
        result = await configuration.update()
        assert isinstance(result.error, FileNotFoundError)
        assert not result.changed
        assert contents(target) == {"a": "1"}


async def test_the_same_source_again_changes_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "1"}))
    async with open_tar_configuration(source, target) as configuration:
        first = await configuration.update()
        second = await configuration.update()
    async with open_tar_configuration(source, target) as configuration:
        third = await configuration.update()
    for again in (second, third):
        assert again.error is None
        assert not again.changed
        assert again.generation == first.generation


async def test_a_file_is_replaced_with_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "etc" / "app.conf"
    source.write_text("1")
    async with open_file_configuration(source, target, mode=0o640) as configuration:
        result = await configuration.update()
        assert result.changed == {"app.conf": Modification.CREATED}
        assert target.read_text() == "1"
        assert target.stat().st_mode & 0o7777 == 0o640
        with target.open() as reader:
            move_into_place(source, b"2")
            result = await configuration.update()
            assert result.changed == {"app.conf": Modification.MODIFIED}
            assert target.read_text() == "2"
            assert reader.read() == "1"


async def test_rollback_goes_back_and_refuses_the_source_until_it_changes(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "good"}))
    async with open_tar_configuration(source, target) as configuration:
        await configuration.update()
        move_into_place(source, archive({"a": "bad", "b": ""}))
        await configuration.update()
        result = await configuration.rollback("it never became ready")
        assert result.error is None
        assert result.changed == {"a": Modification.MODIFIED, "b": Modification.DELETED}
        assert contents(target) == {"a": "good"}
        result = await configuration.update()
        assert isinstance(result.error, ConfigurationRefusedError)
        assert "it never became ready" in str(result.error)
    async with open_tar_configuration(source, target) as configuration:
        assert isinstance((await configuration.update()).error, ConfigurationRefusedError)
        move_into_place(source, archive({"a": "better"}))
        assert (await configuration.update()).error is None
        assert contents(target) == {"a": "better"}


async def test_a_trial_that_nobody_confirmed_is_not_trusted_at_the_next_start(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "good"}))
    async with open_tar_configuration(source, target) as configuration:
        await configuration.update()
        move_into_place(source, archive({"a": "unknown"}))
        async with configuration.stage() as staged:
            assert staged.changed == {"a": Modification.MODIFIED}
            assert contents(target) == {"a": "good"}
            await staged.commit(trial=True)
        assert contents(target) == {"a": "unknown"}
    async with open_tar_configuration(source, target) as configuration:
        assert contents(target) == {"a": "good"}
        assert isinstance((await configuration.update()).error, ConfigurationRefusedError)


async def test_a_confirmed_trial_is_trusted(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "good"}))
    async with open_tar_configuration(source, target) as configuration:
        async with configuration.stage() as staged:
            await staged.commit(trial=True)
        await configuration.confirm()
    async with open_tar_configuration(source, target) as configuration:
        assert configuration.applied
        assert contents(target) == {"a": "good"}


async def test_leaving_a_staged_update_without_commit_leaves_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "1"}))
    async with open_tar_configuration(source, target) as configuration:
        async with configuration.stage() as staged:
            assert staged.error is None
        assert os.listdir(tmp_path / ".app.generations") == []
        assert not configuration.applied
        assert not target.exists()


async def test_results_are_told_to_observers_in_order(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    async with open_tar_configuration(source, target) as configuration:
        results = configuration.results
        missing = await configuration.update()
        source.write_bytes(archive({"a": "1"}))
        applied = await configuration.update()
        assert await results.receive() is missing
        assert await results.receive() is applied
    with pytest.raises(trio.EndOfChannel):
        await results.receive()


async def test_the_generation_of_a_process_is_not_collected_while_it_is_pinned(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "0"}))
    async with open_tar_configuration(source, target, keep=1) as configuration:
        await configuration.update()
        with configuration.pin() as environment:
            (path,) = environment.values()
            for number in range(1, 6):
                move_into_place(source, archive({"a": str(number)}))
                await configuration.update()
            await _collected(tmp_path / ".app.generations", {"1", "5", "6"})
            assert contents(path) == {"a": "0"}
        await _collected(tmp_path / ".app.generations", {"5", "6"})


async def _collected(store: Path, expected: set[str]) -> None:
    with trio.fail_after(5):
        # Collecting is nobody's event; it has no channel to wait on.
        while {name for name in os.listdir(store) if name.isdecimal()} != expected:  # noqa: ASYNC110
            await trio.sleep(0.001)


async def test_two_handlers_of_one_target_are_an_error_at_opening(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    async with open_tar_configuration(source, target):
        with pytest.raises(Exception, match="another configuration handler manages"):
            async with open_tar_configuration(source, target):
                pass


@attrs.frozen
class Loaded:
    text: str
    error: Exception | None = None


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_custom_function_gets_a_private_snapshot(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "rules"
    seen: list[Path] = []

    def load(snapshot: Path) -> Loaded:
        seen.append(snapshot)
        source.write_text("written in place meanwhile")
        return Loaded(snapshot.read_text())

    async def load_async(snapshot: Path) -> Loaded:
        return load(snapshot)

    source.write_text("1")
    function = load_async if kind == "async" else load
    async with open_custom_configuration(source, function) as configuration:
        assert await configuration.events.receive() == ConfigurationChanged()
        results = configuration.results
        result = await configuration.update()
        assert result == Loaded("1")
        assert await results.receive() is result
        assert configuration.applied
        assert await configuration.events.receive() == ConfigurationChanged()
        source.unlink()
        assert await configuration.events.receive() == ConfigurationDeleted()
        with pytest.raises(FileNotFoundError):
            await configuration.update()
    assert not seen[0].exists()
