"""`python -m trio_entrypoint.cli` is `trio-entrypoint`."""

import sys

from trio_entrypoint.cli import main

sys.argv[0] = "trio-entrypoint"
sys.exit(main())
