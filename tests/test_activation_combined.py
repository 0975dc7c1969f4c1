"""Several activations as one."""

from collections.abc import Iterator

import pytest
import trio
import trio.testing

from trio_entrypoint import ActivationChanged, open_all_activation, open_any_activation
from trio_entrypoint._channels import NewestChannel
from trio_entrypoint.handlers import ActivationHandler
from trio_entrypoint.testing import FakeActivation

ON, OFF = ActivationChanged(active=True), ActivationChanged(active=False)


class Switch:
    """A handler that a test switches."""

    def __init__(self, event: ActivationChanged) -> None:
        self._channel = NewestChannel[ActivationChanged]()
        self.tell(event)

    @property
    def events(self) -> trio.MemoryReceiveChannel[ActivationChanged]:
        return self._channel.events

    def tell(self, event: ActivationChanged) -> None:
        self.active, self.token = event.active, event.token
        self._channel.send(event)

    def close(self) -> None:
        self.active = False
        self._channel.__exit__(None, None, None)


@pytest.fixture
def switches() -> Iterator[tuple[Switch, Switch]]:
    pair = Switch(OFF), Switch(OFF)
    yield pair
    for switch in pair:
        switch.close()


async def news(handler: ActivationHandler) -> ActivationChanged:
    with trio.fail_after(5):
        return await handler.events.receive()


async def test_all_are_needed(switches: tuple[Switch, Switch]) -> None:
    first, second = switches
    async with open_all_activation(first, second) as both:
        assert await news(both) == OFF
        first.tell(ON)
        await trio.testing.wait_all_tasks_blocked()
        assert not both.active
        second.tell(ON)
        assert await news(both) == ON
        assert both.active
        first.tell(OFF)
        assert not both.active, "before any task has run"
        assert await news(both) == OFF


async def test_any_is_enough(switches: tuple[Switch, Switch]) -> None:
    first, second = switches
    async with open_any_activation(first, second) as either:
        assert await news(either) == OFF
        second.tell(ON)
        assert await news(either) == ON
        first.tell(ON)
        second.tell(OFF)
        await trio.testing.wait_all_tasks_blocked()
        assert either.active
        first.tell(OFF)
        assert await news(either) == OFF


async def test_when_one_comes_as_another_goes_nothing_is_told(
    switches: tuple[Switch, Switch],
) -> None:
    """In whatever order both are noticed; often enough for both orders."""
    comes, goes = switches
    goes.tell(ON)
    async with open_any_activation(comes, goes) as either:
        assert await news(either) == ON
        for _ in range(30):
            comes.tell(ON)
            goes.tell(OFF)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.WouldBlock):
                either.events.receive_nowait()
            comes, goes = goes, comes


async def test_what_was_never_active_at_one_time_is_not_told(
    switches: tuple[Switch, Switch],
) -> None:
    """The news that one comes may be read before the news that the other has gone."""
    first, second = switches
    first.tell(ON)
    async with open_all_activation(first, second) as both:
        assert await news(both) == OFF
        for _ in range(30):
            second.tell(ON)
            first.tell(OFF)
            await trio.testing.wait_all_tasks_blocked()
            # It comes, goes, and comes again, of which only the last is news.
            for event in (ON, OFF):
                first.tell(event)
            second.tell(OFF)
            first.tell(ON)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.WouldBlock):
                both.events.receive_nowait()
        second.tell(ON)
        assert await news(both) == ON


async def test_the_first_event_is_the_state_at_opening_with_its_token(
    switches: tuple[Switch, Switch],
) -> None:
    first, second = switches
    first.tell(ON)
    second.tell(ActivationChanged(active=True, token="5"))
    async with open_all_activation(first, second) as both:
        assert await news(both) == ActivationChanged(active=True, token="5")
        assert both.token == "5"
        first.tell(OFF)
        assert both.token is None


async def test_an_activation_lost_and_won_in_between_is_told_by_its_new_token(
    switches: tuple[Switch, Switch],
) -> None:
    first, second = switches
    first.tell(ON)
    second.tell(ActivationChanged(active=True, token="5"))
    async with open_all_activation(first, second) as both:
        await news(both)
        for number in range(6, 36):
            won = ActivationChanged(active=True, token=str(number))
            second.tell(ActivationChanged(active=False, deadline=1.0))
            second.tell(won)
            assert await news(both) == won


async def test_a_lost_lease_brings_its_deadline_and_a_veto_before_it_does_not_hide_it(
    switches: tuple[Switch, Switch],
) -> None:
    veto, lease = switches
    veto.tell(ON)
    lease.tell(ActivationChanged(active=True, token="5"))
    async with open_all_activation(veto, lease) as both:
        await news(both)
        veto.tell(OFF)
        assert await news(both) == OFF, "nothing is said about when"
        lease.tell(ActivationChanged(active=False, deadline=7.0))
        assert await news(both) == ActivationChanged(active=False, deadline=7.0)


async def test_the_deadline_of_a_lease_lost_long_ago_hurries_nobody(
    switches: tuple[Switch, Switch],
) -> None:
    forced, lease = switches
    lease.tell(ActivationChanged(active=True, token="5"))
    async with open_any_activation(forced, lease) as either:
        await news(either)
        forced.tell(ON)
        await trio.testing.wait_all_tasks_blocked()
        lease.tell(ActivationChanged(active=False, deadline=7.0))
        assert (await news(either)).active
        forced.tell(OFF)
        assert await news(either) == OFF


async def test_a_handler_that_ended_is_inactive(switches: tuple[Switch, Switch]) -> None:
    first, second = switches
    first.tell(ON)
    second.tell(ON)
    async with open_all_activation(first, second) as both:
        assert await news(both) == ON
        first.close()
        assert await news(both) == OFF


async def test_a_handler_that_ended_is_inactive_whatever_it_was_last() -> None:
    """A supervisor does not take its word either. The others go on."""
    first, second = FakeActivation(token="1"), FakeActivation(token="2")
    async with open_any_activation(first, second) as either:
        assert await news(either) == ActivationChanged(active=True, token="1")
        first.close()
        assert await news(either) == ActivationChanged(active=True, token="2")
        assert either.token == "2"
        second.deactivate()
        assert await news(either) == OFF
        assert not either.active
        second.activate(token="3")
        assert await news(either) == ActivationChanged(active=True, token="3")


async def test_nothing_cannot_be_combined() -> None:
    with pytest.raises(ValueError, match="at least one"):
        async with open_all_activation():
            pass
