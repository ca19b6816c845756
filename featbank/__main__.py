"""``python -m featbank`` is the same as ``featbank``."""

import os
import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; an interruption shows no traceback, also while modules are imported or given up."""
    sys.unraisablehook = _end_if_interrupted
    try:
        from featbank.cli import main as run

        return run(argv)
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end_if_interrupted(unraisable: "sys.UnraisableHookArgs") -> None:
    """End where an interruption met code that cannot pass it on, which would otherwise be ignored."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        os._exit(130)
    sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.exit(main())
