"""The client of etcd's gateway: who it trusts, who it is, and answers that make no sense."""

import gc
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trustme
from etcd_cluster import Cluster, running_cluster
from trio.testing import MockClock

from trio_entrypoint import EtcdAuth, Tls, open_etcd_activation
from trio_entrypoint._remote.etcd import Etcd, check_endpoints, open_etcd
from trio_entrypoint._remote.etcd_messages import prefix_end
from trio_entrypoint._remote.http import UnreachableError
from trio_entrypoint._remote.pauses import LONGEST, Pauses


@attrs.frozen
class Secured:
    cluster: Cluster
    tls: Tls
    authority: trustme.CA


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A member that wants client certificates, and that users log in to."""
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "etcd.example.org")
    ca, pair = directory / "ca.pem", directory / "server.pem"
    authority.cert_pem.write_to_path(str(ca))
    server.private_key_and_cert_chain_pem.write_to_path(str(pair))
    client = authority.issue_cert("client@example.org")
    client_pair = directory / "client.pem"
    client.private_key_and_cert_chain_pem.write_to_path(str(client_pair))
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(client_pair)
    extra = [
        f"--cert-file={pair}",
        f"--key-file={pair}",
        "--client-cert-auth",
        f"--trusted-ca-file={ca}",
    ]
    with running_cluster(1, extra, context) as cluster:
        for user, role in (("root", "root"), ("app", "app")):
            cluster.call("auth/user/add", {"name": user, "password": f"secret of {user}"})
            cluster.call("auth/role/add", {"name": role})
            cluster.call("auth/user/grant", {"user": user, "role": role})
        grant = {"permType": "READWRITE", "key": "L2FwcA==", "range_end": "L2FwcS8="}
        cluster.call("auth/role/grant", {"name": "app", "perm": grant})
        cluster.call("auth/enable", {})
        yield Secured(cluster, Tls(ca=ca, certificate=client_pair), authority)


@pytest.fixture
def auth(tmp_path: Path) -> EtcdAuth:
    file = tmp_path / "password"
    file.write_text("secret of app\n")
    return EtcdAuth("app", file)


async def test_a_contender_with_a_certificate_and_a_password_is_elected(
    secured: Secured, auth: EtcdAuth
) -> None:
    async with open_etcd_activation(
        secured.cluster.endpoints, "/app/a", tls=secured.tls, auth=auth
    ) as activation:
        await activation.events.receive()
        with trio.fail_after(5):
            assert (await activation.events.receive()).active


async def test_a_login_that_expired_is_renewed(secured: Secured, auth: EtcdAuth) -> None:
    async with open_etcd(
        secured.cluster.endpoints, tls=secured.tls, auth=auth, attempt_timeout=5
    ) as etcd:
        await etcd.range(b"/app/x")
        secured_token = etcd._token
        etcd._token = "forgotten.1"
        assert (await etcd.range(b"/app/x")).keys == ()
        assert etcd._token not in ("forgotten.1", secured_token)


async def test_a_password_that_was_changed_is_read_again(secured: Secured, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("not yet right")
    async with open_etcd_activation(
        secured.cluster.endpoints, "/app/b", tls=secured.tls, auth=EtcdAuth("app", file)
    ) as activation:
        await activation.events.receive()
        with trio.move_on_after(0.5):
            await activation.events.receive()
            pytest.fail("elected without a password")
        file.write_text("secret of app")
        with trio.fail_after(10):
            assert (await activation.events.receive()).active


async def test_a_server_with_another_authority_is_not_believed(
    secured: Secured, tmp_path: Path
) -> None:
    ca = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    async with open_etcd(secured.cluster.endpoints, tls=Tls(ca=ca), attempt_timeout=5) as etcd:
        with pytest.raises(UnreachableError, match=secured.cluster.endpoints[0]):
            await etcd.range(b"/app/x")


async def test_a_certificate_for_another_name_needs_that_name_to_be_given(
    secured: Secured, auth: EtcdAuth
) -> None:
    url = secured.cluster.endpoints[0].replace("127.0.0.1", "localhost")
    async with open_etcd([url], tls=secured.tls, auth=auth, attempt_timeout=5) as etcd:
        with pytest.raises(UnreachableError, match="localhost"):
            await etcd.range(b"/app/x")
    named = attrs.evolve(secured.tls, server_name="etcd.example.org")
    async with open_etcd([url], tls=named, auth=auth, attempt_timeout=5) as etcd:
        await etcd.range(b"/app/x")


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        (lambda d: Tls(ca=d / "absent.pem"), "absent.pem"),
        (lambda d: Tls(ca=d / "empty.pem"), "empty.pem"),
        (lambda d: Tls(certificate=d / "empty.pem"), "empty.pem"),
    ],
)
async def test_a_file_that_is_no_certificate_is_named_at_entry(
    tmp_path: Path, tls: Callable[[Path], Tls], expected: str
) -> None:
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(OSError, match=expected):
        async with open_etcd_activation(["https://127.0.0.1:1"], "/app", tls=tls(tmp_path)):
            pass


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"endpoints": []}, "endpoints"),
        ({"endpoints": ["etcd:2379"]}, "endpoints"),
        ({"endpoints": ["http://user@etcd:2379"]}, "endpoints"),
        ({"endpoints": ["http://etcd:2379/path"]}, "endpoints"),
        ({"endpoints": ["http://etcd:port"]}, "endpoints.*etcd:port"),
        ({"endpoints": ["http://etcd:99999"]}, "endpoints.*etcd:99999"),
        ({"endpoints": ["http://[::1"]}, "endpoints.*::1"),
        ({"endpoints": ["http://etcd..local:2379"]}, "endpoints.*etcd..local"),
        ({"endpoints": [f"http://{'a' * 64}:2379"]}, "endpoints.*aaa"),
        ({"endpoints": ["http://b\u00fccher:2379"]}, "endpoints.*cher"),
        ({"name": "/"}, "name"),
        ({"ttl": 1}, "ttl"),
        ({"ttl": 10, "stop_within": 9}, "stop_within"),
        ({"stop_within": -1}, "stop_within"),
        ({"tls": Tls()}, "tls"),
    ],
)
async def test_an_argument_that_makes_no_sense_is_named(
    settings: dict[str, object], expected: str
) -> None:
    arguments = {"endpoints": ["http://etcd:2379"], "name": "/app"} | settings
    with pytest.raises(ValueError, match=expected):
        async with open_etcd_activation(**arguments):  # type: ignore[arg-type]
            pass


def test_one_string_is_no_list_of_endpoints() -> None:
    with pytest.raises(TypeError, match="list"):
        check_endpoints("http://etcd:2379")


def test_the_end_of_a_prefix_is_the_next_one() -> None:
    assert prefix_end(b"/app/") == b"/app0"
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"\xff") == b"\0"


@asynccontextmanager
async def server(answer: bytes) -> AsyncGenerator[str]:
    """Somebody who answers every request with these bytes."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(answer)
            await stream.send_eof()
            async for _ in stream:  # closed with something unread it would be reset
                pass
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def http(body: bytes, status: str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    lines = {"Content-Length": str(len(body))} | dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


HOSTILE = {
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "nothing": b"",
    "no JSON": http(b"<html>"),
    "a list": http(b"[1]"),
    "nested too deep": http(b"[" * 100_000),
    "a string for a list": http(b'{"kvs": "many"}'),
    "a list of strings": http(b'{"kvs": ["one"]}'),
    "no base64": http(b'{"kvs": [{"key": "?"}]}'),
    "no integer": http(b'{"header": {"revision": "x"}}'),
    "an endless integer": http(b'{"header": {"revision": "%s"}}' % (b"9" * 10_000)),
    "more than 64 bits": http(b'{"header": {"revision": %s}}' % (b"9" * 400)),
    "more than 64 bits in a string": http(b'{"header": {"revision": "%s"}}' % (b"9" * 20)),
    "a number for a string": http(b'{"kvs": [{"key": 5}]}'),
    "too much": http(b'{"x": "' + b"y" * 3_000_000 + b'"}'),
    "half an answer": http(b"{}", headers={"Content-Length": "100"}),
    "a failure in HTML": http(b"<html>Bad gateway", "502 Bad Gateway"),
    "a failure in JSON": http(json.dumps({"error": "no leader", "code": 14}).encode(), "503 X"),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
async def test_nonsense_is_as_good_as_no_answer_and_names_who_said_it(answer: bytes) -> None:
    async with server(answer) as url, open_etcd([url], attempt_timeout=5) as etcd:
        with pytest.raises(UnreachableError, match=url), trio.fail_after(4):
            await etcd.range(b"/app")


async def test_an_answer_without_end_is_not_read_to_the_end() -> None:
    async def pour(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                await stream.send_all(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, pour, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with open_etcd([url], attempt_timeout=5) as etcd:
            with pytest.raises(UnreachableError, match="longer than"):
                await etcd.range(b"/app")
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_silent_costs_one_attempt() -> None:
    attempts = 0

    async def say_nothing(stream: trio.SocketStream) -> None:
        nonlocal attempts
        attempts += 1
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with open_etcd([url], attempt_timeout=0.2) as etcd:
            start = trio.current_time()
            with pytest.raises(UnreachableError, match="no answer in time"):
                await etcd.range(b"/app")
            assert trio.current_time() - start >= 0.2
            assert attempts == 1
        nursery.cancel_scope.cancel()


async def test_the_next_member_is_asked_when_one_makes_no_sense(etcd: Cluster) -> None:
    async with (
        server(HOSTILE["no HTTP"]) as broken,
        open_etcd([broken, *etcd.endpoints], attempt_timeout=5) as client,
    ):
        assert (await client.range(b"/absent")).keys == ()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def watch(etcd: Etcd) -> None:
    async with etcd.watch(b"/app", from_revision=1) as events:
        async for _ in events:
            pass


async def test_a_watch_that_floods_is_ended() -> None:
    line = json.dumps({"result": {"header": {"revision": "1"}}}).encode() + b"\n"
    flood = CHUNKED + b"".join(chunk(line * 100) for _ in range(10))
    async with server(flood) as url, open_etcd([url], attempt_timeout=5) as etcd:
        with pytest.raises(UnreachableError, match="wait to be taken"), trio.fail_after(4):
            await watch(etcd)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http(b""), "ended without a reason"),
        (http(b'{"result": {"created": true}}\n'), "ended without a reason"),
        (http(b'{"error": "no leader"}'), "no leader"),
        (http(b'{"error": "not for you"}\n', "403 Forbidden"), "not for you"),
        (http(b"<html>not found", "404 Not Found"), "<html>not found"),
        (CHUNKED, "incomplete chunked read"),
        (CHUNKED + chunk(b'{"result": {"created": true}}\n'), "incomplete chunked read"),
        (CHUNKED + b"?\r\n", "illegal chunk header"),
        (CHUNKED + chunk(b"x" * 3_000_000), "longer than"),
    ],
)
async def test_a_watch_that_ends_by_itself_is_a_failure_that_says_why(
    answer: bytes, expected: str
) -> None:
    """Who took it for an end would watch again at once, and again."""
    async with server(answer) as url, open_etcd([url], attempt_timeout=5) as etcd:
        with pytest.raises(UnreachableError, match=expected), trio.fail_after(4):
            await watch(etcd)


async def test_pauses_grow_and_begin_anew_after_a_time_in_which_nothing_failed(
    autojump_clock: MockClock,
) -> None:
    pauses = Pauses()

    async def pause() -> float:
        start = trio.current_time()
        await pauses.pause()
        return trio.current_time() - start

    took = [await pause() for _ in range(8)]
    assert took[0] <= 0.1
    assert LONGEST / 2 <= took[-1] <= LONGEST
    await trio.sleep(LONGEST + 0.1)
    assert await pause() <= 0.1


@pytest.mark.parametrize(
    "lost",
    [http(b"{}"), http(b'{"error": "requested lease not found", "code": 5}', "404 Not Found")],
    ids=["nothing", "no lease"],
)
async def test_attempts_that_fail_at_once_are_made_less_and_less(lost: bytes) -> None:
    grants = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal grants
        with suppress(trio.BrokenResourceError):
            while head := await stream.receive_some():
                granted = b"/v3/lease/grant" in head
                grants += granted
                await stream.send_all(http(b'{"ID": "7", "TTL": "15"}') if granted else lost)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with open_etcd_activation([url], "/app") as activation:
            await trio.sleep(1.2)
            assert not activation.active
        nursery.cancel_scope.cancel()
    # The first one, and after pauses of at least 0.05, 0.1, 0.2, 0.4 and 0.8 seconds.
    assert 3 <= grants <= 5


async def test_a_password_that_cannot_be_read_again_is_a_failure_that_may_mend_itself(
    auth: EtcdAuth,
) -> None:
    password = Path(auth.password_file)
    async with (
        server(http(b'{"token": "t"}')) as url,
        open_etcd([url], auth=auth, attempt_timeout=5) as etcd,
    ):
        password.unlink()
        with pytest.raises(UnreachableError, match=str(password)):
            await etcd.range(b"/app")
        password.write_text("\n")
        with pytest.raises(UnreachableError, match=str(password)):
            async with etcd.watch(b"/app", from_revision=1):
                pass
        password.write_text("secret of app\n")
        assert (await etcd.range(b"/app")).keys == ()


async def test_a_compacted_past_ends_a_watch(etcd: Cluster) -> None:
    for number in range(3):
        etcd.put("/compacted", str(number))
    header = etcd.call("kv/range", {"key": "eA=="})["header"]
    assert isinstance(header, dict)
    etcd.call("kv/compaction", {"revision": header["revision"]})
    async with open_etcd(etcd.endpoints, attempt_timeout=5) as client:
        with trio.fail_after(5):
            async with client.watch(b"/compacted", from_revision=1) as events:
                assert [event async for event in events] == []


async def test_a_transaction_sent_twice_creates_once(etcd: Cluster) -> None:
    """Its first answer may have been lost."""
    async with open_etcd(etcd.endpoints, attempt_timeout=5) as client:
        lease, granted = await client.grant(1)
        assert granted >= 1
        for _ in range(2):
            await client.create(b"/twice", b"value", lease)
        found = await client.range(b"/twice")
        assert [kv.create_revision == kv.mod_revision for kv in found.keys] == [True]
        await client.revoke(lease)


async def test_cancellation_at_any_moment_leaves_nothing_behind(etcd: Cluster) -> None:
    """Neither a warning, which is an error here, nor a connection that the next one trips over."""
    async with open_etcd(etcd.endpoints, attempt_timeout=5) as client:
        for milliseconds in range(60):
            with trio.move_on_after(milliseconds / 20_000):
                while True:
                    await client.range(b"/cancelled")
            with trio.move_on_after(milliseconds / 10_000):
                async with client.watch(b"/cancelled", from_revision=1) as events:
                    async for _ in events:
                        pass
        gc.collect()
        assert (await client.range(b"/cancelled")).keys == ()
