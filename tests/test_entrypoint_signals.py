"""Signals to the entrypoint reach its supervised application as the table says."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import programs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_entrypoint import Supervisor, forward_signals, open_process

ENTRYPOINT = """
import signal, sys
from functools import partial
import trio, trio_entrypoint
from trio_entrypoint import Reload, Supervisor, forward_signals, open_process

async def main():
    supervisor = Supervisor(
        partial(open_process, ["sh", "-c", sys.argv[1]]), on_change=Reload(signal.SIGUSR2)
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(
            forward_signals,
            [supervisor],
            {signal.SIGHUP: "reload", signal.SIGUSR1: signal.SIGALRM, signal.SIGWINCH: None},
        )
        status = await supervisor.run()
        nursery.cancel_scope.cancel()
    return status

trio_entrypoint.run(main)
"""

APPLICATION = """
trap 'echo reloaded' USR2
trap 'echo rewritten' ALRM
trap 'echo forwarded' USR1
trap 'echo resized' WINCH
trap 'echo ended; exit 7' TERM
echo up
while :; do sleep 0.01; done
"""


def test_a_real_supervisor_reloads_gets_rewritten_signals_and_not_ignored_ones(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENTRYPOINT, APPLICATION], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        answers = iter(process.stdout.readline, "")
        assert next(answers) == "up\n"
        process.send_signal(signal.SIGHUP)
        assert next(answers) == "reloaded\n"
        process.send_signal(signal.SIGWINCH)
        process.send_signal(signal.SIGUSR1)
        assert next(answers) == "rewritten\n"
        process.send_signal(signal.SIGTERM)
        assert list(answers) == ["ended\n"]
    assert process.returncode == 7


async def test_a_signal_that_may_not_be_sent_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = Supervisor(partial(open_process, programs.SLEEPER), name="web")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(forward_signals, [supervisor], {signal.SIGUSR1: signal.SIGKILL})
            await nursery.start(supervisor.run)
            with programs.powerless():
                signal.raise_signal(signal.SIGUSR1)
                await wait_all_tasks_blocked()
            assert supervisor.state.ready
            nursery.cancel_scope.cancel()
    assert "not permitted to send it a signal" in caplog.text
