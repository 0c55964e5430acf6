"""The door: `python analysis/make_figures.py --help`. All of it is in megdet/analysis/make_figures.py."""

import sys

from megdet.analysis.make_figures import main
from megdet.errors import outlive_closed_pipes

if __name__ == "__main__":
    outlive_closed_pipes()
    sys.exit(main())
