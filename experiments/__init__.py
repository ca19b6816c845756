"""Recipes, runs, reports and the ``featbank`` command: where features meet regressors."""

import os
import sys

# `python -m featbank` puts the current folder first on the module path, where a stranger's `random.py` may lie:
# off it goes, before anything else is imported, unless it is the checkout that holds this package.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and os.path.dirname(__path__[0]) != sys.path[0]:  # noqa: PTH120
    del sys.path[0]
