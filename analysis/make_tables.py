"""The door: `python analysis/make_tables.py --help`. All of it is in megdet/analysis/make_tables.py."""

import sys

from megdet.analysis.make_tables import main
from megdet.errors import outlive_closed_pipes

if __name__ == "__main__":
    outlive_closed_pipes()
    sys.exit(main())
