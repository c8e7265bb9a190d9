"""Resource blocks as the checker counts them: in integers, for no double need be n blocks of a third of a band.

The rule is the one of docs/files.md, section *Verifying*; the problem model has its own words for it.
"""

from __future__ import annotations

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray

__all__ = ["blocks_there", "blocks_used"]

_SHARE = 2**50  # a band that lacks no more than this share of itself for one block more has that block


def blocks_there(instance: Instance) -> int:
    """The greatest n with ``n block_hz <= (1 + 2^-50) B``; B and block_hz are exact quotients of integers."""
    assert instance.block_hz is not None
    band, over = float(instance.bandwidth_hz).as_integer_ratio()
    block, under = float(instance.block_hz).as_integer_ratio()
    return band * under * (_SHARE + 1) // (block * over * _SHARE)


def blocks_used(instance: Instance, bandwidth_hz: FloatArray) -> FloatArray:
    """Number of blocks that bandwidths in Hz are, nan where one is not the double nearest to n blocks. [K]."""
    assert instance.block_hz is not None
    count = np.rint(bandwidth_hz / instance.block_hz)
    return np.where(count * instance.block_hz == bandwidth_hz, count, np.nan)
