"""`python -m tlhub`."""

import sys

from tlhub.cli import main

if __name__ == "__main__":
    sys.exit(main())
