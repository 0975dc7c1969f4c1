"""Does what a reader of a page does, and fails where the page is wrong.

    container.sh PYTHON reader.py PAGE [BINARIES]

Runs in a container's root: pages write to /etc and listen on port 8080. `pages.py` says what is
done with which block, in a home of its own, with BINARIES first in PATH (by default those beside
PYTHON). Besides:

* A block whose output is shown only looks. It is repeated, for a while, until it prints that:
  a reader is slower than a machine.
* An entrypoint that is started in the foreground is stopped once its application runs.
* A fragment of Python that waits for ever is cancelled, and must end well then.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from pages import DOCS, PROJECT, Block, blocks

PATIENCE = 60.0
"""Seconds that one block may take."""

HOME = Path("/home/reader")
POSTGRESQL = next(iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))), "")

STARTED = Path("/run/app.started")

# What pages call `app` when it does not matter what it is.
APP = f"""#!/bin/sh
trap 'exit 0' TERM
touch {STARTED}
sleep 1000 & wait
"""

# What was there before the reader came, of pages that show a command before they explain it.
BEFORE = """
    mkdir -p /run/app /incoming && touch /run/app/active
    echo colour=red >app.conf && tar -cf /incoming/config.tar app.conf
"""
HAVE_BEFORE = {PROJECT / "README.md", DOCS / "index.md"}

FRAGMENT = """\
import ast, inspect, signal, sys
from functools import partial
from pathlib import Path
import trio, trio_entrypoint

tree = ast.parse(open(sys.argv[1]).read(), sys.argv[1])
used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
namespace = {**globals(), "__name__": "fragment"}
namespace.update({name: getattr(signal, name) for name in used & {*dir(signal)}})
namespace.update({name: getattr(trio_entrypoint, name) for name in used & {*dir(trio_entrypoint)}})
code = compile(tree, sys.argv[1], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

async def main():
    with trio.move_on_after(1):
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, namespace)
        else:
            exec(code, namespace)

