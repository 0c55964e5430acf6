"""The door: `python analysis/make_report.py --help`. All of it is in megdet/analysis/make_report.py."""

import sys

from megdet.analysis.make_report import main

if __name__ == "__main__":
    sys.exit(main())
