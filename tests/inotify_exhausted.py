"""Asks handlers the same with inotify and without: `unshare --user … python inotify_exhausted.py`.

A program of its own, because the limits are lowered for the user namespace that it runs in, and
for nobody else: `inotify_exhausted.py LIMIT DIRECTORY`, LIMIT being the name of a file in
/proc/sys/user. For each kind of configuration it prints the one warning that there has to
be, and it fails if the answers differ.
"""

import logging
import sys
from pathlib import Path

import trio
from configurations import DELIVERIES, Delivery

from trio_entrypoint import ConfigurationChanged, ConfigurationDeleted, ConfigurationEvent
from trio_entrypoint._linux import dispatch


async def answers(delivery: Delivery, directory: Path) -> list[object]:
    """Everything that a handler tells of a source that comes, changes, goes and comes back."""
    directory.mkdir()
    source, told = directory / "source", list[object]()

    async def tell(event: ConfigurationEvent) -> None:
        with trio.fail_after(10):
            while (received := await configuration.events.receive()) != event:
                assert received == ConfigurationChanged()  # the last step's, once more
        result = await configuration.update()
        told.append((received, type(result.error), result.changed, result.size))

    async with delivery.open_configuration(source, directory / "target") as configuration:
        await tell(ConfigurationDeleted())
        for text in ("1", "longer", "longest of all"):
            delivery.deliver(source, text)
            await tell(ConfigurationChanged())
        delivery.withdraw(source)
        await tell(ConfigurationDeleted())
        delivery.deliver(source, "again")
        await tell(ConfigurationChanged())
    return told


class Warnings(logging.Handler):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def main(limit: str, directory: Path) -> None:
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    expected = {
        kind: trio.run(answers, delivery, directory / f"{kind} with")
        for kind, delivery in DELIVERIES.items()
    }
    assert not warnings.messages
    Path("/proc/sys/user", limit).write_text("0")
    dispatch.POLL_INTERVAL = 0.01
    for kind, delivery in DELIVERIES.items():
        assert trio.run(answers, delivery, directory / f"{kind} without") == expected[kind]
        (message,) = warnings.messages
        sys.stdout.write(f"{kind}: {message}\n")
        warnings.messages.clear()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
