"""`python -m captioner.jobs` is the command `captioner`."""

import sys

from captioner.jobs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
