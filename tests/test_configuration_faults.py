"""Faults: an update is killed, or fails, at every system call that changes anything.

Each scenario is run once under strace to record its mutating system calls, and then once for
each of them and each fault. Whatever happens, the target is exactly the old or exactly the
new tree, and the next start heals and collects. `TRIO_ENTRYPOINT_TESTS=thorough` tries all
errors at all calls; otherwise they take turns.
"""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
from configurations import archive, contents
from fault_tracing import Server

THOROUGH = os.environ.get("TRIO_ENTRYPOINT_TESTS") == "thorough"
MUTATING = (
    "mkdir,mkdirat,openat,write,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,rmdir,chmod,fchmod,fchmodat,fsync,syncfs"
)
OLD = {"same": "0", "file": "1", "file-to-directory": "2", "directory/a": "3", "gone": "4"}
NEW = {"same": "0", "file": "one", "file-to-directory/b": "two", "directory": "three", "new": ""}
BAD = {"same": "0", "bad": "bad"}


@pytest.fixture(scope="module")
def servers() -> Generator[list[Server]]:
    servers = [Server() for _ in range(3)]
    yield servers
    for server in servers:
        server.close()


@attrs.frozen
class Scenario:
    """A state of the disk, an action, and the trees that may be at the target afterwards."""

    kind: str
    before: tuple[str, ...]
    """What led to the state: contents of the source that were applied, or adopted."""

    action: str
    old: str
    new: str
    source: str = "new"

    def __str__(self) -> str:
        after = "".join(f"-after-{step.split()[0]}" for step in self.before if " " in step)
        return f"{self.kind}-{self.action}-of-{self.new}-over-{self.old}{after}"


SCENARIOS = [
    Scenario(kind, before, action, old, new, source)
    for kinds, before, action, old, new, source in [
        ("symlink inside file disk copy*", ("old",), "update", "old", "new", "new"),
        ("symlink inside* file*", (), "update", "nothing", "new", "new"),
        ("symlink inside file", ("adopt",), "update", "old", "new", "new"),
        ("symlink inside file disk*", ("old", "bad"), "rollback", "bad", "old", "bad"),
        ("symlink inside* file* disk*", ("old",), "trial", "old", "new", "new"),
        (
            "symlink inside* file*",
            ("old", "unconfirmed bad"),
            "opening",
            "bad",
            "old",
            "bad",
        ),
        ("symlink inside* file*", ("old",), "adjourned", "old", "new", "new"),
        ("symlink inside* file*", ("old", "adjourned bad"), "opening", "bad", "old", "bad"),
    ]
    for kind in (kinds.replace("*", "") if THOROUGH else re.sub(r"\S+\*", "", kinds)).split()
]
"""Those with a star only in a thorough run."""

ALSO_ERRORS = {("symlink", "update"), ("inside", "update"), ("file", "update"), ("disk", "update")}
ALSO_ERRORS |= {("symlink", "rollback")}


