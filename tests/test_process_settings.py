"""What a user sets on a process arrives in it; what cannot be set is named, and leaves nothing."""

import grp
import os
import pwd
import resource
import threading
from pathlib import Path
from typing import Any

import programs
import pytest

from trio_entrypoint import Environment, ExitStatus, SettingError, open_process
from trio_entrypoint._linux.procfs import children

NOBODY = pwd.getpwnam("nobody")


async def printed_by(script: str, **arguments: Any) -> list[str]:
    async with programs.started(["sh", "-c", f"{script}; echo ready"], **arguments) as watched:
        return watched.output.decode().splitlines()[:-1]


async def test_the_working_directory(tmp_path: Path) -> None:
    assert await printed_by("pwd", cwd=tmp_path) == [str(tmp_path)]


async def test_a_relative_command_counts_from_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "command").write_text("#!/bin/sh\necho ready\n")
    (tmp_path / "command").chmod(0o755)
    async with programs.started(["./command"], cwd=tmp_path):
        pass


@pytest.mark.parametrize("path", [".", ":/bin", "/bin:sub/.."])
async def test_a_relative_working_directory_counts_from_ours_and_relative_commands_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "there/sub").mkdir(parents=True)
    for directory, word in ((tmp_path, "wrong"), (tmp_path / "there", "ready")):
        (directory / "command").write_text(f"#!/bin/sh\necho {word}\n")
        (directory / "command").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    async with programs.started(["./command"], cwd="there") as watched:
        assert watched.output == b"ready\n"
    async with programs.started(["command"], cwd="there", env={"PATH": path}) as watched:
        assert watched.output == b"ready\n"


async def test_the_user_with_groups_and_home() -> None:
    lines = await printed_by("id -u; id -g; id -G; echo $HOME $USER $LOGNAME", user="nobody")
    groups = os.getgrouplist("nobody", NOBODY.pw_gid)
    assert lines == [
        str(NOBODY.pw_uid),
        str(NOBODY.pw_gid),
        " ".join(map(str, groups)),
        f"{NOBODY.pw_dir} nobody nobody",
    ]


async def test_user_group_and_supplementary_groups_by_number() -> None:
    lines = await printed_by(
        "id -u; id -g; id -G; echo $HOME", user=12345, group="54321", extra_groups=["daemon", 777]
    )
    assert lines == ["12345", "54321", f"54321 {grp.getgrnam('daemon').gr_gid} 777", "/"]


async def test_a_home_that_was_given_is_kept() -> None:
    environment = Environment(set={"HOME": "/given"})
    assert await printed_by("echo $HOME", user="nobody", env=environment) == ["/given"]


async def test_a_home_that_was_removed_is_not_there() -> None:
    environment = Environment(remove=["HOME"])
    assert await printed_by("echo ${HOME-none}", user="nobody", env=environment) == ["none"]


async def test_a_user_cannot_get_privileges_back() -> None:
    lines = await printed_by("grep -E '^(Uid|Gid|CapEff|CapPrm)' /proc/self/status", user="nobody")
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    assert [line.split()[1:] for line in lines] == [
        [str(uid)] * 4,
        [str(gid)] * 4,
        ["0" * 16],
        ["0" * 16],
    ]


async def test_umask_niceness_oom_score_and_no_new_privileges() -> None:
    lines = await printed_by(
        "umask; cat /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat; "
        "grep NoNewPrivs /proc/self/status",
        umask=0o027,
        oom_score_adj=123,
        nice=5,
        no_new_privileges=True,
    )
    assert lines == ["0027", "123", "5", "NoNewPrivs:\t1"]


async def test_resource_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lines = await printed_by(
        "ulimit -Sn; ulimit -Hn; ulimit -Sc", limits={"nofile": (100, hard), "core": 0}
    )
    assert lines == ["100", str(hard), "0"]


async def test_signals_and_descriptors_are_clean_with_settings_too(tmp_path: Path) -> None:
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        lines = await printed_by(
            "ls /proc/self/fd; grep -E '^Sig(Blk|Ign)' /proc/self/status", cwd=tmp_path
        )
    finally:
        os.close(inherited)
    *descriptors, blocked, ignored = lines
    assert descriptors == ["0", "1", "2", "3"]  # 3 is the listing's own
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & ~(0b11 << 31) == 0


