"""``python -m edgealloc``: the command line."""

from __future__ import annotations

from edgealloc.cli.app import main

if __name__ == "__main__":
    main(prog_name="edgealloc")
