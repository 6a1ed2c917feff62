"""``python -m fencepost``: the same command line as the program ``fencepost``."""

import os
import signal
import sys
from pathlib import Path

from fencepost import _C


def main() -> int:
    """Run the command that the arguments name; return its exit code."""
    # What ``fencepost watch`` loads into a program. Wheels for Linux have it.
    library = Path(__file__).with_name("lib") / "libfencepost_watch.so"
    if library.exists():
        os.environ.setdefault("FENCEPOST_WATCH_LIBRARY", str(library))
    # Python's own handler would run after the command only.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _C._run(["fencepost", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
