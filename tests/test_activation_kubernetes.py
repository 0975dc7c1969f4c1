"""Holding a Lease object: the requests that client-go makes, and what becomes of failures."""

import base64
import os
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
import yaml
from fake_kubernetes import FakeKubernetes, serve_kubernetes

from trio_entrypoint import ActivationChanged, open_kubernetes_activation
from trio_entrypoint._remote.kubeconfig import from_kubeconfig, in_cluster
from trio_entrypoint.activation._leased import LeaseActivation

LEASES = "/apis/coordination.k8s.io/v1/namespaces/billing/leases"
FAST = {"lease_duration": 1, "renew_deadline": 0.6, "retry_period": 0.1}


def kubeconfig(directory: Path, server: str, **user: object) -> Path:
    file = directory / "kubeconfig"
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "fake", "user": "me"}}],
        "clusters": [{"name": "fake", "cluster": {"server": server}}],
        "users": [{"name": "me", "user": user}],
    }
    file.write_text(yaml.safe_dump(config))
    return file


@asynccontextmanager
async def contender(
    directory: Path, server: str, identity: str = "me", **settings: float
) -> AsyncGenerator[LeaseActivation]:
    async with open_kubernetes_activation(
        "billing",
        "active",
        identity=identity,
        kubeconfig=kubeconfig(directory, server),
        **(FAST | settings),  # type: ignore[arg-type]
    ) as activation:
        yield activation


async def becomes(
    activation: LeaseActivation, active: bool, within: float = 5
) -> ActivationChanged:
    with trio.fail_after(within):
        async for event in activation.events:
            if event.active is active:
                return event
    raise AssertionError("the events ended")


async def test_a_lease_that_does_not_exist_is_created_renewed_and_released(tmp_path: Path) -> None:
    fake = FakeKubernetes()
    async with serve_kubernetes(fake) as server:
        async with contender(tmp_path, server) as activation:
            event = await becomes(activation, True)
            created = fake.objects["active"]
            assert event.token == created["metadata"]["resourceVersion"]
            await trio.sleep(0.35)
        released = fake.objects["active"]["spec"]

    methods = [(method, path) for method, path, _ in fake.requests]
    assert methods[:3] == [
        ("GET", f"{LEASES}/active"),
        ("POST", LEASES),
        ("PUT", f"{LEASES}/active"),
    ]
    spec = fake.requests[1][2]["spec"]
    assert spec["holderIdentity"].startswith("me_")
    assert spec["leaseDurationSeconds"] == 1
    assert spec["leaseTransitions"] == 0
    assert spec["acquireTime"] == spec["renewTime"]
    assert spec["renewTime"].endswith("Z")
    renewal = fake.requests[2][2]["spec"]
    assert renewal["renewTime"] > spec["renewTime"]
    assert renewal["acquireTime"] == spec["acquireTime"]
    assert released["holderIdentity"] == ""
    assert released["leaseDurationSeconds"] == 1


async def test_a_lease_of_another_is_respected_until_it_was_not_renewed_for_its_duration(
    tmp_path: Path,
) -> None:
    """Counted from when it was first seen: the holder's clock may be years off."""
    fake = FakeKubernetes()
    fake.write(
        "active",
        holderIdentity="another",
        leaseDurationSeconds=1,
        leaseTransitions=6,
        renewTime="1999-01-01T00:00:00.000000Z",
        acquireTime="1999-01-01T00:00:00.000000Z",
    )
    async with serve_kubernetes(fake) as server:
        start = trio.current_time()
        async with contender(tmp_path, server) as activation:
            for number in range(4):
                await trio.sleep(0.5)
                assert not activation.active
                fake.write("active", renewTime=f"1999-01-01T00:00:00.00000{number}Z")
            renewed = trio.current_time()
            await becomes(activation, True)

            assert trio.current_time() - renewed >= 1
            assert trio.current_time() - start >= 3
            assert fake.objects["active"]["spec"]["leaseTransitions"] == 7


