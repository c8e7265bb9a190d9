"""``python -m edgealloc``, and the command ``edgealloc``: the command line, also while it is still loading."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C while its modules are imported ends it with a word and no traceback."""
    try:
        from edgealloc.cli.app import main as commands
    except KeyboardInterrupt:
        sys.exit("Aborted!")
    commands(prog_name="edgealloc")


if __name__ == "__main__":
    main()
