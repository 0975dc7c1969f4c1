"""Keys of a real etcd become a directory: all of one revision, or nothing."""

import itertools
import sys
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import trio
from etcd_cluster import Cluster, encode

from trio_entrypoint import (
    ConfigurationChanged,
    ConfigurationDeleted,
    ConfigurationFailed,
    open_etcd_configuration,
)


def put_all(etcd: Cluster, files: dict[str, str]) -> None:
    """Write keys in one transaction."""
    puts = [
        {"request_put": {"key": encode(key), "value": encode(value)}}
        for key, value in files.items()
    ]
    etcd.call("kv/txn", {"success": puts})


def tree(target: Path) -> dict[str, str]:
    return {
        str(path.relative_to(target)): path.read_text()
        for path in target.rglob("*")
        if path.is_file()
    }


async def test_all_keys_under_a_prefix_become_one_generation(
    etcd: Cluster, tmp_path: Path
) -> None:
    target = tmp_path / "app"
    put_all(etcd, {"/config/a": "1", "/config/b/c": "2", "/configuration/x": "another prefix"})

    async with open_etcd_configuration(etcd.endpoints, "/config", target) as configuration:
        assert await configuration.events.receive() == ConfigurationChanged()
        result = await configuration.update()

    assert result.error is None
    assert tree(target) == {"a": "1", "b/c": "2"}


async def test_a_change_is_told_and_no_reader_sees_half_a_transaction(
    etcd: Cluster, tmp_path: Path
) -> None:
    target = tmp_path / "app"
    put_all(etcd, {"/whole/a": "0", "/whole/b": "0"})

    async with open_etcd_configuration(etcd.endpoints, "/whole", target) as configuration:
        with trio.fail_after(30):
            for number in range(1, 20):
                await configuration.update()
                files = tree(target)
                assert files["a"] == files["b"]
                await configuration.events.receive()
                put_all(etcd, {"/whole/a": str(number), "/whole/b": str(number)})
            await configuration.events.receive()
            await configuration.update()
    assert tree(target) == {"a": "19", "b": "19"}


async def test_without_keys_the_source_is_deleted_and_what_was_applied_stays(
    etcd: Cluster, tmp_path: Path
) -> None:
    target = tmp_path / "app"
    put_all(etcd, {"/leaving/a": "1"})
    async with open_etcd_configuration(etcd.endpoints, "/leaving", target) as configuration:
        assert await configuration.events.receive() == ConfigurationChanged()
        await configuration.update()
        etcd.delete("/leaving/a")
        with trio.fail_after(5):
            assert await configuration.events.receive() == ConfigurationDeleted()
        result = await configuration.update()

    assert isinstance(result.error, FileNotFoundError)
    assert tree(target) == {"a": "1"}


@pytest.mark.parametrize("name", ["../escape", "a/../../b", "good/below-a-file"])
async def test_a_key_that_can_be_no_path_refuses_the_whole_configuration(
    etcd: Cluster, tmp_path: Path, name: str
) -> None:
    prefix = f"/hostile/{len(name)}"
    put_all(etcd, {f"{prefix}/good": "1", f"{prefix}/{name}": "2"})
    target = tmp_path / "app"

    async with open_etcd_configuration(etcd.endpoints, prefix, target) as configuration:
        result = await configuration.update()

    assert result.error is not None
    assert not target.exists()


async def test_many_pages_of_keys_are_read_at_one_revision(etcd: Cluster, tmp_path: Path) -> None:
    """Somebody writes the first and the last of them together, all the time."""
    for page in range(13):
        put_all(etcd, {f"/many/b{page}/{number}": f"{page}.{number}" for number in range(100)})
    target = tmp_path / "app"
    number = itertools.count()

    def write_ends() -> None:
        put_all(etcd, dict.fromkeys(("/many/a", "/many/c"), str(next(number))))

    async def write_all_the_time() -> None:
        while True:
            await trio.to_thread.run_sync(write_ends)

    write_ends()
    async with (
        trio.open_nursery() as nursery,
        open_etcd_configuration(etcd.endpoints, "/many", target) as configuration,
    ):
        nursery.start_soon(write_all_the_time)
        for _ in range(5):
            result = await configuration.update()
            assert result.error is None
            files = tree(target)
            assert len(files) == 1302
            assert files["a"] == files["c"]
        nursery.cancel_scope.cancel()
    assert files["b12/99"] == "12.99"


