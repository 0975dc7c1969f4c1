"""A real etcd cluster on loopback: members that can be killed, stopped and started again."""

import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Member:
    """One `etcd` process."""

    prefix: Sequence[str] = ()
    """What executes it, in another place."""

    def __init__(self, name: str, directory: Path, scheme: str) -> None:
        self.name = name
        self.directory = directory
        self.listen_at("127.0.0.1", scheme)
        self.process: subprocess.Popen[bytes] | None = None

    def listen_at(self, host: str, scheme: str = "http") -> None:
        """Have another address, from the next start on."""
        self.client_url = f"{scheme}://{host}:{free_port()}"
        self.peer_url = self.advertised_peer_url = f"http://{host}:{free_port()}"

    def start(self, cluster: str, extra: Sequence[str] = ()) -> None:
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.prefix,
                    "etcd",
                    f"--name={self.name}",
                    f"--data-dir={self.directory / self.name}",
                    f"--listen-client-urls={self.client_url}",
                    f"--advertise-client-urls={self.client_url}",
                    f"--listen-peer-urls={self.peer_url}",
                    f"--initial-advertise-peer-urls={self.advertised_peer_url}",
                    f"--initial-cluster={cluster}",
                    "--heartbeat-interval=50",
                    "--election-timeout=500",
                    *extra,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Cluster:
    """Its members, and what a test asks them by the way."""

    def __init__(
        self, members: list[Member], extra: Sequence[str], tls: ssl.SSLContext | None
    ) -> None:
        self.members = members
        self._extra = extra
        self._tls = tls

    @property
    def endpoints(self) -> list[str]:
        return [member.client_url for member in self.members]

    def start(self, member: Member) -> None:
        names = ",".join(f"{each.name}={each.advertised_peer_url}" for each in self.members)
        member.start(names, self._extra)

    def start_all(self) -> None:
        for member in self.members:
            self.start(member)
        self.wait_until_healthy()

    def call(
        self, method: str, request: object, member: Member | None = None
    ) -> dict[str, object]:
        """Ask the gateway by means other than the code under test."""
        url = f"{(member or self.members[0]).client_url}/v3/{method}"
        body = json.dumps(request).encode()
        with urllib.request.urlopen(
            urllib.request.Request(url, body), timeout=3, context=self._tls
        ) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def leader(self) -> Member:
        """The member that the others follow."""
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            for member in self.members:
                try:
                    status = self.call("maintenance/status", {}, member)
                except (OSError, urllib.error.URLError):
                    continue
                header = status["header"]
                assert isinstance(header, dict)
                if status.get("leader") == header["member_id"]:
                    return member
            time.sleep(0.02)
        raise TimeoutError("no leader")

    def wait_until_healthy(self) -> None:
        """Every member serves linearizable reads."""
        for member in self.members:
            give_up = time.monotonic() + 30
            while True:
                try:
                    self.call("kv/range", {"key": encode("health")}, member)
                except (OSError, urllib.error.URLError):
                    assert time.monotonic() < give_up, f"{member.name} is not healthy"
                    time.sleep(0.02)
                else:
                    break

    def make_leader(self, member: Member) -> None:
        """Let the others follow this member."""
        leader = self.leader()
        if leader is not member:
            status = self.call("maintenance/status", {}, member)
            header = status["header"]
            assert isinstance(header, dict)
            target = {"targetID": header["member_id"]}
            self.call("maintenance/transfer-leadership", target, leader)

    def keys(self, prefix: str) -> dict[str, str]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        answer = self.call("kv/range", {"key": encode(prefix), "range_end": encode(end)})
        kvs = answer.get("kvs", [])
        assert isinstance(kvs, list)
        return {decode(kv["key"]): decode(kv.get("value", "")) for kv in kvs}

    def put(self, key: str, value: str) -> None:
        self.call("kv/put", {"key": encode(key), "value": encode(value)})

    def delete(self, key: str) -> None:
        self.call("kv/deleterange", {"key": encode(key)})


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decode(data: str) -> str:
    return base64.b64decode(data).decode()


@contextlib.contextmanager
def new_cluster(
    size: int, extra: Sequence[str] = (), tls: ssl.SSLContext | None = None
) -> Iterator[Cluster]:
    """Prepare a cluster in memory; whatever a test did to it, it is gone in the end."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="etcd-") as directory:
        scheme = "http" if tls is None else "https"
        members = [Member(f"m{number}", Path(directory), scheme) for number in range(size)]
        try:
            yield Cluster(members, extra, tls)
        finally:
            for member in members:
                if member.process is not None:
                    member.signal(signal.SIGCONT)
                member.kill()


@contextlib.contextmanager
def running_cluster(
    size: int, extra: Sequence[str] = (), tls: ssl.SSLContext | None = None
) -> Iterator[Cluster]:
    """Start a cluster, and wait until every member serves."""
    with new_cluster(size, extra, tls) as cluster:
        cluster.start_all()
        yield cluster
