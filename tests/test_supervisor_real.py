"""The supervisor over real processes, a real activation file and real archives."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from configurations import archive, move_into_place

from trio_entrypoint import (
    Always,
    Backoff,
    Cause,
    ConfigurationState,
    Environment,
    ExitStatus,
    Health,
    Hooks,
    NotifyProbe,
    OpenProcess,
    ProcessState,
    Supervisor,
    open_file_activation,
    open_process,
    open_tar_configuration,
)
from trio_entrypoint.testing import (
    FakeActivation,
    FakeConfiguration,
    FakeProcess,
    recording,
)

AT_ONCE = Always(backoff=Backoff(initial=0.0))


def application(log: Path) -> OpenProcess:
    """Says on what configuration it was started; ends at once if that says 'fail'."""
    script = (
        'c=$(cat "$TRIO_ENTRYPOINT_GENERATION"/app.conf); echo "$c" >> "$0";'
        'test "$c" != fail || exit 3; exec sleep 1000'
    )
    return partial(open_process, ["sh", "-c", script, str(log)], grace_period=2.0)


async def until_lines(log: Path, expected: list[str]) -> None:
    """Wait until the application has written these lines."""
    with trio.fail_after(30):
        while not log.exists() or log.read_text().split() != expected:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_it_starts_switches_refuses_restarts_and_stops(tmp_path: Path) -> None:
    active, tar, log = tmp_path / "active", tmp_path / "config.tar", tmp_path / "log"
    async with (
        open_file_activation(active) as activation,
        open_tar_configuration(tar, tmp_path / "etc") as configuration,
    ):
        supervisor = Supervisor(
            application(log), activation=activation, configuration=configuration, restart=AT_ONCE
        )
        async with recording(supervisor.events) as seen, trio.open_nursery() as nursery:
            _ = configuration.results  # asked for from the beginning
            nursery.start_soon(supervisor.run)
            move_into_place(tar, archive({"app.conf": "one"}))
            await supervisor.wait_for(lambda state: state.applied)
            active.touch()
            await until_lines(log, ["one"])
            move_into_place(tar, archive({"app.conf": "two"}))
            await until_lines(log, ["one", "two"])
            move_into_place(tar, b"this is no archive")
            while (await configuration.results.receive()).error is None:
                pass
            pid = supervisor.state.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until_lines(log, ["one", "two", "two"])
            active.unlink()
            state = await supervisor.wait_for(lambda state: state.process is ProcessState.INACTIVE)
            assert state.pid is None
            nursery.cancel_scope.cancel()
    assert Cause.CONFIGURATION_REFUSED in [one.cause for one in seen]
    assert ExitStatus(signal=signal.SIGKILL) in [one.status for one in seen]


async def test_a_configuration_whose_process_dies_is_rolled_back_for_real(tmp_path: Path) -> None:
    tar, log = tmp_path / "config.tar", tmp_path / "log"
    move_into_place(tar, archive({"app.conf": "good"}))
    async with open_tar_configuration(tar, tmp_path / "etc") as configuration:
        supervisor = Supervisor(
            application(log), configuration=configuration, restart=AT_ONCE, confirm_within=0.5
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            await supervisor.wait_for(
                lambda state: state.configuration is ConfigurationState.APPLIED
            )
            move_into_place(tar, archive({"app.conf": "fail"}))
            await until_lines(log, ["good", "fail", "good"])
            assert (tmp_path / "etc" / "app.conf").read_text() == "good"
            # The same bytes again are refused, others are tried.
            move_into_place(tar, archive({"app.conf": "fail"}))
            move_into_place(tar, archive({"app.conf": "better"}))
            await until_lines(log, ["good", "fail", "good", "better"])
            nursery.cancel_scope.cancel()


ENTRYPOINT = """
import sys
from functools import partial
from trio_entrypoint import Supervisor, open_tar_configuration, run
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_supervisor_real import application

async def main(directory=Path(sys.argv[1]), within=float(sys.argv[3])):
    async with open_tar_configuration(directory / "config.tar", directory / "etc") as tar:
        await Supervisor(
            application(directory / "log"), configuration=tar, confirm_within=within
        ).run()

