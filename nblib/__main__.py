"""`python -m nblib` is the command `nblib`."""

import sys

from nblib.cli import main

if __name__ == "__main__":
    sys.exit(main())
