#!/usr/bin/env python3
r"""An active and a backup pod: the application runs where the activation file is.

The configuration comes as a tar that somebody moves into place; a new one restarts the
application, between the old process and the new. Try it in two terminals:

    python examples/active_backup.py --active /tmp/pod/active \
        --tar /tmp/pod/config.tar --target /tmp/pod/etc -- sh -c 'cat $PWD/*; exec sleep 1000'

    mkdir -p /tmp/pod && cd /tmp/pod && echo 'colour = red' > app.conf
    tar -cf config.tmp app.conf && mv config.tmp config.tar   # the configuration is there
    touch active                                              # active: the application starts
    echo 'colour = blue' > app.conf
    tar -cf config.tmp app.conf && mv config.tmp config.tar   # it restarts with the new one
    rm active                                                 # a backup again: it stops
"""

import argparse
import logging
from functools import partial

import trio_entrypoint
from trio_entrypoint import (
    ExitStatus,
    Supervisor,
    open_file_activation,
    open_process,
    open_tar_configuration,
)


async def main(active: str, tar: str, target: str, command: list[str]) -> ExitStatus:
    """Run the command while `active` exists, with what `tar` brought to `target`."""
    async with (
        open_file_activation(active) as activation,
        open_tar_configuration(tar, target) as configuration,
    ):
        return await Supervisor(
            partial(open_process, command, cwd=target),
            activation=activation,
            configuration=configuration,
        ).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--active", required=True, help="run the application while this exists")
    parser.add_argument("--tar", required=True, help="where new configurations are moved to")
    parser.add_argument("--target", required=True, help="the directory that they are applied to")
    parser.add_argument("command", nargs="+", help="the application, started in that directory")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    trio_entrypoint.run(partial(main, **vars(arguments)))
