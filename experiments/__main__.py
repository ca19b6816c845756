"""``python -m experiments`` is the same as ``featbank``."""

import sys

from experiments.cli import main

sys.exit(main())
