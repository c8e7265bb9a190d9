"""Where the tests find things: the repository, the public cases and the real data beside it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def _beside(variable: str, name: str) -> Path:
    """A folder named by an environment variable, or else ``../shared/NAME`` beside the checkout."""
    named = os.environ.get(variable)
    return Path(named) if named else ROOT.parent / "shared" / name


CASES = _beside("EDGEALLOC_CASES", "cases")
DATA = _beside("EDGEALLOC_DATA", "data")
FAULTS = _beside("EDGEALLOC_FAULTS", "faults")