async def test_the_environment_arrives_byte_by_byte_with_settings_too(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe=\n")
    async with programs.started(
        ["/bin/sh", "-c", "env -0; echo ready"], env={"ODD": odd}, cwd=tmp_path
    ) as watched:
        variables = watched.output.split(b"\0")
    assert b"ODD=\xff\xfe=\n" in variables
    assert not any(variable.startswith(b"LC_CTYPE") for variable in variables)


async def test_environment_files_and_selection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHERITED", "1")
    monkeypatch.setenv("NOT_INHERITED", "1")
    file = tmp_path / "app.env"
    file.write_text("# a comment\n\nFILE = with 'quotes' \nSET=overridden\nREMOVED=1\n")
    environment = Environment(
        inherit=["PATH", "INHERITED"], files=[str(file)], set={"SET": "2"}, remove=["REMOVED"]
    )
    lines = await printed_by("env", env=environment)
    assert {"INHERITED=1", "FILE= with 'quotes' ", "SET=2"} <= set(lines)
    assert not any(line.startswith(("NOT_INHERITED=", "REMOVED=")) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"user": "no-such-user"}, ValueError, "user: .*no-such-user"),
        ({"group": "no-such-group"}, ValueError, "group: .*no-such-group"),
        ({"extra_groups": ["no-such-group"]}, ValueError, "extra_groups: .*no-such-group"),
        ({"user": 4242}, ValueError, "group: .*4242"),
        ({"user": -1, "group": 1}, ValueError, "user: .*-1"),
        ({"user": 2**32 - 1, "group": 1}, ValueError, "user: .*4294967295"),
        ({"user": "4294967295", "group": 1}, ValueError, "user: .*4294967295"),
        ({"user": 2**32, "group": 1}, ValueError, "user: .*4294967296"),
        ({"user": 1, "group": -1, "extra_groups": []}, ValueError, "group: .*-1"),
        ({"user": 1, "group": 2**64}, ValueError, "group: "),
        ({"user": 1, "group": "4294967295"}, ValueError, "group: "),
        ({"user": 1, "extra_groups": [2**32 - 1]}, ValueError, "extra_groups: .*4294967295"),
        ({"cwd": "/no/such/directory"}, FileNotFoundError, "cwd: .*'/no/such/directory'"),
        ({"cwd": "/etc/passwd"}, NotADirectoryError, "cwd: .*'/etc/passwd'"),
        ({"umask": 0o1000}, ValueError, "umask"),
        ({"nice": 20}, ValueError, "nice"),
        ({"oom_score_adj": -1001}, ValueError, "oom_score_adj"),
        ({"limits": {"files": 1}}, ValueError, "limits: .*'files'.*nofile"),
        ({"limits": {"nofile": (2, 1)}}, ValueError, r"limits\.nofile: .*2.*1"),
        ({"limits": {"nofile": -5}}, ValueError, r"limits\.nofile"),
        ({"limits": {"nofile": "unlimited"}}, SettingError, r"limits\.nofile: "),
        ({"env": Environment(files=["/no/such/file"])}, FileNotFoundError, "/no/such/file"),
        ({"env": Environment(files=["/etc/passwd"])}, ValueError, "/etc/passwd, line 1"),
        ({"stdin": Path("/no/such/file")}, FileNotFoundError, "/no/such/file"),
        ({"command": ["/no/such/file"], "cwd": "/"}, FileNotFoundError, "/no/such/file"),
    ],
)
async def test_what_cannot_be_set_is_named_and_leaves_nothing(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = os.listdir("/proc/self/fd"), children(os.getpid())
    with pytest.raises(error, match=message):
        async with open_process(**({"command": ["true"]} | arguments)):
            raise AssertionError
    assert (os.listdir("/proc/self/fd"), children(os.getpid())) == before


async def test_standard_input_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "input").write_text("from the file\n")
    assert await printed_by("cat", stdin=tmp_path / "input") == ["from the file"]


async def test_a_fifo_as_standard_input_blocks_nobody_while_it_has_no_writer(
    tmp_path: Path,
) -> None:
    fifo = tmp_path / "input"
    os.mkfifo(fifo)
    late = threading.Timer(5, lambda: os.close(os.open(fifo, os.O_RDWR)))
    late.start()
    try:
        async with open_process(["cat"], stdin=fifo) as process:
            assert await process.wait() == ExitStatus(code=0)
        assert late.is_alive(), "the whole program was blocked"
    finally:
        late.cancel()


async def test_a_fifo_as_standard_input_is_waited_for_by_the_process(tmp_path: Path) -> None:
    fifo = tmp_path / "input"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)
    try:
        async with programs.started(["sh", "-c", "echo ready; head -n 1"], stdin=fifo) as watched:
            os.write(writer, b"a line\n")
            assert await watched.process.wait() == ExitStatus(code=0)
    finally:
        os.close(writer)


async def test_a_fifo_as_an_environment_file_is_refused_and_blocks_nobody(tmp_path: Path) -> None:
    fifo = tmp_path / "app.env"
    os.mkfifo(fifo)
    late = threading.Timer(5, lambda: os.close(os.open(fifo, os.O_RDWR)))
    late.start()
    try:
        with pytest.raises(OSError, match=f"not a FIFO: '{fifo}'"):
            async with open_process(["true"], env=Environment(files=[str(fifo)])):
                raise AssertionError
        assert late.is_alive(), "the whole program was blocked"
    finally:
        late.cancel()
