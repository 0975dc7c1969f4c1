"""Configurations to apply: tar archives with any number of small files."""

import io
import tarfile
from pathlib import Path

SIZE = 200
PER_DIRECTORY = 100


def changed_count(files: int, percent: int) -> int:
    """How many of so many files a change of so many per cent touches, one at least."""
    return max(1, files * percent // 100)


def write_archive(path: Path, *, files: int, changed: int, version: str) -> None:
    """Write a tar of `files` small files, of which the first `changed` are of this version.

    The first one is named `version` and contains the version: the application reads it.
    """
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(files):
            if number == 0:
                name, text = "version", version
            else:
                name = f"{number // PER_DIRECTORY:03}/{number:05}.conf"
                text = f"{number} {version if number < changed else ''}".ljust(SIZE, "#")
            if (number and number % PER_DIRECTORY == 0) or number == 1:
                directory = tarfile.TarInfo(f"{number // PER_DIRECTORY:03}")
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(directory)
            member = tarfile.TarInfo(name)
            contents = text.encode()
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
