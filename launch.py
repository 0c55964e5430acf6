"""The door: `python launch.py batch=64 bn_size=32`. All of it is in megdet/launch.py; `--help` says more."""

import sys

from megdet.launch import main

if __name__ == "__main__":
    sys.exit(main())
