"""How the server merges sub-adapters: fill rules, weights, ranks, and corrections for the product B A.

Each factor is averaged on its own, but the model uses their product, and mean(B) mean(A) is not mean(B A).
The corrections close that gap on the server. Needs numpy only.

Sources: FedEx-LoRA, arXiv 2410.09432 (residual of the mean product into the base weight); FFA-LoRA, arXiv
2403.12313 (A frozen); LoRA-FAIR, arXiv 2411.14961 (B turned towards the mean product); HetLoRA, arXiv 2401.06432
(padded factors, weights by norm); FlexLoRA, arXiv 2402.11505 (the product, cut by SVD); FLoRA, arXiv 2409.05976
(stacked factors, folded into the base); CLAIR, arXiv 2605.21217 (who is left out). The projection is ours.
Which option is which paper, and what differs: docs/related.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgealloc.data.spec import number_of
from edgealloc.errors import Fault, InputError, shown
from edgealloc.models.exchange.contaminated import Screening, is_whole, screen
from edgealloc.models.exchange.dropout import Method, scatter_adapter
from edgealloc.models.exchange.fair import fair_b
from edgealloc.models.exchange.ranks import cut_product, exponent_of
from edgealloc.models.exchange.update import Update
from edgealloc.models.exchange.wire import State, WireArray, a_name, b_name

__all__ = ["Aggregation", "Merged", "Update", "aggregate", "weights_of"]


@dataclass(frozen=True, slots=True)
class Aggregation:
    """A rule for merging updates.

    Parameters
    ----------
    fill
        ``zero``: what a device did not get counts as zero in the mean, so the merged adapter shrinks with
        dropout. ``keepers``: the mean runs over the devices that kept the entry, and an entry that nobody
        kept stays as it was. The components that a device of lower rank lacks are treated alike.
    weighting
        ``samples``: devices weigh by their number of samples; ``uniform``: all the same; ``norm``: by the
        Frobenius norm of their products over all layers (HetLoRA).
    correction
        ``none``; ``exact``: what the product of the means misses goes into the base weight (FedEx-LoRA);
        ``fair``: B is turned so that the angle between its product with the mean A and the mean product is small
        (LoRA-FAIR, :mod:`edgealloc.models.exchange.fair`); ``project``: B is corrected so that its product with
        the mean A is near the mean product in the Frobenius norm, a ridge solution.
    fair_lambda
        Weight of ||dB||^2 beside the cosine in the ``fair`` correction; the paper's value.
    project_ridge
        Weight of ||dB||^2 in the ``project`` correction, relative to ||mean A||^2 / rank.
    merge
        ``factors``: A and B are averaged, each for itself; ``svd``: their products are, and the mean product is
        cut to the server's rank, most important component first, so that a device of lower rank gets the best part
        (FlexLoRA); ``stack``: the mean product, whose factors are those of all devices stacked, goes into the base
        weight, and the adapter starts anew from B = 0 (FLoRA).
    robust
        ``none``; ``clair``: devices that spoil a round get weight 0
        (:func:`edgealloc.models.exchange.contaminated.screen`). They are looked for in rounds without dropout
        only; the trainer makes its first round one, and leaves out later who was found there.

    Raises
    ------
    InputError
        Names every word that is not among these, every weight that is no finite number of at least 0, and a
        correction that the way of merging leaves nothing to: ``stack`` is exact, and after ``svd`` only ``exact``
        has a remainder.
    """

    fill: Literal["zero", "keepers"] = "zero"
    weighting: Literal["samples", "uniform", "norm"] = "samples"
    correction: Literal["none", "exact", "fair", "project"] = "none"
    fair_lambda: float = 0.01
    project_ridge: float = 0.01
    merge: Literal["factors", "svd", "stack"] = "factors"
    robust: Literal["none", "clair"] = "none"

    def __post_init__(self) -> None:
        words = {
            "fill": ("zero", "keepers"),
            "weighting": ("samples", "uniform", "norm"),
            "correction": ("none", "exact", "fair", "project"),
            "merge": ("factors", "svd", "stack"),
            "robust": ("none", "clair"),
        }
        faults = [
            _fault(field, self, ", ".join(known)) for field, known in words.items() if self._is_not(field, known)
        ]
        for weight in ("fair_lambda", "project_ridge"):
            if not 0.0 <= number_of(getattr(self, weight)) < math.inf:
                faults.append(_fault(weight, self, "a finite number, at least 0"))
        possible = {"svd": ("none", "exact"), "stack": ("none",)}
        if not faults and self.correction not in possible.get(self.merge, words["correction"]):
            faults.append(_fault("correction", self, f"{', '.join(possible[self.merge])} with merge {self.merge}"))
        if faults:
            raise InputError("aggregation", faults)

    def _is_not(self, field: str, known: tuple[str, ...]) -> bool:
        value = getattr(self, field)
        return not (isinstance(value, str) and value in known)

    def misfits(self, *, sends_a: bool, masks: Method) -> list[Fault]:
        """What of a rule does not go with what devices send.

        Parameters
        ----------
        sends_a
            False where A is frozen.
        masks
            How they are drawn; ``entries``: B is sparse.

        Returns
        -------
        list of Fault
            Empty where all goes together.
        """
        faults = []
        if self.merge == "svd" and not sends_a:
            faults.append(_fault("merge", self, "factors or stack where A is frozen, for svd changes it"))
        if masks == "entries":
            wanted = {"correction": "none", "merge": "factors", "robust": "none"}
            faults += [
                _fault(field, self, f"{word} with masks of single entries")
                for field, word in wanted.items()
                if getattr(self, field) != word
            ]
        return faults

    @property
    def changes_base(self) -> bool:
        """Whether base weights change, so that a server has to send more than the adapter."""
        return self.correction == "exact" or self.merge == "stack"


def _fault(field: str, rule: Aggregation, allowed: str) -> Fault:
    return Fault("options", field, shown(getattr(rule, field)), allowed)


@dataclass(frozen=True, slots=True)
class Merged:
    """The server's new adapter, and per layer what has to be added to the base weight.

    Parameters
    ----------
    state
        The adapter, full size: A [rank, n_in], B [n_out, rank] and the head, by name.
    base_residual
        Layer name to dW [n_out, n_in], in double precision and in units of B A: multiply by the LoRA scaling, and
        transpose for layers that store W as [n_in, n_out] (Conv1D). Empty unless the correction is ``exact`` or
        the factors are stacked.
    screening
        What was found in the updates, in their order; None where nobody looked.
    """

    state: dict[str, WireArray]
    base_residual: dict[str, WireArray]
    screening: Screening | None = None


def weights_of(previous: State, updates: Sequence[Update], rule: Aggregation) -> WireArray:
    """Return the weights with which updates are merged.

    Parameters
    ----------
    previous
        The server's adapter before the round, full size.
    updates
        One per reporting device.
    rule
        How to merge.

    Returns
    -------
    array
        Summing to one. Shape [K].

    Raises
    ------
    ValueError
        If a device has no samples, or all together have more than a double holds.
    """
    if rule.weighting == "norm":
        sizes = np.array([_norm(previous, update) for update in updates])
        raw = sizes if np.any(sizes > 0.0) else np.ones(len(updates))  # before anything was learned: all the same
        return np.asarray(raw / raw.sum())
    raw = np.array([u.samples if rule.weighting == "samples" else 1.0 for u in updates], dtype=float)
    with np.errstate(over="ignore"):
        total = raw.sum()
    if not (np.all(raw > 0) and np.isfinite(total)):
        raise ValueError("every reporting device needs a positive number of samples, and a finite one")
    return np.asarray(raw / total)


def _norm(previous: State, update: Update) -> float:
    """The Frobenius norm of a device's products B A over all layers; a frozen A comes from ``previous``."""
    total = 0.0
    for name, b in update.slices.items():
        layer = name.removesuffix(".lora_B.weight")
        if layer != name:
            if b.ndim == 1:
                b = scatter_adapter({name: b}, update.masks)[name]
            a = update.slices.get(a_name(layer))
            if a is None:
                a = update.masks.cut(a_name(layer), previous[a_name(layer)])
            wide_a, wide_b = a.astype(float), b.astype(float)
            total += float(np.sum((wide_b.T @ wide_b) * (wide_a @ wide_a.T)))
    return math.sqrt(max(total, 0.0)) if math.isfinite(total) else math.inf


