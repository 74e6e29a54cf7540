"""`python -m hpsearch`."""

import sys

if not sys.flags.safe_path:
    # As with the command `hpsearch`, files in the working folder do not shadow Python's modules.
    sys.path.append(sys.path.pop(0))

from hpsearch.cli import main

main()
