"""What a run found, as data: figures, their series of samples, the goals, the machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import final

import attrs

from benchmarks.contenders.ours import NAME as OURS


@final
@attrs.frozen
class Series:
    """The samples of one contender in one case."""

    case: str
    contender: str
    samples: Sequence[float] = attrs.field(converter=tuple[float, ...])


@final
@attrs.frozen
class Goal:
    """What was set out to be reached: at most `factor` times, or `plus` more than, a reference.

    A reference is a contender of the same run, in `reference_case` when that is another one.
    """

    case: str
    reference: str
    factor: float = 1.0
    plus: float = 0.0
    reference_case: str = ""


@final
@attrs.frozen
class Limit:
    """A goal that is a number: at most `value` of the figure's unit."""

    case: str
    value: float
    contender: str = OURS


@final
@attrs.frozen
class Cited:
    """A figure of something that cannot be run here, as first measured on such a machine.

    It stands beside the results and takes no part in any ratio.
    """

    case: str
    name: str
    value: float


@final
@attrs.frozen(kw_only=True)
class Figure:
    """One thing that was measured, for everybody, in one run."""

    name: str
    title: str
    unit: str
    """Empty when it differs, and so is part of each case's name."""
    series: Sequence[Series]
    goals: Sequence[Goal | Limit] = ()
    cited: Sequence[Cited] = ()
    notes: Sequence[str] = ()

    @property
    def cases(self) -> list[str]:
        """The cases in their order."""
        return list(dict.fromkeys(series.case for series in self.series))

    def samples(self, case: str, contender: str) -> Sequence[float] | None:
        """The samples of one contender in one case, if there are any."""
        for series in self.series:
            if (series.case, series.contender) == (case, contender):
                return series.samples
        return None


@final
@attrs.frozen(kw_only=True)
class Results:
    """Everything that a run found."""

    machine: dict[str, str]
    versions: dict[str, str]
    missing: Sequence[str]
    quick: bool
    figures: Sequence[Figure]

    def write_json(self, path: Path) -> None:
        """Write all samples, so that others can draw conclusions of their own."""
        path.write_text(json.dumps(attrs.asdict(self), indent=1) + "\n")
