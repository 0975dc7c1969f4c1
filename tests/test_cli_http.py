"""Health, metrics and the page over HTTP: by plain sockets, and in a real browser."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from browser import Browser, open_browser
from prometheus_client.parser import text_string_to_metric_families

from trio_entrypoint.cli import http
from trio_entrypoint.cli.http import Response, Write, open_http

ENTRYPOINT = [sys.executable, "-m", "trio_entrypoint.cli", "run"]


async def handle(path: str) -> Response:
    async def stream(write: Write) -> None:
        while True:
            await write(b"x" * 100_000)

    async def say_nothing(_: Write) -> None:
        await trio.sleep_forever()

    match path:
        case "/quiet":
            return Response(type="text/plain", stream=say_nothing)
        case "/stream":
            return Response(type="text/plain", stream=stream)
        case "/fault":
            raise ZeroDivisionError
        case _:
            return Response(type="text/plain", body=path.encode())


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes, and give everything that comes back."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(request)
        received = bytearray()
        with trio.fail_after(20):
            async for chunk in stream:
                received += chunk
    return bytes(received)


CLOSE = b"Host: x\r\nConnection: close\r\n\r\n"


async def test_requests_are_answered_one_after_the_other_on_one_connection() -> None:
    async with open_http("127.0.0.1", 0, handle) as port:
        answer = await exchange(
            port, b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\n" + CLOSE
        )
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.index(b"\r\n\r\n/a") < answer.index(b"\r\n\r\n/c")


async def test_head_has_no_body() -> None:
    async with open_http("127.0.0.1", 0, handle) as port:
        answer = await exchange(port, b"HEAD /abc HTTP/1.1\r\n" + CLOSE)
    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 4" in answer.lower()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nHost: x\r\n\r\nabc", b"405"),
        (b"DELETE / HTTP/1.1\r\n" + CLOSE, b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\n" + CLOSE, b"400"),
    ],
)
async def test_what_is_no_request_for_us_is_refused(request_: bytes, status: bytes) -> None:
    async with open_http("127.0.0.1", 0, handle) as port:
        assert (await exchange(port, request_)).startswith(b"HTTP/1.1 " + status)


async def test_a_fault_of_ours_ends_only_its_connection() -> None:
    async with open_http("127.0.0.1", 0, handle) as port:
        assert await exchange(port, b"GET /fault HTTP/1.1\r\n" + CLOSE) == b""
        assert b"200" in await exchange(port, b"GET / HTTP/1.1\r\n" + CLOSE)


async def test_a_client_that_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEAD_WITHIN", 0.2)
    async with open_http("127.0.0.1", 0, handle) as port:
        assert await exchange(port, b"GET / HTTP/1.1\r\nHos") == b""


async def test_a_client_that_does_not_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SEND_WITHIN", 0.2)
    dropped = trio.Event()

    async def handle(path: str) -> Response:
        async def stream(write: Write) -> None:
            try:
                while True:
                    await write(b"x" * 100_000)
            finally:
                dropped.set()

        return Response(type="text/plain", stream=stream)

    async with (
        open_http("127.0.0.1", 0, handle) as port,
        await trio.open_tcp_stream("127.0.0.1", port) as slow,
    ):
        await slow.send_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(20):
            await dropped.wait()


SLOW = [
    pytest.param([b"GET /a HTTP/1.1\r\nHos"] * 4, 0, id="unfinished requests"),
    pytest.param([b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"] * 4, 0, id="idle connections"),
    pytest.param([b"GET /quiet HTTP/1.1\r\nHost: x\r\n\r\n"] * 4, 0, id="streams"),
    pytest.param(
        [b"GET /quiet HTTP/1.1\r\nHost: x\r\n\r\n"] * 2 + [b"GET"] * 2, 2, id="unfinished after"
    ),
]


@pytest.mark.parametrize(("requests", "victim"), SLOW)
async def test_a_client_too_many_is_answered_and_the_slowest_one_dropped(
    monkeypatch: pytest.MonkeyPatch, requests: list[bytes], victim: int
) -> None:
    monkeypatch.setattr(http, "MAX_CLIENTS", 4)
    async with open_http("127.0.0.1", 0, handle) as port, AsyncExitStack() as stack:
        slow: list[trio.SocketStream] = []
        for request in requests:
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            await stream.send_all(request)
            if request.endswith(b"\r\n\r\n"):
                assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 200")
            slow.append(stream)
        assert b"200" in await exchange(port, b"GET /livez HTTP/1.1\r\n" + CLOSE)
        with trio.fail_after(5):
            while await slow[victim].receive_some(4096):
                pass
        for stream in slow[:victim] + slow[victim + 1 :]:
            with trio.move_on_after(0.02) as still_open:
                while await stream.receive_some(4096):
                    pass
            assert still_open.cancelled_caught


async def test_an_address_in_use_is_named() -> None:
    async with open_http("127.0.0.1", 0, handle) as port:
        with pytest.raises(OSError, match=f"http.listen 127.0.0.1:{port}: Address already in use"):
            async with open_http("127.0.0.1", port, handle):
                pass


# --- the entrypoint's own pages -----------------------------------------------------------


class World:
    """An entrypoint with two services, one of which needs a file to be active."""

    def __init__(self, directory: Path) -> None:
        self.active = directory / "active"
        self.source = directory / "app.conf"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        file = directory / "entrypoint.toml"
        file.write_text(f"""\
