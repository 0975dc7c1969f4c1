"""Each asked probe says 'yes' to what is well, and tells what it saw instead."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h11
import pytest
import trio

from trio_entrypoint.commands import Command, CommandFailedError
from trio_entrypoint.probes import (
    CommandProbe,
    DescriptorProbe,
    FileProbe,
    HttpProbe,
    ProbeError,
    TcpProbe,
)


async def serve(nursery: trio.Nursery, answer: bytes) -> int:
    """Answer every connection on a port of its own with the same bytes."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        with suppress(trio.BrokenResourceError):  # the probe has seen enough
            await stream.send_all(answer)

    listeners = await nursery.start(trio.serve_tcp, handle, 0)
    port: int = listeners[0].socket.getsockname()[1]
    return port


@pytest.fixture
async def closed_port() -> int:
    """A port that nobody listens at."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listeners[0].socket.getsockname()[1]
    for listener in listeners:
        await listener.aclose()
    return port


async def test_tcp_wants_something_that_accepts(nursery: trio.Nursery, closed_port: int) -> None:
    await TcpProbe(await serve(nursery, b"")).check()
    with pytest.raises(ProbeError, match=f"accepts connections at 127.0.0.1:{closed_port}"):
        await TcpProbe(closed_port).check()


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"301 Moved", b"399 Odd"])
async def test_http_is_well_from_200_to_399(nursery: trio.Nursery, status: bytes) -> None:
    port = await serve(nursery, b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nhello")
    await HttpProbe(f"http://127.0.0.1:{port}/ready?deep=1").check()


@pytest.mark.parametrize("status", [b"404 Not Found", b"503 Not Yet"])
async def test_http_is_not_well_otherwise(nursery: trio.Nursery, status: bytes) -> None:
    port = await serve(nursery, b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(ProbeError, match=f"answered with {status[:3].decode()}"):
        await HttpProbe(f"http://127.0.0.1:{port}").check()


async def test_http_passes_over_informational_answers(nursery: trio.Nursery) -> None:
    port = await serve(nursery, b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    await HttpProbe(f"http://127.0.0.1:{port}/").check()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 99999])
async def test_http_does_not_take_something_else_for_an_answer(
    nursery: trio.Nursery, answer: bytes
) -> None:
    port = await serve(nursery, answer)
    with pytest.raises(h11.RemoteProtocolError):
        await HttpProbe(f"http://127.0.0.1:{port}/").check()


async def test_a_file_exists_or_not(tmp_path: Path) -> None:
    await FileProbe(tmp_path).check()
    with pytest.raises(ProbeError, match="missing does not exist"):
        await FileProbe(tmp_path / "missing").check()


async def test_a_command_exits_with_0_or_not() -> None:
    await CommandProbe(["true"]).check()
    with pytest.raises(ProbeError, match="false: ended with exit code 1"):
        await CommandProbe(["false"]).check()


async def test_a_command_gets_its_environment_its_time_and_a_clear_error() -> None:
    await Command(["sh", "-c", 'test "$GREETING" = hello']).run({"GREETING": "hello"})
    with pytest.raises(CommandFailedError, match=r"took longer than 0\.2 s"):
        await Command(["sleep", "60"], timeout=0.2).run()
    with pytest.raises(CommandFailedError, match="/nowhere/at/all"):
        await Command(["/nowhere/at/all"]).run()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TcpProbe(0), "port"),
        (lambda: TcpProbe(70000), "port"),
        (lambda: HttpProbe("ftp://x"), "url"),
        (lambda: HttpProbe("http://"), "url"),
        (lambda: HttpProbe("http:///ready"), "url"),
        (lambda: HttpProbe("http://:8080/ready"), "url"),
        (lambda: HttpProbe("http://host:port/"), "url"),
        (lambda: HttpProbe("http://host:99999/"), "url"),
        (lambda: HttpProbe("http://host:0/"), "url"),
        (lambda: HttpProbe("http://[::1/"), "url"),
        (lambda: HttpProbe("http://a..b/"), "url"),
        (lambda: HttpProbe(f"http://{'a' * 64}/"), "url"),
        (lambda: HttpProbe("http://user@host/"), "url"),
        (lambda: HttpProbe("http://host/a b"), "url"),
        (lambda: HttpProbe("http://host/\0"), "url"),
        (lambda: HttpProbe("http://host/\x7f"), "url"),
        (lambda: HttpProbe("http://host/\u00e9"), "url"),
        (lambda: HttpProbe("http://h\u00f6st/"), "url"),
        (lambda: DescriptorProbe(2), "fd"),
        (lambda: Command([]), "command"),
        (lambda: Command("rm -rf"), "sequence of words"),
        (lambda: Command(["true"], timeout=0.0), "timeout"),
    ],
)
def test_a_probe_that_cannot_work_is_refused_when_it_is_made(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()