run(main)
"""


async def test_an_entrypoint_killed_during_a_trial_goes_back_to_what_it_trusted(
    tmp_path: Path,
) -> None:
    """One that got SIGTERM before that tried the same source again."""
    root = str(Path(__file__).parent)

    def entrypoint(within: float) -> OpenProcess:
        command = [sys.executable, "-c", ENTRYPOINT, str(tmp_path), root, str(within)]
        return partial(open_process, command, grace_period=5.0)

    trusted = tmp_path / "etc"
    move_into_place(tmp_path / "config.tar", archive({"app.conf": "good"}))
    async with entrypoint(0.1)():
        await until_lines(tmp_path / "log", ["good"])
        with trio.fail_after(10):
            while (tmp_path / ".etc.generations" / "1" / "trial").exists():  # noqa: ASYNC110
                await trio.sleep(0.01)
    move_into_place(tmp_path / "config.tar", archive({"app.conf": "untried"}))
    async with entrypoint(1000.0)():
        await until_lines(tmp_path / "log", ["good", "untried"])
    async with entrypoint(1000.0)() as process:
        await until_lines(tmp_path / "log", ["good", "untried", "untried"])
        process.kill()
    assert (trusted / "app.conf").read_text() == "untried"
    async with entrypoint(1000.0)():
        await until_lines(tmp_path / "log", ["good", "untried", "untried", "good"])
        assert (trusted / "app.conf").read_text() == "good"


@pytest.mark.parametrize("proven", [False, True])
async def test_the_same_contents_in_another_archive_are_as_trusted_as_they_were(
    tmp_path: Path, proven: bool
) -> None:
    """Nothing is started anew for them, so that nothing of them could prove itself."""
    tar, whole = tmp_path / "config.tar", archive({"app.conf": "good"})
    process = FakeProcess()

    move_into_place(tar, whole)
    async with open_tar_configuration(tar, tmp_path / "etc") as configuration:
        supervisor = Supervisor(
            process, configuration=configuration, confirm_within=0.05 if proven else 60.0
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(supervisor.run)
            state = ConfigurationState.APPLIED if proven else ConfigurationState.TRIAL
            with trio.fail_after(10):
                await supervisor.wait_for(lambda now: now.configuration is state)
                _ = configuration.results
                move_into_place(tar, whole + bytes(10240))
                result = await configuration.results.receive()
            assert result.generation is not None
            assert result.generation.number == 2
            assert configuration.on_trial is not proven
            assert supervisor.state.configuration is state
            nursery.cancel_scope.cancel()
    assert len(process.runs) == 1
    async with open_tar_configuration(tar, tmp_path / "etc") as configuration:
        assert (await configuration.update()).error is None


async def test_command_hooks_get_the_generation_and_the_token_of_the_process(
    tmp_path: Path,
) -> None:
    tar, told = tmp_path / "config.tar", tmp_path / "told"
    move_into_place(tar, archive({"app.conf": "one"}))
    script = (
        'echo "$1 $TRIO_ENTRYPOINT_FENCING_TOKEN $(cat "$TRIO_ENTRYPOINT_GENERATION"/app.conf)'
        ' ${NOTIFY_SOCKET-none}" >> "$0"'
    )
    kinds = ["initial", "before_start", "after_ready", "before_stop", "after_stop"]
    hooks: Any = {kind: [["sh", "-c", script, str(told), kind]] for kind in kinds}
    async with open_tar_configuration(tar, tmp_path / "etc") as configuration:
        supervisor = Supervisor(
            application(tmp_path / "log"),
            activation=FakeActivation(active=True, token="7"),
            configuration=configuration,
            health=Health(NotifyProbe()),
            hooks=Hooks(**hooks),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.run)
            with trio.fail_after(10):
                while "after_ready" not in (told.read_text() if told.exists() else ""):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert told.read_text().splitlines() == [f"{kind} 7 one none" for kind in kinds]


def test_importing_the_supervisor_loads_nothing_that_it_may_never_use() -> None:
    heavy = ["asyncio", "h11", "http", "tarfile", "pytest", "trio_entrypoint.process", "trio_util"]
    script = (
        "import sys, trio; before = set(sys.modules); import trio_entrypoint.supervisor;"
        f"print(sorted((set(sys.modules) - before) & set({heavy!r})))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert output.stdout.strip() == b"[]"


async def test_what_a_stopped_process_left_is_gone_by_the_deadline_too(tmp_path: Path) -> None:
    """A lease ends at a time that is known; it does not matter whose child is still there."""
    pid = tmp_path / "pid"
    script = 'sh -c \'trap "" TERM; echo $$ > "$0"; while :; do sleep 0.05; done\' "$0" & wait'
    activation = FakeActivation(active=True)
    supervisor = Supervisor(
        partial(open_process, ["sh", "-c", script, str(pid)], grace_period=60.0),
        activation=activation,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        with trio.fail_after(30):
            while not pid.exists() or not pid.read_text().strip():  # noqa: ASYNC110
                await trio.sleep(0.01)
        activation.deactivate(deadline=trio.current_time() + 0.5)
        with trio.fail_after(10):
            await supervisor.wait_for(lambda state: not state.alive)
        assert not Path(f"/proc/{pid.read_text().strip()}").exists()
        nursery.cancel_scope.cancel()


async def test_an_environment_file_that_somebody_spoils_costs_starts_and_nothing_else(
    tmp_path: Path,
) -> None:
    file, log = tmp_path / "app.env", tmp_path / "log"
    file.write_text("COLOUR=red\n")
    script = 'echo $COLOUR >> "$0"; exec sleep 1000'
    supervisor = Supervisor(
        partial(open_process, ["sh", "-c", script, str(log)], env=Environment(files=[str(file)])),
        restart=Always(backoff=Backoff(initial=0.01, factor=1.0)),
    )
    async with recording(supervisor.events) as seen, trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await until_lines(log, ["red"])
        file.write_text("COLOUR green\n")
        assert supervisor.state.pid is not None
        os.kill(supervisor.state.pid, signal.SIGKILL)
        with trio.fail_after(5):
            await supervisor.wait_for(lambda state: state.process is ProcessState.BACKOFF)
            while not [one for one in seen if one.cause is Cause.NOT_EXECUTED]:  # noqa: ASYNC110
                await trio.sleep(0.01)
        file.write_text("COLOUR=green\n")
        await until_lines(log, ["red", "green"])
        nursery.cancel_scope.cancel()
    failure = next(one for one in seen if one.cause is Cause.NOT_EXECUTED)
    assert f"{file}, line 1" in str(failure.error)


def leaves_a_child(*, grace_period: float) -> OpenProcess:
    """Fails as soon as it was started, and leaves a child behind that ignores SIGTERM."""
    script = "trap '' TERM; sleep 1000 & exit 1"
    return partial(open_process, ["sh", "-c", script], grace_period=grace_period)


async def test_what_a_failed_process_left_is_gone_by_the_deadline_of_a_lost_lease() -> None:
    activation = FakeActivation(token="1")
    supervisor = Supervisor(leaves_a_child(grace_period=60.0), activation=activation)
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        with trio.fail_after(10):
            await supervisor.wait_for(lambda state: state.process is ProcessState.STOPPING)
            assert not supervisor.state.alive
            activation.deactivate(trio.current_time() + 0.5)
            await supervisor.wait_for(lambda state: state.process is ProcessState.INACTIVE)
        nursery.cancel_scope.cancel()


async def test_a_configuration_is_not_trusted_for_a_process_that_failed_and_left_a_child() -> None:
    """Its trial would be over while the child has its grace period."""
    configuration = FakeConfiguration("one", applied=True)
    configuration.change("two")
    supervisor = Supervisor(
        leaves_a_child(grace_period=1.5), configuration=configuration, confirm_within=1.0
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        with trio.fail_after(20):
            trial = ConfigurationState.TRIAL
            await supervisor.wait_for(lambda state: state.configuration is trial)
            await supervisor.wait_for(lambda state: state.configuration is not trial)
        assert len(configuration.refused) == 1
        nursery.cancel_scope.cancel()
