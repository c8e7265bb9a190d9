"""Rounds before anybody is grouped: every device trains the whole adapter for itself, from the common start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.models.exchange.aggregation import Aggregation, Update, aggregate
from edgealloc.models.exchange.dropout import full_masks, round_generator, scatter_adapter, slice_adapter
from edgealloc.models.exchange.wire import AdapterShape, State, WireArray, pack
from edgealloc.models.training.client import CLUSTER_SEEDS, FederatedOptions, device_round
from edgealloc.models.training.federated import LARGEST_LOSS
from edgealloc.models.training.task import Task

__all__ = ["WarmedUp", "mean_start", "warm_up"]


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """What devices know after the warm-up.

    Parameters
    ----------
    states
        The adapter of each device, full size, by name: A [rank, n_in], B [n_out, rank], and the head.
    upload_bits
        What each sends once, at the end. Of length K.
    unsettled
        Devices whose training went out of bounds: they stand where they last were in bounds.
    """

    states: tuple[dict[str, WireArray], ...]
    upload_bits: tuple[int, ...]
    unsettled: tuple[int, ...]


def warm_up(task: Task, shape: AdapterShape, rounds: int, options: FederatedOptions) -> WarmedUp:
    """Train every device for itself.

    Parameters
    ----------
    task, shape
        What is learned, and the adapter's inventory.
    rounds
        How many rounds, each as long as one of the federation, without dropout; 0: the devices stand at the start.
    options
        How; the seed of the warm-up is drawn from theirs.

    Returns
    -------
    WarmedUp
        Adapters as they arrive at the server. The model is left with one of them.
    """
    seed = int(round_generator(options.seed, CLUSTER_SEEDS, 0).integers(2**31))
    own = replace(options, seed=seed, scaling="none")
    states, bits, unsettled = [], [], []
    for k in range(len(task.devices)):
        state = {name: np.array(value) for name, value in task.initial.items()}
        for number in range(rounds):
            new = _trained(task, shape, state, k, number, own)
            if new is None:
                unsettled.append(k)
                break
            state = new
        states.append(state)
        sent = slice_adapter(state, full_masks(shape), sends_a=shape.sends_a)
        bits.append(8 * len(pack(sent, shape.wire_dtype)) if rounds else 0)
    return WarmedUp(tuple(states), tuple(bits), tuple(unsettled))


def _trained(
    task: Task, shape: AdapterShape, state: State, k: int, number: int, options: FederatedOptions
) -> dict[str, WireArray] | None:
    """One device's adapter after one more round; None where it went out of bounds."""
    try:
        update, loss, _ = device_round(task, shape, state, k, number, 1.0, options)
    except OverflowError:
        return None
    new = {**state, **scatter_adapter(update.slices, update.masks)}
    whole = loss <= LARGEST_LOSS and all(np.all(np.isfinite(value)) for value in new.values())
    return new if whole else None


def mean_start(
    task: Task, shape: AdapterShape, states: Sequence[State], members: Sequence[int], rule: Aggregation
) -> dict[str, WireArray]:
    """The start of a cluster's expert: the mean of what its devices learned, head included.

    Parameters
    ----------
    task, shape
        What is learned, and the adapter's inventory.
    states
        The adapter of each device after the warm-up, full size, by name.
    members
        The cluster's devices.
    rule
        Of it only the weights count.

    Returns
    -------
    dict of str to array
        Full size, by name.
    """
    masks = full_masks(shape)
    updates = [
        Update(slice_adapter(states[k], masks, sends_a=shape.sends_a), masks, float(len(task.devices[k])))
        for k in members
    ]
    return aggregate(task.initial, updates, Aggregation(weighting=rule.weighting)).state
