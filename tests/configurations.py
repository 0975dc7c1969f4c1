"""What the tests of configurations share: archives, trees, deliveries, what a target shows."""

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import attrs

from trio_entrypoint import (
    GenerationConfiguration,
    open_directory_configuration,
    open_file_configuration,
    open_tar_configuration,
)

Tree: TypeAlias = Mapping[str, "str | bytes"]
"""Contents by path; a path that ends in a slash is a directory."""


def archive(files: Tree, mode: str = "w") -> bytes:
    """A tar archive with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for path, contents in files.items():
            member = tarfile.TarInfo(path.rstrip("/"))
            if path.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            else:
                data = contents.encode() if isinstance(contents, str) else contents
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def move_into_place(path: Path, contents: bytes) -> None:
    """Write a file the way a careful writer does."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(contents)
    new.rename(path)


def contents(directory: "str | os.PathLike[str]") -> dict[str, str]:
    """What a reader finds who opens a directory once and reads through it.

    Directories end in a slash; a symlink that leads nowhere is nothing.
    """
    found: dict[str, str] = {}
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)

    def read(descriptor: int, prefix: str) -> None:
        try:
            for name in os.listdir(descriptor):
                if not prefix and name.startswith(".."):
                    continue
                try:
                    status = os.stat(name, dir_fd=descriptor)
                    if stat.S_ISDIR(status.st_mode):
                        found[prefix + name + "/"] = ""
                        read(os.open(name, os.O_RDONLY, dir_fd=descriptor), prefix + name + "/")
                    else:
                        with open(os.open(name, os.O_RDONLY, dir_fd=descriptor), "rb") as file:
                            found[prefix + name] = file.read().decode(errors="surrogateescape")
                except FileNotFoundError:
                    continue
        finally:
            os.close(descriptor)

    read(root, "")
    return found


@attrs.frozen
class Delivery:
    """A kind of configuration, and how its source is delivered."""

    open_configuration: Callable[
        [Path, Path], AbstractAsyncContextManager[GenerationConfiguration]
    ]
    deliver: Callable[[Path, str], object]
    withdraw: Callable[[Path], object] = Path.unlink


def deliver_directory(source: Path, text: str) -> None:
    (source / "d").mkdir(parents=True, exist_ok=True)
    move_into_place(source / "d" / "a", text.encode())


DELIVERIES = {
    "file": Delivery(
        open_file_configuration, lambda source, text: move_into_place(source, text.encode())
    ),
    "tar": Delivery(
        open_tar_configuration,
        lambda source, text: move_into_place(source, archive({"d/a": text})),
    ),
    "directory": Delivery(open_directory_configuration, deliver_directory, shutil.rmtree),
}
