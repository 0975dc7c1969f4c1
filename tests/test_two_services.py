"""The example of two services does what it says: order by readiness, and one fails with all."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "two_services.py"


def free_ports() -> list[int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as other:
        return [server.getsockname()[1] for server in (one, other)]


@pytest.mark.parametrize("independent", [False, True])
def test_the_web_server_waits_for_the_database_and_the_group_ends_as_its_policy_says(
    tmp_path: Path, independent: bool
) -> None:
    database, web = free_ports()
    command = [sys.executable, str(EXAMPLE), f"--database-port={database}", f"--web-port={web}"]
    entrypoint = subprocess.Popen(
        command + ["--independent"] * independent, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert entrypoint.stdout is not None
    lines = iter(entrypoint.stdout.readline, "")
    try:
        order = [next_ready(lines), next_ready(lines)]
        assert order == ["database", "web"]
        for _ in range(4):
            kill_server(entrypoint.pid, str(web))
            name = next_ready(lines, or_over="web: active, configuration none, process gave up")
        assert name == "over"
        if independent:
            socket.create_connection(("127.0.0.1", database)).close()
            entrypoint.send_signal(signal.SIGTERM)
        status = entrypoint.wait(20)
        assert independent or status == 128 + signal.SIGKILL
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", database))
    finally:
        entrypoint.terminate()
        entrypoint.communicate()


def next_ready(lines: Iterator[str], or_over: str = "never") -> str:
    for line in lines:
        if "process ready (the process is ready)" in line:
            return line.partition(":")[0]
        if line.startswith(or_over):
            return "over"
    raise AssertionError("the example ended")


def kill_server(entrypoint: int, word: str) -> None:
    """Kill the child of the entrypoint that has this word in its command line."""
    for name in os.listdir("/proc"):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        if parent == entrypoint and word.encode() in words:
            os.kill(int(name), signal.SIGKILL)
            return
    raise AssertionError(f"no server with {word}")
