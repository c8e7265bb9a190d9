"""What an embedding server does with masks and replies: numpy only, any framework.

Server and client draw the same masks from the plan's ``keep`` and ``mask_seed``, so masks never travel. The
client gets ``slice_adapter(state, masks)``, trains it, and sends it back; the server merges whoever answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgealloc.errors import InputError
from edgealloc.models.exchange.aggregation import Aggregation, Merged, aggregate, weights_of
from edgealloc.models.exchange.contaminated import is_whole, screen
from edgealloc.models.exchange.dropout import (
    Masks,
    Method,
    draw_masks,
    full_masks,
    masked,
    scatter_adapter,
    slice_adapter,
)
from edgealloc.models.exchange.faults import (
    LARGEST_CHANGE,
    BadReplyError,
    change_of,
    check_server,
    medians_of_others,
    read_reply,
    root_mean_square,
)
from edgealloc.models.exchange.update import Update
from edgealloc.models.exchange.wire import AdapterShape, State, WireArray, canonical_state, pack, unpack

__all__ = [
    "LARGEST_CHANGE",
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


def masks_for(
    shape: AdapterShape, keep: float, mask_seed: int, method: Method = "exact", rank: int | None = None
) -> Masks:
    """A device's masks for a round, from its settings in the plan; equal on server and client.

    Parameters
    ----------
    shape
        The adapter's inventory (``AdapterShape.from_state``), the same on both sides.
    keep, mask_seed
        As the plan says.
    method
        See :func:`edgealloc.models.exchange.dropout.draw_masks`; ``exact`` never sends more than was planned for.
    rank
        Of the device, where the plan chose one (:func:`edgealloc.models.exchange.ranks.rank_of_label`).

    Returns
    -------
    Masks
        What the device keeps.

    Raises
    ------
    ValueError
        For a keep rate outside [0, 1], an unknown method or a rank below 1.
    """
    return draw_masks(shape, keep, np.random.default_rng(mask_seed), method, rank)


@dataclass(frozen=True, slots=True)
class Gathered:
    """The server's new adapter and whose answers made it.

    Parameters
    ----------
    state
        Merged adapter, full size (A [rank, n_in], B [n_out, rank]), finite; the previous one if nobody answered.
    base_residual
        Per layer, dW [n_out, n_in] to be added to the base weight
        (:class:`edgealloc.models.exchange.aggregation.Merged`).
    weights
        Weight of every device that counts, summing to one; empty where nobody answered.
    rejected
        Devices whose reply was not used, each with the reason.
    noted
        Devices whose reply was used although it claims another number of samples than the plan has, with both.
    """

    state: dict[str, WireArray]
    base_residual: dict[str, WireArray]
    weights: dict[str, float]
    rejected: dict[str, str]
    noted: dict[str, str] = field(default_factory=dict)


def gather(
    previous: State,
    replies: Mapping[str, Update],
    rule: Aggregation | None = None,
    *,
    sends_a: bool = True,
    samples: Mapping[str, float] | None = None,
    masks: Mapping[str, Masks] | None = None,
    largest_change: float = LARGEST_CHANGE,
) -> Gathered:
    """Merge the replies that came; a reply that is broken is left out by name and never poisons the rest.

    Nothing that a reply may be raises. With a ``robust`` rule a round without dropout is screened too; where the
    server has not drawn masks, that is a round in which most replies are whole, and those with holes are left out.
    What it does not protect from is in docs/embedding.md, *Replies that lie*.

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
    samples
        The plan's sample counts by device (:attr:`edgealloc.rounds.plan.Plan.samples`), which weigh the replies;
        what a reply claims is then only noted where it differs. A device without a count was not asked and is
        rejected. None: claims up to 1e9 are believed.
    masks
        What the server drew, by device; a reply of other masks is rejected, as is a device without. None: the
        replies' own are believed.
    largest_change
        A reply is rejected whose change, as a root mean square over its entries, exceeds both this many times that
        of the adapter itself and this many times the median change of the others. Infinite: no such bound.

    Returns
    -------
    Gathered
        The merged adapter, and which devices it is made of.

    Raises
    ------
    InputError
        For a fault of the server's own: an adapter that is not finite floating point, counts that are none, a
        rule that does not go with the masks that it drew or with an A that is frozen.
    ValueError
        For a bound that is not a number > 0.
    """
    if not largest_change > 0.0:
        raise ValueError(f"largest_change {largest_change!r}: must be a number > 0")
    check_server(previous, samples)
    rule = rule or Aggregation()
    sparse = any(drawn.entries for drawn in (masks or {}).values())
    if faults := rule.misfits(sends_a=sends_a, masks="entries" if sparse else "exact"):
        raise InputError("gather", faults)
    misfit = rule.misfits(sends_a=sends_a, masks="entries")
    good: dict[str, Update] = {}
    rejected, noted = dict[str, str](), dict[str, str]()
    for device in sorted(replies, key=str):
        if any(known is not None and device not in known for known in (samples, masks)):
            rejected[device] = "it was not asked in this round"
            continue
        drawn, count = (
            None if masks is None else masks[device],
            None if samples is None else float(samples[device]),
        )
        try:
            update = read_reply(previous, replies[device], sends_a=sends_a, masks=drawn, counted=count is not None)
        except BadReplyError as error:
            rejected[device] = str(error)
            continue
        if update.masks.entries and misfit:
            rejected[device] = f"single entries of B: {'; '.join(map(str, misfit))}"
            continue
        if count is not None and update.samples != count:
            noted[device] = f"claims {update.samples:g} samples, counted with the plan's {count:g}"
            update = replace(update, samples=count)
        good[device] = update
    moved = {device: change_of(previous, update) for device, update in good.items()}
    usual = root_mean_square(previous.values())
    for (device, change), others in zip(moved.items(), medians_of_others(list(moved.values())), strict=True):
        limit = largest_change * max(usual, others)
        if change > limit > 0.0:
            rejected[device] = f"it changes the adapter by {change:.3g} (root mean square), at most {limit:.3g}"
            del good[device]
    holed = [device for device, update in good.items() if not is_whole(update)] if rule.robust != "none" else []
    if masks is None and 2 * len(holed) < len(good):
        for device in holed:
            rejected[device] = "it has holes where most others have none, and cannot be screened"
            del good[device]
        holed = []
    if rule.robust != "none" and not holed:
        found = screen(previous, list(good.values()))
        for device, why in zip(list(good), found.reasons, strict=True):
            if why:
                rejected[device] = why
                del good[device]
        rule = replace(rule, robust="none")
    while (merged := _merged(previous, good, rule)) is None:
        device = max(good, key=moved.__getitem__)
        rejected[device] = "merged with the others it makes numbers that are not finite"
        del good[device]
    shares = weights_of(previous, list(good.values()), rule).tolist() if good else []
    weights = dict(zip(good, shares, strict=True))
    used = {device: why for device, why in noted.items() if device in weights}
    return Gathered(merged.state, merged.base_residual, weights, dict(sorted(rejected.items())), used)


def _merged(previous: State, good: Mapping[str, Update], rule: Aggregation) -> Merged | None:
    """The merge; None if it is not finite, which it always is of nobody."""
    try:
        with np.errstate(all="ignore"):
            merged = aggregate(previous, list(good.values()), rule)
    except (ArithmeticError, np.linalg.LinAlgError):
        return None
    arrays = [*merged.state.values(), *merged.base_residual.values()]
    return merged if all(np.all(np.isfinite(array)) for array in arrays) else None
