"""Accepting clients for as long as there are any, whatever they or the kernel do meanwhile."""

import errno
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import trio

__all__ = ["accept_all"]

logger: logging.Logger = logging.getLogger(__name__)

ClientT = TypeVar("ClientT")

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


async def accept_all(
    what: str,
    accept: Callable[[], Awaitable[ClientT]],
    serve: Callable[[ClientT], Awaitable[None]],
) -> NoReturn:
    """Serve every client in a task of its own, until cancelled.

    Args:
        what: What clients connect to, for the log.
        accept: Waits for the next client.
        serve: Serves one; it must not raise.
    """
    async with trio.open_nursery() as nursery:
        while True:
            try:
                client = await accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:  # else that client is gone already
                    logger.warning("%s cannot accept: %s", what, error.strerror)
                    await trio.sleep(0.1)
            else:
                nursery.start_soon(serve, client)
