"""Everything that a developer runs: `nox` for all that CI runs, `nox -s NAME` for one."""

from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")


def install(session: nox.Session, *groups: str) -> None:
    """Install the project, editable, with the packages of some dependency groups."""
    session.install("-q", "-e", ".", *nox.project.dependency_groups(PROJECT, *groups))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; arguments go to pytest."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, docstrings and the asynchronous pitfalls."""
    session.install("-q", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    # Ruff knows only a part of these rules.
    sources = [
        str(path) for top in ("trio_entrypoint", "examples") for path in Path(top).rglob("*.py")
    ]
    session.run("flake8-async", "--enable=ASYNC", *sources)


@nox.session
def types(session: nox.Session) -> None:
    """Check types strictly, and that the public interface is completely typed."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "trio_entrypoint")