async def test_a_released_lease_is_taken_over_at_once(tmp_path: Path) -> None:
    """The watch tells; nobody asks every `retry_period`."""
    fake = FakeKubernetes()
    fake.write("active", holderIdentity="another", leaseDurationSeconds=3600)
    async with (
        serve_kubernetes(fake) as server,
        contender(tmp_path, server) as activation,
    ):
        await trio.sleep(1)
        assert [method for method, _, _ in fake.requests] == ["GET", "WATCH"]
        released = trio.current_time()
        fake.write("active", holderIdentity="", leaseDurationSeconds=1)
        await becomes(activation, True)
        assert trio.current_time() - released < 0.5


async def test_without_the_right_to_watch_it_asks_every_retry_period(tmp_path: Path) -> None:
    fake = FakeKubernetes()
    fake.may_watch = False
    fake.write("active", holderIdentity="another", leaseDurationSeconds=3600)
    async with (
        serve_kubernetes(fake) as server,
        contender(tmp_path, server) as activation,
    ):
        await trio.sleep(0.5)
        assert [method for method, _, _ in fake.requests[:4]] == ["GET", "WATCH", "GET", "GET"]
        assert len(fake.requests) < 8
        fake.write("active", holderIdentity="", leaseDurationSeconds=1)
        await becomes(activation, True)


async def test_a_holder_whose_lease_is_taken_stops_at_once(tmp_path: Path) -> None:
    fake = FakeKubernetes()
    async with serve_kubernetes(fake) as server, contender(tmp_path, server) as activation:
        await becomes(activation, True)
        fake.write("active", holderIdentity="thief", renewTime="now")
        event = await becomes(activation, False)
        assert event.deadline is not None
        assert event.deadline <= trio.current_time()
        assert fake.objects["active"]["spec"]["holderIdentity"] == "thief"


async def test_a_conflict_with_who_only_edits_labels_does_not_end_activity(tmp_path: Path) -> None:
    fake = FakeKubernetes()
    async with serve_kubernetes(fake) as server, contender(tmp_path, server) as activation:
        event = await becomes(activation, True)
        for number in range(5):
            fake.objects["active"]["metadata"]["labels"] = {"edited": str(number)}
            fake.write("active", preferredHolder=str(number))
            await trio.sleep(0.15)
            assert activation.token == event.token, "it is the same activation"
        assert fake.objects["active"]["metadata"]["labels"] == {"edited": "4"}
        assert fake.objects["active"]["spec"]["preferredHolder"] == "4", "written back"


async def test_who_leaves_before_it_hears_that_it_holds_the_lease_releases_it_too(
    tmp_path: Path,
) -> None:
    """The answer to its update was lost: it looks whether it is the holder."""
    fake = FakeKubernetes()
    async with serve_kubernetes(fake) as server:
        async with contender(tmp_path, server):
            with trio.fail_after(5):
                fake.answers_to_lose = 1
                await fake.lost_answer.wait()
        assert fake.objects["active"]["spec"]["holderIdentity"] == ""


async def test_a_holder_that_cannot_renew_stops_at_the_renew_deadline(tmp_path: Path) -> None:
    """So early that its application can be gone when the lease ends."""
    fake = FakeKubernetes()
    async with (
        serve_kubernetes(fake) as server,
        contender(tmp_path, server, lease_duration=3, renew_deadline=1.0) as activation,
    ):
        await becomes(activation, True)
        await trio.sleep(0.3)
        before = len([1 for method, _, _ in fake.requests if method == "PUT"])
        failing = trio.current_time()
        fake.failures.extend([500] * 100)
        event = await becomes(activation, False)
        passed = trio.current_time() - failing
        assert 0.7 < passed < 1.5
        assert event.deadline is not None
        # The lease less 5 %, from its last renewal; less the time that passed.
        assert (
            3 * 0.95 - 0.2 - passed
            < event.deadline - trio.current_time()
            < 3 * 0.95 - passed + 0.1
        )
        tries = len([1 for method, _, _ in fake.requests if method == "PUT"]) - before
        assert tries > 4, "it tried every retry_period"
        fake.failures.clear()
        await becomes(activation, True)


@pytest.mark.parametrize("status", [429, 500, 503, 409])
async def test_a_failure_that_passes_is_survived(tmp_path: Path, status: int) -> None:
    fake = FakeKubernetes()
    async with serve_kubernetes(fake) as server, contender(tmp_path, server) as activation:
        fake.failures.extend([status, status])
        await becomes(activation, True)
        fake.failures.extend([status, status])
        await trio.sleep(0.5)
        assert activation.active


