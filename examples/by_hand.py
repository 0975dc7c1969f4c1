#!/usr/bin/env python3
r"""The supervisor's main job, written by hand on the bare handlers: start here for your own logic.

The application runs while it is active and configured. A new configuration is prepared while
the application still runs, and put in place between the old process and the new one; one that
is broken changes nothing.

    python examples/by_hand.py --active /tmp/pod/active \
        --tar /tmp/pod/config.tar --target /tmp/pod/etc -- sleep 1000

`active_backup.py` does the same with the supervisor, and shows how to try it.
"""

import argparse
from functools import partial

import trio
from trio_util import AsyncBool, wait_any

import trio_entrypoint
from trio_entrypoint import (
    ActivationHandler,
    ConfigurationChanged,
    ConfigurationDeleted,
    ConfigurationFailed,
    ConfigurationHandler,
    UpdateResult,
    open_file_activation,
    open_process,
    open_tar_configuration,
)


async def main(active: str, tar: str, target: str, command: list[str]) -> None:
    """Run the command while `active` exists, with what `tar` brought to `target`."""
    is_active, has_news = AsyncBool(False), AsyncBool(False)
    async with (
        open_file_activation(active) as activation,
        open_tar_configuration(tar, target) as configuration,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(follow_activation, activation, is_active)
        nursery.start_soon(follow_configuration, configuration, has_news)
        while True:
            # After each run the states are looked at anew: what happened meanwhile counts.
            await is_active.wait_value(True)
            if configuration.applied and not has_news.value:
                await run(configuration, is_active, has_news, command)
            else:
                await has_news.wait_value(True)
                has_news.value = False
                report(await configuration.update())


async def run(
    configuration: ConfigurationHandler[UpdateResult],
    is_active: AsyncBool,
    has_news: AsyncBool,
    command: list[str],
) -> None:
    """Run the application until it ends, is to be a backup, or gets a valid configuration."""
    with configuration.pin() as generation:
        async with open_process(command, extra_env=generation) as process:
            print(f"started as pid {process.pid}")
            while process.status is None and is_active.value:
                await wait_any(
                    process.wait,
                    partial(is_active.wait_value, False),
                    partial(has_news.wait_value, True),
                )
                if has_news.value:
                    has_news.value = False
                    async with configuration.stage() as staged:
                        if staged.error is None:
                            await process.stop()
                        report(await staged.commit())
        print(f"ended with {process.status}")


async def follow_activation(activation: ActivationHandler, is_active: AsyncBool) -> None:
    """Keep the state that the events tell."""
    async for event in activation.events:
        print("active" if event.active else "backup")
        is_active.value = event.active


async def follow_configuration(
    configuration: ConfigurationHandler[UpdateResult], has_news: AsyncBool
) -> None:
    """Remember that there is something to apply."""
    async for event in configuration.events:
        match event:
            case ConfigurationChanged():
                has_news.value = True
            case ConfigurationDeleted():
                print("no configuration there; what is applied stays")
            case ConfigurationFailed(error=error):
                print(f"the configuration cannot be read: {error}")


def report(result: UpdateResult) -> None:
    """Say what an update did."""
    if result.error is not None:
        print(f"configuration refused: {result.error}")
    for path, modification in result.changed.items():
        print(f"configuration: {path} {modification.value}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--active", required=True, help="run the application while this exists")
    parser.add_argument("--tar", required=True, help="where new configurations are moved to")
    parser.add_argument("--target", required=True, help="the directory that they are applied to")
    parser.add_argument("command", nargs="+", help="the application")
    trio_entrypoint.run(partial(main, **vars(parser.parse_args())))
