"""What an embedding server does with masks and replies: numpy only, any framework.

Server and client draw the same masks from the plan's ``keep`` and ``mask_seed``, so masks never travel. The
client gets ``slice_adapter(state, masks)``, trains it, and sends it back; the server merges whoever answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgealloc.models.exchange.aggregation import Aggregation, Update, aggregate
from edgealloc.models.exchange.dropout import (
    Masks,
    Method,
    draw_masks,
    full_masks,
    masked,
    scatter_adapter,
    slice_adapter,
)
from edgealloc.models.exchange.wire import AdapterShape, State, WireArray, canonical_state, pack, unpack

__all__ = [
    "AdapterShape",
    "Aggregation",
    "Gathered",
    "Masks",
    "Update",
    "canonical_state",
    "full_masks",
    "gather",
    "masked",
    "masks_for",
    "pack",
    "scatter_adapter",
    "slice_adapter",
    "unpack",
]


def masks_for(shape: AdapterShape, keep: float, mask_seed: int, method: Method = "exact") -> Masks:
    """A device's masks for a round, from its settings in the plan; equal on server and client.

    Parameters
    ----------
    shape
        The adapter's inventory (``AdapterShape.from_state``), the same on both sides.
    keep, mask_seed
        As the plan says.
    method
        See :func:`edgealloc.models.exchange.dropout.draw_masks`; ``exact`` never sends more than was planned for.

    Returns
    -------
    Masks
        What the device keeps.

    Raises
    ------
    ValueError
        For a keep rate outside [0, 1] or an unknown method.
    """
    return draw_masks(shape, keep, np.random.default_rng(mask_seed), method)


@dataclass(frozen=True, slots=True)
class Gathered:
    """The server's new adapter and whose answers made it.

    Parameters
    ----------
    state
        Merged adapter, full size (A [rank, n_in], B [n_out, rank]); the previous one where nobody answered.
    base_residual
        Per layer, dW [n_out, n_in] to be added to the base weight
        (:class:`edgealloc.models.exchange.aggregation.Merged`).
    weights
        Weight of every device that counts, summing to one; empty where nobody answered.
    rejected
        Devices whose reply was not used, each with the reason.
    """

    state: dict[str, WireArray]
    base_residual: dict[str, WireArray]
    weights: dict[str, float]
    rejected: dict[str, str]


def gather(
    previous: State,
    replies: Mapping[str, Update],
    rule: Aggregation | None = None,
    *,
    sends_a: bool = True,
) -> Gathered:
    """Merge the replies that came; a reply that is broken is left out by name and never poisons the rest.

    Parameters
    ----------
    previous
        The server's adapter before the round, full size, PEFT's spelling.
    replies
        Slices, masks and samples by device id. The order does not matter: devices are merged by id.
    rule
        How to merge; :class:`~edgealloc.models.exchange.aggregation.Aggregation` by default.
    sends_a
        False where A is frozen and not sent (FFA-LoRA).

    Returns
    -------
    Gathered
        The merged adapter, and which devices it is made of.
    """
    rule = rule or Aggregation()
    expected = {name for name in previous if sends_a or ".lora_A." not in name}
    rejected = {}
    good: dict[str, Update] = {}
    for device in sorted(replies):
        why = _fault_of(previous, expected, replies[device])
        if why:
            rejected[device] = why
        else:
            good[device] = replies[device]
    merged = aggregate(previous, list(good.values()), rule)
    raw = np.array([u.samples if rule.weighting == "samples" else 1.0 for u in good.values()])
    shares = (raw / raw.sum()).tolist() if good else []
    return Gathered(merged.state, merged.base_residual, dict(zip(good, shares, strict=True)), rejected)


def _fault_of(previous: State, expected: set[str], update: Update) -> str:
    """Why a reply cannot be used; empty if it can."""
    if not (np.isfinite(update.samples) and update.samples > 0):
        return f"samples is {update.samples!r}, must be a finite number > 0"
    missing, unknown = sorted(expected - set(update.slices)), sorted(set(update.slices) - expected)
    if missing or unknown:
        return f"tensors missing: {missing}; not known: {unknown}"
    for name, piece in update.slices.items():
        shape = list(np.shape(previous[name]))
        found = update.masks.of(name)
        if found is not None:
            axis, kept = found
            if len(kept) != shape[axis]:
                return f"{name}: the mask has {len(kept)} entries, the adapter {shape[axis]}"
            shape[axis] = int(np.sum(kept))
        if list(np.shape(piece)) != shape:
            return f"{name}: shape {list(np.shape(piece))}, the masks make it {shape}"
        if not np.all(np.isfinite(piece)):
            bad = int(np.sum(~np.isfinite(piece)))
            return f"{name}: {bad} of {np.size(piece)} numbers are not finite"
    return ""
