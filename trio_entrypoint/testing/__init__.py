"""Fakes of every handler, for the tests of one's own entrypoints.

A test drives them by hand, under a mock clock: an hour of backoff passes in milliseconds.

Example::

    async def test_my_service_is_restarted(autojump_clock):
        process = FakeProcess()
        async with trio.open_nursery() as nursery:
            await nursery.start(Supervisor(process).run)
            process.current.exit(1)
            await process.wait_for_run(2)
            nursery.cancel_scope.cancel()
"""

from trio_entrypoint.testing._activation import FakeActivation
from trio_entrypoint.testing._configuration import FakeConfiguration, FakeSource
from trio_entrypoint.testing._process import FakeProcess, FakeRun
from trio_entrypoint.testing._recording import recording

__all__ = [
    "FakeActivation",
    "FakeConfiguration",
    "FakeProcess",
    "FakeRun",
    "FakeSource",
    "recording",
]