async def test_a_configuration_over_its_limits_is_refused(etcd: Cluster, tmp_path: Path) -> None:
    put_all(etcd, {f"/large/{number}": "x" * 1000 for number in range(10)})
    target = tmp_path / "app"
    async with open_etcd_configuration(
        etcd.endpoints, "/large", target, max_size=5000
    ) as configuration:
        result = await configuration.update()
    assert "5000 bytes" in str(result.error)
    assert not target.exists()


READ = '{"header": {"revision": "5"}, "kvs": [{"key": "L2MvYQ=="}]}'


def ranges_served(etcd: Cluster) -> int:
    """How many reads the member has answered, by its own account."""
    with urllib.request.urlopen(f"{etcd.endpoints[0]}/metrics", timeout=3) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("grpc_server_handled_total{") and all(
                label in line for label in ('"OK"', '"Range"', '"unary"')
            ):
                return int(float(line.rpartition(" ")[2]))
    return 0


async def test_what_is_over_its_limits_is_read_again_when_it_has_changed_and_not_before(
    etcd: Cluster, tmp_path: Path
) -> None:
    put_all(etcd, {"/crowd/a": "1", "/crowd/b": "2"})
    async with open_etcd_configuration(
        etcd.endpoints, "/crowd", tmp_path / "app", max_members=1
    ) as configuration:
        with trio.fail_after(5):
            assert isinstance(await configuration.events.receive(), ConfigurationFailed)
        before = ranges_served(etcd)
        await trio.sleep(0.5)
        assert ranges_served(etcd) == before
        etcd.put("/crowd/c", "3")
        etcd.delete("/crowd/b")
        etcd.delete("/crowd/c")
        with trio.fail_after(5):
            while not isinstance(await configuration.events.receive(), ConfigurationChanged):
                pass
        assert (await configuration.update()).error is None


@pytest.mark.parametrize(
    ("found", "heard"),
    [
        (READ.replace("5", "REVISION"), "<html>no streams here"),
        ('{"error": "not for you", "code": 7}', '{"result": {"events": [{"type": "PUT"}]}}'),
        (READ, '{"result": {"compact_revision": "9"}}'),
    ],
    ids=["no watch", "no reading", "always compacted"],
)
async def test_a_gateway_that_lets_half_of_it_through_is_asked_less_and_less(
    tmp_path: Path, found: str, heard: str
) -> None:
    asked: list[float] = []

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            head = await stream.receive_some()
            if b"/v3/watch" not in head:
                asked.append(trio.current_time())
            body = (heard if b"/v3/watch" in head else found) + "\n"
            body = body.replace("REVISION", str(len(asked)))  # somebody writes other keys
            answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            await stream.send_all(answer.encode())

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with open_etcd_configuration([url], "/c", tmp_path / "app"):
            await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    # At opening, and after pauses of at least 0.05, 0.1, 0.2, 0.4 and 0.8 seconds.
    assert 3 <= len(asked) <= 6


async def test_an_unreachable_cluster_is_a_failure_that_may_mend_itself(tmp_path: Path) -> None:
    async with open_etcd_configuration(
        ["http://127.0.0.1:1"], "/config", tmp_path / "app"
    ) as configuration:
        event = await configuration.events.receive()
        result = await configuration.update()

    assert isinstance(event, ConfigurationFailed)
    assert "http://127.0.0.1:1" in str(event.error)
    assert isinstance(result.error, OSError)


async def test_the_command_takes_a_configuration_from_etcd(etcd: Cluster, tmp_path: Path) -> None:
    put_all(etcd, {"/command/colour": "red"})
    (tmp_path / "entrypoint.toml").write_text(f"""
        [service.app]
        command = ["sh", "-c", 'cat "$TRIO_ENTRYPOINT_GENERATION/colour"']
        restart.policy = "never"
        [service.app.configuration]
        target = "{tmp_path}/app"
        mode = "0600"
        [service.app.configuration.etcd]
        endpoints = {etcd.endpoints!r}
        prefix = "/command"
    """)
    program = Path(sys.executable).with_name("trio-entrypoint")
    with trio.fail_after(60):
        answer = await trio.run_process(
            [program, "run", "-f", tmp_path / "entrypoint.toml"], capture_stdout=True
        )
    assert answer.stdout == b"red"
    assert (tmp_path / "app" / "colour").stat().st_mode & 0o777 == 0o600
