"""Bind mounts as sources: what is written through the mount, or behind its back, arrives.

As containers get their configuration: a directory of the host, or a single file of it, mounted
by itself. Each test runs in a mount namespace of its own.
"""

from pathlib import Path

import pytest
from surroundings import TESTS, in_mount_namespace

PROGRAM = f"""
import sys
sys.path.insert(0, "{TESTS}")
from pathlib import Path
import trio
from configurations import archive, contents, move_into_place
from trio_entrypoint import (
    ConfigurationChanged, open_directory_configuration, open_file_configuration,
    open_tar_configuration,
)

def rewrite(path, data):
    path.write_bytes(data)

def shown(target):
    if target.is_dir():
        return set(contents(target).values()) - {{""}}
    return {{target.read_text()}} if target.exists() else None

async def check(open_configuration, source, paths, writes=(move_into_place, rewrite), pack=None):
    target = Path("managed")
    async with open_configuration(source, target) as configuration:
        await configuration.update()
        for number, (path, write) in enumerate([(p, w) for p in paths for w in writes]):
            while configuration.events.statistics().current_buffer_used:
                configuration.events.receive_nowait()
            text = f"text {{number}}"
            write(Path(path), pack(text) if pack else text.encode())
            with trio.fail_after(10):
                while shown(target) != {{text}}:
                    assert await configuration.events.receive() == ConfigurationChanged(), path
                    result = await configuration.update()

def tar(text):
    return archive({{"a": text, "d/b": text}})
"""

SETUP = "mkdir -p real/sub bound; echo old > real/sub/file; mount --bind real bound"


@pytest.mark.parametrize(
    ("setup", "check"),
    [
        (SETUP, 'open_file_configuration, "bound/f", ["bound/f", "real/f"]'),
        (SETUP, 'open_tar_configuration, "bound/sub/f", ["bound/sub/f", "real/sub/f"], pack=tar'),
        (SETUP, 'open_directory_configuration, "bound", ["bound/sub/file", "real/sub/file"]'),
        (
            "mkdir real; echo old > real/f; touch bound; mount --bind real/f bound",
            'open_file_configuration, "bound", ["bound", "real/f"], [rewrite]',
        ),
        (
            "mkdir real bound; echo old > real/f; touch bound/f; mount --bind real/f bound/f",
            'open_tar_configuration, "bound/f", ["bound/f", "real/f"], [rewrite], tar',
        ),
        (
            "mkdir -p real in/d; echo old > real/f; touch in/d/f; mount --bind real/f in/d/f",
            'open_directory_configuration, "in", ["in/d/f", "real/f"], [rewrite]',
        ),
    ],
    ids=[
        "file-in-a-directory",
        "tar-in-a-directory",
        "directory",
        "single-file",
        "single-tar",
        "single-file-in-a-directory",
    ],
)
def test_a_change_arrives_by_a_bind_mount_and_by_the_original_path(
    tmp_path: Path, setup: str, check: str
) -> None:
    in_mount_namespace(
        tmp_path, setup, f"{PROGRAM}\nasync def main():\n    await check({check})\ntrio.run(main)"
    )
