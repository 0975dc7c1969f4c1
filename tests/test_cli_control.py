"""The control socket: its protocol, and clients that are slow, hostile or many."""

import json
import os
import socket
import stat
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_entrypoint.cli import control
from trio_entrypoint.cli.client import ClientError, request
from trio_entrypoint.cli.control import Send, open_control_server
from trio_entrypoint.cli.protocol import (
    COMMANDS,
    MAX_REQUEST,
    ProtocolError,
    Request,
    encode_request,
    parse_request,
)


async def echo(request: Request, send: Send) -> None:
    """Answers with what was asked; `logs` never ends, `signal` is refused."""
    match request.command:
        case "signal":
            raise ProtocolError("refused", f"not {request.signal}")
        case "logs":
            while True:
                await send("x" * 100_000)
        case "wait-ready":
            await trio.sleep_forever()
        case _:
            await send({"command": request.command, "services": request.services})


async def ask(path: Path, command: str, **arguments: object) -> list[object]:
    return await trio.to_thread.run_sync(
        lambda: list(request(str(path), command, arguments, within=20))
    )


async def converse(path: Path, data: bytes) -> dict[str, Any]:
    """Send bytes as they are, and give the first line of the answer."""
    with trio.fail_after(20):
        return await _converse(path, data)


async def _converse(path: Path, data: bytes) -> dict[str, Any]:
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(data)
        received = b""
        while b"\n" not in received:
            chunk = await stream.receive_some()
            assert chunk, received
            received += chunk
    answer: dict[str, Any] = json.loads(received.partition(b"\n")[0])
    return answer


