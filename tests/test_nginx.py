"""nginx managed for real: its whole configuration directory comes as a tar."""

import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from signal import SIGQUIT

import attrs
import pytest
import trio
from configurations import archive, move_into_place

from trio_entrypoint import (
    Readiness,
    State,
    Supervisor,
    TcpProbe,
    UpdateResult,
    open_file_activation,
    open_process,
    open_tar_configuration,
)

NGINX_CONF = """
daemon off;
user root;
pid {top}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {top}/temp;
    proxy_temp_path {top}/temp;
    fastcgi_temp_path {top}/temp;
    uwsgi_temp_path {top}/temp;
    scgi_temp_path {top}/temp;
    server {{
        listen 127.0.0.1:{port};
        root {top}/etc/html;
        {extra}
    }}
}}
"""


@attrs.frozen
class Pod:
    """A pod with nginx in it: what its operator moves into place, and what its users see."""

    top: Path
    port: int

    @property
    def active(self) -> Path:
        return self.top / "active"

    @property
    def tar(self) -> Path:
        return self.top / "config.tar"

    @property
    def target(self) -> Path:
        return self.top / "etc"

    def configure(self, page: str, extra: str = "") -> None:
        conf = NGINX_CONF.format(top=self.top, port=self.port, extra=extra)
        move_into_place(self.tar, archive({"nginx.conf": conf, "html/index.html": page}))

    async def page(self) -> str:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            answer = b"".join([part async for part in stream]).decode()
        return answer.partition("\r\n\r\n")[2]

    def accepts_connections(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    (tmp_path / "temp").mkdir()
    tmp_path.chmod(0o755)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return Pod(tmp_path, server.getsockname()[1])


@pytest.fixture
def nginx() -> str:
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    return program


@attrs.frozen
class Managed:
    supervisor: Supervisor
    results: "trio.MemoryReceiveChannel[UpdateResult]"

    async def until(self, *, ready: bool) -> None:
        def reached(state: State) -> bool:
            return state.ready if ready else not state.alive and not state.active

        with trio.fail_after(10):
            await self.supervisor.wait_for(reached)

    async def result(self) -> UpdateResult:
        with trio.fail_after(10):
            return await self.results.receive()


@asynccontextmanager
async def managed(nginx: str, pod: Pod) -> AsyncGenerator[Managed]:
    async with (
        open_file_activation(pod.active) as activation,
        open_tar_configuration(
            pod.tar, pod.target, validate=[nginx, "-t", "-q", "-c", "{path}/nginx.conf"]
        ) as configuration,
        trio.open_nursery() as nursery,
    ):
        supervisor = Supervisor(
            partial(
                open_process,
                [nginx, "-c", str(pod.target / "nginx.conf")],
                stop_signal=SIGQUIT,
                grace_period=5,
            ),
            activation=activation,
            configuration=configuration,
            readiness=Readiness(TcpProbe(pod.port)),
        )
        results = configuration.results
        nursery.start_soon(supervisor.run)
        yield Managed(supervisor, results)
        nursery.cancel_scope.cancel()


async def test_nginx_serves_what_the_newest_valid_tar_says_while_active(
    nginx: str, pod: Pod
) -> None:
    async with managed(nginx, pod) as world:
        pod.configure("red")
        pod.active.touch()
        await world.until(ready=True)
        assert await pod.page() == "red"

        await world.result()
        pod.configure("blue")
        changed = (await world.result()).changed
        assert set(changed) == {"html/index.html"}
        await world.until(ready=True)
        assert await pod.page() == "blue"

        pod.active.unlink()
        await world.until(ready=False)
        assert not pod.accepts_connections()

        pod.configure("green")
        await world.result()
        pod.active.touch()
        await world.until(ready=True)
        assert await pod.page() == "green"
    assert not pod.accepts_connections()


async def test_a_broken_tar_leaves_nginx_serving(nginx: str, pod: Pod) -> None:
    async with managed(nginx, pod) as world:
        pod.configure("red")
        pod.active.touch()
        await world.until(ready=True)
        await world.result()
        pid = world.supervisor.state.pid

        move_into_place(pod.tar, pod.tar.read_bytes()[:1000])
        assert (await world.result()).error is not None

        pod.configure("never seen", extra="no_such_directive on;")
        refusal = (await world.result()).error
        assert "no_such_directive" in str(refusal)

        assert await pod.page() == "red"
        assert world.supervisor.state.pid == pid

        pod.configure("blue")
        assert (await world.result()).error is None
        await world.until(ready=True)
        assert await pod.page() == "blue"
