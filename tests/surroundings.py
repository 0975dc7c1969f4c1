"""The places that an entrypoint runs in: an ordinary process, PID 1 of a namespace of its own,
PID 1 of an OCI container, made by runc; where something is mounted; while inotify overflows.
"""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent

Popen = subprocess.Popen[str]


class Surroundings:
    """An ordinary process."""

    name = "ordinary process"
    pid_1 = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def command(self, source: str) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(TESTS)!r})\n{source}"]

    @contextmanager
    def running(self, source: str) -> Generator[Popen]:
        """A Python program that runs there."""
        process = subprocess.Popen(
            self.command(source),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                self.signal(process, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()

    def signal(self, process: Popen, number: int) -> None:
        """Send the program a signal."""
        process.send_signal(number)


class Namespace(Surroundings):
    """PID 1 of a PID namespace."""

    name = "PID 1 of a namespace"
    pid_1 = True

    def command(self, source: str) -> list[str]:
        return ["unshare", "--pid", "--fork", "--mount-proc", *super().command(source)]

    def signal(self, process: Popen, number: int) -> None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children), number)


class Container(Surroundings):
    """PID 1 of an OCI container whose root file system is this machine's."""

    name = "PID 1 of a container"
    pid_1 = True
    capabilities = ("CAP_KILL", "CAP_SETUID", "CAP_SETGID")

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.id = f"trio-entrypoint-{uuid.uuid4()}"

    def command(self, source: str) -> list[str]:
        subprocess.run(["runc", "spec"], cwd=self.directory, check=True)
        file = self.directory / "config.json"
        spec = json.loads(file.read_text())
        spec["process"].update(terminal=False, args=super().command(source))
        spec["process"]["env"] = [f"PATH={os.environ['PATH']}"]
        for kind in spec["process"]["capabilities"]:
            spec["process"]["capabilities"][kind] = self.capabilities
        del spec["process"]["rlimits"]
        del spec["linux"]["resources"]
        spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "cgroup"]
        file.write_text(json.dumps(spec))
        return ["runc", "run", self.id]

    @contextmanager
    def running(self, source: str) -> Generator[Popen]:
        root = self.directory / "rootfs"
        root.mkdir()
        subprocess.run(["mount", "--bind", "/", root], check=True)
        try:
            with super().running(source) as process:
                yield process
        finally:
            subprocess.run(["runc", "delete", "--force", self.id], check=True)
            subprocess.run(["umount", root], check=True)

    def signal(self, process: Popen, number: int) -> None:
        subprocess.run(["runc", "kill", self.id, str(number)], check=True)


ALL = [Surroundings, Namespace, Container]


def in_mount_namespace(directory: Path, setup: str, program: str) -> None:
    """Run Python where something is mounted that only it sees."""
    unshare = ["unshare", "--mount", "--propagation", "private"]
    if os.getuid():
        unshare += ["--user", "--map-root-user"]
    script = f"set -e\n{setup}\nexec {sys.executable} -c '{program}'\n"
    subprocess.run([*unshare, "sh", "-c", script], check=True, cwd=directory)


def overflow_inotify(directory: Path) -> None:
    """Rename a file in a watched directory until the queue of its watcher, who waits, is full."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    noise, elsewhere = directory / "noise", directory / "noise elsewhere"
    noise.touch()
    for _ in range(limit // 4 + 10):  # each way there and back leaves four events
        noise.rename(elsewhere)
        elsewhere.rename(noise)