async def test_watches_that_end_or_expire_are_renewed(tmp_path: Path) -> None:
    fake = FakeKubernetes()
    fake.write("active", holderIdentity="another", leaseDurationSeconds=3600)
    async with serve_kubernetes(fake) as server, contender(tmp_path, server) as activation:
        await trio.sleep(0.3)
        fake.end_watches()
        await trio.sleep(0.3)
        fake.expire_history()
        await trio.sleep(0.5)
        fake.write("active", holderIdentity="", leaseDurationSeconds=1)
        await becomes(activation, True)


@pytest.mark.parametrize(
    ("version", "duration"),
    [("101", 2**63 - 1), ("101", 10**400), ("101", 10**18), ("\u00e9 &x", 3600), ("\ud800", 3600)],
)
async def test_a_record_that_makes_no_sense_ends_nothing_and_is_waited_out(
    tmp_path: Path, version: str, duration: int
) -> None:
    fake = FakeKubernetes()
    fake.may_watch = False
    fake.write("active", holderIdentity="another", leaseDurationSeconds=duration)
    fake.objects["active"]["metadata"]["resourceVersion"] = version
    async with serve_kubernetes(fake) as server, contender(tmp_path, server) as activation:
        with trio.fail_after(5):
            while len([1 for method, *_ in fake.requests if method == "GET"]) < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert not activation.active
        fake.write("active", holderIdentity="", leaseDurationSeconds=1)
        await becomes(activation, True)


async def test_a_deleted_lease_is_created_again_and_tokens_grow(tmp_path: Path) -> None:
    fake = FakeKubernetes()
    async with serve_kubernetes(fake) as server, contender(tmp_path, server) as activation:
        first = await becomes(activation, True)
        fake.delete("active")
        await becomes(activation, False)
        second = await becomes(activation, True)
        assert fake.objects["active"]["spec"]["leaseTransitions"] == 0
        assert int(second.token or "") > int(first.token or "")


async def test_two_contenders_of_one_identity_are_not_taken_for_one(tmp_path: Path) -> None:
    fake = FakeKubernetes()
    async with (
        serve_kubernetes(fake) as server,
        contender(tmp_path, server, "same") as first,
        contender(tmp_path, server, "same") as second,
    ):
        await trio.sleep(1.5)
        assert [first.active, second.active].count(True) == 1


async def test_a_rotated_token_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pod: the service account's directory, its authority, its token."""
    fake = FakeKubernetes(token="old")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    (tmp_path / "token").write_text("old\n")
    monkeypatch.setattr("trio_entrypoint._remote.kubeconfig.SERVICE_ACCOUNT", tmp_path)
    async with serve_kubernetes(fake, context) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", server.rpartition(":")[2])
        async with open_kubernetes_activation(
            "billing", "active", lease_duration=2, renew_deadline=1.5, retry_period=0.1
        ) as activation:
            await becomes(activation, True)
            fake.token = "new"
            (tmp_path / "token").write_text("new\n")
            await trio.sleep(2)
            assert activation.active


