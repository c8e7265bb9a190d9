"""Devices of different rank in one federation: what each gets of the server's adapter, and how the product is cut.

A device of rank r has the first r components of every layer: rows of A and columns of B. What it lacks is padded
with zeros and masked (:class:`~edgealloc.models.exchange.dropout.Masks`). Every device uses the server's LoRA
scaling, for products of different scaling could not be averaged. Needs numpy only.
"""

from __future__ import annotations

import re

import numpy as np

from edgealloc.models.exchange.wire import State, WireArray

__all__ = ["cut_product", "exponent_of", "rank_of_label", "restarted"]

_LABEL = re.compile(r"r ?= ?([1-9][0-9]*)")


def rank_of_label(label: str) -> int:
    """The rank that a row of an adapter menu means.

    Parameters
    ----------
    label
        Of the row: ``r=8``.

    Returns
    -------
    int
        The rank, >= 1.

    Raises
    ------
    ValueError
        For a label of another form: what the row changes, for example the number format, is not known.
    """
    found = _LABEL.fullmatch(label.strip())
    if found is None:
        raise ValueError(
            f"menu row {label!r}: only LoRA ranks can be trained, in rows that are labelled r=8, r=16, ..."
        )
    return int(found[1])


def exponent_of(array: WireArray) -> int:
    """The least e with all of a finite array, of any shape, below 2^e; division by that loses no bit."""
    return int(np.frexp(np.max(np.abs(array), initial=0.0))[1])


def cut_product(product: WireArray, like: WireArray) -> tuple[WireArray, WireArray]:
    """The best factors of a given rank, most important component first (Eckart and Young, by SVD).

    Parameters
    ----------
    product
        Shape [n_out, n_in].
    like
        The present A [r, n_in]: its rank is that of the factors, and its rows stay where the product has no
        component for them, so that they can still learn (their B is zero).

    Returns
    -------
    tuple of array
        A [r, n_in] with orthonormal rows beside those that stay, and B [n_out, r] with the singular values; nan
        where the product is not finite.
    """
    if not np.all(np.isfinite(product)):
        return np.full(like.shape, np.nan), np.full((len(product), len(like)), np.nan)
    exponent = exponent_of(product)
    u, s, v = np.linalg.svd(np.ldexp(np.asarray(product, dtype=float), -exponent), full_matrices=False)
    rank = min(len(like), int(np.sum(s > np.finfo(float).eps * max(product.shape) * s[0])))
    a, b = np.array(like, dtype=float), np.zeros((len(product), len(like)))
    a[:rank], b[:, :rank] = v[:rank], np.ldexp(u[:, :rank] * s[:rank], exponent)
    return a, b


def restarted(state: State, rng: np.random.Generator) -> dict[str, WireArray]:
    """An adapter that starts anew: A drawn as PEFT draws it, uniform within 1 / sqrt(n_in), and B zero.

    Parameters
    ----------
    state
        The adapter, full size, by name.
    rng
        Draws A, layer by layer in the order of names.

    Returns
    -------
    dict of str to array
        The new one, A [r, n_in] and B [n_out, r], in the order of ``state``; the head stays.
    """
    out = {name: np.array(value) for name, value in state.items()}
    for name in sorted(state):
        if name.endswith(".lora_A.weight"):
            side = 1.0 / np.sqrt(state[name].shape[1])
            out[name] = rng.uniform(-side, side, state[name].shape).astype(state[name].dtype)
        elif name.endswith(".lora_B.weight"):
            out[name] = np.zeros_like(state[name])
    return out
