"""Publish what has become known to the online store. `python -m pipelines.materialize --help`."""

import sys

from skewguard.cli import main

if __name__ == "__main__":
    sys.exit(main(["materialize", *sys.argv[1:]]))
