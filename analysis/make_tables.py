"""The door: `python analysis/make_tables.py --help`. All of it is in megdet/analysis/make_tables.py."""

import sys

from megdet.analysis.make_tables import main

if __name__ == "__main__":
    sys.exit(main())
