"""The field: trio-entrypoint and its peers, each as a user of it would configure it.

Every contender gets the same command and its own documented, minimal configuration; nothing
is tuned, for anybody. `version` is what the report says was measured.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGTERM
from typing import final

import attrs


@final
@attrs.frozen(kw_only=True)
class Job:
    """What a contender shall run."""

    directory: Path
    """Scratch, for its configuration and sockets."""

    application: Sequence[str]
    copies: int = 1
    activation: Path | None = None
    """Active while this file exists."""

    source: Path | None = None
    """The tar with the configuration..."""
    target: Path | None = None
    """...and where it shall be."""


@final
@attrs.frozen(kw_only=True)
class Contender:
    """One way to run an application."""

    name: str
    package: str
    """What it is installed from, for the report and for the message when it is missing."""

    program: str
    prepare: Callable[[Job], Sequence[str]]
    """Writes the configuration and returns the command that starts the contender."""

    restarts: bool = True
    """Whether it restarts an application that was killed."""

    many: bool = True
    """Whether it can run several applications."""

    shutdown_signal: int = SIGTERM
    """What ends it, with its application."""

    up: Callable[[Job], Sequence[str]] | None = None
    """The command by which an operator starts the stopped application..."""
    down: Callable[[Job], Sequence[str]] | None = None
    """...and stops it: the nearest thing to activation that peers have."""

    activates: bool = False
    """Whether it follows an activation file by itself."""

    configures: bool = False
    """Whether it follows a configuration, too."""

    @property
    def available(self) -> bool:
        """Whether its program is installed."""
        return shutil.which(self.program) is not None


def write(path: Path, text: str, *, executable: bool = False) -> None:
    """Write one file of a contender's configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if executable:
        path.chmod(0o755)
