"""A handler's background tasks: they live as long as its block, and do not colour its errors.

A nursery wraps whatever is raised in it in a group, the block's own exception included. Users
of a handler write `except ValueError` around it, and mean the `ValueError` of their block.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import trio

T = TypeVar("T")


@asynccontextmanager
async def open_background(*tasks: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
    """Run tasks exactly as long as the block; they are cancelled when it is left.

    Raises:
        BaseException: What the block raised, or what one of the tasks raised (the block is
            cancelled then), as it is; a group only where several failed.
    """
    try:
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            for task in tasks:
                nursery.start_soon(task)
            yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        cause = only_cause(group)
        if cause is None:
            raise
        raise cause from cause.__cause__


@asynccontextmanager
async def open_lasting_background(*tasks: Callable[[], Awaitable[object]]) -> AsyncGenerator[None]:
    """Run tasks exactly as long as the block, as `open_background` does, though it is cancelled.

    Cancellation from outside reaches them when the block's body has ended: what they tell still
    matters to a body that is cleaning up.

    Raises:
        BaseException: As `open_background`.
    """
    scopes = [trio.CancelScope(shield=True) for _ in tasks]

    async def run(scope: trio.CancelScope, task: Callable[[], Awaitable[object]]) -> None:
        with scope:
            await task()

    async with open_background(*(partial(run, *pair) for pair in zip(scopes, tasks, strict=True))):
        try:
            yield
        finally:
            for scope in scopes:
                scope.cancel()


async def cancelled_or_failed(users: Awaitable[T]) -> T:
    """Await the user's code: where it is cancelled, what fails on its way out is no matter.

    A nursery in it would raise both in one group, which is neither a failure nor a cancellation.
    """
    try:
        return await users
    except BaseExceptionGroup as group:
        _, cancelled = group.split(Exception)
        if cancelled is None:
            raise
        raise cancelled from None


def only_cause(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one exception that a nursery's group is about; None when there are several.

    A cancellation is none beside a failure, and one cancellation is as good as many. Groups
    within the group are left as they are: they are what somebody raised.
    """
    cancelled, failed = group.split(trio.Cancelled)
    match (cancelled, failed):
        case (_, BaseExceptionGroup(exceptions=[cause])):
            return cause
        case (BaseExceptionGroup(exceptions=[cause, *_]), None):
            return cause
        case _:
            return None