async def test_a_request_is_answered_with_items(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with open_control_server(str(path), echo):
        assert await ask(path, "stop", services=["web"]) == [
            {"command": "stop", "services": ["web"]}
        ]
    assert not path.exists()


async def test_the_socket_belongs_to_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with open_control_server(str(path), echo):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(tmp_path) == ["socket"]


async def test_an_error_has_a_code_and_a_status(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with open_control_server(str(path), echo):
        with pytest.raises(ClientError, match="not SIGHUP") as raised:
            await ask(path, "signal", signal="SIGHUP")
        assert raised.value.status == 1
        with pytest.raises(ClientError, match="unknown command 'dance'") as raised:
            await ask(path, "dance")
        assert raised.value.status == 76


async def test_another_version_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with open_control_server(str(path), echo):
        answer = await converse(path, b'{"version": 2, "command": "status"}\n')
        assert (answer["type"], answer["code"]) == ("error", "wrong-version")
        assert "version 1 is spoken here, not 2" in answer["message"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\n", "not a line of JSON"),
        (b"[]\n", "not a JSON object"),
        (b"\xff\n", "not a line of JSON"),
        (b"[" * 60_000 + b"\n", "not a line of JSON"),
        (b"x" * (MAX_REQUEST + 4096), "at most"),
        (encode_request("status", {}) * 2, "one request"),
        (encode_request("status", {"services": "web"}), "services must be a list of names"),
        (encode_request("status", {"secret": 1}), "does not take 'secret'"),
        (encode_request("logs", {"lines": -1}), "lines must be a whole number"),
        (encode_request("wait-ready", {"timeout": float("nan")}), "timeout must be a number"),
        (encode_request("wait-ready", {"timeout": 10**400}), "timeout must be a number"),
        (encode_request("logs", {"lines": True}), "lines must be a whole number"),
    ],
)
async def test_a_wrong_request_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "socket"
    async with open_control_server(str(path), echo):
        answer = await converse(path, data)
        assert answer["code"] == "bad-request"
        assert told in answer["message"]


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_no_line_whatsoever_breaks_the_protocol(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_request(line)


@given(st.sampled_from(list(COMMANDS)), st.lists(st.text(), max_size=3))
def test_what_a_client_writes_is_what_the_server_reads(command: str, services: list[str]) -> None:
    parsed = parse_request(encode_request(command, {"services": services}))
    assert (parsed.command, parsed.services) == (command, services)


async def test_a_client_that_says_nothing_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "REQUEST_WITHIN", 0.2)
    path = tmp_path / "socket"
    async with open_control_server(str(path), echo):
        assert (await converse(path, b'{"version"'))["code"] == "timeout"


async def test_a_client_that_does_not_read_is_dropped_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SEND_WITHIN", 0.2)
    path = tmp_path / "socket"
    ended = trio.Event()

    async def answer(request: Request, send: Send) -> None:
        try:
            await echo(request, send)
        finally:
            if request.command == "logs":
                ended.set()

    async with (
        open_control_server(str(path), answer),
        await trio.open_unix_socket(str(path)) as slow,
    ):
        await slow.send_all(encode_request("logs", {}))
        assert len(await ask(path, "status")) == 1
        with trio.fail_after(10):
            await ended.wait()
        assert len(await ask(path, "status")) == 1


async def test_a_fault_in_an_answer_ends_only_that_answer(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    async def answer(request: Request, send: Send) -> None:
        await send(1 / len(request.services))

    async with open_control_server(str(path), answer):
        with pytest.raises(ClientError, match="the entrypoint ended, or"):
            await ask(path, "status")
        assert await ask(path, "status", services=["web"]) == [1.0]


async def test_a_client_that_goes_away_ends_its_request(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    began, ended = trio.Event(), trio.Event()

    async def answer(request: Request, send: Send) -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_control_server(str(path), answer):
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(encode_request("wait-ready", {}))
            with trio.fail_after(20):
                await began.wait()
        with trio.fail_after(10):
            await ended.wait()


async def test_there_is_a_limit_to_the_clients(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    waiting, all_wait = [], trio.Event()

    async def answer(request: Request, send: Send) -> None:
        waiting.append(request)
        if len(waiting) == control.MAX_CLIENTS:
            all_wait.set()
        await trio.sleep_forever()

    async with open_control_server(str(path), answer), AsyncExitStack() as clients:
        for _ in range(control.MAX_CLIENTS):
            stream = await clients.enter_async_context(await trio.open_unix_socket(str(path)))
            await stream.send_all(encode_request("wait-ready", {}))
        with trio.fail_after(20):
            await all_wait.wait()
        with pytest.raises(ClientError, match="clients already") as raised:
            await ask(path, "status")
        assert raised.value.status == 75


async def test_the_socket_of_a_dead_entrypoint_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with open_control_server(str(path), echo):
        assert len(await ask(path, "status")) == 1


async def test_the_socket_of_a_living_entrypoint_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with open_control_server(str(path), echo):
        with pytest.raises(OSError, match="another entrypoint listens there"):
            async with open_control_server(str(path), echo):
                pass
        assert len(await ask(path, "status")) == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("file", "there is something else, not a socket"),
        ("missing/socket", "No such file or directory"),
        ("x" * 120, "too long"),
    ],
)
async def test_a_socket_that_cannot_be_made_is_an_error_that_names_it(
    tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=told) as raised:
        async with open_control_server(str(tmp_path / name), echo):
            pass
    assert raised.value.filename == str(tmp_path / name)
    assert os.listdir(tmp_path) == ["file"]


def test_without_a_server_the_client_says_so(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="no entrypoint listens there") as raised:
        list(request(str(tmp_path / "nothing"), "status", {}))
    assert raised.value.status == 69


async def test_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents[:2]:
        os.chmod(parent, 0o755)
    path = tmp_path / "socket"
    script = (
        "import os, sys\n"
        "from trio_entrypoint.cli.operating import operate\n"
        "os.setuid(65534)\n"
        "sys.exit(operate('status', {'socket': sys.argv[1], 'services': []}))"
    )
    async with open_control_server(str(path), echo):
        refused = await trio.run_process(
            [sys.executable, "-c", script, str(path)], check=False, capture_stderr=True
        )
        assert (refused.returncode, b"no permission" in refused.stderr) == (77, True)
        os.chmod(path, 0o666)  # the kernel says who it is all the same
        refused = await trio.run_process(
            [sys.executable, "-c", script, str(path)], check=False, capture_stderr=True
        )
        assert (refused.returncode, b"neither root" in refused.stderr) == (77, True)
