"""What the documentation says is done by a reader, block by block, in a container's root."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from pages import PROJECT, Block, all_pages, blocks

CONTAINER = PROJECT / "tests/container.sh"
READER = PROJECT / "tests/reader.py"

READERS = 4

DONE = {"sh", "python", "toml"}
COMPARED = {"text"}
SHOWN = {"console", "ini", "nginx", "yaml", "go"}


def pages_with(kinds: set[str]) -> list[Path]:
    return [
        page
        for page in all_pages()
        if any(block.language in kinds or block.file for block in blocks(page))
    ]


def name(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def read(page: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CONTAINER, sys.executable, READER, page],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
    )


Readings = dict[Path, "Future[subprocess.CompletedProcess[str]]"]


@pytest.fixture(scope="session")
def readings(request: pytest.FixtureRequest) -> Iterator[Readings]:
    """Every page that is asked for, read at the same time as others: readers mostly wait."""
    if os.geteuid() != 0:
        pytest.skip("a root file system of one's own needs root")
    pages = [
        Path(str(item.callspec.params["page"]))
        for item in request.session.items
        if isinstance(item, pytest.Function) and "readings" in item.fixturenames
    ]
    with ThreadPoolExecutor(READERS) as readers:
        yield {page: readers.submit(read, page) for page in pages}


@pytest.mark.timeout(330)
@pytest.mark.parametrize("page", pages_with(DONE), ids=name)
def test_a_reader_gets_what_the_page_says(page: Path, readings: Readings) -> None:
    reading = readings[page].result()
    assert reading.returncode == 0, reading.stdout + reading.stderr


@pytest.mark.parametrize("page", all_pages(), ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    unknown: list[Block] = [
        block
        for block in blocks(page)
        if block.file is None and block.language not in DONE | COMPARED | SHOWN
    ]
    assert not unknown, "give it one of the languages in tests/pages.py, or a path as its caption"


@pytest.mark.timeout(330)
def test_a_newcomer_gets_from_the_readme_to_nginx_in_an_empty_root(tmp_path: Path) -> None:
    """With a Python, nginx and a network; no home, no configuration, no package, no cache."""
    if os.geteuid() != 0:
        pytest.skip("a root file system of one's own needs root")
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(PROJECT),
    ]
    subprocess.run(wheel, check=True)
    steps = f"""
        mkdir /dist && cp {tmp_path}/*.whl /dist
        {sys.base_prefix}/bin/python3 -m venv /root/venv
        exec {sys.executable} {READER} {PROJECT}/README.md /root/venv/bin
    """
    started = time.monotonic()
    reading = subprocess.run(
        [CONTAINER, "--empty", "/usr/bin/sh", "-euc", steps],
        cwd=PROJECT,
        env={
            **os.environ,
            "BRING": f"{sys.prefix} {sys.base_prefix} {tmp_path}",
            "PIP_FIND_LINKS": "/dist",
        },
        capture_output=True,
        text=True,
    )
    assert reading.returncode == 0, reading.stdout + reading.stderr
    assert time.monotonic() - started < 300
