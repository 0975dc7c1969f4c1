"""What pages show of the code without being made of it: drawings, tables, docstrings' examples."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import get_args

import pytest
from pages import DOCS, PROJECT

import trio_entrypoint
from trio_entrypoint import ProcessState, testing
from trio_entrypoint.cli.pages import Pages
from trio_entrypoint.cli.protocol import COMMANDS, ErrorCode


def test_every_state_is_drawn_and_explained() -> None:
    states = {state.value for state in ProcessState}
    drawing = (DOCS / "explanation/states.svg").read_text()
    drawn = set(re.findall(r"<text x=[^>]*>([^<]+)</text>", drawing))
    assert drawn == states
    table = re.findall(r"^\| ([a-z ]+) \|", (DOCS / "explanation/states.md").read_text(), re.M)
    assert states <= set(table)


def test_the_control_protocol_is_told_completely() -> None:
    page = (DOCS / "reference/control.md").read_text()
    told = set(re.findall(r"`([a-z-]+)`", page))
    assert set(COMMANDS) <= told
    assert set(get_args(ErrorCode)) <= told


def test_every_path_over_http_is_told() -> None:
    paths = set(re.findall(r'case "(/[a-z]*)"', inspect.getsource(Pages.answer)))
    assert paths
    told = set(re.findall(r"^\| `(/[a-z]*)`", (DOCS / "reference/http.md").read_text(), re.M))
    assert told == paths


MEASURED = {
    "exec to a plain application's main": "start",
    "application killed to the next one's main": "restart",
    "2,000 new files, from the archive to the restarted application's main (tar: only unpacked)": (
        "2000 files, 100 %"
    ),
    "idle for 10 s": "idle, wake-ups",
    "memory (PSS)": "idle, PSS",
}


def test_the_figures_of_the_readme_are_those_of_the_benchmarks_report() -> None:
    report = (DOCS / "benchmarks/RESULTS.md").read_text()
    medians = {
        (case, contender): figure
        for case, contender, figure in re.findall(
            r"^\| ([^|]+) \| ([^|]+) \| ([\d.,]+) \|", report, re.M
        )
    }
    _, _, table = (
        (PROJECT / "README.md").read_text().partition("| | trio-entrypoint | beside it |")
    )
    rows = [row.strip("|").split("|") for row in table.strip().splitlines()[1:]]
    assert [row[0].strip() for row in rows] == list(MEASURED)
    for what, ours, others in rows:
        told = f"trio-entrypoint {ours.strip()}, {others.strip()}"
        for contender, figure in re.findall(r"([a-z][a-z -]*\w) ([\d.,]*\d)", told):
            measured = medians[MEASURED[what.strip()], contender]
            assert float(figure.replace(",", "")) == float(measured.replace(",", "")), contender


def test_every_public_name_is_in_the_reference() -> None:
    reference = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    missing = [
        name
        for name in trio_entrypoint.__all__
        if not re.search(rf"^\.\. auto.*\.{name}$", reference, re.M)
    ]
    assert not missing


def examples() -> Iterator[tuple[str, str]]:
    """Each example in a public docstring: whose, and its code."""
    for module in (trio_entrypoint, testing):
        for name in module.__all__:
            value = getattr(module, name)
            members = vars(value).items() if inspect.isclass(value) else ()
            for owner, obj in [(name, value), *((f"{name}.{key}", each) for key, each in members)]:
                doc = inspect.getdoc(obj) if callable(obj) else None
                for text in re.findall(r"^Example::\n\n((?:(?: {4}.*)?\n?)+)", doc or "", re.M):
                    yield owner, textwrap.dedent(text)


@pytest.mark.parametrize(("owner", "code"), list(dict(examples()).items()), ids=dict(examples()))
def test_an_example_in_a_docstring_is_python_by_names_that_exist(owner: str, code: str) -> None:
    tree = compile(
        code, owner, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            continue
        value = getattr(trio_entrypoint, call.func.id, getattr(testing, call.func.id, None))
        if value is not None:
            keywords = {keyword.arg: ... for keyword in call.keywords if keyword.arg}
            inspect.signature(value).bind_partial(*call.args, **keywords)