@attrs.frozen
class World:
    """The directory of a scenario."""

    scenario: Scenario
    directory: Path

    def tree(self, name: str) -> object:
        """What is at the target in a state."""
        if name == "nothing":
            return None
        files = {"old": OLD, "new": NEW, "bad": BAD}[name]
        if self.scenario.kind == "file":
            return files["same"] + name
        directories = {path.rpartition("/")[0] + "/" for path in files if "/" in path}
        return {**files, **dict.fromkeys(directories, "")}

    def shown(self) -> object:
        """What a reader finds at the target."""
        target = self.directory / "target"
        if self.scenario.kind == "file":
            return target.read_text() if target.exists() else None
        found = contents(target) if target.exists() else {}
        return found or None

    def deliver(self, name: str) -> None:
        """Write a source."""
        files = {"old": OLD, "new": NEW, "bad": BAD}[name]
        data = archive(files)
        if self.scenario.kind == "file":
            data = (files["same"] + name).encode()
        (self.directory / "source").write_bytes(data)

    def build(self, server: Server) -> None:
        """Lead to the state that the scenario begins with."""
        self.directory.mkdir()
        for step in self.scenario.before:
            match step.split():
                case ["adopt"]:
                    self._write_by_hand()
                case [how, name]:
                    self.deliver(name)
                    server.run(
                        self.scenario.kind, "kept-update" if how == "kept" else how, self.directory
                    )
                case _:
                    self.deliver(step)
                    server.run(self.scenario.kind, "update", self.directory)
        self.deliver(self.scenario.source)

    def copy(self, to: Path) -> "World":
        """The same world somewhere else."""
        shutil.rmtree(to, ignore_errors=True)
        subprocess.run(["cp", "-a", self.directory, to], check=True)
        return World(self.scenario, to)

    def _write_by_hand(self) -> None:
        target = self.directory / "target"
        if self.scenario.kind == "file":
            target.write_text(str(self.tree("old")))
            return
        for path, text in OLD.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text)

    @property
    def store(self) -> Path:
        """Where the generations are."""
        inside = self.scenario.kind == "inside"
        return self.directory / ("target/..generations" if inside else ".target.generations")

    def check_healed(self, server: Server, trees: list[object], log: str) -> None:
        """Start again: everything works, and nothing is left over."""
        scenario = self.scenario
        shown_before = self.shown()
        if scenario.action == "rollback" and self.shown() == trees[0]:
            again = "rollback"
        else:
            again = "opening" if scenario.action == "rollback" else scenario.action
        if again in ("trial", "adjourned"):
            again = "update"
        code, answer = server.run(scenario.kind, again, self.directory)
        assert code == 0
        assert answer is not None
        assert answer["opened"], answer
        refused = "rolled back before" in str(answer["error"])
        if scenario.action == "rollback":
            assert self.shown() in trees
        elif scenario.action == "adjourned":
            adjourned = re.search(r'rename\(.*/adjourned"\) = 0', log) is not None
            assert refused is (shown_before == trees[1] and not adjourned)
            assert self.shown() == trees[0 if refused else 1]
        elif refused and scenario.action == "trial":
            assert self.shown() == trees[0]
        elif shown_before == trees[1] and scenario.action == "trial":
            confirmed = re.search(r'unlink\(.*/trial"\) = 0', log) is not None
            assert confirmed, "trusted although nobody confirmed it"
        else:
            assert answer["error"] is None
            assert self.shown() == trees[1]
        numbers = self.check_collected()
        whole = [number for number in numbers if (number / "tree").exists()]
        assert len(whole) <= 3  # in place, kept, and replaced only now
        assert len(numbers) <= 4
        beside = {path.name for path in self.directory.iterdir()}
        assert beside <= {"source", "target", ".target.generations"}

    def check_collected(self) -> list[Path]:
        """There are only complete generations; return their directories."""
        numbers = [path for path in self.store.iterdir() if path.name.isdecimal()]
        names = {path.name for path in self.store.iterdir()}
        assert names <= {"next", *(number.name for number in numbers)}
        assert not list(self.store.rglob("*.new"))
        assert all((number / "manifest").exists() for number in numbers)
        return numbers


def mutating_calls(log: Path, directory: Path) -> list[tuple[str, int]]:
    """The calls that change something in a directory: name, and which one of that name."""
    seen: Counter[str] = Counter()
    calls: list[tuple[str, int]] = []
    for line in log.read_text(errors="replace").splitlines():
        name = re.match(r"\w+", line)
        if name is None or "(" not in line:
            continue
        seen[name[0]] += 1
        if str(directory) not in line or (name[0] == "openat" and "O_CREAT" not in line):
            continue
        calls.append((name[0], seen[name[0]]))
    return calls


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest.mark.timeout(600)
def test_a_fault_at_any_system_call_leaves_the_old_or_the_new_tree(
    tmp_path: Path, servers: list[Server], scenario: Scenario
) -> None:
    template = World(scenario, tmp_path / "template")
    template.build(servers[0])
    trees = [template.tree(scenario.old), template.tree(scenario.new)]
    assert template.shown() == trees[0]
    recorded, calls = record(template, servers[0])
    assert recorded.shown() == trees[1]
    assert len(calls) > 3

    faults: list[Fault] = [(*call, "signal=KILL") for call in calls]
    errors = ["error=EIO", "error=ENOSPC", "error=EACCES"]
    if THOROUGH:
        faults += [(*call, error) for call in calls for error in errors]
    elif (scenario.kind, scenario.action) in ALSO_ERRORS:
        faults += [(*call, errors[index % 3]) for index, call in enumerate(calls)]

    for_each(faults, template, servers, partial(check_fault, trees))