async def test_a_client_certificate_in_the_kubeconfig_is_shown(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    client = authority.issue_cert("client@example.org")
    fake = FakeKubernetes()
    async with serve_kubernetes(fake, context) as server:
        file = kubeconfig(
            tmp_path,
            server,
            **{
                "client-certificate-data": base64.b64encode(
                    b"".join(blob.bytes() for blob in client.cert_chain_pems)
                ).decode(),
                "client-key-data": base64.b64encode(client.private_key_pem.bytes()).decode(),
            },
        )
        config = yaml.safe_load(file.read_text())
        (tmp_path / "authority.pem").write_bytes(authority.cert_pem.bytes())
        config["clusters"][0]["cluster"]["certificate-authority"] = "authority.pem"
        file.write_text(yaml.safe_dump(config))
        async with open_kubernetes_activation("billing", "active", kubeconfig=file) as activation:
            await becomes(activation, True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c.pop("current-context"), "current-context: expected a name"),
        (lambda c: c["contexts"].clear(), "contexts: expected an entry named 'here'"),
        (lambda c: c["clusters"][0].pop("cluster"), "fake: expected a mapping"),
        (lambda c: c["clusters"][0]["cluster"].pop("server"), "server: expected http"),
        (
            lambda c: c["clusters"][0]["cluster"].update(server="http://a:b"),
            "server: expected http",
        ),
        (
            lambda c: c["clusters"][0]["cluster"].update(server="http://[::1"),
            "server: expected http",
        ),
        (
            lambda c: c["clusters"][0]["cluster"].update(server="http://a..b"),
            "server: expected http",
        ),
        (lambda c: c["users"][0]["user"].update(token="\u00e9"), "token: expected"),
        (lambda c: c["users"][0]["user"].update(token="a\nb"), "token: expected"),
        (lambda c: c["users"][0]["user"].update(exec={}), "exec is not supported"),
        (lambda c: c["users"][0]["user"].update(tokenFile="a\0b"), "tokenFile: expected a string"),
        (lambda c: c.update(users="many"), "users: expected a list"),
    ],
)
def test_a_broken_kubeconfig_is_refused_by_file_and_field(
    tmp_path: Path, change: object, expected: str
) -> None:
    file = kubeconfig(tmp_path, "http://127.0.0.1:1")
    config = yaml.safe_load(file.read_text())
    assert callable(change)
    change(config)
    file.write_text(yaml.safe_dump(config))

    with pytest.raises(ValueError, match=expected) as refusal:
        from_kubeconfig(file)
    assert str(file) in str(refusal.value)


def test_a_kubeconfig_that_is_refused_leaves_no_descriptor_open(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, "https://127.0.0.1:1", **{"client-certificate-data": "?"})
    config = yaml.safe_load(file.read_text())
    config["clusters"][0]["cluster"]["certificate-authority-data"] = "AAAA"
    file.write_text(yaml.safe_dump(config))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ValueError, match="client-certificate-data: expected base64"):
        from_kubeconfig(file)
    assert os.listdir("/proc/self/fd") == before


BROKEN = base64.b64encode(b"no PEM").decode()


@pytest.mark.parametrize(
    ("cluster", "user", "expected"),
    [
        (
            {"certificate-authority-data": BROKEN},
            {},
            "ca cannot be loaded .*: '{file}: clusters: fake: certificate-authority-data'",
        ),
        (
            {},
            {"client-certificate-data": BROKEN, "client-key-data": BROKEN},
            "'{file}: users: me: client-certificate-data, {file}: users: me: client-key-data'",
        ),
        (
            {},
            {"client-certificate-data": BROKEN, "client-key": "my.key"},
            "'{file}: users: me: client-certificate-data, {directory}/my.key'",
        ),
    ],
)
def test_what_is_no_pem_in_a_kubeconfig_is_named_by_file_and_field(
    tmp_path: Path, cluster: dict[str, str], user: dict[str, str], expected: str
) -> None:
    file = kubeconfig(tmp_path, "https://127.0.0.1:1", **user)
    config = yaml.safe_load(file.read_text())
    config["clusters"][0]["cluster"] |= cluster
    file.write_text(yaml.safe_dump(config))
    (tmp_path / "my.key").touch()
    with pytest.raises(OSError, match=expected.format(file=file, directory=tmp_path)):
        from_kubeconfig(file)


def test_outside_of_a_pod_a_kubeconfig_has_to_be_named() -> None:
    with pytest.raises(RuntimeError, match="name a kubeconfig"):
        in_cluster({})


@pytest.mark.parametrize(
    "settings",
    [
        {"lease_duration": 10, "renew_deadline": 10},
        {"renew_deadline": 2.0, "retry_period": 2.0},
        {"retry_period": 0},
        {"lease_duration": 15.5},
    ],
)
async def test_durations_that_do_not_fit_together_are_refused(
    tmp_path: Path, settings: dict[str, float]
) -> None:
    file = kubeconfig(tmp_path, "http://127.0.0.1:1")
    with pytest.raises(ValueError, match="lease_duration"):
        async with open_kubernetes_activation(
            "billing",
            "active",
            kubeconfig=file,
            **settings,  # type: ignore[arg-type]
        ):
            pass


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "a?b", "-a", "a" * 254])
async def test_a_name_that_kubernetes_would_refuse_never_reaches_a_url(name: str) -> None:
    with pytest.raises(ValueError, match="name: expected"):
        async with open_kubernetes_activation("billing", name):
            pass
