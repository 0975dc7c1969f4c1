"""What a supervisor does next: the whole of its judgement, without I/O, tasks or a clock.

Everything that a supervisor knows is in `Facts`. Two functions look at them and say what has to
be done: `process_duty` to the task that runs the process, `configuration_duty` to the task that
applies configurations. Whenever a fact changes both are asked again; neither remembers what it
said before, and no event is carried across a wait. So it does not matter in which order things
happen, how often they happen, or what they interrupt.

The rules for the process, the first that holds counts:

1. A configuration on trial has failed or passed: not before the other task has dealt with it.
   (What passed lets the process run, and only holds a start up.)
2. It ended and its restart policy allows no restart: end, or give up.
3. The operator stopped it: no.
4. This entrypoint is not the active one: no.
5. Nothing was applied yet: no.
6. The source has not been looked at yet, the configuration is being switched, or the process
   that runs has to be replaced: not yet. (A switch under a process that runs lets it run, and
   only holds a start up.)
7. It ended a moment ago: not before its backoff is over.
8. Otherwise it runs.

A process that runs when the answer is another than 'it runs' is stopped. The drawing, with the
names of `ProcessState`::

    inactive, stopped, waiting <-----------------------------+  (rules 3, 4, 5)
        |                                                    |
        v          executed           probe                  |
    starting ----------------> running -----> ready <-> reloading, unhealthy
        ^ ^                      |             |             |
        | |                      +------+------+-------------+
        | |     rule 6                  v
        | +------------------------- stopping, or ended by itself
        |                               |
        +---------- backoff <-----------+-----> ended, gave up      (rule 2)

The rules for the configuration, the first that holds counts:

1. It is on trial and failed, or the operator asks for it: roll back.
2. It is on trial and passed: confirm. (`judge_trial`: its process was ready when
   `confirm_within` seconds were over. `after_end`: it ended for good, with success.)
3. The source has changed: stage and switch.
4. The operator wants a reload.
"""

import errno
import math
from enum import Enum
from typing import TypeAlias, final

import attrs

from trio_entrypoint.handlers import ExitStatus
from trio_entrypoint.policies import (
    Never,
    OnFailure,
    RestartPolicy,
    is_success,
)
from trio_entrypoint.states import Cause, ConfigurationState, ProcessState

# --- facts --------------------------------------------------------------------------------


@final
@attrs.frozen(kw_only=True)
class Outcome:
    """How a run of the process ended that nobody had stopped."""

    cause: Cause
    status: ExitStatus | None = None
    error: Exception | None = None
    """What made the run a failure: it was not started, not ready, not healthy, or a hook."""
    ready_for: float = 0.0
    """Seconds for which it was ready."""
    ended_at: float
    """When it ended, or became a failure, in seconds of the clock."""


@final
@attrs.define
class Trial:
    """A configuration in place that has yet to prove itself."""

    begun_at: float = 0.0
    """When it was put in place: a process that had ended by then says nothing about it."""
    since: float | None = None
    """When the process that runs on it was started, or reloaded."""
    passed: bool = False
    failed: str | None = None
    outcome: Outcome | None = None
    """The end of the process that made it fail: an ordinary failure if nothing can be rolled
    back to."""
    hopeless: bool = False
    """It is not rolled back any more; it can only be confirmed, or replaced."""
    proved: bool = False
    """It passed before, and could not be confirmed then."""


@final
@attrs.define(kw_only=True)
class Facts:
    """Everything that a supervisor knows."""

    active: bool
    token: str | None = None
    stopped: bool = False
    """The operator wants it down."""
    configured: bool
    """There is a configuration handler."""
    applied: bool
    looked: bool = False
    """The source's state at the beginning has been dealt with."""
    changed: bool = False
    """The source has contents that were not staged yet."""
    switching: bool = False
    """The configuration is being switched between two processes."""
    committing: bool = False
    """The configuration is being switched under the process that runs."""
    stale: bool = False
    """The process that runs has to be replaced; it is over with that process."""
    trial: Trial | None = None
    rollback: bool = False
    """The operator asks for a rollback."""
    reload: bool = False
    """The operator asks for a reload of the process that runs; it is over with that process."""
    retry_at: float = 0.0
    mended_at: float = 0.0
    """When something last happened that may have mended what fails."""
    over: "End | GiveUp | None" = None
    executed: bool = False
    """A process of this supervisor has been executed at some time."""

    @property
    def configuration(self) -> ConfigurationState:
        """What is in place, as the outside sees it."""
        if not self.configured:
            return ConfigurationState.NONE
        if not self.applied:
            return ConfigurationState.WAITING
        return ConfigurationState.TRIAL if self.trial else ConfigurationState.APPLIED

    def start_at_once(self, now: float) -> None:
        """End a wait before the next start, one that has yet to begin too: hooks may still run."""
        self.retry_at = 0.0
        self.mended_at = now


# --- the process --------------------------------------------------------------------------


@final
@attrs.frozen
class Run:
    """The process runs, or is started."""


@final
@attrs.frozen
class Stay:
    """No process runs; look again when a fact changes, or at a time."""

    state: ProcessState
    until: float = float("inf")


@final
@attrs.frozen
class End:
    """There is nothing left to restart."""

    outcome: Outcome


@final
@attrs.frozen
class GiveUp:
    """It failed too often."""

    outcome: Outcome
    problem: str


