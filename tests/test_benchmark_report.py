"""A benchmark's report says what was reached, what was missed, and what cannot be told."""

import tarfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.archives import changed_count, write_archive
from benchmarks.comparison import Verdict
from benchmarks.contenders.ours import NAME as OURS
from benchmarks.plot import svg
from benchmarks.report import judge, markdown
from benchmarks.results import Cited, Figure, Goal, Limit, Results, Series

STEADY = [10.0, 10.1, 9.9, 10.0, 10.2]


def figure(ours: list[float], theirs: list[float], *goals: Goal | Limit) -> Figure:
    return Figure(
        name="start",
        title="Start",
        unit="ms",
        series=[Series("start", OURS, ours), Series("start", "peer", theirs)],
        goals=goals,
        cited=[Cited("start", "the original", 1.25)],
    )


def results(*figures: Figure) -> Results:
    return Results(machine={}, versions={}, missing=["honcho"], quick=False, figures=figures)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([5.0, 5.1, 4.9, 5.0], Verdict.LOWER),
        ([20.0, 20.1, 19.9, 20.0], Verdict.HIGHER),
        ([5.0, 15.0, 8.0, 12.0], Verdict.UNDECIDED),
    ],
)
def test_a_goal_against_a_peer_is_reached_missed_or_undecided(
    ours: list[float], verdict: Verdict
) -> None:
    assert judge(figure(ours, STEADY), Goal("start", "peer"))[1] is verdict


def test_a_goal_may_allow_a_factor_or_an_addition() -> None:
    ours = [12.0, 12.1, 11.9, 12.0]
    assert judge(figure(ours, STEADY), Goal("start", "peer", factor=2))[1] is Verdict.LOWER
    assert judge(figure(ours, STEADY), Goal("start", "peer", plus=5))[1] is Verdict.LOWER


def test_a_limit_counts_when_three_quarters_of_the_samples_keep_it() -> None:
    assert judge(figure([0.0, 0.0, 0.0], STEADY), Limit("start", 0))[1] is Verdict.LOWER
    assert judge(figure([1.0, 1.0, 1.0], STEADY), Limit("start", 0))[1] is Verdict.HIGHER
    assert judge(figure([0.0, 1.0, 2.0], STEADY), Limit("start", 1))[1] is Verdict.UNDECIDED


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert judge(figure([], STEADY), Goal("start", "peer"))[1] is None
    assert "at most peer: not measured" in markdown(
        results(figure([], STEADY, Goal("start", "peer")))
    )


def test_a_cited_figure_is_beside_the_table_and_in_no_ratio() -> None:
    text = markdown(results(figure(STEADY, STEADY)))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert not any("the original" in line for line in table)
    assert "the original had 1.25 ms as first measured" in text


def test_the_report_names_the_contenders_that_are_missing() -> None:
    assert "not installed, so not measured: honcho" in markdown(results())


def test_the_plot_is_well_formed_and_names_every_contender() -> None:
    drawing = svg(results(figure(STEADY, [1000.0, 1001.0, 1003.0])))
    texts = [text.text for text in ET.fromstring(drawing).iter() if text.text]
    assert {OURS, "peer"} <= set(texts)


def test_an_archive_changes_in_as_many_files_as_asked(tmp_path: Path) -> None:
    for version in "12":
        write_archive(tmp_path / version, files=1000, changed=10, version=version)

    def contents(name: str) -> dict[str, bytes]:
        with tarfile.open(tmp_path / name) as archive:
            return {
                member.name: file.read()
                for member in archive
                if (file := archive.extractfile(member)) is not None
            }

    first, second = contents("1"), contents("2")
    assert len(first) == 1000
    assert first.keys() == second.keys()
    assert sum(first[name] != second[name] for name in first) == changed_count(1000, 1) == 10
    assert first["version"] == b"1"
