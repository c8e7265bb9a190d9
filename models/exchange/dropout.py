"""Adapter dropout as data: which columns of A and rows of B a device gets, and what then travels.

Per adapted layer u the server draws a column mask for A [rank, n_in] and a row mask for B [n_out, rank]; the
device trains and returns the kept columns and rows only. (Source of the scheme: FedLoDrop, arXiv 2510.12078,
abstract. Not to be confused with PEFT's ``lora_dropout``, which drops activations anew at every step.)
Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgealloc.models.exchange.wire import AdapterShape, State, WireArray
from edgealloc.units import BoolArray

Method = Literal["bernoulli", "exact", "entries"]


@dataclass(frozen=True, slots=True)
class Masks:
    """What a device has of every adapted layer; True is kept.

    Parameters
    ----------
    columns, rows
        Layer name to mask: of A's columns, shape [n_in], and of B's rows, shape [n_out].
    ranks
        Layer name to mask of the components that a device of lower rank has, shape [r]; a layer that is not named
        is there in full rank.
    entries
        Layer name to mask of single entries of B, shape [n_out, r], which then says all about B: a sparse B beside
        an A that is frozen (docs/related.md). Empty where whole rows are dropped.
    """

    columns: Mapping[str, BoolArray]
    rows: Mapping[str, BoolArray]
    ranks: Mapping[str, BoolArray] = field(default_factory=dict)
    entries: Mapping[str, BoolArray] = field(default_factory=dict)

    def entries_of(self, name: str) -> BoolArray | None:
        """Return the mask of single entries of a tensor, None where it has none.

        Parameters
        ----------
        name
            Name of the tensor, ``<layer>.lora_B.weight``.

        Returns
        -------
        array or None
            Shape [n_out, r].
        """
        layer = name.removesuffix(".lora_B.weight")
        return None if layer == name else self.entries.get(layer)

    def sides(self, name: str) -> tuple[tuple[int, BoolArray], ...]:
        """Return which axes of a tensor are masked, and how.

        Parameters
        ----------
        name
            Name of the tensor, ``<layer>.lora_A.weight`` or ``<layer>.lora_B.weight``.

        Returns
        -------
        tuple of pairs of int and array
            Axis and mask: columns [n_in] (axis 1 of A) or rows [n_out] (axis 0 of B), and then components [r]
            where some are missing. Empty for what is never dropped.
        """
        layer, _, part = name.rpartition(".lora_")
        if part == "A.weight" and layer in self.columns:
            own = (1, self.columns[layer])
        elif part == "B.weight" and layer in self.rows:
            own = (0, self.rows[layer])
        else:
            return ()
        return (own, (1 - own[0], self.ranks[layer])) if layer in self.ranks else (own,)

    def cut(self, name: str, value: WireArray) -> WireArray:
        """Return what is kept of a tensor, as a contiguous copy.

        Parameters
        ----------
        name, value
            The tensor, full size: A [r, n_in], B [n_out, r], or any shape of the head's.

        Returns
        -------
        array
            A [kept rank, kept columns], B [kept rows, kept rank] or, of single entries, [n]; or all of it.
        """
        chosen = self.entries_of(name)
        if chosen is not None:
            return value[chosen]
        piece = value
        for axis, kept in self.sides(name):
            piece = np.compress(kept, piece, axis=axis)
        return piece.copy() if piece is value else piece

    def spread(self, name: str) -> BoolArray | None:
        """Return the mask of a tensor, shaped to broadcast against it.

        Parameters
        ----------
        name
            Name of the tensor, as for :meth:`of`.

        Returns
        -------
        array or None
            Shape [1, n_in] for A, [n_out, 1] for B, with missing components [r, n_in] and [n_out, r]; None for
            what is never dropped. Of single entries [n_out, r].
        """
        chosen = self.entries_of(name)
        if chosen is not None:
            return chosen
        spread: BoolArray | None = None
        for axis, kept in self.sides(name):
            side = np.expand_dims(kept, 1 - axis)
            spread = side if spread is None else spread & side
        return spread


def round_generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of one event, the same whatever ran before it (runs resume bit for bit).

    Parameters
    ----------
    seed
        Seed of the run.
    *key
        Names the event, for example (purpose, round, device).

    Returns
    -------
    numpy.random.Generator
        Fresh, of a seed sequence spawned by the key.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def full_masks(shape: AdapterShape, rank: int | None = None) -> Masks:
    """Return masks that keep everything, or the first components of everything.

    Parameters
    ----------
    shape
        The adapter.
    rank
        Of the device, >= 1; a layer of no higher rank is there in full. None: all of it.

    Returns
    -------
    Masks
        All True.

    Raises
    ------
    ValueError
        For a rank below 1.
    """
    return Masks(
        {u.name: np.ones(u.n_in, dtype=bool) for u in shape.layers},
        {u.name: np.ones(u.n_out, dtype=bool) for u in shape.layers},
        _first(shape, rank),
    )


def _first(shape: AdapterShape, rank: int | None) -> dict[str, BoolArray]:
    """Masks of the first components, for the layers that have more.

    Raises
    ------
    ValueError
        For a rank that is no whole number of at least 1.
    """
    if rank is None:
        return {}
    pairs = zip(shape.layers, shape.of_rank(rank).layers, strict=True)
    return {u.name: np.arange(u.rank) < own.rank for u, own in pairs if own.rank < u.rank}


def draw_masks(
    shape: AdapterShape,
    keep: float,
    rng: np.random.Generator,
    method: Method = "exact",
    rank: int | None = None,
) -> Masks:
    """Draw one device's masks for one round.

    Layers are drawn in the order of their names: a saved adapter lists them in another order than the live model,
    and both sides of a round must draw the same.

    Parameters
    ----------
    shape
        The adapter.
    keep
        Keep rate s in [0, 1].
    rng
        Generator; two calls with equal generators give equal masks.
    method
        ``bernoulli`` keeps every column and row independently with probability s, so the payload is D(s) in
        the mean only; ``exact`` keeps floor(s n) of n drawn without replacement, so the payload never exceeds
        D(s) and equals it where s n is whole for every side; ``entries`` keeps floor(s n_out r) single entries of
        every B, whose A is frozen. Of equal generators those of a lower rate are among those of a higher.
    rank
        Of the device, as for :func:`full_masks`; the draw of columns and rows does not depend on it.

    Returns
    -------
    Masks
        What the device keeps; every column where A is frozen and not sent.

    Raises
    ------
    ValueError
        For a keep rate outside [0, 1], an unknown method, a rank below 1, or ``entries`` where A is sent or the
        rank is a lower one.
    """
    if not 0.0 <= keep <= 1.0:
        raise ValueError(f"keep rate {keep}: must lie in [0, 1]")
    if method not in ("bernoulli", "exact", "entries"):
        raise ValueError(f"mask method {method!r}: must be 'bernoulli', 'exact' or 'entries'")
    if method == "entries" and (shape.sends_a or _first(shape, rank)):
        raise ValueError("mask method 'entries': only beside an A that is frozen, and in full rank")

    def draw(size: int) -> BoolArray:
        if method == "bernoulli":
            return rng.random(size) < keep
        mask = np.zeros(size, dtype=bool)
        # The factor undoes the rounding of s n (0.29 * 100 = 28.999...), far below one column of any layer.
        mask[rng.permutation(size)[: int(keep * size * (1 + 1e-12))]] = True
        return mask

    layers = sorted(shape.layers, key=lambda u: u.name)
    if method == "entries":
        whole = full_masks(shape)
        drawn = {u.name: draw(u.n_out * u.rank).reshape(u.n_out, u.rank) for u in layers}
        return Masks(whole.columns, whole.rows, {}, drawn)
    # A frozen A (FFA-LoRA) is never sent, so nothing is gained by dropping its columns.
    columns = {u.name: draw(u.n_in) if shape.sends_a else np.ones(u.n_in, dtype=bool) for u in layers}
    return Masks(columns, {u.name: draw(u.n_out) for u in layers}, _first(shape, rank))


def slice_adapter(state: State, masks: Masks, *, sends_a: bool = True) -> dict[str, WireArray]:
    """Return what travels: A[:, kept], B[kept, :] and the head, as contiguous copies.

    Parameters
    ----------
    state
        The adapter, full size, by name.
    masks
        What is kept.
    sends_a
        False where A is frozen and not sent (FFA-LoRA).

    Returns
    -------
    dict of str to array
        A [kept rank, kept], B [kept, kept rank] and the head, by name, in the order of ``state``.
    """
    return {
        name: masks.cut(name, value)
        for name, value in state.items()
        if sends_a or not name.endswith(".lora_A.weight")
    }


def scatter_adapter(slices: State, masks: Masks, base: State | None = None) -> dict[str, WireArray]:
    """Put slices back where they came from.

    Parameters
    ----------
    slices
        As :func:`slice_adapter` returns them.
    masks
        Of the slices.
    base
        What stands in the dropped columns and rows, full size; None: zero.

    Returns
    -------
    dict of str to array
        The slices in full size, A [rank, n_in] and B [n_out, rank], by name.

    Raises
    ------
    ValueError
        If a slice does not fit its mask.
    """
    out = {}
    for name, piece in slices.items():
        sides, chosen = masks.sides(name), masks.entries_of(name)
        if chosen is not None:
            if piece.shape != (int(chosen.sum()),):
                raise ValueError(
                    f"{name}: a slice of shape {piece.shape} does not fit a mask that keeps {chosen.sum()}"
                )
            whole = np.zeros(chosen.shape, piece.dtype) if base is None else np.array(base[name], piece.dtype)
            whole[chosen] = piece
            out[name] = whole
            continue
        if not sides:
            out[name] = piece.copy()
            continue
        size, places = list(piece.shape), [np.arange(length) for length in piece.shape]
        for axis, kept in sides:
            if piece.shape[axis] != int(kept.sum()):
                raise ValueError(
                    f"{name}: a slice of shape {piece.shape} does not fit a mask that keeps {kept.sum()}"
                )
            size[axis], places[axis] = kept.size, np.flatnonzero(kept)
        whole = np.zeros(size, dtype=piece.dtype) if base is None else np.array(base[name], dtype=piece.dtype)
        whole[np.ix_(*places)] = piece
        out[name] = whole
    return out


def masked(state: State, masks: Masks) -> dict[str, WireArray]:
    """Return the full-size adapter with dropped columns and rows set to zero.

    Parameters
    ----------
    state
        The adapter, full size, by name.
    masks
        What is kept.

    Returns
    -------
    dict of str to array
        Copies, of the same shapes.
    """
    return {
        name: value.copy() if (mask := masks.spread(name)) is None else value * mask.astype(value.dtype)
        for name, value in state.items()
    }
