"""What there is once in a Trio run, because the kernel gives one to a process or counts them.

The first who needs it makes it, all who come meanwhile have the same, and it ends with the
last who leaves. Nobody has to be at the top to hand it down, and nothing outlives the run.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from typing import Generic, TypeVar, final

import attrs
import trio

T = TypeVar("T")


@final
@attrs.define
class _Shared(Generic[T]):
    value: T
    end: Callable[[], None]
    users: int = 0


def one_per_run(
    make: Callable[[], AbstractContextManager[T]],
) -> Callable[[], AbstractContextManager[T]]:
    """Share what a context manager gives among all blocks of a Trio run that overlap.

    Example::

        @one_per_run
        @contextmanager
        def shared_inotify() -> Generator[Inotify]:
            with closing(Inotify()) as inotify:
                yield inotify
    """
    current = trio.lowlevel.RunVar[_Shared[T] | None](make.__qualname__, None)

    @wraps(make)
    @contextmanager
    def share() -> Generator[T]:
        shared = current.get()
        if shared is None:
            # On a stack, because it ends in another block than the one that it began in, and
            # what this other one raises is none of its business.
            stack = ExitStack()
            shared = _Shared(stack.enter_context(make()), stack.close)
            current.set(shared)
        shared.users += 1
        try:
            yield shared.value
        finally:
            shared.users -= 1
            if not shared.users:
                current.set(None)
                shared.end()

    return share
