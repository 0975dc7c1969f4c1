"""A regression by a factor is seen in CI: a quick benchmark run, judged by wide ratios.

References are measured in the same run on the same machine: the application without any
entrypoint (`none`), an interpreter that imports Trio, and `tar -xf`. Figures to publish come
from `nox -s bench`.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

Medians: TypeAlias = dict[tuple[str, str, str], float]

ROOT = Path(__file__).parent.parent
FIGURES = ("start", "restart", "stop", "activation", "reconfiguration", "imports")
OURS, NOTHING = "trio-entrypoint", "none"


@pytest.fixture(scope="module")
def medians(tmp_path_factory: pytest.TempPathFactory) -> Medians:
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
        (figure["name"], series["case"], series["contender"]): statistics.median(series["samples"])
        for figure in results["figures"]
        for series in figure["series"]
    }


@pytest.fixture(scope="module")
def spawning(medians: Medians) -> float:
    """Milliseconds that starting the application takes without any entrypoint."""
    return medians["start", "start", NOTHING]


def test_the_application_starts_sooner_than_trio_can_be_imported(medians: Medians) -> None:
    importing = medians["imports", "`import trio`", "Python"]
    assert medians["start", "start", OURS] < importing


def test_a_killed_application_is_started_again_at_once(medians: Medians, spawning: float) -> None:
    assert medians["restart", "restart", OURS] < 25 * spawning


def test_a_stop_takes_little_longer_than_the_application(
    medians: Medians, spawning: float
) -> None:
    assert medians["stop", "stop", OURS] < medians["stop", "stop", NOTHING] + 100 * spawning


@pytest.mark.parametrize("case", ["activation", "deactivation"])
def test_activation_takes_effect_at_once(medians: Medians, spawning: float, case: str) -> None:
    assert medians["activation", case, OURS] < 25 * spawning


@pytest.mark.parametrize(
    "case", ["1 file, 100 %", "10 files, 100 %", "100 files, 100 %", "100 files, 1 %"]
)
def test_a_configuration_is_applied_within_a_few_times_what_tar_takes(
    medians: Medians, case: str
) -> None:
    measured = {who: medians["reconfiguration", case, who] for who in (OURS, "tar -xf, sync -f")}
    assert measured[OURS] < 10 * measured["tar -xf, sync -f"]
