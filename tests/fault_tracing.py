"""Runs actions of `fault_server.py`, and lets strace count, or break, their system calls."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


class Server:
    """Runs actions in processes of their own, under strace or not."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fault_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )

    def run(
        self, kind: str, action: str, directory: Path, *strace: str
    ) -> tuple[int, dict[str, Any] | None]:
        """Run an action; return its process's exit code, and what the action said."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind} {action} {directory}\n")
        pid = int(self._process.stdout.readline())
        tracer = None
        if strace:
            tracer = subprocess.Popen(
                ["strace", "-y", *strace, "-p", str(pid)], stderr=subprocess.PIPE, text=True
            )
            assert tracer.stderr is not None
            assert "attached" in (line := tracer.stderr.readline()), line
        os.kill(pid, signal.SIGCONT)
        code, _, answer = self._process.stdout.readline().partition(" ")
        if tracer is not None:
            tracer.communicate()
        return int(code), json.loads(answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
