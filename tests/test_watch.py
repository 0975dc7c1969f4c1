"""A watch cannot miss a change, whatever way the file got there; and idle is idle."""

import errno
import logging
import os
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from configmap import ConfigMap
from surroundings import overflow_inotify

from trio_entrypoint._linux import dispatch
from trio_entrypoint._linux.inotify import Inotify, Mask
from trio_entrypoint._linux.tree import open_tree_watch
from trio_entrypoint._linux.watch import PathWatch, is_open_for_writing, open_path_watch

SOON = 5.0
"""Seconds after which a report is taken for lost."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "incoming" / "file"
    path.parent.mkdir()
    return path


def move_into_place(path: Path, contents: str) -> None:
    staged = path.with_name(path.name + ".staged")
    staged.write_text(contents)
    staged.rename(path)


def contents_of(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


async def report(watch: PathWatch) -> bool:
    """Wait for the next change; say whether there is a file now."""
    with trio.fail_after(SOON):
        await watch.changed()
    return watch.identity is not None


async def test_a_file_moved_into_place_is_reported(source: Path) -> None:
    async with open_path_watch(source) as watch:
        assert watch.identity is None
        move_into_place(source, "one")
        assert await report(watch)
        move_into_place(source, "two")
        assert await report(watch)
        source.unlink()
        assert not await report(watch)


async def test_a_file_moved_away_is_gone(source: Path) -> None:
    """`mv active active.off`: the Go original leaves two active pods here."""
    source.touch()
    async with open_path_watch(source) as watch:
        assert watch.identity is not None
        source.rename(source.with_name("file.off"))
        assert not await report(watch)


async def test_a_change_between_two_waits_is_not_lost(source: Path) -> None:
    async with open_path_watch(source) as watch:
        with trio.move_on_after(0.01):
            await watch.changed()
        move_into_place(source, "one")
        assert await report(watch)


async def test_only_the_closing_of_a_slowly_written_file_is_reported(source: Path) -> None:
    async with open_path_watch(source) as watch:
        with source.open("w") as file:
            file.write("half")
            file.flush()
            with trio.move_on_after(0.05) as scope:
                await watch.changed()
            assert scope.cancelled_caught
            assert watch.identity is None
            file.write(" and the rest")
        assert await report(watch)
        assert contents_of(source) == "half and the rest"


async def test_a_file_closed_under_another_name_is_reported(source: Path) -> None:
    hidden = source.with_name("hidden")
    async with open_path_watch(source) as watch:
        with hidden.open("w") as file:
            file.write("early")
            file.flush()
            hidden.rename(source)
            source.rename(hidden)
            os.link(hidden, source)
            with trio.move_on_after(0.05) as scope:
                await watch.changed()
            assert scope.cancelled_caught
        assert await report(watch)


async def test_rewriting_with_the_same_size_in_the_same_instant_is_reported(source: Path) -> None:
    source.write_text("one")
    status = source.stat()
    async with open_path_watch(source) as watch:
        source.write_text("two")
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert await report(watch)


async def test_a_changed_mode_is_reported(source: Path) -> None:
    source.touch(mode=0o600)
    async with open_path_watch(source) as watch:
        source.chmod(0o640)
        assert await report(watch)


async def test_a_neighbour_is_not_reported(source: Path) -> None:
    async with open_path_watch(source) as watch:
        move_into_place(source.with_name("neighbour"), "noise")
        move_into_place(source, "one")
        assert await report(watch)
        move_into_place(source.with_name("neighbour"), "noise")
        with trio.move_on_after(0.05) as scope:
            await watch.changed()
        assert scope.cancelled_caught


async def test_parents_that_do_not_exist_yet_are_waited_for(tmp_path: Path) -> None:
    source = tmp_path / "a" / "b" / "c" / "file"
    async with open_path_watch(source) as watch:
        assert watch.identity is None
        source.parent.mkdir(parents=True)
        move_into_place(source, "one")
        assert await report(watch)


async def test_a_directory_that_is_removed_and_comes_back_is_heard_again(source: Path) -> None:
    move_into_place(source, "one")
    async with open_path_watch(source) as watch:
        for round_ in range(5):
            source.unlink()
            source.parent.rmdir()
            assert not await report(watch)
            source.parent.mkdir()
            move_into_place(source, f"again {round_}")
            assert await report(watch)


@pytest.mark.parametrize("level", [1, 2, 3], ids=["parent", "grandparent", "great-grandparent"])
async def test_a_renamed_ancestor_takes_the_file_with_it(tmp_path: Path, level: int) -> None:
    source = tmp_path / "x" / "y" / "z" / "file"
    source.parent.mkdir(parents=True)
    source.touch()
    ancestor = source.parents[level - 1]
    async with open_path_watch(source) as watch:
        ancestor.rename(tmp_path / "elsewhere")
        assert not await report(watch)
        (tmp_path / "elsewhere").rename(ancestor)
        assert await report(watch)


async def test_an_ancestor_that_is_replaced_by_another_is_followed(tmp_path: Path) -> None:
    for name in ("now", "next"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "file").write_text(name)
    async with open_path_watch(tmp_path / "now" / "sub" / "file") as watch:
        (tmp_path / "now").rename(tmp_path / "old")
        (tmp_path / "next").rename(tmp_path / "now")
        assert await report(watch)
        assert contents_of(tmp_path / "now" / "sub" / "file") == "next"
        # And what is watched from now on is the new one.
        move_into_place(tmp_path / "now" / "sub" / "file", "newer")
        assert await report(watch)


async def test_a_configmap_swap_is_reported_though_the_name_never_changes(
    configmap: ConfigMap,
) -> None:
    configmap.write(key="one")
    async with open_path_watch(configmap.directory / "key") as watch:
        for contents in ("two", "three", "four"):
            configmap.write(key=contents)
            assert await report(watch)
            assert contents_of(configmap.directory / "key") == contents


async def test_every_symlink_on_the_way_is_followed(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "hop").symlink_to(tmp_path / "first")
    (tmp_path / "far").symlink_to("hop/../hop")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "file")
    async with open_path_watch(tmp_path / "link") as watch:
        (tmp_path / "new").symlink_to("second")
        (tmp_path / "new").rename(tmp_path / "hop")
        assert await report(watch)
        move_into_place(tmp_path / "second" / "file", "newer")
        assert await report(watch)


async def test_a_symlink_that_leads_nowhere_is_no_file_until_it_leads_somewhere(
    tmp_path: Path,
) -> None:
    (tmp_path / "link").symlink_to("missing/file")
    async with open_path_watch(tmp_path / "link") as watch:
        assert watch.identity is None
        (tmp_path / "missing").mkdir()
        (tmp_path / "missing" / "file").touch()
        assert await report(watch)


async def test_a_loop_of_symlinks_is_an_error_that_may_mend_itself(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    async with open_path_watch(tmp_path / "a" / "file") as watch:
        assert watch.error is not None
        assert "a/file" in str(watch.error)
        (tmp_path / "b").unlink()
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "file").touch()
        assert await report(watch)
        assert watch.error is None


async def test_a_file_in_the_place_of_a_directory_is_an_error_that_may_mend_itself(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").touch()
    async with open_path_watch(tmp_path / "a" / "file") as watch:
        assert isinstance(watch.error, NotADirectoryError)
        (tmp_path / "a").unlink()
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "file").touch()
        with trio.fail_after(SOON):
            while watch.identity is None:
                await watch.changed()
        assert watch.error is None


@pytest.mark.parametrize("written", ["./incoming/file", "incoming//file", "incoming/./x/../file"])
async def test_a_path_may_be_written_in_any_way(
    source: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (source.parent / "x").mkdir()
    monkeypatch.chdir(source.parents[1])
    async with open_path_watch(written) as watch:
        monkeypatch.chdir("/")
        move_into_place(source, "one")
        assert await report(watch)


async def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9/\xff \n"
    async with open_path_watch(path) as watch:
        os.mkdir(os.path.dirname(path))
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        assert await report(watch)


async def test_an_overflow_of_the_queue_loses_nothing(source: Path) -> None:
    async with (
        open_path_watch(source) as watch,
        open_path_watch(source.with_name("other")) as other,
    ):
        overflow_inotify(source.parent)
        move_into_place(source, "one")  # its own event does not fit any more
        move_into_place(source.with_name("other"), "two")
        assert await report(watch)
        assert await report(other)


async def test_thousands_of_renames_end_in_the_newest_state(source: Path) -> None:
    """A writer that is faster than we are: whatever is skipped, the last one is seen."""
    last = 3000

    def write() -> None:
        for number in range(last + 1):
            move_into_place(source, str(number))

    async with open_path_watch(source) as watch, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, write)
        seen = None
        with trio.fail_after(60):
            while seen != str(last):
                await watch.changed()
                seen = contents_of(source)


async def test_any_number_of_watches_share_one_instance(source: Path) -> None:
    def instances() -> int:
        links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
        return sum(
            os.readlink(link) == "anon_inode:inotify" for link in links if os.path.islink(link)
        )

    before = instances()
    async with (
        open_path_watch(source),
        open_path_watch(source),
        open_path_watch(source.parent / "other"),
    ):
        assert instances() == before + 1
    assert instances() == before


async def test_a_watch_does_not_narrow_another_on_the_same_directory(source: Path) -> None:
    source.touch()
    async with open_path_watch(source) as watch, open_path_watch(source, contents=False):
        source.write_text("one")
        assert await report(watch)


async def test_whether_a_file_is_there_does_not_depend_on_who_writes_it(source: Path) -> None:
    """Somebody may hold an activation file open: it is there all the same."""
    async with open_path_watch(source, contents=False) as watch:
        with source.open("w"):
            assert await report(watch)


async def test_whoever_leaves_hands_the_reading_on(source: Path) -> None:
    """The one that reads for all is cancelled, again and again: nobody goes deaf."""
    async with open_path_watch(source) as watch:
        for number in range(20):
            heard = trio.Event()

            async def listen(heard: trio.Event = heard) -> None:
                await watch.changed()
                heard.set()

            async with (
                open_path_watch(source.with_name("other")) as other,
                trio.open_nursery() as nursery,
            ):
                scope = trio.CancelScope()

                async def read(scope: trio.CancelScope = scope, other: PathWatch = other) -> None:
                    with scope:
                        await other.changed()

                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(listen)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                move_into_place(source, str(number))
                with trio.fail_after(SOON):
                    await heard.wait()


async def test_a_reader_chosen_in_the_moment_of_its_cancellation_hands_on(source: Path) -> None:
    async with (
        open_path_watch(source) as watch,
        open_path_watch(source.with_name("b")) as second,
        open_path_watch(source.with_name("a")) as first,
        trio.open_nursery() as nursery,
    ):
        scopes = [trio.CancelScope(), trio.CancelScope()]
        heard = trio.Event()

        async def listen() -> None:
            await watch.changed()
            heard.set()

        async def wait(other: PathWatch, scope: trio.CancelScope) -> None:
            with scope:
                await other.changed()

        nursery.start_soon(wait, first, scopes[0])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, second, scopes[1])
        await trio.testing.wait_all_tasks_blocked()
        for scope in scopes:
            scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        move_into_place(source, "one")
        with trio.fail_after(SOON):
            await heard.wait()


@pytest.fixture
def no_inotify() -> Iterator[None]:
    """A user whose inotify instances are used up, as on a crowded node."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(closing(Inotify()))
            except OSError:
                break
        yield