Fault: TypeAlias = tuple[str, int, str]
"""A system call, which one of those of that name, and what happens to it."""


def record(template: World, server: Server) -> tuple[World, list[tuple[str, int]]]:
    """Run a scenario without a fault; return what it left, and its mutating system calls."""
    # All worlds have paths of the same length, and so the same system calls.
    world = template.copy(template.directory.with_name("recorded"))
    code, answer = inject(world, server)
    assert (code, answer is not None and answer["error"]) == (0, None)
    return world, mutating_calls(Path(f"{world.directory}.log"), world.directory)


def inject(
    world: World, server: Server, fault: Fault | None = None
) -> tuple[int, dict[str, Any] | None]:
    """Run a scenario, with a fault or without."""
    strace = ["-e", f"trace={MUTATING}", "-o", f"{world.directory}.log"]
    if fault is not None:
        name, number, what = fault
        strace += ["-e", f"inject={name}:{what}:when={number}"]
    return server.run(world.scenario.kind, world.scenario.action, world.directory, *strace)


def for_each(
    faults: Sequence[Fault],
    template: World,
    servers: list[Server],
    check: Callable[[World, Server, Fault], None],
) -> None:
    """Check faults in worlds of their own, with all servers at a time."""

    def work(number: int) -> None:
        for fault in faults[number :: len(servers)]:
            world = template.copy(template.directory.with_name(f"faulty-{number}"))
            check(world, servers[number], fault)

    with ThreadPoolExecutor(len(servers)) as pool:
        for _ in pool.map(work, range(len(servers))):
            pass


def check_fault(trees: list[object], world: World, server: Server, fault: Fault) -> None:
    """Run the scenario with one fault, and look at what it did."""
    scenario = world.scenario
    code, answer = inject(world, server, fault)
    what = (*fault, answer)
    assert world.shown() in trees, what
    if fault[2] == "signal=KILL":
        assert code == -signal.SIGKILL, what
    else:
        # A failure is told, as what it is; and what is told is true.
        assert code == 0, what
        assert answer is not None, what
        if not answer["opened"] or answer["error"] is not None:
            assert "Errno" in answer["error"], what
            assert "'" in answer["error"], what  # a path
            if scenario.action != "trial" or answer["opened"]:
                assert world.shown() == trees[0], what
        else:
            assert world.shown() == trees[1], what
    log = Path(f"{world.directory}.log").read_text(errors="replace")
    world.check_healed(server, trees, log)


@pytest.mark.parametrize("kind", ["symlink", "file", *(["inside", "disk"] if THOROUGH else [])])
def test_nothing_goes_back_to_a_generation_whose_collection_was_interrupted(
    tmp_path: Path, servers: list[Server], kind: str
) -> None:
    applied = ["old", "bad", "new", "bad", "new"]
    scenario = Scenario(
        kind, tuple(f"kept {name}" for name in applied), "opening", "new", "new", "new"
    )
    template = World(scenario, tmp_path / "template")
    template.build(servers[0])
    whole = [template.tree(name) for name in reversed(applied)]
    recorded, calls = record(template, servers[0])
    # What is in place, and one to go back to.
    assert {path.name for path in recorded.check_collected()} == {"4", "5"}
    removed = {path.name for path in template.store.iterdir()} - {"4", "5"}
    assert len(removed) == 3
    assert len(calls) > 3 * len(removed)

    def check(world: World, server: Server, fault: Fault) -> None:
        inject(world, server, fault)
        shown = [world.shown()]
        # The next start is told to keep all that it finds, and goes back as far as it can.
        while True:
            code, answer = server.run(kind, "kept-rollback", world.directory)
            assert code == 0
            assert answer is not None
            if answer["error"] is not None:
                break
            shown.append(world.shown())
        assert "no earlier trusted configuration" in answer["error"], fault
        assert shown[:2] == whole[:2], fault
        rest = iter(whole)
        assert all(tree in rest for tree in shown), fault
        world.check_collected()

    for_each([(*call, "signal=KILL") for call in calls], template, servers, check)