[http]
listen = "127.0.0.1:{self.port}"
[service.db]
command = ["sleep", "1000"]
[service."<img src=x>"]
command = ["sleep", "1000"]
activation = {{ file = "{self.active}" }}
configuration = {{ file = "{self.source}", target = "{directory}/etc/app.conf" }}
""")
        self.process = subprocess.Popen([*ENTRYPOINT, "-f", str(file)], stderr=subprocess.DEVNULL)
        self.until(lambda: self.get("/livez")[0] == 200)

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{path}", timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    def become_ready(self) -> None:
        self.source.write_text("one")
        self.active.touch()
        self.until(lambda: self.get("/readyz")[0] == 200)


@contextmanager
def running(directory: Path) -> Generator[World]:
    world = World(directory)
    try:
        yield world
    finally:
        world.process.terminate()
        assert world.process.wait(60) == 143


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    """All is ready, the second configuration is applied, and no test changes anything."""
    with running(tmp_path_factory.mktemp("http")) as world:
        world.become_ready()
        world.source.with_suffix(".new").write_text("two")
        world.source.with_suffix(".new").rename(world.source)
        world.until(lambda: 'generation{service="<img src=x>"} 2.0' in world.get("/metrics")[1])
        world.until(lambda: world.get("/readyz")[0] == 200)
        yield world


def test_ready_is_what_is_active_and_ready(tmp_path: Path) -> None:
    with running(tmp_path) as world:
        assert world.get("/readyz") == (503, "<img src=x>: inactive\n")
        assert world.get("/livez")[0] == 200
        world.become_ready()


def test_the_status_is_that_of_the_control_socket(world: World) -> None:
    status: dict[str, Any] = json.loads(world.get("/status")[1])
    assert [service["name"] for service in status["services"]] == ["db", "<img src=x>"]
    assert status["services"][0]["state"] == "ready"


def test_the_metrics_are_what_prometheus_reads(world: World) -> None:
    families = {
        family.name: family for family in text_string_to_metric_families(world.get("/metrics")[1])
    }

    def value(name: str, **labels: str) -> float:
        family = families[name.removesuffix("_total").removesuffix("_count")]
        [found] = [
            sample.value
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return found

    web = "<img src=x>"
    assert value("trio_entrypoint_service_state", service="db", state="ready") == 1
    assert value("trio_entrypoint_service_state", service="db", state="backoff") == 0
    assert value("trio_entrypoint_restarts_total", service=web) == 1
    assert value("trio_entrypoint_last_exit_code", service=web) == 128 + signal.SIGTERM
    assert value("trio_entrypoint_update_seconds_count", service=web) == 2
    assert value("trio_entrypoint_reaction_seconds_count", service=web) >= 1
    recently = value("trio_entrypoint_configuration_last_success_timestamp_seconds", service=web)
    assert 0 <= time.time() - recently < 600
    assert "trio_entrypoint_build_info" in families


def test_events_come_as_they_happen(tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = stack.enter_context(running(tmp_path))
        world.become_ready()
        address = f"http://127.0.0.1:{world.port}/events"
        events = stack.enter_context(urllib.request.urlopen(address, timeout=20))
        assert events.readline() == b"event: snapshot\n"
        snapshot = json.loads(events.readline().removeprefix(b"data: "))
        assert {service["name"] for service in snapshot["services"]} == {"db", "<img src=x>"}
        os.kill(snapshot["services"][0]["pid"], signal.SIGKILL)
        assert events.readline() == b"\n"
        assert events.readline() == b"event: news\n"
        news = json.loads(events.readline().removeprefix(b"data: "))
        assert (news["event"]["service"], news["event"]["status"]) == ("db", "signal 9 (SIGKILL)")


def test_the_page_needs_nothing_from_outside(world: World) -> None:
    status, page = world.get("/")
    assert status == 200
    assert set(re.findall(r"https?://[^'\"\s]*", page)) == {"http://www.w3.org/2000/svg"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser, None, None]:
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


LIVE = "document.querySelector('.link.on') && document.querySelectorAll('svg rect').length"


def test_a_browser_shows_services_lanes_events_and_configurations(
    world: World, browser: Browser
) -> None:
    browser.open(f"http://127.0.0.1:{world.port}/")
    browser.wait_for(LIVE)
    shown: str = browser.evaluate("document.body.innerText")
    for text in ("<img src=x>", "ready", "the process was executed", "~ app.conf", "#2"):
        assert text in shown
    assert browser.evaluate("document.images.length") == 0
    assert browser.evaluate("document.querySelectorAll('.service').length") == 2
    tips: str = browser.evaluate(
        "[...document.querySelectorAll('svg rect')].map(rect => rect.dataset.tip).join()"
    )
    for lane in ("activation: active", "configuration: applied", "process: ready"):
        assert lane in tips


def test_a_browser_shows_what_happens_without_being_asked(
    tmp_path: Path, browser: Browser
) -> None:
    with running(tmp_path) as world:
        world.become_ready()
        browser.open(f"http://127.0.0.1:{world.port}/")
        browser.wait_for(LIVE)
        world.active.unlink()
        browser.wait_for("document.querySelector('#overall').textContent == '1 of 2 ready'")
        world.active.touch()
        browser.wait_for("document.querySelector('#overall').textContent == '2 of 2 ready'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_phones_and_desktops_in_both_schemes(
    world: World, browser: Browser, width: int, scheme: str
) -> None:
    browser.open(f"http://127.0.0.1:{world.port}/", width=width, scheme=scheme)
    browser.wait_for(LIVE)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    picture = browser.screenshot()
    assert len(picture) > 10_000, "an empty page"
    if directory := os.environ.get("SCREENSHOTS"):  # to be looked at
        (Path(directory) / f"page-{width}-{scheme}.png").write_bytes(picture)
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)))
    assert (brightness > 600) == (scheme == "light")