@pytest.mark.usefixtures("no_inotify")
async def test_without_inotify_it_polls_with_one_warning_and_the_same_answers(
    source: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "POLL_INTERVAL", 0.01)
    with caplog.at_level(logging.WARNING):
        async with open_path_watch(source) as watch, open_tree_watch(source.parent) as tree:
            move_into_place(source, "one")
            assert await report(watch)
            with trio.fail_after(SOON):
                await tree.changed()
            source.unlink()
            assert not await report(watch)
    assert len(caplog.records) == 1
    assert "max_user_instances" in caplog.text


class Waking(trio.abc.Instrument):
    """Counts how often Trio was woken."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += timeout > 0  # else it was awake


@pytest.fixture
def waking() -> Waking:
    return Waking()


async def test_idle_is_idle(source: Path) -> None:
    """In a second in which nobody else did anything in a directory on the way."""
    source.touch()
    for _ in range(5):
        with closing(Inotify()) as witness:
            for directory in source.parents:
                witness.add_watch(bytes(directory), ANYTHING)
            wakings, seconds = await one_second_of_watching(source)
            if not select.select([witness.fd], [], [], 0)[0]:
                assert wakings == 1, "only this test's own deadline"
                assert seconds < 0.01
                return
    pytest.fail("others are never quiet")


ANYTHING = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.ATTRIB


async def one_second_of_watching(source: Path) -> tuple[int, float]:
    """Give how often it woke, and its CPU time in seconds."""
    waking = Waking()
    async with open_path_watch(source) as watch, trio.open_nursery() as nursery:
        nursery.start_soon(watch.changed)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.add_instrument(waking)
        before = resource.getrusage(resource.RUSAGE_THREAD)
        with trio.move_on_after(1):
            await trio.sleep_forever()
        after = resource.getrusage(resource.RUSAGE_THREAD)
        trio.lowlevel.remove_instrument(waking)
        nursery.cancel_scope.cancel()
    return waking.count, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


NOISE = """
import sys, time
begin = time.monotonic()
for number in range(200):
    open(f"{sys.argv[1]} {number}", "w").close()
