"""``python -m ofa``: the same as the console command ``ofa``."""

import sys

from ofa.cli.main import main

sys.exit(main())
