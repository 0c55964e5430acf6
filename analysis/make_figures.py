"""The door: `python analysis/make_figures.py --help`. All of it is in megdet/analysis/make_figures.py."""

import sys

from megdet.analysis.make_figures import main

if __name__ == "__main__":
    sys.exit(main())
