r"""Which devices spoil a round, from their first updates alone: garbage, poison, another subspace.

After CLAIR (arXiv 2605.21217), of which only the abstract could be read: a shared subspace and the contaminated
clients come from preliminary updates by a low-rank plus block-sparse decomposition. How it is done here is ours,
with its derivation and what it cannot see in docs/merging.md. Needs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgealloc.models.exchange.dropout import masked, scatter_adapter
from edgealloc.models.exchange.faults import LARGEST_CHANGE, change_of, medians_of_others, root_mean_square
from edgealloc.models.exchange.update import Update
from edgealloc.models.exchange.wire import State, WireArray, a_name, b_name
from edgealloc.units import BoolArray, FloatArray

__all__ = ["Screening", "is_whole", "personal_changes", "screen"]

_FEWEST, _FEWEST_SIGNS = 3, 6  # devices without whom there is no majority; who can show a common direction
_AGAINST, _AGREED = 2.5, 3.0  # standard errors: below zero is opposed; above zero the median of those who agree is
_LARGEST = 300.0  # logarithm of a relative norm, so that its square is a double
_STEPS = 5  # of orthogonal iteration
_ROUNDING = 1e-7  # residuals are computed to about 1e-15


@dataclass(frozen=True, slots=True)
class Screening:
    """What the first updates say of K devices.

    Parameters
    ----------
    reasons
        Per device why it is contaminated; empty where it is not.
    residual
        Per device the share of its change that lies off the subspace, by norm, in [0, 1]; nan where the change is
        zero or was not looked at. Shape [K].
    threshold
        Above which the residual makes a device contaminated; infinite where there are too few devices, or the
        majority has no subspace in common.
    subspace
        Layer name to orthonormal rows [r, n_in], which span what the sound devices' changes read in common.
    """

    reasons: tuple[str, ...]
    residual: FloatArray
    threshold: float
    subspace: dict[str, WireArray]

    @property
    def sound(self) -> BoolArray:
        """Who is not contaminated. Shape [K]."""
        return np.array([not why for why in self.reasons], dtype=bool)


@dataclass(frozen=True, slots=True)
class _Layer:
    """The changes of one layer; device k's is ``scale[k] * left[k] @ right[k]``, in units of the median norm.

    Parameters
    ----------
    left, right
        Factors [n_out, q] and [q, n_in] of largest entry 1, q at most twice the rank.
    scale, norm
        What is missing from the factors, and Frobenius norms of the changes. Shape [K].
    reduced
        The changes in an orthonormal basis of what any of them reads, after a QR of every left factor; of unit
        norm. [q, d] each.
    basis
        That basis. Shape [n_in, d].
    """

    left: list[WireArray]
    right: list[WireArray]
    scale: FloatArray
    norm: FloatArray
    reduced: list[WireArray]
    basis: WireArray


def is_whole(update: Update) -> bool:
    """Whether an update has every column and row, so that it can be screened: dropout leaves holes."""
    masks = update.masks
    return all(bool(np.all(m)) for side in (masks.columns, masks.rows, masks.entries) for m in side.values())


def screen(previous: State, updates: Sequence[Update]) -> Screening:
    """Find the contaminated devices among those of a round without dropout; nothing that they send raises.

    In this order: whose numbers are not finite; who changes the adapter by more than 30 times as much as the
    others do, if there are others (as :func:`edgealloc.models.exchange.replies.gather`); who reads another
    subspace than the majority, if that has one; who goes against the direction that the others have in common.
    One decision per device, over all layers.

    Parameters
    ----------
    previous
        The server's adapter before the round, full size.
    updates
        One per device, all whole (:func:`is_whole`).

    Returns
    -------
    Screening
        At most half of those with finite numbers of ordinary size are contaminated for what they read.

    Raises
    ------
    ValueError
        If an update is not whole.
    """
    if not all(map(is_whole, updates)):
        raise ValueError("a round with dropout cannot be screened: its updates have holes")
    reasons = ["" if _finite(update) else "its numbers are not finite" for update in updates]
    usual, finite = root_mean_square(previous.values()), [k for k, why in enumerate(reasons) if not why]
    with np.errstate(all="ignore"):
        moved = [change_of(previous, updates[k]) for k in finite]
    for k, change, others in zip(finite, moved, medians_of_others(moved), strict=True):
        limit = LARGEST_CHANGE * max(usual, others if math.isfinite(others) else 0.0)
        if not math.isfinite(change) or (change > limit > 0.0 and len(updates) > 1):
            reasons[k] = f"it changes the adapter by {change:.3g} (root mean square), at most {limit:.3g}"

    left = [k for k, why in enumerate(reasons) if not why]
    residual, threshold, subspace = np.full(len(updates), math.nan), math.inf, dict[str, WireArray]()
    layers = _layers_of(previous, [updates[k] for k in left])
    if layers:
        residual[left], threshold, subspace = _off_subspace(layers)
        for k in left:
            if residual[k] > threshold:
                reasons[k] = f"{residual[k]:.3g} of its change is off the common subspace, at most {threshold:.3g}"
    among = [i for i, k in enumerate(left) if not reasons[k]]
    cosines = _cosines(previous, layers, [updates[k] for k in left])
    for i in np.flatnonzero(_opposed(cosines[np.ix_(among, among)])).tolist():
        reasons[left[among[i]]] = "its change goes against that of the others"
    return Screening(tuple(reasons), residual, threshold, subspace)


def personal_changes(
    previous: State, updates: Sequence[Update], screening: Screening
) -> tuple[dict[str, WireArray], ...]:
    """Every device's change of the model: its own inside the common subspace, the sound devices' mean off it.

    Parameters
    ----------
    previous, updates
        As they were screened.
    screening
        What was found.

    Returns
    -------
    tuple of dict of str to array
        Per device, layer name to D_k P + (weighted mean of the sound D_j) (I - P), shape [n_out, n_in]; in units
        of B A, in double precision. A contaminated device gets the sound devices' mean, also inside.
    """
    sound = screening.sound
    weights = np.array([u.samples for u in updates], dtype=float) * sound
    weights = weights / weights.sum() if np.any(sound) else weights
    out: tuple[dict[str, WireArray], ...] = tuple({} for _ in updates)
    for layer, rows in screening.subspace.items():
        changes = [
            left @ right if good else None
            for good, (left, right) in zip(sound, (_change(previous, u, layer) for u in updates), strict=True)
        ]
        mean = sum(w * d for w, d in zip(weights, changes, strict=True) if d is not None)
        for own, change in zip(out, changes, strict=True):
            own[layer] = np.asarray(mean if change is None else mean + ((change - mean) @ rows.T) @ rows)
    return out


def _finite(update: Update) -> bool:
    return all(bool(np.all(np.isfinite(piece))) for piece in update.slices.values())


def _change(previous: State, update: Update, layer: str) -> tuple[WireArray, WireArray]:
    """Factors of B_k A_k less the product that the device was sent: [n_out, q] and [q, n_in]."""
    names = (a_name(layer), b_name(layer))
    sent = masked({name: previous[name] for name in names}, update.masks)
    own = scatter_adapter({name: update.slices[name] for name in names if name in update.slices}, update.masks)
    a0, b0 = (sent[name].astype(float) for name in names)
    a, b = (own.get(name, sent[name]).astype(float) for name in names)
    if not np.any(b0):
        return b, a
    return np.hstack([b, -b0]), np.vstack([a, a0])


def _layers_of(previous: State, updates: Sequence[Update]) -> list[tuple[str, _Layer]]:
    """The layers that any of some devices, all finite, has changed."""
    names = [name.removesuffix(".lora_B.weight") for name in previous if name.endswith(".lora_B.weight")]
    layers = []
    for name in names:
        left, right, scale, norm, thin = [], [], [], [], []
        for update in updates:
            b, a = _change(previous, update, name)
            sizes = [float(np.max(np.abs(factor), initial=0.0)) for factor in (b, a)]
            b, a = (factor / size if size else factor for factor, size in zip((b, a), sizes, strict=True))
            small = np.linalg.qr(b)[1] @ a
            size = float(np.linalg.norm(small))
            if size <= np.finfo(np.float32).eps * float(np.linalg.norm(b) * np.linalg.norm(a)):
                size, small = 0.0, np.zeros_like(small)  # what it was sent, but for rounding
            with np.errstate(divide="ignore"):  # in logarithms, for products of what doubles hold may be none
                scale.append(float(np.log(sizes).sum()))
                norm.append(scale[-1] + float(np.log(size)))
            left.append(b)
            right.append(a)
            thin.append(small / (size or 1.0))
        moved = np.isfinite(norm)
        if np.any(moved):
            middle = np.median(np.array(norm)[moved])
            basis = np.linalg.qr(np.vstack(thin).T)[0]
            reduced = [small @ basis for small in thin]
            rest, size_of = (np.exp(np.minimum(np.array(logs) - middle, _LARGEST)) for logs in (scale, norm))
            layers.append((name, _Layer(left, right, rest, size_of, reduced, basis)))
    return layers


def _off_subspace(layers: Sequence[tuple[str, _Layer]]) -> tuple[FloatArray, float, dict[str, WireArray]]:
    """Residuals [K] off the subspace of the majority, their threshold, and the subspace by layer.

    A device is measured against the subspace of the others: against one that it helped to make, its residual would
    be too small, and that of whoever is left out too large beside it.

    Devices vote with an orthonormal basis of what their change reads, each direction with weight one: neither a
    large update nor several that agree in one direction outvote the majority.
    """
    parts = np.array([layer.norm for _, layer in layers])
    total = np.linalg.norm(parts, axis=0)
    there = total > 0.0
    votes = [[_rows_of(change) for change in layer.reduced] for _, layer in layers]
    ranks = [
        int(np.median([len(own[k]) for k in np.flatnonzero(n.norm)]))
        for own, (_, n) in zip(votes, layers, strict=True)
    ]
    foreign = math.sqrt(
        np.mean([1.0 - min(rank / n.basis.shape[1], 1.0) for rank, (_, n) in zip(ranks, layers, strict=True)])
    )
    kept, threshold = there.copy(), math.inf
    residual, spans = np.full(len(total), math.nan), list[WireArray]()
    for _ in range(len(total) + 1):
        off, spans = np.zeros((len(layers), len(total))), []
        for i, (own, rank, (_, n)) in enumerate(zip(votes, ranks, layers, strict=True)):
            gram = np.sum([own[k].T @ own[k] for k in np.flatnonzero(kept)], axis=0)
            spans.append(np.linalg.eigh(gram)[1][:, ::-1][:, :rank].T)
            for k in np.flatnonzero(there):
                span = _without(gram, own[k], spans[-1]) if kept[k] else spans[-1]
                off[i, k] = np.linalg.norm(n.reduced[k] - (n.reduced[k] @ span.T) @ span)
        residual[there] = np.linalg.norm(parts * off, axis=0)[there] / total[there]
        if np.sum(there) < _FEWEST:
            break
        noise = float(np.median(residual[there]))
        spread = noise - float(np.quantile(residual[there], 0.25))
        # where the majority is off the subspace about as much as a stranger, it has none, and nobody is foreign
        common = noise + 0.5 * spread < foreign + _ROUNDING
        threshold = (noise + foreign) / 2.0 + _ROUNDING if common else math.inf
        now = there & ~(residual > threshold)
        if np.array_equal(now, kept):
            break
        kept = now
    return residual, threshold, {name: span @ n.basis.T for span, (name, n) in zip(spans, layers, strict=True)}


def _without(gram: WireArray, own: WireArray, span: WireArray) -> WireArray:
    """The leading directions of the others' votes, as orthonormal rows, by orthogonal iteration from those of all.

    What the device itself reads is taken out of the start: where no direction leads by far, a few steps would
    leave it in, and every device would look at home.
    """
    others, start = gram - own.T @ own, span.T - own.T @ (own @ span.T)
    for _ in range(_STEPS):
        start = np.linalg.qr(others @ start)[0]
    return np.asarray(start.T)


def _rows_of(change: WireArray) -> WireArray:
    """Orthonormal rows that span what a change [q, d] reads, to the accuracy of single precision."""
    _, s, v = np.linalg.svd(change, full_matrices=False)
    return np.asarray(v[s > np.finfo(np.float32).eps * max(change.shape) * max(float(s[0]), np.finfo(float).tiny)])


def _cosines(previous: State, layers: Sequence[tuple[str, _Layer]], updates: Sequence[Update]) -> FloatArray:
    """Cosines between the changes of K devices; every layer, and the head as one, counts alike. Shape [K, K]."""
    count = len(updates)
    total = np.zeros((count, count))
    for _, n in layers:
        starts = np.cumsum([0, *(factor.shape[1] for factor in n.left[:-1])])
        left, right = np.hstack(n.left), np.vstack(n.right)
        inner = np.add.reduceat(np.add.reduceat((left.T @ left) * (right @ right.T), starts, 0), starts, 1)
        total += inner * np.outer(n.scale, n.scale)
    head = [name for name in previous if ".lora_" not in name]
    if head and count:
        moved = np.array(
            [
                np.concatenate([(u.slices[h].astype(float) - previous[h].astype(float)).ravel() for h in head])
                for u in updates
            ]
        )
        moved = moved / (np.max(np.abs(moved)) or 1.0)
        size = np.linalg.norm(moved, axis=1)
        if np.any(size > 0.0):
            moved = moved / np.median(size[size > 0.0])
            total += moved @ moved.T
    own = np.sqrt(np.maximum(np.diag(total), 0.0))
    return total / np.where(own > 0.0, own, 1.0)[:, None] / np.where(own > 0.0, own, 1.0)[None, :]


def _opposed(cosines: FloatArray) -> BoolArray:
    """Who goes against a direction that most have in common; nobody where there is none. Shape [K].

    By a device's mean cosine with those who agree; the spread of the cosines among these gives its standard error.
    They are at first the half whose median cosine with all others is largest, and then all who do not oppose.
    """
    count, nobody = len(cosines), np.zeros(len(cosines), dtype=bool)
    if count < _FEWEST_SIGNS:
        return nobody
    others = ~np.eye(count, dtype=bool)
    usual = np.array([np.median(row[other]) for row, other in zip(cosines, others, strict=True)])
    agreed = usual >= np.median(usual)
    mean, error = usual, math.inf
    for _ in range(count):
        among = cosines[np.ix_(agreed, agreed)][~np.eye(int(agreed.sum()), dtype=bool)]
        error = float(np.std(among)) / math.sqrt(int(agreed.sum()))
        mean = np.array([np.mean(row[other & agreed]) for row, other in zip(cosines, others, strict=True)])
        now = ~(mean < -_AGAINST * error)
        if np.array_equal(now, agreed):
            break
        if 2 * int(now.sum()) <= count:
            return nobody
        agreed = now
    return nobody if np.median(mean[agreed]) < _AGREED * error else ~agreed