def aggregate(previous: State, updates: Sequence[Update], rule: Aggregation) -> Merged:
    """Merge the updates of one round, all of which are trusted unless the rule is ``robust``.

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
        New full-size adapter, and base residuals for the ``exact`` correction and for stacked factors.

    Raises
    ------
    ValueError
        If a device has no samples, its slices do not fit its masks, ``svd`` would change a frozen A, or
        products of a sparse B should be corrected.
    """
    if rule.robust != "none" and updates and all(map(is_whole, updates)):
        found = screen(previous, updates)
        sound = [update for update, good in zip(updates, found.sound, strict=True) if good]
        return replace(aggregate(previous, sound, replace(rule, robust="none")), screening=found)
    if not updates:
        return Merged({name: np.array(value) for name, value in previous.items()}, {})
    if (rule.correction != "none" or rule.merge != "factors") and any(u.masks.entries for u in updates):
        raise ValueError("the mean of a sparse B is exact, as A is frozen: merge 'factors', no correction")
    weights = weights_of(previous, updates, rule)
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
    if rule.correction != "none" or rule.merge != "factors":
        for layer in [name.removesuffix(".lora_B.weight") for name in state if name.endswith(".lora_B.weight")]:
            target = _mean_product(layer, previous, updates, whole, weights, rule)
            a, b = state[a_name(layer)].astype(float), state[b_name(layer)].astype(float)
            if rule.merge == "stack":
                residual[layer] = target
                state[a_name(layer)] = np.array(previous[a_name(layer)])
                state[b_name(layer)] = np.zeros_like(previous[b_name(layer)])
                continue
            if rule.merge == "svd":
                if a_name(layer) not in whole[0]:
                    raise ValueError(f"merge 'svd' changes A of {layer}, which is frozen: use 'factors'")
                for name, factor in zip(
                    (a_name(layer), b_name(layer)), cut_product(target, previous[a_name(layer)]), strict=True
                ):
                    state[name] = factor.astype(previous[name].dtype)
                if rule.correction == "none":
                    continue
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
    if np.all(np.isfinite(a)) and np.all(np.isfinite(target)):
        exponent = exponent_of(a)  # B A and the target in units of A, for squares of A may be none of a double
        a, target = np.ldexp(a, -exponent), np.ldexp(target, -exponent)
    gram = a @ a.T
    mu = ridge * np.trace(gram) / len(gram)
    if mu == 0.0:  # plain least squares; the pseudo-inverse also covers a rank-deficient A
        return b + (target - b @ a) @ np.linalg.pinv(a)
    return b + np.linalg.solve(gram + mu * np.eye(len(gram)), a @ (target - b @ a).T).T
