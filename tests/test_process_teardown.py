"""Leaving `async with open_process(...)`, by whatever way, leaves nothing behind."""

import signal

import programs
import pytest
import trio

from trio_entrypoint import ExitStatus, open_process


@pytest.fixture(params=list(programs.AWKWARD.values()), ids=list(programs.AWKWARD))
def awkward(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.param
    return command


async def test_nothing_is_left_after_the_block(awkward: list[str]) -> None:
    async with programs.started(awkward, grace_period=0.2):
        pass


async def test_nothing_is_left_after_an_exception_which_is_not_wrapped(awkward: list[str]) -> None:
    with pytest.raises(KeyError):
        async with programs.started(awkward, grace_period=0.2):
            raise KeyError


async def test_nothing_is_left_after_a_cancellation(awkward: list[str]) -> None:
    with trio.CancelScope() as scope:
        async with programs.started(awkward, grace_period=0.2):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_nothing_is_left_after_kill(awkward: list[str]) -> None:
    async with programs.started(awkward, grace_period=1000) as watched:
        watched.process.kill()
    # The status may also be that of an end before the SIGKILL, of one that exits by itself.
    assert watched.process.status is not None


async def test_stop_returns_when_nothing_is_left(awkward: list[str]) -> None:
    async with programs.started(awkward, grace_period=0.2) as watched:
        await watched.process.stop()
        assert watched.all_gone()


async def test_the_end_does_not_wait_for_the_grace_period() -> None:
    with trio.fail_after(10):
        async with programs.started(programs.DAEMON, grace_period=1000):
            pass


async def test_who_is_started_during_the_stop_is_asked_to_end_too() -> None:
    with trio.fail_after(10):
        async with programs.started(programs.LEAVES_ONE_MORE, grace_period=1000):
            pass


async def test_a_child_that_just_executes_a_program_is_asked_to_end_again() -> None:
    with trio.fail_after(10):
        async with programs.started(programs.FORGETS_ITS_SIGNAL, grace_period=1000):
            pass


async def test_the_stop_signal_is_sent_once_however_often_stop_is_called() -> None:
    async with programs.started(programs.COUNTS_TERM) as watched, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(watched.process.stop)
        # Signals that are pending together count once: so these come one after the other.
        await watched.printed(b"term 1")
        for _ in range(3):
            nursery.start_soon(watched.process.stop)
    assert watched.process.status == ExitStatus(code=1)


async def test_a_stopped_process_is_continued_so_that_it_can_obey() -> None:
    async with programs.started(programs.STOPPED, grace_period=1000) as watched:
        with trio.fail_after(10):
            assert await watched.process.stop() == ExitStatus(signal=signal.SIGTERM)


async def test_a_cancelled_stop_goes_on_stopping() -> None:
    async with programs.started(programs.SLEEPER) as watched:
        with trio.move_on_after(0):
            await watched.process.stop()
        with trio.fail_after(10):
            assert await watched.process.wait() == ExitStatus(signal=signal.SIGTERM)


async def test_kill_cuts_the_grace_period_short() -> None:
    async with programs.started(programs.IGNORES_TERM, grace_period=1000) as watched:
        with trio.move_on_after(0.05):
            await watched.process.stop()
        watched.process.kill()
        with trio.fail_after(10):
            assert await watched.process.stop() == ExitStatus(signal=signal.SIGKILL)


async def test_kill_does_not_give_up_before_the_last_one_is_gone() -> None:
    with trio.fail_after(30):
        async with programs.started(programs.STUBBORN_STORM, grace_period=1000) as watched:
            watched.process.kill()


async def test_stopping_one_process_leaves_the_descendants_of_another_alone() -> None:
    for command in (programs.DAEMON, programs.SESSION_LEAVER):
        async with programs.started(command) as survivor:
            for other in programs.AWKWARD.values():
                if other is programs.ANONYMOUS_DAEMON:
                    continue  # could be either's, so it is left to the last one
                async with programs.started(other, grace_period=0.1):
                    pass
            assert survivor.process.status is None
            assert not survivor.all_gone()


async def test_a_child_that_executes_a_program_at_that_moment_is_not_overlooked() -> None:
    """Its environment, which says whose it is, is not there yet; the moment is met by chance."""
    async with programs.started(programs.SLEEPER):
        for _ in range(300):
            async with programs.started(programs.SESSION_LEAVER, grace_period=0.1):
                pass


async def test_the_child_of_a_daemon_that_is_just_ending_is_not_overlooked() -> None:
    """The daemon could be either's: its environment, which says whose it is, is gone first."""
    async with (
        programs.started(programs.SLEEPER),
        programs.started(programs.ENDS_SLOWLY, grace_period=0.1),
    ):
        pass


async def test_a_command_that_does_not_exist_raises_at_entry() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        async with open_process(["no-such-program"]):
            pass
