"""`python -m megdet.cli`, where the command `megdet` is not installed."""

import sys

from megdet.cli import main

sys.exit(main())
