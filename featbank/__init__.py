"""From photographs to frozen features, and from features to scores.

Features: images, views, encoders, datasets, bank, extract, table. What is made of them: recipes, runs, search,
protocols, leaderboard, distill, report, commands. Importing this package loads nothing heavy; import the part you
need, for example ``from featbank.bank import Bank``.
"""

import os
import sys

__version__ = "0.1.0"

# `python -m featbank` puts the current folder first on the module path, where a stranger's `random.py` may lie:
# off it goes, before anything else is imported, unless it is the checkout that holds this package.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and os.path.dirname(__path__[0]) != sys.path[0]:  # noqa: PTH120
    del sys.path[0]