ProcessDuty: TypeAlias = Run | Stay | End | GiveUp


def process_duty(facts: Facts, now: float, *, alive: bool) -> ProcessDuty:
    """Say what the process has to do: the rules on top of this file.

    Args:
        facts: What is known.
        now: The time in seconds.
        alive: Whether there is a process, executed and not ended.
    """
    trial = facts.trial
    if trial is not None and (trial.failed is not None or (trial.passed and not alive)):
        return Stay(ProcessState.STARTING)
    if facts.over is not None:
        return facts.over
    if facts.stopped:
        return Stay(ProcessState.STOPPED)
    if not facts.active:
        return Stay(ProcessState.INACTIVE)
    if not facts.applied:
        return Stay(ProcessState.WAITING)
    if not facts.looked or facts.switching or facts.stale or (facts.committing and not alive):
        return Stay(ProcessState.STARTING)
    if now < facts.retry_at:
        return Stay(ProcessState.BACKOFF, facts.retry_at)
    return Run()


@final
@attrs.define
class History:
    """The failures that count for backoff and limit."""

    failures: int = 0
    """In a row."""
    restarts: list[float] = attrs.field(factory=list[float])
    """When the last ones were decided, at most as many as the limit allows."""


_HOPELESS = frozenset({errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP})


def _stays_so(error: Exception | None) -> bool:
    """Whether it is a setting, or a name that does not exist or is no program: no try mends it."""
    return isinstance(error, ValueError) or (
        isinstance(error, OSError) and error.errno in _HOPELESS
    )


def after_end(
    facts: Facts,
    history: History,
    policy: RestartPolicy,
    outcome: Outcome,
    now: float,
    random: float,
) -> None:
    """Take note of the end of a process that nobody had stopped.

    Args:
        facts: Changed: `trial`, or `retry_at`, or `over`.
        history: Changed.
        policy: Says what is a success, and what happens next.
        outcome: How it ended.
        now: The time in seconds.
        random: A number from 0 to 1 for the jitter.
    """
    success = (
        outcome.error is None and outcome.status is not None and is_success(policy, outcome.status)
    )
    done = isinstance(policy, Never) or (isinstance(policy, OnFailure) and success)
    trial = facts.trial
    if trial is not None and outcome.ended_at < trial.begun_at:
        trial = None
    undecided = trial is not None and not trial.hopeless and not trial.passed
    if trial is not None and undecided and not (done and success):
        trial.failed = str(outcome.error or outcome.status)
        trial.outcome = outcome
        return
    if trial is not None and done and success:
        trial.passed = True
    never = outcome.cause is Cause.NOT_EXECUTED and not facts.executed
    if done or (never and _stays_so(outcome.error)):
        facts.over = End(outcome)
        return
    assert not isinstance(policy, Never)
    if (limit := policy.limit) is not None:
        while history.restarts and history.restarts[0] <= now - limit.within:
            history.restarts.pop(0)
        if len(history.restarts) >= limit.count:
            facts.over = GiveUp(
                outcome, f"more than {limit.count} restarts within {limit.within:g} s"
            )
            return
        history.restarts.append(now)
    if outcome.ready_for >= policy.backoff.reset_after:
        history.failures = 0
    history.failures += 1
    if facts.mended_at <= outcome.ended_at:
        facts.retry_at = now + policy.backoff.delay(history.failures, random)


# --- the configuration --------------------------------------------------------------------


@final
class ConfigurationDuty(Enum):
    """What the task that applies configurations has to do."""

    NOTHING = "nothing"
    ROLL_BACK = "roll back"
    CONFIRM = "confirm"
    STAGE = "stage"
    RELOAD = "reload"


def _trial_ends(facts: Facts, within: float | None) -> float:
    if facts.trial is None or facts.trial.since is None or within is None:
        return math.inf
    return facts.trial.since + within


def next_verdict(facts: Facts, now: float, within: float | None) -> float:
    """When time will decide the trial; infinity if it has not begun, or its time is over.

    (A hopeless one that is not ready by then does not fail, and has all the time there is.)

    Args:
        facts: What is known.
        now: The time, in seconds, at which it was judged last: what ends later is to come.
        within: `confirm_within`.
    """
    ends = _trial_ends(facts, within)
    return ends if ends > now else math.inf


def judge_trial(facts: Facts, now: float, *, ready: bool, within: float | None) -> None:
    """Let the trial pass or fail when its time is over.

    Args:
        facts: `trial` is changed.
        now: The time in seconds.
        ready: Whether the process runs and is ready.
        within: `confirm_within`.
    """
    trial = facts.trial
    if trial is None or trial.passed or trial.failed is not None:
        return
    if now < _trial_ends(facts, within):
        return
    if ready:
        trial.passed = True
    elif not trial.hopeless:
        trial.failed = f"its process was not ready within {within:g} s"


def configuration_duty(facts: Facts) -> ConfigurationDuty:
    """Say what has to be done about the configuration: the rules on top of this file."""
    trial = facts.trial
    if facts.rollback or (trial is not None and trial.failed is not None):
        return ConfigurationDuty.ROLL_BACK
    if trial is not None and trial.passed:
        return ConfigurationDuty.CONFIRM
    if facts.changed:
        return ConfigurationDuty.STAGE
    return ConfigurationDuty.RELOAD if facts.reload else ConfigurationDuty.NOTHING
