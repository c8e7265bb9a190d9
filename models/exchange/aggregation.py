"""How the server merges sub-adapters: fill rules, weights, and corrections for the product B A.

Each factor is averaged on its own, but the model uses their product, and mean(B) mean(A) is not mean(B A).
The corrections close that gap on the server. Needs numpy only.

Sources: FedEx-LoRA, arXiv 2410.09432 (residual of the mean product into the base weight); FFA-LoRA, arXiv
2403.12313 (A frozen); LoRA-FAIR, arXiv 2411.14961 (B turned towards the mean product); the projection is ours.
Which option is which paper, and what differs: docs/related.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgealloc.models.exchange.dropout import Masks, scatter_adapter
from edgealloc.models.exchange.fair import fair_b
from edgealloc.models.exchange.wire import State, WireArray, a_name, b_name


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


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A rule for merging updates.

    Parameters
    ----------
    fill
        ``zero``: what a device did not get counts as zero in the mean, so the merged adapter shrinks with
        dropout. ``keepers``: the mean runs over the devices that kept the entry, and an entry that nobody
        kept stays as it was.
    weighting
        ``samples``: devices weigh by their number of samples; ``uniform``: all the same.
    correction
        ``none``; ``exact``: what the product of the means misses goes into the base weight (FedEx-LoRA);
        ``fair``: B is turned so that the angle between its product with the mean A and the mean product is small
        (LoRA-FAIR, :mod:`edgealloc.models.exchange.fair`); ``project``: B is corrected so that its product with
        the mean A is near the mean product in the Frobenius norm, a ridge solution.
    fair_lambda
        Weight of ||dB||^2 beside the cosine in the ``fair`` correction; the paper's value.
    project_ridge
        Weight of ||dB||^2 in the ``project`` correction, relative to ||mean A||^2 / rank.

    Raises
    ------
    ValueError
        For a word that is not among these, or a weight that is no finite number of at least 0.
    """

    fill: Literal["zero", "keepers"] = "zero"
    weighting: Literal["samples", "uniform"] = "samples"
    correction: Literal["none", "exact", "fair", "project"] = "none"
    fair_lambda: float = 0.01
    project_ridge: float = 0.01

    def __post_init__(self) -> None:
        for field, allowed in (
            ("fill", ("zero", "keepers")),
            ("weighting", ("samples", "uniform")),
            ("correction", ("none", "exact", "fair", "project")),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} {getattr(self, field)!r}: must be one of {', '.join(allowed)}")
        for weight in ("fair_lambda", "project_ridge"):
            if not 0.0 <= getattr(self, weight) < math.inf:
                raise ValueError(f"{weight} {getattr(self, weight)}: must be a finite number, at least 0")


@dataclass(frozen=True, slots=True)
class Merged:
    """The server's new adapter, and per layer what has to be added to the base weight.

    Parameters
    ----------
    state
        The adapter, full size: A [rank, n_in], B [n_out, rank] and the head, by name.
    base_residual
        Layer name to dW [n_out, n_in], in double precision and in units of B A: multiply by the LoRA scaling, and
        transpose for layers that store W as [n_in, n_out] (Conv1D). Empty unless the correction is ``exact``.
    """

    state: dict[str, WireArray]
    base_residual: dict[str, WireArray]


def _weights(updates: Sequence[Update], rule: Aggregation) -> WireArray:
    """Return the aggregation weights [K], summing to one.

    Raises
    ------
    ValueError
        If a device has no samples, or all together have more than a double holds.
    """
    raw = np.array([u.samples if rule.weighting == "samples" else 1.0 for u in updates], dtype=float)
    with np.errstate(over="ignore"):
        total = raw.sum()
    if not (np.all(raw > 0) and np.isfinite(total)):
        raise ValueError("every reporting device needs a positive number of samples, and a finite one")
    return np.asarray(raw / total)


