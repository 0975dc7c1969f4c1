"""What decides whether a staged generation is put in place."""

import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from configurations import archive, contents, move_into_place

from trio_entrypoint import (
    ConfigurationRefusedError,
    UpdateResult,
    ValidateCommand,
    open_custom_configuration,
    open_tar_configuration,
)

NGINX = """
worker_processes 1; pid {path}/pid; error_log stderr;
events {{ }}
http {{ server {{ listen unix:{path}/socket; {more} }} }}
"""


async def test_nginx_refuses_its_broken_configuration_and_goes_on_with_the_old(
    tmp_path: Path,
) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "nginx"
    good = NGINX.format(path=tmp_path, more="")
    source.write_bytes(archive({"nginx.conf": good}))
    validate = ["nginx", "-t", "-c", "{path}/nginx.conf"]
    async with open_tar_configuration(source, target, validate=validate) as configuration:
        assert (await configuration.update()).error is None
        bad = NGINX.format(path=tmp_path, more="no_such_directive on;")
        move_into_place(source, archive({"nginx.conf": bad}))
        async with configuration.stage() as staged:
            assert isinstance(staged.error, ConfigurationRefusedError)
            assert staged.changed == {}
        result = await configuration.update()
        assert isinstance(result.error, ConfigurationRefusedError)
        assert 'unknown directive "no_such_directive"' in result.error.output
        assert "exited with 1" in result.error.reason
        assert contents(target) == {"nginx.conf": good}
        assert os.listdir(tmp_path / ".nginx.generations") == ["1"]


async def test_a_function_refuses_by_raising_or_by_false(tmp_path: Path) -> None:
    source, target = tmp_path / "c.tar", tmp_path / "app"

    async def validate(path: Path) -> bool:
        match contents(path):
            case {"a": "raise"}:
                raise RuntimeError("not this one")
            case {"a": "false"}:
                return False
            case _:
                return True

    async with open_tar_configuration(source, target, validate=validate) as configuration:
        for text, message in [("raise", "not this one"), ("false", "returned False"), ("1", "")]:
            move_into_place(source, archive({"a": text}))
            result = await configuration.update()
            assert str(result.error or "") in (message, f"the validator {message}")
            assert target.exists() == (not message)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["/no/such/program"], "cannot be executed"),
        (["sh", "-c", "kill -9 $$"], "was killed by signal 9"),
        (["sh", "-c", "echo out; echo err >&2; exit 3"], "exited with 3"),
        (["sh", "-c", "sleep 60 & sleep 60"], "took more than 0.3 s"),
    ],
)
async def test_a_command_refuses_by_its_status_or_by_taking_too_long(
    tmp_path: Path, command: list[str], reason: str
) -> None:
    source = tmp_path / "c.tar"
    source.write_bytes(archive({"a": "1"}))
    validate = ValidateCommand(command, timeout=0.3)
    async with open_tar_configuration(source, tmp_path / "app", validate=validate) as config:
        before = time.monotonic()
        result = await config.update()
        assert time.monotonic() - before < 5
        assert isinstance(result.error, ConfigurationRefusedError)
        assert reason in result.error.reason
        if "echo" in command[-1]:
            assert result.error.output == "out\nerr\n"


async def test_a_command_that_prints_without_end_is_drained_and_its_last_words_are_kept(
    tmp_path: Path,
) -> None:
    source = tmp_path / "c.tar"
    source.write_bytes(archive({"a": "1"}))
    validate = ["sh", "-c", "head -c 3000000 /dev/zero; echo the end; exit 1"]
    async with open_tar_configuration(source, tmp_path / "app", validate=validate) as config:
        result = await config.update()
        assert isinstance(result.error, ConfigurationRefusedError)
        assert result.error.output.endswith("the end\n")
        assert len(result.error.output) <= 65536


async def test_a_command_gets_the_path_of_the_generation_and_its_children_do_not_outlive_it(
    tmp_path: Path,
) -> None:
    source = tmp_path / "c.tar"
    source.write_bytes(archive({"a": "1"}))
    script = (
        'test "$(cat {path}/a)" = 1 && test "$TRIO_ENTRYPOINT_GENERATION" = {path} || exit 1; '
    )
    script += f"sleep 77.{os.getpid()} & exit 0"
    async with open_tar_configuration(
        source, tmp_path / "app", validate=["sh", "-c", script]
    ) as configuration:
        with trio.fail_after(5):
            assert (await configuration.update()).error is None
    left = subprocess.run(["pgrep", "-f", f"sleep 77.{os.getpid()}"], capture_output=True)
    assert left.stdout == b""


async def test_cancelling_a_validation_kills_the_command_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    source = tmp_path / "c.tar"
    source.write_bytes(archive({"a": "1"}))
    async with open_tar_configuration(
        source, tmp_path / "app", validate=["sleep", f"78.{os.getpid()}"]
    ) as configuration:
        with trio.move_on_after(0.2):
            await configuration.update()
        left = subprocess.run(["pgrep", "-f", f"sleep 78.{os.getpid()}"], capture_output=True)
        assert left.stdout == b""
        assert os.listdir(tmp_path / ".app.generations") == []


async def test_nothing_that_a_validator_started_outlives_it(tmp_path: Path) -> None:
    """A daemon that it left would hold the generation's files, and the pipe that is read."""
    source, pid = tmp_path / "c.tar", tmp_path / "pid"
    source.write_bytes(archive({"a": "1"}))
    validate = ["sh", "-c", f"setsid sh -c 'echo $$ > \"{pid}\"; exec sleep 1000' & sleep 0.2"]
    with trio.fail_after(20):
        async with open_tar_configuration(
            source, tmp_path / "app", validate=validate
        ) as configuration:
            assert (await configuration.update()).error is None
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


@pytest.mark.parametrize("what", ["validate", "apply"])
async def test_a_function_that_fails_while_it_is_cancelled_is_cancelled(
    tmp_path: Path, what: str
) -> None:
    source, target, begun = tmp_path / "c.tar", tmp_path / "app", trio.Event()
    source.write_bytes(archive({"a": "1"}))

    async def fail_on_the_way_out() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("on the way out")

    async def function(path: Path) -> UpdateResult:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_on_the_way_out)
            begun.set()
            await trio.sleep_forever()
        raise AssertionError("it never ends")

    async with AsyncExitStack() as stack:
        update: Callable[[], Awaitable[object]]
        if what == "validate":
            tar = open_tar_configuration(source, target, validate=function)
            update = (await stack.enter_async_context(tar)).update
        else:
            custom = open_custom_configuration(source, function)
            update = (await stack.enter_async_context(custom)).update
        async with trio.open_nursery() as nursery:
            nursery.start_soon(update)
            await begun.wait()
            nursery.cancel_scope.cancel()
