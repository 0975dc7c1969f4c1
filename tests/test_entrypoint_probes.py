"""Probes of a supervisor that is PID 1: a command gets its own status, whoever else is reaped."""

from pathlib import Path

import pytest
import surroundings
import trustme
from etcd_cluster import free_port
from surroundings import Surroundings

APPLICATION = """
import http.server, os, ssl, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists("sick") else 200)
        self.end_headers()

    def log_message(self, *_):
        pass

if os.path.exists("sick"):
    os.remove("sick")
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""

PROGRAM = """
import os, sys, trio
from functools import partial
from pathlib import Path
from trio_entrypoint import (
    Cause, CommandProbe, Health, HttpProbe, ProbeError, Readiness, Supervisor, open_process, run,
)
from trio_entrypoint.testing import recording

URL = "https://127.0.0.1:{port}/"
# Each leaves orphans for the init, and its status is none of theirs.
ASK = CommandProbe(["sh", "-c", "(true & setsid true &); exit $(cat code)"])
app = partial(open_process, [sys.executable, "app.py", "{port}"], grace_period=1.0)

async def until_unhealthy(make_sick, supervisor, said):
    async with recording(supervisor.events) as seen, trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        pid = supervisor.state.pid
        await trio.sleep(0.3)
        assert supervisor.state.pid == pid and supervisor.state.ready
        make_sick()
        await supervisor.wait_for(lambda state: state.pid not in (pid, None))
        Path("code").write_text("0")
        await supervisor.wait_for(lambda state: state.ready)
        nursery.cancel_scope.cancel()
    told = [str(one.error) for one in seen if one.cause is Cause.UNHEALTHY]
    assert said in told[0], told

async def main():
    assert os.getpid() == 1
    Path("code").write_text("7")

    async def told(expected):
        try:
            await ASK.check()
        except ProbeError as error:
            assert expected in str(error), error
        else:
            raise AssertionError("it was stolen")

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(told, "exit code 7")
    Path("code").write_text("0")
    await until_unhealthy(
        lambda: Path("code").write_text("7"),
        Supervisor(
            app,
            readiness=Readiness(HttpProbe(URL), period=0.05),
            health=Health(ASK, period=0.05, failures=2),
        ),
        "exit code 7",
    )
    await until_unhealthy(
        lambda: Path("sick").touch(),
        Supervisor(
            app,
            readiness=Readiness(CommandProbe(
                ["sh", "-c", "cat /proc/net/tcp | grep -q {hexport}.*0A"]), period=0.05),
            health=Health(HttpProbe(URL), period=0.05, failures=2),
        ),
        "answered with 503",
    )
    with trio.fail_after(10):
        while [pid for pid in os.listdir("/proc") if pid.isdecimal() and pid != "1"]:
            await trio.sleep(0.01)
    return 7

run(main)
"""


@pytest.fixture
def init(tmp_path: Path) -> Surroundings:
    """PID 1 of a namespace."""
    return surroundings.Namespace(tmp_path)


def test_command_and_https_probes_of_an_init_say_what_they_see(
    init: Surroundings, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "server.pem")
    )
    port = free_port()
    program = PROGRAM.replace("{port}", str(port)).replace("{hexport}", f":{port:04X}")
    with init.running(program) as process:
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (7, "")
