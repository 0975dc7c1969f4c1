"""What no system call takes is refused by the name of the argument, before anything is done."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_entrypoint import (
    Command,
    DirectorySource,
    Environment,
    EtcdAuth,
    FileProbe,
    FileSource,
    LogFile,
    TarSource,
    Tls,
    ValidateCommand,
    open_custom_configuration,
    open_directory_configuration,
    open_etcd_configuration,
    open_file_activation,
    open_file_configuration,
    open_kubernetes_activation,
    open_merged_configuration,
    open_process,
    open_tar_configuration,
    run,
)
from trio_entrypoint.cli.checking import check
from trio_entrypoint.cli.loading import load
from trio_entrypoint.cli.mistakes import UsageError
from trio_entrypoint.cli.settings import Settings

NUL = "/a\0b"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"command": ["true", NUL]}, "command"),
        ({"cwd": NUL}, "cwd"),
        ({"cwd": NUL.encode()}, "cwd"),
        ({"stdin": Path(NUL)}, "stdin"),
        ({"env": {"A\0": ""}}, "env"),
        ({"env": {"A=B": ""}}, "env"),
        ({"env": {"A": "\0"}}, "env"),
        ({"extra_env": {"A\0": ""}}, "extra_env"),
        ({"extra_env": {"A=B": ""}}, "extra_env"),
        ({"extra_env": {"A": "\0"}}, "extra_env"),
        ({"user": "a\0b"}, "user"),
        ({"user": 0, "group": "a\0b"}, "group"),
        ({"user": 0, "extra_groups": ["a\0b"]}, "extra_groups"),
    ],
)
def test_a_process_is_not_even_opened(arguments: Mapping[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: .*(\\x00|A=B)"):
        open_process(**{"command": ["true"], **arguments})


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (partial(Environment, inherit=["A=B"]), "inherit"),
        (partial(Environment, files=[NUL]), "files"),
        (partial(Environment, set={"A=B": ""}), "set"),
        (partial(Environment, set={"A\0": ""}), "set"),
        (partial(Environment, set={"A": "\0"}), "set"),
        (partial(Environment, remove=["A\0"]), "remove"),
        (partial(LogFile, NUL), "path"),
        (partial(Command, ["true", NUL]), "command"),
        (partial(ValidateCommand, ["true", NUL]), "command"),
        (partial(FileProbe, NUL), "path"),
        (partial(Tls, ca=NUL), "ca"),
        (partial(Tls, certificate=NUL), "certificate"),
        (partial(Tls, certificate="a", key=NUL), "key"),
        (partial(EtcdAuth, "user", NUL), "password_file"),
        (partial(TarSource, NUL), "path"),
        (partial(DirectorySource, NUL), "path"),
        (partial(FileSource, NUL, "name"), "path"),
        (partial(FileSource, "/path", "na\0me"), "name"),
        (partial(run, trio.sleep_forever, termination_message=NUL), "termination_message"),
    ],
)
def test_a_value_is_not_even_made(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: .*(\\x00|A=B)"):
        make()


ETCD = ["http://127.0.0.1:1"]


@pytest.mark.parametrize(
    ("opening", "field"),
    [
        (lambda: open_file_activation(NUL), "path"),
        (lambda: open_kubernetes_activation("a", "b", kubeconfig=NUL), "kubeconfig"),
        (lambda: open_file_configuration(NUL, "/target"), "source"),
        (lambda: open_file_configuration("/source", NUL), "target"),
        (lambda: open_tar_configuration(NUL, "/target"), "source"),
        (lambda: open_tar_configuration("/source", NUL), "target"),
        (lambda: open_directory_configuration(NUL, "/target"), "source"),
        (lambda: open_directory_configuration("/source", NUL), "target"),
        (lambda: open_merged_configuration([TarSource("/source")], NUL), "target"),
        (lambda: open_etcd_configuration(ETCD, "/prefix", NUL), "target"),
        (lambda: open_custom_configuration(NUL, lambda _: None), "source"),  # type: ignore[arg-type, return-value]
    ],
)
async def test_a_handler_does_not_open(
    opening: Callable[[], AbstractAsyncContextManager[object]], field: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: .*\\x00"):
        async with opening():
            raise AssertionError


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (r'cwd = "/a\u0000b"', "service.app.cwd: "),
        (r'activation = { file = "/a\u0000b" }', "service.app.activation.file: "),
        (r'env.set = { "A\u0000" = "" }', "service.app.env.set"),
        (r'env.set = { A = "\u0000" }', "service.app.env.set.A: "),
        (r'env.set = { "A=B" = "" }', "service.app.env.set: .*A=B"),
        (r'env.remove = ["A=B"]', "service.app.env.remove: .*A=B"),
        (r'hooks.before_start = [["true", "\u0000"]]', r"service.app.hooks.before_start"),
    ],
)
def test_a_file_is_refused_and_the_line_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "entrypoint.toml"
    file.write_text(f'[service.app]\ncommand = ["true"]\n{line}\n')
    with pytest.raises(UsageError, match=rf":3: {message}"):
        check(Settings, *load(str(file)))
