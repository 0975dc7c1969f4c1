"""What the documentation says is done by a reader, block by block, in a container's root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PROJECT, Block, all_pages, blocks

CONTAINER = PROJECT / "tests/container.sh"
READER = PROJECT / "tests/reader.py"

DONE = {"sh", "python", "toml"}
COMPARED = {"text", "json"}
SHOWN = {"ini", "nginx", "yaml", "go"}


def pages_with(kinds: set[str]) -> list[Path]:
    return [
        page
        for page in all_pages()
        if any(block.language in kinds or block.file for block in blocks(page))
    ]


def name(page: Path) -> str:
    return str(page.relative_to(PROJECT))


HAS_COMMAND = (PROJECT / "trio_entrypoint/cli/running.py").exists()


@pytest.mark.parametrize("page", pages_with(DONE) if HAS_COMMAND else [], ids=name)
def test_a_reader_gets_what_the_page_says(page: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a root file system of one's own needs root")
    read = subprocess.run(
        [CONTAINER, sys.executable, READER, page],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert read.returncode == 0, read.stdout + read.stderr


@pytest.mark.parametrize("page", all_pages(), ids=name)
def test_every_block_says_what_it_is(page: Path) -> None:
    unknown: list[Block] = [
        block
        for block in blocks(page)
        if block.file is None and block.language not in DONE | COMPARED | SHOWN
    ]
    assert not unknown, "give it one of the languages in tests/pages.py, or a path as its caption"
