#!/usr/bin/env python3
"""A tour in a temporary directory: a web server under an entrypoint, and what happens to it.

A first configuration arrives, the pod becomes active, the configuration is replaced, a broken
one is refused, the server is killed, the pod becomes a backup. What the tour does and what the
entrypoint answers is printed as it happens, with milliseconds.
"""

import io
import os
import signal
import socket
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

import trio_entrypoint
from trio_entrypoint import (
    HttpProbe,
    Readiness,
    Supervisor,
    Transition,
    open_file_activation,
    open_process,
    open_tar_configuration,
)

COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ


async def main() -> None:
    """Take the tour."""
    with tempfile.TemporaryDirectory() as top:
        await tour(Path(top), free_port())


async def tour(top: Path, port: int) -> None:
    """Run a web server in `top`, and do to it what may happen to one."""
    active, tar, target = top / "active", top / "config.tar", top / "www"
    server = [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", str(target), str(port)]
    async with (
        open_file_activation(active) as activation,
        open_tar_configuration(tar, target) as configuration,
        trio.open_nursery() as nursery,
    ):
        supervisor = Supervisor(
            partial(open_process, server, stdout="null", stderr="null"),
            name="web server",
            activation=activation,
            configuration=configuration,
            readiness=Readiness(HttpProbe(f"http://127.0.0.1:{port}/"), period=0.01),
        )
        timeline = Timeline(supervisor)
        nursery.start_soon(supervisor.run)

        timeline.act("a configuration is moved into place")
        move_into_place(tar, page="red")
        await timeline.until(lambda transition: transition.after.applied)

        timeline.act("the pod becomes active")
        active.touch()
        await timeline.until(lambda transition: transition.after.ready)
        timeline.see(f"the page says: {await page(port)}")

        timeline.act("a new configuration is moved into place")
        move_into_place(tar, page="blue")
        await timeline.until(lambda transition: transition.after.ready)
        timeline.see(f"the page says: {await page(port)}")

        timeline.act("a broken configuration is moved into place")
        move_into_place(tar, page=None)
        await timeline.until(lambda transition: transition.error is not None)
        timeline.see(f"the page says: {await page(port)}, still")

        timeline.act("the web server is killed")
        os.kill(supervisor.state.pid or 0, signal.SIGKILL)
        await timeline.until(lambda transition: transition.after.ready)

        timeline.act("the pod becomes a backup")
        active.unlink()
        await timeline.until(lambda transition: not transition.after.alive)
        nursery.cancel_scope.cancel()


class Timeline:
    """Prints what happens, with the milliseconds since the start."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.events = supervisor.events
        self.start = trio.current_time()

    def act(self, text: str) -> None:
        """Say what the tour does."""
        self.print("1;33", "→", text)

    def see(self, text: str) -> None:
        """Say what a user of the web server sees."""
        self.print("1;36", "✓", text)

    async def until(self, reached: Callable[[Transition], bool]) -> None:
        """Say what the entrypoint does, up to something."""
        async for transition in self.events:
            self.tell(transition)
            if reached(transition):
                return

    def tell(self, transition: Transition) -> None:
        """Say what the entrypoint did."""
        what = f"{transition.after.process.value:10} {transition.cause.value}"
        if detail := transition.error or transition.status:
            what += f": {detail}"
        self.print("32" if transition.after.alive else "2", " ", what, transition.time)

    def print(self, style: str, mark: str, text: str, time: float | None = None) -> None:
        """Print one line."""
        seconds = (trio.current_time() if time is None else time) - self.start
        if COLOURED:
            mark, text = f"\x1b[{style}m{mark}", f"{text}\x1b[0m"
        print(f"{seconds * 1000:7.1f} ms  {mark} {text}", flush=True)


def move_into_place(tar: Path, page: str | None) -> None:
    """Write a configuration beside its place, then move it there; None for a broken one."""
    staged = tar.with_name("staged.tar")
    with tarfile.open(staged, "w") as archive:
        member = tarfile.TarInfo("index.html")
        contents = (page or "never seen").encode()
        member.size = len(contents)
        archive.addfile(member, io.BytesIO(contents))
    if page is None:
        staged.write_bytes(staged.read_bytes()[:600])
    staged.rename(tar)


async def page(port: int) -> str:
    """What the web server serves."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join([part async for part in stream])
    return answer.partition(b"\r\n\r\n")[2].decode()


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


if __name__ == "__main__":
    trio_entrypoint.run(main)
