"""What one device returns after a round. Needs numpy only."""

from __future__ import annotations

from dataclasses import dataclass

from edgealloc.models.exchange.dropout import Masks
from edgealloc.models.exchange.wire import State

__all__ = ["Update"]


@dataclass(frozen=True, slots=True)
class Update:
    """What one device returns after a round.

    Parameters
    ----------
    slices
        Its tensors, cut to what it kept (:func:`~edgealloc.models.exchange.dropout.slice_adapter`), by name.
    masks
        What it kept.
    samples
        Its number of samples, > 0.
    """

    slices: State
    masks: Masks
    samples: float
