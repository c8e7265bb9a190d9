"""Adapter dropout as data: which columns of A and rows of B a device gets, and what then travels.

Per adapted layer u the server draws a column mask for A [rank, n_in] and a row mask for B [n_out, rank]; the
device trains and returns the kept columns and rows only. (Source of the scheme: FedLoDrop, arXiv 2510.12078,
abstract. Not to be confused with PEFT's ``lora_dropout``, which drops activations anew at every step.)
Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgealloc.models.exchange.wire import AdapterShape, State, WireArray
from edgealloc.units import BoolArray

Method = Literal["bernoulli", "exact"]


@dataclass(frozen=True, slots=True)
class Masks:
    """Kept columns and rows of every adapted layer; True is kept.

    Parameters
    ----------
    columns, rows
        Layer name to mask: of A's columns, shape [n_in], and of B's rows, shape [n_out].
    """

    columns: Mapping[str, BoolArray]
    rows: Mapping[str, BoolArray]

    def of(self, name: str) -> tuple[int, BoolArray] | None:
        """Return which side of a tensor is masked, and how.

        Parameters
        ----------
        name
            Name of the tensor, ``<layer>.lora_A.weight`` or ``<layer>.lora_B.weight``.

        Returns
        -------
        tuple of int and array, or None
            Axis (1 of A, 0 of B) and mask, shape [n_in] or [n_out]; None for what is never dropped.
        """
        layer, _, part = name.rpartition(".lora_")
        if part == "A.weight" and layer in self.columns:
            return 1, self.columns[layer]
        if part == "B.weight" and layer in self.rows:
            return 0, self.rows[layer]
        return None

    def spread(self, name: str) -> BoolArray | None:
        """Return the mask of a tensor, shaped to broadcast against it.

        Parameters
        ----------
        name
            Name of the tensor, as for :meth:`of`.

        Returns
        -------
        array or None
            Shape [1, n_in] for A, [n_out, 1] for B; None for what is never dropped.
        """
        found = self.of(name)
        return None if found is None else np.expand_dims(found[1], 1 - found[0])


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


def full_masks(shape: AdapterShape) -> Masks:
    """Return masks that keep everything.

    Parameters
    ----------
    shape
        The adapter.

    Returns
    -------
    Masks
        All True.
    """
    return Masks(
        {u.name: np.ones(u.n_in, dtype=bool) for u in shape.layers},
        {u.name: np.ones(u.n_out, dtype=bool) for u in shape.layers},
    )


def draw_masks(shape: AdapterShape, keep: float, rng: np.random.Generator, method: Method = "exact") -> Masks:
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
        D(s) and equals it where s n is whole for every side.

    Returns
    -------
    Masks
        What the device keeps; every column where A is frozen and not sent.

    Raises
    ------
    ValueError
        For a keep rate outside [0, 1] or an unknown method.
    """
    if not 0.0 <= keep <= 1.0:
        raise ValueError(f"keep rate {keep}: must lie in [0, 1]")
    if method not in ("bernoulli", "exact"):
        raise ValueError(f"mask method {method!r}: must be 'bernoulli' or 'exact'")

    def draw(size: int) -> BoolArray:
        if method == "bernoulli":
            return rng.random(size) < keep
        mask = np.zeros(size, dtype=bool)
        # The factor undoes the rounding of s n (0.29 * 100 = 28.999...), far below one column of any layer.
        mask[rng.permutation(size)[: int(keep * size * (1 + 1e-12))]] = True
        return mask

    layers = sorted(shape.layers, key=lambda u: u.name)
    # A frozen A (FFA-LoRA) is never sent, so nothing is gained by dropping its columns.
    columns = {u.name: draw(u.n_in) if shape.sends_a else np.ones(u.n_in, dtype=bool) for u in layers}
    return Masks(columns, {u.name: draw(u.n_out) for u in layers})


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
        A [rank, kept], B [kept, rank] and the head, by name, in the order of ``state``.
    """
    out = {}
    for name, value in state.items():
        found = masks.of(name)
        if found is None:
            out[name] = value.copy()
        elif sends_a or found[0] == 0:
            out[name] = np.compress(found[1], value, axis=found[0])
    return out


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
        found = masks.of(name)
        if found is None:
            out[name] = piece.copy()
            continue
        axis, kept = found
        if piece.shape[axis] != int(kept.sum()):
            raise ValueError(f"{name}: a slice of shape {piece.shape} does not fit a mask that keeps {kept.sum()}")
        size = (piece.shape[0], kept.size) if axis == 1 else (kept.size, piece.shape[1])
        whole = np.zeros(size, dtype=piece.dtype) if base is None else np.array(base[name], dtype=piece.dtype)
        whole[(slice(None), kept) if axis == 1 else kept] = piece
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
