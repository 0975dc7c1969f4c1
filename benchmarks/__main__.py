"""`python -m benchmarks [FIGURE…]`: measure, and write results.json, RESULTS.md, results.svg."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.application import build_application
from benchmarks.contenders.field import FIELD
from benchmarks.contenders.ours import NAME as OURS
from benchmarks.figures import FIGURES
from benchmarks.machine import describe_machine, versions
from benchmarks.plot import svg
from benchmarks.processes import adopt_orphans
from benchmarks.report import markdown
from benchmarks.results import Results
from benchmarks.stage import Stage


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("figures", nargs="*", help=f"of: {', '.join(FIGURES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="few samples, small sizes")
    parser.add_argument("--only", help="contenders, separated by commas; default: all")
    parser.add_argument("--peers", type=Path, help="bin directory of the peers from PyPI")
    # Not in /tmp: whoever watches a path hears of what others make in the directories above.
    # Nor on a disk: ext4 takes seconds to make thousands of files soon after as many were removed.
    parser.add_argument(
        "--scratch", type=Path, default=Path("/dev/shm"), help="where configurations are applied"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results"), help="directory to write to"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - set(FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    names = {contender.name for contender in FIELD}
    if unknown := set((arguments.only or OURS).split(",")) - names:
        parser.error(f"no such contender: {', '.join(sorted(unknown))}")
    return arguments


def main() -> None:
    """Measure what was asked for."""
    arguments = _arguments()
    path = [os.path.dirname(sys.executable), os.environ["PATH"]]
    if arguments.peers:
        path.insert(1, str(arguments.peers))
    os.environ["PATH"] = os.pathsep.join(path)
    os.environ.pop("PYTHONPATH", None)
    chosen = arguments.only.split(",") if arguments.only else [one.name for one in FIELD]
    field = [contender for contender in FIELD if contender.name in chosen]
    adopt_orphans()
    with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="bench") as scratch:
        stage = Stage(
            directory=Path(scratch),
            application=build_application(Path(scratch)),
            contenders=[contender for contender in field if contender.available],
            quick=arguments.quick,
        )
        figures = []
        for name in arguments.figures or FIGURES:
            stage.say(name)
            figures.append(FIGURES[name](stage))
        peers = str(arguments.peers / "python") if arguments.peers else sys.executable
        pythons = dict.fromkeys(("supervisor", "circus", "honcho"), peers)
        results = Results(
            machine=describe_machine(stage.directory),
            versions=versions(
                stage.contenders, {**pythons, OURS: sys.executable, "trio": sys.executable}
            ),
            missing=[contender.name for contender in field if not contender.available],
            quick=arguments.quick,
            figures=figures,
        )
    arguments.output.mkdir(parents=True, exist_ok=True)
    results.write_json(arguments.output / "results.json")
    text = markdown(results)
    (arguments.output / "RESULTS.md").write_text(text)
    (arguments.output / "results.svg").write_text(svg(results))
    print(text)


main()
