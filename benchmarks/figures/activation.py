"""Activation to the application's main, and deactivation to its end.

Peers have no activation. Beside it stands what comes nearest: an operator's command that
starts and stops the service, that command's own start included.
"""

import os
import time
from contextlib import ExitStack
from subprocess import run

from benchmarks.contenders import Contender
from benchmarks.results import Cited, Figure, Series
from benchmarks.stage import Performance, Stage, open_performance, stopped

ON, OFF = "activation", "deactivation"


def _switch(performance: Performance, *, up: bool) -> None:
    contender, job = performance.contender, performance.job
    if job.activation is not None:
        waiting = job.activation.with_name("waiting")
        if up:
            waiting.rename(job.activation)
        else:
            job.activation.rename(waiting)
        return
    command = contender.up if up else contender.down
    assert command is not None
    run(command(job), check=True, stdout=-3)


def measure(stage: Stage) -> Figure:
    """Switch each contender on and off in turn."""
    contenders = [one for one in stage.contenders if one.activates or one.up is not None]
    samples: dict[tuple[str, str], list[float]] = {
        (case, contender.name): [] for case in (ON, OFF) for contender in contenders
    }
    with ExitStack() as stack:
        performances = {contender.name: _open(stage, stack, contender) for contender in contenders}
        for number in stage.rounds(25, 3):
            for contender in stage.shuffled(contenders, number):
                performance = performances[contender.name]
                begin = time.monotonic_ns()
                _switch(performance, up=True)
                report = performance.main()
                samples[ON, contender.name].append((report.at - begin) / 1e6)
                # Supervisors may hold back what ran shorter than a second.
                time.sleep(0.02 if contender.activates else 1.1)
                with stopped(report.pid):
                    begin = time.monotonic_ns()
                    _switch(performance, up=False)
                samples[OFF, contender.name].append((time.monotonic_ns() - begin) / 1e6)
                time.sleep(0.02)
    return Figure(
        name="activation",
        title="Activation to the application's main, deactivation to its end",
        unit="ms",
        series=[Series(case, name, values) for (case, name), values in samples.items()],
        cited=[Cited(ON, "the Go original", 1.25)],
        notes=[
            (
                "s6 and runit have no activation: there it is `s6-svc -u` or `sv up`, and the "
                "reverse, from the start of that command."
            ),
        ],
    )


def _open(stage: Stage, stack: ExitStack, contender: Contender) -> Performance:
    job, reports = stack.enter_context(stage.job(activation=contender.activates))
    if job.activation is not None:
        job.activation.with_name("waiting").touch()
    performance = stack.enter_context(open_performance(contender, job, reports))
    if contender.activates:
        time.sleep(1.0)  # inactive at first
    else:
        application = performance.main().pid
        time.sleep(1.1)
        with stopped(application):
            _switch(performance, up=False)
    assert reports.receive() is None, f"{contender.name} started the application while inactive"
    assert os.path.isdir(f"/proc/{performance.pid}")
    return performance
