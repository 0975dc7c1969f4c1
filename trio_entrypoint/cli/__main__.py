"""`python -m trio_entrypoint.cli` is `trio-entrypoint`."""

import sys

from trio_entrypoint.cli import program

sys.argv[0] = "trio-entrypoint"
program()
