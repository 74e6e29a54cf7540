"""`python -m hpsearch`."""

import sys

if not sys.flags.safe_path:
    # As for the command `hpsearch`, a file in the working folder hides none of Python's modules.
    sys.path.append(sys.path.pop(0))

from hpsearch.cli import main

main()
