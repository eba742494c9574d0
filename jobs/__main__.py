"""`python -m jobs` is the command `captioner`."""

import sys

from jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
