"""`python -m physai`: the command line."""

import sys

from physai.cli import main

sys.exit(main())
