"""Readers, cancellation, memory: what goes on beside an update is not disturbed by it."""

import gzip
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import trio
from configurations import archive, contents, move_into_place

from trio_entrypoint import SourceError, open_tar_configuration
from trio_entrypoint._files.opening import Layout

THOROUGH = os.environ.get("TRIO_ENTRYPOINT_TESTS") == "thorough"
SNAPSHOTS, SWAPS = (1_000_000, 2000) if THOROUGH else (100_000, 200)
"""At least so many, for each layout."""


@pytest.mark.parametrize("layout", ["symlink", "inside"])
async def test_no_reader_that_opens_the_target_once_ever_sees_a_torn_snapshot(
    tmp_path: Path, layout: Layout
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    files = 10
    shown = target if layout == "symlink" else target / "..data"
    script = Path(__file__).with_name("snapshot_reader.py")
    waiting, enough = os.pipe()
    with open(waiting, "rb") as stdin, open(enough, "wb") as until:
        readers = [
            subprocess.Popen(
                [sys.executable, script, shown, str(files), str(SNAPSHOTS // 2)],
                stdin=stdin,
                stdout=subprocess.PIPE,
            )
            for _ in range(2)
        ]
        try:
            swaps = 0
            async with open_tar_configuration(source, target, layout=layout) as configuration:
                while any(reader.poll() is None for reader in readers):
                    text = f"generation {swaps}"
                    move_into_place(source, archive({f"f{n}": text for n in range(files)}))
                    assert (await configuration.update()).error is None
                    swaps += 1
                    if swaps % 3 == 2:
                        assert (await configuration.rollback()).error is None
                        swaps += 1
                    if swaps >= SWAPS:
                        until.close()
                    await trio.sleep(0.002)
        finally:
            for reader in readers:
                reader.kill()
            outputs = [reader.communicate()[0] for reader in readers]
    taken, torn = (sum(int(output.split()[i]) for output in outputs) for i in (0, 1))
    assert torn == 0, f"{torn} of {taken} snapshots torn"
    assert taken >= SNAPSHOTS
    assert swaps >= SWAPS


async def test_cancelling_an_update_is_prompt_and_leaves_the_old_configuration(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(archive({"a": "old"}))
    async with open_tar_configuration(source, target) as configuration:
        await configuration.update()
        move_into_place(source, archive({f"f{n}": "new" for n in range(20_000)}))
        started = trio.current_time()
        with trio.move_on_after(0.05) as scope:
            await configuration.update()
        cancelled_after = trio.current_time() - started
        assert scope.cancelled_caught
        assert contents(target) == {"a": "old"}
        assert os.listdir(tmp_path / ".app.generations") == ["1"]
        started = trio.current_time()
        assert (await configuration.update()).error is None
        assert cancelled_after < (trio.current_time() - started) / 2


def bomb(path: Path) -> None:
    """A small archive of a file of 200 MiB and another of 10 GiB, all zeros."""
    with gzip.open(path, "wb", compresslevel=1) as file:
        for size in (200 * 1024 * 1024, 10 * 1024**3):
            member = tarfile.TarInfo(f"zeros-{size}")
            member.size = size
            file.write(member.tobuf())
            for _ in range(200):
                file.write(bytes(1024 * 1024))


def test_memory_is_flat_whatever_an_archive_unpacks_to(tmp_path: Path) -> None:
    bomb(tmp_path / "c.tar")
    assert (tmp_path / "c.tar").stat().st_size < 3_000_000
    program = """if True:
        import resource, trio
        from trio_entrypoint import open_tar_configuration
        async def main():
            async with open_tar_configuration("c.tar", "app") as c:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                result = await c.update()
                print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
                print(result.error)
        trio.run(main)
    """
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    kibibytes, error = run.stdout.splitlines()
    assert "more than 268435456 bytes in all" in error
    assert int(kibibytes) < 16 * 1024
    assert not (tmp_path / "app").exists()


async def test_a_bomb_is_refused_with_nothing_left(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"
    source.write_bytes(gzip.compress(archive({"zeros": bytes(2_000_000)})))
    async with open_tar_configuration(source, target, max_size=1_000_000) as configuration:
        result = await configuration.update()
        assert isinstance(result.error, SourceError)
        assert "max_size" in str(result.error)
        assert os.listdir(tmp_path / ".app.generations") == []