trio.run(main)
"""

# Laid under a fragment of a configuration file, to make it a whole one.
MINIMAL = '[service.app]\ncommand = ["app"]\n'


class PageError(Exception):
    def __init__(self, block: Block, problem: str, output: str = "") -> None:
        indented = "".join(f"    {line}\n" for line in block.text.splitlines())
        super().__init__(f"line {block.line}: {problem}\n{indented}{output and '-> '}{output}")


class Shell:
    """A terminal that stays open from block to block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc", "-e"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._files = 0

    def file(self, text: str) -> Path:
        self._files += 1
        path = Path(f"/run/reader/{self._files}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def do(self, commands: str, seconds: float = PATIENCE) -> str:
        """Give it lines of shell; return the line that they print."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{commands}\necho\n")
        self._process.stdin.flush()
        selector = DefaultSelector()
        selector.register(self._process.stdout, EVENT_READ)
        if not selector.select(seconds):
            raise TimeoutError
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(self._process.wait())
        return line.strip()

    def type(self, block: Block) -> None:
        """Type a block that has to succeed, and whose directory and variables remain."""
        script, output = self.file(block.text), self.file("")
        try:
            self.do(f". {script} >{output} 2>&1 </dev/null")
        except ChildProcessError as error:
            problem = f"ended with {error.args[0]}"
            raise PageError(block, problem, output.read_text()) from None
        except TimeoutError:
            raise PageError(block, "does not end", output.read_text()) from None

    def look(self, block: Block) -> str:
        """Type a block that only looks, and return what it prints, whatever its status is."""
        script, output = self.file(block.text), self.file("")
        try:
            self.do(f"set +e; (. {script}) >{output} 2>&1 </dev/null; set -e")
        except TimeoutError:
            raise PageError(block, "does not end", output.read_text()) from None
        return output.read_text()

    def start(self, block: Block) -> "Job":
        """Type a block into another terminal."""
        script, output = self.file(block.text), self.file("")
        self.do(f"(. {script}) >{output} 2>&1 </dev/null & echo -n $!")
        return Job(block, output)


class Job:
    def __init__(self, block: Block, output: Path) -> None:
        self.block = block
        self.output = output


def read_page(page: Path) -> None:
    shell = Shell()
    looked: Block | None = None
    job: Job | None = None
    jobs: list[Job] = []
    if page in HAVE_BEFORE:
        shell.do(BEFORE)
    todo = list(blocks(page))
    for position, block in enumerate(todo):
        shown = next(iter(todo[position + 1 :]), None)
        has_output = shown is not None and is_output(shown)
        if block.file is not None:
            path = HOME / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.terminal:
            job = shell.start(block)
            jobs.append(job)
            looked = None
        elif is_output(block):
            if job is not None and looked is None:
                wait_for(block, job.output.read_text, whole=False)
            elif looked is not None:
                wait_for(block, partial(shell.look, looked), whole=True)
            else:
                raise PageError(block, "is no output of the block before")
            looked, job = None, None
        else:
            looked, job = None, None
            match block.language:
                case "sh" if runs_checks(block):
                    pass  # this is one of them
                case "sh" if re.match(r"trio-entrypoint run\b(?!.*--print-config)", block.text):
                    run_until_started(block, ["bash", "-c", block.text])
                case "sh" if has_output:
                    looked = block
                case "sh":
                    shell.type(block)
                case "python" if "trio_entrypoint.run(" in block.text:
                    run_until_started(block, ["python", str(shell.file(block.text))])
                case "python":
                    fragment = ["python", str(shell.file(FRAGMENT))]
                    run(block, [*fragment, str(shell.file(block.text))])
                case "toml":
                    base = HOME / "fragment.toml"
                    base.write_text(MINIMAL)
                    drop_in = HOME / "fragment.toml.d" / "10.toml"
                    drop_in.parent.mkdir(exist_ok=True)
                    drop_in.write_text(block.text)
                    run(block, ["trio-entrypoint", "check", "-f", str(base)])
                case _:
                    pass
    for job in jobs:
        check_job(job)


def is_output(block: Block) -> bool:
    return block.language == "text" and not block.caption


def runs_checks(block: Block) -> bool:
    return all("nox" in line for line in block.text.splitlines())


def run(block: Block, command: Sequence[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if ended.returncode:
        raise PageError(block, f"ended with {ended.returncode}", ended.stdout + ended.stderr)


def run_until_started(block: Block, command: Sequence[str]) -> None:
    STARTED.unlink(missing_ok=True)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + PATIENCE
    while not STARTED.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    started = STARTED.exists()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    if not started or process.returncode != 0:
        problem = (
            f"ended with {process.returncode}" if started else "did not start its application"
        )
        raise PageError(block, problem, output)


def wait_for(block: Block, look: Callable[[], str], *, whole: bool) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        output = look()
        if matches(block.text, output, whole=whole):
            return
        if time.monotonic() > deadline:
            raise PageError(block, "is not what is printed", output)
        time.sleep(0.05)


def matches(expected: str, output: str, *, whole: bool) -> bool:
    """Compare what a page shows with what was printed.

    `…` stands for anything in a line, and a line of its own for any lines. Times, durations
    and numbers of several digits (pids) may be others, except one that is a line of its own;
    the width of columns does not count.
    """
    pattern = "".join(
        "(?:.*\n)*?" if line.strip() == "…" else line_pattern(line) + "\n"
        for line in expected.rstrip().splitlines()
    )
    text = "".join(re.sub("  +", "  ", line.rstrip()) + "\n" for line in output.splitlines())
    return bool(re.fullmatch(pattern, text) if whole else re.match(pattern, text))


VARYING = {
    r"\d{4}-\d\d-\d\dT[\d:.]+Z": r"\d{4}-\d\d-\d\dT[\d:.]+Z",
    r"\b\d+(?:\.\d+)?(?:ms|s|m|h)\b": r"\d+(?:\.\d+)?(?:ms|s|m|h)\b",
    r"\b\d\d+\b": r"\d\d+",
    "…": ".*",
}


def line_pattern(line: str) -> str:
    line = re.sub("  +", "  ", line.rstrip())
    if line.isdigit():
        return line
    found = re.compile("|".join(f"({varying})" for varying in VARYING))
    parts: list[str] = []
    end = 0
    for match in found.finditer(line):
        assert match.lastindex
        parts += re.escape(line[end : match.start()]), list(VARYING.values())[match.lastindex - 1]
        end = match.end()
    return "".join(parts) + re.escape(line[end:])


def check_job(job: Job) -> None:
    output = job.output.read_text()
    if re.search(r"command not found|No such file or directory|Traceback", output):
        raise PageError(job.block, "failed", output)


def main() -> None:
    HOME.mkdir(parents=True)
    os.chdir(HOME)
    app = HOME / "bin/app"
    app.parent.mkdir()
    app.write_text(APP)
    app.chmod(0o755)
    binaries = sys.argv[2] if len(sys.argv) > 2 else os.path.dirname(sys.executable)
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    os.environ.clear()
    os.environ.update(
        kept,
        HOME=str(HOME),
        PATH=f"{binaries}:{app.parent}:{POSTGRESQL}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        LANG="C.UTF-8",
        PYTHONDONTWRITEBYTECODE="1",
    )
    page = Path(sys.argv[1])
    try:
        read_page(page)
    except PageError as error:
        sys.exit(f"{page.relative_to(PROJECT)}, {error}")


if __name__ == "__main__":
    main()