print(time.monotonic() - begin)
"""


async def test_events_that_concern_nobody_wake_once_for_those_that_come_together(
    source: Path, waking: Waking
) -> None:
    source.touch()
    async with open_path_watch(source) as watch, trio.open_nursery() as nursery:
        changed = trio.Event()

        async def wait() -> None:
            await watch.changed()
            changed.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        command = [sys.executable, "-c", NOISE, str(source.with_name("noise"))]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            trio.lowlevel.add_instrument(waking)
            await trio.lowlevel.wait_readable(writer.stdout)
            trio.lowlevel.remove_instrument(waking)
            seconds = float(writer.stdout.read())
        # Two for each pause: its end, and the first event after it. The rest are the first ones.
        assert waking.count <= dispatch._PATIENCE + 8 + 2 * seconds / dispatch._HOLD_OFF
        assert not changed.is_set()
        move_into_place(source, "news")
        with trio.fail_after(SOON):
            await changed.wait()


async def test_a_file_that_is_made_beside_its_place_is_heard_at_once(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_HOLD_OFF", 3600)
    beside = source.with_name("beside")
    async with open_path_watch(source) as watch:
        with trio.fail_after(SOON):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.changed)
                for step in (
                    beside.touch,
                    partial(beside.write_text, "news"),
                    partial(beside.chmod, 0o600),
                    partial(beside.rename, source),
                ):
                    await trio.testing.wait_all_tasks_blocked()
                    step()


def test_a_file_that_another_process_writes_is_known_as_such(source: Path) -> None:
    source.touch()
    assert not is_open_for_writing(os.fsencode(source))
    program = f"file = open({str(source)!r}, 'a'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert is_open_for_writing(os.fsencode(source))
        writer.communicate(b"\n")
    assert not is_open_for_writing(os.fsencode(source))


# --- whole trees --------------------------------------------------------------------------


async def test_a_change_anywhere_in_a_tree_is_reported(tmp_path: Path) -> None:
    top = tmp_path / "tree"
    async with open_tree_watch(top) as watch:
        assert watch.identity is None
        for step in (
            lambda: top.mkdir(),
            lambda: (top / "a" / "b").mkdir(parents=True),
            lambda: move_into_place(top / "a" / "b" / "file", "one"),
            lambda: (top / "a" / "b" / "file").chmod(0o700),
            lambda: (top / "a" / "b" / "file").write_text("two"),
            lambda: (top / "a").rename(top / "c"),
            lambda: (top / "c" / "b" / "file").unlink(),
            lambda: (top / "c" / "b").rmdir(),
            lambda: top.rename(tmp_path / "gone"),
            lambda: (tmp_path / "gone").rename(top),
        ):
            step()
            with trio.fail_after(SOON):
                await watch.changed()
        assert watch.identity is not None
        assert set(watch.identity) == {b"", b"c"}


async def test_a_mounted_configmap_tells_its_swap_as_a_tree(configmap: ConfigMap) -> None:
    configmap.write(key="one", other="1")
    async with open_tree_watch(configmap.directory) as watch:
        for contents in ("two", "three"):
            configmap.write(key=contents, other="1")
            with trio.fail_after(SOON):
                await watch.changed()


async def test_a_git_sync_checkout_tells_its_swap_as_a_tree(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "worktrees" / name).mkdir(parents=True)
        (tmp_path / "worktrees" / name / "file").write_text(name)
    (tmp_path / "current").symlink_to("worktrees/one")
    async with open_tree_watch(tmp_path / "current") as watch:
        (tmp_path / "next").symlink_to("worktrees/two")
        (tmp_path / "next").rename(tmp_path / "current")
        with trio.fail_after(SOON):
            await watch.changed()
        (tmp_path / "worktrees" / "two" / "file").write_text("newer")
        with trio.fail_after(SOON):
            await watch.changed()


@pytest.mark.parametrize("name", ["slow", "sub/slow"])
async def test_a_file_in_a_tree_is_reported_when_its_writer_closes_it(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "sub").mkdir()
    async with open_tree_watch(tmp_path) as watch:
        with (tmp_path / name).open("w") as file:
            file.write("half")
            file.flush()
            with trio.move_on_after(0.05) as scope:
                await watch.changed()
            assert scope.cancelled_caught
        with trio.fail_after(SOON):
            await watch.changed()


async def test_what_a_link_in_a_tree_leads_to_is_watched(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    outside = tmp_path / "outside"
    outside.write_text("one")
    (tmp_path / "tree" / "link").symlink_to(outside)
    async with open_tree_watch(tmp_path / "tree") as watch:
        move_into_place(outside, "two")
        with trio.fail_after(SOON):
            await watch.changed()


async def test_a_cancelled_look_at_a_tree_loses_nothing(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").mkdir()
    async with open_tree_watch(tmp_path) as watch:
        for number in range(20):
            move_into_place(tmp_path / f"{number}" / "file", "one")
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch.changed)
                    for _ in range(number):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            if watch.identity is None or f"{number}/file".encode() not in watch.identity:
                with trio.fail_after(SOON):
                    await watch.changed()


async def test_a_symlink_that_becomes_a_file_while_it_is_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "path"
    path.symlink_to("elsewhere")
    real = os.readlink

    def readlink(name: bytes) -> bytes:
        if name == os.fsencode(path) and path.is_symlink():
            (tmp_path / "new").write_text("now a file")
            (tmp_path / "new").rename(path)
        return real(name)

    monkeypatch.setattr(os, "readlink", readlink)
    async with open_path_watch(path) as watch:
        assert watch.error is None
        assert watch.identity is not None
        assert watch.identity.size == len("now a file")


async def test_a_symlink_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def readlink(name: bytes) -> bytes:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)

    path = tmp_path / "path"
    path.symlink_to("elsewhere")
    monkeypatch.setattr(os, "readlink", readlink)
    async with open_path_watch(path) as watch:
        assert isinstance(watch.error, OSError)
