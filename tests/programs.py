"""Awkward programs for the tests of processes: each is the argument list of a real one.

They say on their standard output what they did, so that a test waits for a line, and not
for a time. They, and all that they start, hold their standard output open: when its reader
gets to the end, none of them is left.
"""

import os
import resource
import shlex
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import trio

from trio_entrypoint import Process, open_process


class Watched:
    """A process, and the reading end of the pipe that it and its descendants write to."""

    def __init__(self, process: Process, pipe: int) -> None:
        self.process = process
        self.pipe = pipe
        self.output = b""

    async def printed(self, text: bytes) -> None:
        """Wait until a text was printed."""
        with trio.fail_after(20):
            while text not in self.output:
                await trio.lowlevel.wait_readable(self.pipe)
                block = os.read(self.pipe, 65536)
                assert block, f"ended without printing {text!r}: {self.output!r}"
                self.output += block

    def all_gone(self) -> bool:
        """Whether nobody has the pipe open any more."""
        os.set_blocking(self.pipe, False)
        try:
            while block := os.read(self.pipe, 65536):
                self.output += block
        except BlockingIOError:
            return False
        return True


@asynccontextmanager
async def started(
    command: list[str], *, check: bool = True, **arguments: Any
) -> AsyncGenerator[Watched]:
    """Start one of the programs, wait until it is ready, and see that it is gone afterwards."""
    reading, writing = os.pipe()
    try:
        async with open_process(command, stdout=writing, **arguments) as process:
            os.close(writing)
            writing = -1
            watched = Watched(process, reading)
            await watched.printed(b"ready")
            yield watched
        assert not check or watched.all_gone()
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


