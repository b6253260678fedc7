"""Start the server."""

import sys

from skewguard.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
