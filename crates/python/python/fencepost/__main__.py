"""``python -m fencepost``: the same command line as the program ``fencepost``."""

import signal
import sys

from fencepost import _C


def main() -> int:
    """Run the command that the arguments name; return its exit code."""
    # Python's own handler would run after the command only.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _C._run(["fencepost", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