@contextmanager
def exhausted(free: int) -> Generator[Callable[[], None]]:
    """Use up all descriptors but some, until the block ends or what this gives is called."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    held: list[int] = []

    def give_back() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        while held:
            os.close(held.pop())

    try:
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(free):
            os.close(held.pop())
        yield give_back
    finally:
        give_back()


@contextmanager
def powerless() -> Generator[None]:
    """Be nobody until the block ends, who may not signal what we started."""
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def python(source: str) -> list[str]:
    """A Python program; it should print `ready` when its handlers are in place."""
    return [sys.executable, "-I", "-S", "-B", "-u", "-c", source]


SLEEPER = ["sh", "-c", "echo ready; exec sleep 1000"]
"""Does what it is asked to."""

IGNORES_TERM = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"]
"""Ignores SIGTERM, and so do its children."""

COUNTS_TERM = python(
    "import signal, sys, time\n"
    "count = 0\n"
    "def handler(*_):\n"
    "    global count\n"
    "    count += 1\n"
    "    print('term', count)\n"
    "signal.signal(signal.SIGTERM, handler)\n"
    "print('ready')\n"
    "while not count: time.sleep(0.01)\n"
    "time.sleep(0.3)\n"
    "sys.exit(count)\n"
)
"""Exits with the number of SIGTERMs that it got."""

CHILD_IGNORES_TERM = ["sh", "-c", "(trap '' TERM; sleep 1000) & echo ready; wait"]
"""Ends on SIGTERM, its child does not."""

SESSION_LEAVER = ["sh", "-c", "setsid sleep 1000 & echo ready; wait"]
"""Has a child that leaves the session."""

DAEMON = ["sh", "-c", "(setsid sh -c 'sleep 1000 & exit' &) ; sleep 0.1; echo ready; sleep 1000"]
"""Has a double-forked descendant in another session."""

ANONYMOUS_DAEMON = [
    "sh",
    "-c",
    "(setsid env -i sh -c 'sleep 1000 & exit' &) ; sleep 0.1; echo ready; sleep 1000",
]
"""Like `DAEMON`, but it also cleans its environment."""

STOPPED = ["sh", "-c", "sleep 1000 & kill -STOP $!; echo ready; kill -STOP $$; wait"]
"""Stops its child and itself."""

OUTLIVES_ITS_FIRST_THREAD = python(
    "import ctypes, signal, threading, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "threading.Thread(target=time.sleep, args=(60,)).start()\n"
    "print('ready')\n"
    "ctypes.CDLL(None).pthread_exit(None)\n"
)
"""Looks like a zombie, lives on in another thread, and ignores SIGTERM."""

CHILD_OUTLIVES_ITS_FIRST_THREAD = [
    "sh",
    "-c",
    f"{shlex.join(OUTLIVES_ITS_FIRST_THREAD)} & wait",
]

LEAVES_ONE_MORE = python(
    "import os, signal\n"
    "reading, writing = os.pipe()\n"
    "term = {signal.SIGTERM}\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, term)\n"
    "def until_asked():\n"
    "    signal.pthread_sigmask(signal.SIG_UNBLOCK, term)\n"
    "    signal.pause()\n"
    "def patient():\n"
    "    os.close(writing)\n"
    "    signal.sigwait(term)\n"
    "    os.read(reading, 1)\n"
    "def starter():\n"
    "    signal.sigwait(term)\n"
    "    if os.fork() == 0: until_asked()\n"
    "for each in patient, starter, patient:\n"
    "    if os.fork() == 0: each(); os._exit(0)\n"
    "os.close(writing)\n"
    "print('ready')\n"
    "until_asked()\n"
)
"""Has a child that starts another when it is asked to end, for whose end others wait."""

FORGETS_ITS_SIGNAL = python(
    "import os, signal, sys\n"
    "def begin(*_): os.execvp('sleep', ['sleep', '1000'])\n"
    "if os.fork() == 0:\n"
    "    signal.signal(signal.SIGTERM, begin)\n"
    "    print('ready')\n"
    "signal.pause()\n"
)
"""Has a child that catches SIGTERM while it is a copy of its parent, then executes a program."""

DAEMONIZER = ["sh", "-c", "setsid sh -c 'echo ready; sleep 1000' & exit 0"]
"""Exits at once, and leaves a daemon behind."""

ENDS_SLOWLY = python(
    "import mmap, os, time\n"
    "reading, writing = os.pipe()\n"
    "if os.fork():\n"
    "    os.close(writing)\n"
    "    os.read(reading, 1)\n"
    "    os._exit(0)\n"
    "if os.fork(): os._exit(0)\n"
    "os.setsid()\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    time.sleep(1000)\n"
    "file, size = os.memfd_create('memory'), 64 * 1024 * 1024\n"
    "os.ftruncate(file, size)\n"
    "populated = mmap.MAP_SHARED | mmap.MAP_POPULATE\n"
    "mappings = [mmap.mmap(file, size, populated) for _ in range(32)]\n"
    "print('ready')\n"
    "os.write(writing, b'.')\n"
    "os._exit(0)\n"
)
"""Ends, and leaves a daemon that ends too, which takes the kernel a while, for its memory. All
that time the daemon has no environment any more, and a child that sleeps in another session."""

FORK_STORM = python(
    "import os, time\n"
    "end = time.monotonic() + 20\n"
    "def storm(depth):\n"
    "    while time.monotonic() < end:\n"
    "        for _ in range(3):\n"
    "            if os.fork() == 0 and depth: storm(depth - 1); os._exit(0)\n"
    "            if depth == 0: time.sleep(0.01); os._exit(0)\n"
    "        if depth == 3: print('ready')\n"
    "        for _ in range(3): os.wait()\n"
    "storm(3)\n"
)
"""Has dozens of processes that fork all the time."""

COMET = python(
    "import os, time\nend = time.monotonic() + 20\nprint('ready')\n"
    "while time.monotonic() < end:\n    if os.fork(): os._exit(0)\n"
)
"""Forks and exits, all the time: no pid lives for long."""

COMET_OF_SESSIONS = python(
    "import os, time\nend = time.monotonic() + 20\nprint('ready')\n"
    "while time.monotonic() < end:\n    if os.fork(): os._exit(0)\n    os.setsid()\n"
)
"""Like `COMET`, and each is in a session of its own."""

STUBBORN_STORM = python(
    "import os, signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "end = time.monotonic() + 20\n"
    "for branch in range(8):\n"
    "    if not os.fork(): break\n"
    "for hop in range(10**9):\n"
    "    if branch == 0 and hop == 5: print('ready')\n"
    "    if time.monotonic() > end or os.fork(): os._exit(0)\n"
    "    os.setsid()\n"
)
"""Several that fork, begin a session and exit all the time, and ignore SIGTERM."""

AWKWARD = {
    "sleeper": SLEEPER,
    "ignores SIGTERM": IGNORES_TERM,
    "child ignores SIGTERM": CHILD_IGNORES_TERM,
    "child leaves the session": SESSION_LEAVER,
    "daemon": DAEMON,
    "daemon without environment": ANONYMOUS_DAEMON,
    "stopped": STOPPED,
    "first thread ended": OUTLIVES_ITS_FIRST_THREAD,
    "child's first thread ended": CHILD_OUTLIVES_ITS_FIRST_THREAD,
    "main process ended, daemon left": DAEMONIZER,
    "fork storm": FORK_STORM,
    "comet": COMET,
    "comet of sessions": COMET_OF_SESSIONS,
}
