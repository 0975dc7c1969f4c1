"""A regression by a factor is seen in CI: a quick benchmark run, judged by wide ratios.

References are measured in the same run on the same machine: the application without any
entrypoint (`none`), an interpreter that imports Trio, and `tar -xf`. What is judged is our best
sample against the median of a reference: a regression slows all samples down, other tests that
run at the same time only some. Figures to publish come
from `nox -s bench`.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

Samples: TypeAlias = dict[tuple[str, str, str], list[float]]

ROOT = Path(__file__).parent.parent
FIGURES = ("start", "restart", "stop", "activation", "reconfiguration", "imports")
OURS, NOTHING = "trio-entrypoint", "none"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    output = tmp_path_factory.mktemp("results")
    options = ["--quick", "--only", f"{OURS},{NOTHING}", "--output", str(output)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, *FIGURES],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    results = json.loads((output / "results.json").read_text())
    assert results["missing"] == []
    assert "<svg" in (output / "results.svg").read_text()
    return {
        (figure["name"], series["case"], series["contender"]): series["samples"]
        for figure in results["figures"]
        for series in figure["series"]
    }


@pytest.fixture(scope="module")
def spawning(samples: Samples) -> float:
    """Milliseconds that starting the application takes without any entrypoint."""
    return statistics.median(samples["start", "start", NOTHING])


def test_the_application_starts_sooner_than_trio_can_be_imported(samples: Samples) -> None:
    importing = statistics.median(samples["imports", "`import trio`", "Python"])
    assert min(samples["start", "start", OURS]) < importing


def test_a_killed_application_is_started_again_at_once(samples: Samples, spawning: float) -> None:
    assert min(samples["restart", "restart", OURS]) < 25 * spawning


def test_a_stop_takes_little_longer_than_the_application(
    samples: Samples, spawning: float
) -> None:
    application = statistics.median(samples["stop", "stop", NOTHING])
    assert min(samples["stop", "stop", OURS]) < application + 100 * spawning


@pytest.mark.parametrize("case", ["activation", "deactivation"])
def test_activation_takes_effect_at_once(samples: Samples, spawning: float, case: str) -> None:
    assert min(samples["activation", case, OURS]) < 25 * spawning


@pytest.mark.parametrize(
    "case", ["1 file, 100 %", "10 files, 100 %", "100 files, 100 %", "100 files, 1 %"]
)
def test_a_configuration_is_applied_within_a_few_times_what_tar_takes(
    samples: Samples, case: str
) -> None:
    ours = min(samples["reconfiguration", case, OURS])
    reference = statistics.median(samples["reconfiguration", case, "tar -xf, sync -f"])
    assert ours < 10 * reference
