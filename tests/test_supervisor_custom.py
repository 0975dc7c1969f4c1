"""A configuration that a function applies, under each policy for what a change does."""

from pathlib import Path
from signal import SIGHUP, SIGTERM

import attrs
import pytest
import trio
from configurations import move_into_place

from trio_entrypoint import (
    Cause,
    Ignore,
    OnChange,
    Reload,
    Restart,
    Supervisor,
    open_custom_configuration,
)
from trio_entrypoint.testing import FakeProcess


@attrs.frozen
class Loaded:
    """What the function of these tests gives."""

    error: Exception | None = None


@pytest.mark.parametrize(
    ("on_change", "signals"),
    [
        (Restart(), [SIGTERM]),
        (Reload(SIGHUP), [SIGHUP]),
        (Ignore(), []),
        # What it will change is not known beforehand: it may be what needs the restart.
        ({"*": Reload(SIGHUP)}, [SIGTERM]),
    ],
    ids=["restart", "reload", "ignore", "by path"],
)
async def test_a_custom_configuration_keeps_to_the_policy(
    tmp_path: Path, fake_process: FakeProcess, on_change: OnChange, signals: list[int]
) -> None:
    source, loaded = tmp_path / "source", list[tuple[str, int]]()

    async def load(snapshot: Path) -> Loaded:
        await trio.lowlevel.checkpoint()
        loaded.append((snapshot.read_text(), len(fake_process.alive)))
        return Loaded(ValueError("line 3") if loaded[-1][0] == "broken" else None)

    async with open_custom_configuration(source, load) as configuration:
        supervisor = Supervisor(fake_process, configuration=configuration, on_change=on_change)
        told = supervisor.events

        async def until(cause: Cause) -> None:
            while (await told.receive()).cause is not cause:
                pass

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(supervisor.run)
                move_into_place(source, b"one")
                await until(Cause.READY)
                first = fake_process.current
                move_into_place(source, b"two")
                if signals == [SIGTERM]:
                    await until(Cause.READY)
                else:
                    await until(Cause.CONFIGURATION_APPLIED)
                    await trio.testing.wait_all_tasks_blocked()
                assert first.signals == signals
                assert len(fake_process.runs) == (2 if signals == [SIGTERM] else 1)
                # It is applied between two processes, or under the one that runs.
                assert loaded == [("one", 0), ("two", 0 if signals == [SIGTERM] else 1)]
                move_into_place(source, b"broken")
                await until(Cause.CONFIGURATION_REFUSED)
                await supervisor.wait_for(lambda state: state.ready)
                nursery.cancel_scope.cancel()
