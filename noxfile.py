"""Everything that a developer runs: `nox` for all that CI runs, `nox -s NAME` for one."""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests", "docs"]

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
def soak(session: nox.Session) -> None:
    """Hold elections for a quarter of an hour: thousands, among processes and simulated."""
    install(session, "test")
    session.run(
        "pytest",
        "--timeout=1000",
        "-s",
        "tests/test_activation_etcd.py",
        "tests/test_activation_simulated.py",
        env={"ELECTIONS": "5000", "ELECTIONS_SECONDS": "300", "SIMULATIONS": "200"},
    )


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
def docs(session: nox.Session) -> None:
    """Build the documentation into docs/_build; a warning is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-j", "2", "docs", "docs/_build")


@nox.session
def types(session: nox.Session) -> None:
    """Check types strictly, and that the public interface is completely typed."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "trio_entrypoint")


@nox.session
def demo(session: nox.Session) -> None:
    """Take the tour: a web server under an entrypoint, and what happens to it."""
    session.install("-q", "-e", ".")
    session.run("python", "examples/demo.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure beside the peers; arguments: `--quick`, figures (see benchmarks/README.md)."""
    programs = {"tini": "tini", "dumb-init": "dumb-init", "s6-svscan": "s6", "runsvdir": "runit"}
    missing = [package for program, package in programs.items() if shutil.which(program) is None]
    if missing:
        session.run("apt-get", "update", "-qq", external=True)
        session.run("apt-get", "install", "-qq", "-y", *missing, external=True)
    # As users install it: an editable installation would add to the start-up time.
    session.install("-q", ".")
    peers = Path(session.virtualenv.location).with_name("bench-peers")
    if not peers.exists():
        session.run("python", "-m", "venv", str(peers))
    packages = nox.project.dependency_groups(PROJECT, "peers")
    session.run(str(peers / "bin" / "pip"), "install", "-q", *packages, external=True)
    session.run("python", "-m", "benchmarks", "--peers", str(peers / "bin"), *session.posargs)


@nox.session
def manual(session: nox.Session) -> None:
    """Write the manual page anew from the command's own tables."""
    install(session)
    session.run("python", "man/generate.py")
