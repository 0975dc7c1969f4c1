"""With a terminal the application has it, as with tini: job control, Ctrl-C, window size."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Generator

import pytest

SOURCE = """
import sys
from trio_entrypoint import open_process, run

async def main():
    async with open_process(sys.argv[1:], terminal=True) as process:
        return await process.wait()

run(main)
"""


class Terminal:
    """A terminal in which an entrypoint was started, as `docker run -it` does."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["PS1"] = "prompt> "
            os.execv(sys.executable, [sys.executable, "-c", SOURCE, *command])
        self.output = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def shows(self, text: str) -> None:
        """Wait until a text appears after what was waited for before."""
        deadline = time.monotonic() + 20
        while text not in self.output:
            ready, _, _ = select.select([self.fd], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} did not appear: {self.output!r}"
            self.output += os.read(self.fd, 4096).decode()
        self.output = self.output.partition(text)[2]

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def exit_status(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def command(self, text: str) -> None:
        """Type a command at the shell's next prompt: what is typed between two can get lost."""
        self.shows("prompt> ")
        self.type(f"{text}\n")


@pytest.fixture
def shell() -> Generator[Terminal]:
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"])
    yield terminal
    os.close(terminal.fd)


# The shell shows what is typed, too: not the same as what is printed.
JOB = """sh -c 'echo a" "job; exec sed -u s/^/got:/'"""


def test_a_shell_has_job_control(shell: Terminal) -> None:
    shell.command(JOB)
    shell.shows("a job")
    shell.type("\x1a")  # Ctrl-Z
    shell.shows("Stopped")
    shell.command("fg")
    shell.shows("exec sed")
    shell.type("a line\n")
    shell.shows("got:a line")
    shell.type("\x04")  # Ctrl-D: the end of its input
    shell.command("exit 4")
    assert shell.exit_status() == 4


def test_ctrl_c_interrupts_the_foreground_job_only(shell: Terminal) -> None:
    shell.command(JOB)
    shell.shows("a job")
    shell.type("\x03")
    shell.command("echo status $?")
    shell.shows("status 130")
    shell.command("exit 0")
    assert shell.exit_status() == 0


def test_the_window_size_arrives(shell: Terminal) -> None:
    shell.command("trap 'stty size' WINCH; echo all' 'set")
    shell.shows("all set")
    shell.shows("prompt> ")
    shell.resize(33, 99)
    shell.type("\n")
    shell.shows("33 99")
    shell.command("exit")
    shell.exit_status()


def test_ctrl_c_reaches_an_application_that_is_no_shell() -> None:
    terminal = Terminal(
        ["sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.01; done"]
    )
    terminal.shows("ready")
    terminal.type("\x03")
    terminal.shows("caught")
    assert terminal.exit_status() == 5
    os.close(terminal.fd)


def test_the_entrypoint_still_obeys_its_stop_signal() -> None:
    terminal = Terminal(
        ["sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done"]
    )
    terminal.shows("ready")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.exit_status() == 6
    os.close(terminal.fd)


def test_the_end_of_the_terminal_ends_everything() -> None:
    terminal = Terminal(["sh", "-c", "trap '' HUP; echo ready; while :; do sleep 0.01; done"])
    terminal.shows("ready")
    os.close(terminal.fd)
    assert terminal.exit_status() == 128 + signal.SIGTERM
