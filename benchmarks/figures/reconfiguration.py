"""Reconfiguration: from a new tar moved into place to the restarted application's main.

Beside it stands `tar -xf` of the same archive into an empty directory, which restarts nothing
and is not atomic; and the same followed by `sync -f`, which makes it durable.
"""

import os
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.archives import changed_count, write_archive
from benchmarks.contenders import Contender
from benchmarks.contenders.ours import NAME as OURS
from benchmarks.processes import spawn
from benchmarks.results import Cited, Figure, Goal, Series
from benchmarks.stage import Performance, Stage, open_performance

TAR = "tar -xf"
TAR_SYNC = "tar -xf, sync -f"
ROUNDS = {1: 20, 10: 20, 100: 15, 2000: 8, 20_000: 5}
# As first measured with the original's own example; nobody can run it beside ours.
ORIGINAL = {10: 4.9, 100: 24.7, 2000: 1729.0}


def name(files: int, percent: int) -> str:
    """The name of a case."""
    return f"{files} {'file' if files == 1 else 'files'}, {percent} %"


def extract(stage: Stage, archive: Path, *, sync: bool) -> float:
    """How long `tar -xf` takes, in milliseconds."""
    with stage.scratch() as directory:
        (directory / "new").mkdir()
        command = f"tar -xf {archive} -C {directory}/new"
        command += f" && sync -f {directory}/new" if sync else ""
        pid, begin = spawn(["sh", "-c", command], directory / "log", os.environ)
        _, status = os.waitpid(pid, 0)
        end = time.monotonic_ns()
        if status:
            raise RuntimeError(f"{command}: {(directory / 'log').read_text()}")
    return (end - begin) / 1e6


def apply(performance: Performance, archive: Path, version: str) -> tuple[int, float]:
    """Have a contender run with the archive; the application's pid, and the milliseconds."""
    assert performance.job.source is not None
    begin = time.monotonic_ns()
    archive.rename(performance.job.source)
    report = performance.main(timeout=60.0)
    if report.contents != version:
        raise AssertionError(f"restarted with {report.contents!r} instead of {version!r}")
    return report.pid, (report.at - begin) / 1e6


def _case(
    stage: Stage, contenders: list[Contender], files: int, percent: int
) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {one.name: [] for one in contenders}
    samples |= {TAR: [], TAR_SYNC: []}
    changed = changed_count(files, percent)
    with ExitStack() as stack:
        performances: dict[str, Performance] = {}
        for contender in contenders:
            job, reports = stack.enter_context(stage.job(configured=True))
            assert job.source is not None
            write_archive(job.source, files=files, changed=changed, version="0")
            performance = stack.enter_context(open_performance(contender, job, reports))
            performance.main(timeout=60.0)
            performances[contender.name] = performance
        time.sleep(1.0)
        for number in stage.rounds(ROUNDS[files], min(2, ROUNDS[files])):
            version = str(number + 1)
            for contender in stage.shuffled(contenders, number):
                performance = performances[contender.name]
                archive = performance.job.directory / "next.tar"
                write_archive(archive, files=files, changed=changed, version=version)
                os.sync()
                samples[TAR].append(extract(stage, archive, sync=False))
                os.sync()
                samples[TAR_SYNC].append(extract(stage, archive, sync=True))
                os.sync()
                main, milliseconds = apply(performance, archive, version)
                samples[contender.name].append(milliseconds)
                performance.settle(main)  # it removes old generations
                assert performance.reports.receive() is None, "restarted twice for one change"
    return samples


def measure(stage: Stage) -> Figure:
    """Apply archives of growing size, all files changed and one in a hundred."""
    contenders = [contender for contender in stage.contenders if contender.configures]
    series: list[Series] = []
    goals: list[Goal] = []
    sizes = [1, 10, 100] if stage.quick else list(ROUNDS)
    for files in sizes:
        for percent in (100, 1):
            if changed_count(files, percent) == 1 and files < 100 and percent == 1:
                continue  # the same as 'one file of few'
            case = name(files, percent)
            stage.say(f"  {case}")
            samples = _case(stage, contenders, files, percent)
            series += [Series(case, who, values) for who, values in samples.items()]
            # How many files changed is nothing to tar: one reference for both.
            goals.append(Goal(case, TAR, factor=4.0, reference_case=name(files, 100)))
    return Figure(
        name="reconfiguration",
        title="A new tar moved into place to the restarted application's main",
        unit="ms",
        series=series,
        goals=goals,
        cited=[
            Cited(name(files, 100), "the Go original", value)
            for files, value in ORIGINAL.items()
            if files in sizes
        ],
        notes=[
            f"Files of 200 bytes, {OURS} with its defaults; the percentage is of files changed.",
            "Each measurement begins after sync(2): nobody pays for what another one wrote.",
            "`tar -xf` extracts only: no restart, not atomic, not durable.",
        ],
    )
