"""A pytest plugin: the fakes as fixtures. It is found by pytest, nothing needs to be enabled.

Use it with pytest-trio, whose `autojump_clock` lets an hour pass in no time::

    @pytest.mark.trio
    async def test_it_runs_exactly_while_active(
        autojump_clock, fake_process, fake_activation, nursery
    ):
        supervisor = Supervisor(fake_process, activation=fake_activation)
        await nursery.start(supervisor.run)
        fake_activation.deactivate()
        await supervisor.wait_for(lambda state: not state.alive)

A mock clock does not wait for real processes or files: keep it to the fakes.
"""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trio_entrypoint.testing import FakeActivation, FakeConfiguration, FakeProcess

__all__ = ["fake_activation", "fake_configuration", "fake_process"]

# Imported where it is used: pytest loads this file in every session, also in those that have
# nothing to do with entrypoints.


@pytest.fixture
def fake_process() -> "FakeProcess":
    """What a supervisor opens its process with; nothing runs, the test says what happens."""
    from trio_entrypoint.testing import FakeProcess

    return FakeProcess()


@pytest.fixture
def fake_activation() -> "FakeActivation":
    """An activation, active until the test says otherwise."""
    from trio_entrypoint.testing import FakeActivation

    return FakeActivation()


@pytest.fixture
def fake_configuration() -> "FakeConfiguration":
    """A configuration without a source: `fake_configuration.change("one")` gives it one."""
    from trio_entrypoint.testing import FakeConfiguration

    return FakeConfiguration()