def aggregate(previous: State, updates: Sequence[Update], rule: Aggregation) -> Merged:
    """Merge the updates of one round, all of which are trusted.

    What came over a network goes through :func:`edgealloc.models.exchange.replies.gather`, which looks first.

    Parameters
    ----------
    previous
        The server's adapter before the round, full size; what no update carries (a frozen A) is kept, and so is
        the number format of every tensor, whatever that of the updates.
    updates
        One per reporting device. With none, the server keeps what it has.
    rule
        How to merge.

    Returns
    -------
    Merged
        New full-size adapter, and base residuals for the ``exact`` correction.

    Raises
    ------
    ValueError
        If a device has no samples, or its slices do not fit its masks.
    """
    if not updates:
        return Merged({name: np.array(value) for name, value in previous.items()}, {})
    weights = _weights(updates, rule)
    whole = [scatter_adapter(u.slices, u.masks) for u in updates]
    state: dict[str, WireArray] = {}
    for name, before in previous.items():
        if name not in whole[0]:
            state[name] = np.array(before)
            continue
        total = sum(w * device[name].astype(float) for w, device in zip(weights, whole, strict=True))
        masks = [u.masks.spread(name) for u in updates]
        if rule.fill == "keepers" and masks[0] is not None:
            kept = sum(w * m for w, m in zip(weights, masks, strict=True) if m is not None)
            total = np.where(kept > 0, total / np.where(kept > 0, kept, 1.0), before)
        state[name] = np.asarray(total, dtype=before.dtype)

    residual: dict[str, WireArray] = {}
    if rule.correction != "none":
        for layer in [name.removesuffix(".lora_B.weight") for name in state if name.endswith(".lora_B.weight")]:
            target = _mean_product(layer, previous, updates, whole, weights, rule)
            a, b = state[a_name(layer)].astype(float), state[b_name(layer)].astype(float)
            if rule.correction == "exact":
                residual[layer] = target - b @ a
                continue
            corrected = (
                fair_b(target, a, b, rule.fair_lambda)
                if rule.correction == "fair"
                else _project_b(target, a, b, rule.project_ridge)
            )
            state[b_name(layer)] = corrected.astype(previous[b_name(layer)].dtype)
    return Merged(state, residual)


def _mean_product(
    layer: str,
    previous: State,
    updates: Sequence[Update],
    whole: Sequence[State],
    weights: WireArray,
    rule: Aggregation,
) -> WireArray:
    """Return the mean of B_k A_k [n_out, n_in] under the fill rule; a frozen A comes from ``previous``."""
    frozen_a = previous[a_name(layer)]
    total = np.zeros((previous[b_name(layer)].shape[0], frozen_a.shape[1]))
    kept = np.zeros_like(total)
    for weight, device, update in zip(weights, whole, updates, strict=True):
        a = device.get(a_name(layer), frozen_a).astype(float)
        total += weight * (device[b_name(layer)].astype(float) @ a)
        kept += weight * np.outer(update.masks.rows[layer], update.masks.columns[layer])
    if rule.fill == "zero":
        return total
    before = previous[b_name(layer)].astype(float) @ frozen_a.astype(float)
    return np.asarray(np.where(kept > 0, total / np.where(kept > 0, kept, 1.0), before))


def _project_b(target: WireArray, a: WireArray, b: WireArray, ridge: float) -> WireArray:
    """Return B + dB with dB = argmin ||target - (B + dB) A||_F^2 + mu ||dB||_F^2.

    Setting the gradient to zero gives dB (A A^T + mu I) = (target - B A) A^T. ``mu`` is relative to the mean
    diagonal of A A^T, so that the rule does not depend on the scale of A.
    """
    gram = a @ a.T
    mu = ridge * np.trace(gram) / len(gram)
    if mu == 0.0:  # plain least squares; the pseudo-inverse also covers a rank-deficient A
        return b + (target - b @ a) @ np.linalg.pinv(a)
    return b + np.linalg.solve(gram + mu * np.eye(len(gram)), a @ (target - b @ a).T).T
