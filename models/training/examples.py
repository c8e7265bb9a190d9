"""Labelled examples as a model reads them, and how they are spread over devices.

Splits are drawn from a generator that is passed in. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgealloc.models.training.texts import TextData
from edgealloc.units import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Examples:
    """What a model reads, and what it should say.

    Parameters
    ----------
    inputs
        Named arrays (``input_ids``, ``pixel_values``, ...). Shapes [N, ...].
    labels
        Classes. Shape [N].
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: IntArray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: ArrayLike) -> Examples:
        """Return the examples with these indices, shape [n], in this order."""
        chosen = np.asarray(index, dtype=np.int64)
        return Examples({name: value[chosen] for name, value in self.inputs.items()}, self.labels[chosen])

    def with_labels(self, labels: IntArray) -> Examples:
        """Return the same inputs under other labels [N]."""
        return Examples(self.inputs, labels)


def encode(data: TextData, tokenizer: Any, max_length: int = 64) -> Examples:
    """Tokenise texts, padded on the right.

    Parameters
    ----------
    data
        N texts.
    tokenizer
        Of transformers.
    max_length
        Longest text in tokens; the rest is cut off.

    Returns
    -------
    :class:`Examples`
        ``input_ids``, ``attention_mask`` (and what else the model reads), shapes [N, T], T the longest text.
    """
    columns = [list(column) for column in zip(*data.texts, strict=True)]
    batch = tokenizer(*columns, truncation=True, max_length=max_length, padding="longest", padding_side="right")
    inputs = {name: np.asarray(value, dtype=np.int64) for name, value in batch.items()}
    return Examples(inputs, data.labels)


def device_sizes(total: int, weights: ArrayLike) -> IntArray:
    """Divide examples over devices in proportion, at least one each, by largest remainder.

    Parameters
    ----------
    total
        Number of examples.
    weights
        Positive shares of the devices. Shape [K].

    Returns
    -------
    array
        Examples per device, summing to ``total``. Shape [K].

    Raises
    ------
    ValueError
        If a weight is not positive, or there are fewer examples than devices.
    """
    share = np.asarray(weights, dtype=float)
    if np.any(~(share > 0)):
        raise ValueError("every device needs a positive weight")
    if total < len(share):
        raise ValueError(f"{total} examples cannot give each of {len(share)} devices one")
    exact = 1 + (total - len(share)) * share / share.sum()
    sizes = np.floor(exact).astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    return np.asarray(sizes, dtype=np.int64)


def skewed_weights(devices: int, skew: float, rng: np.random.Generator) -> FloatArray:
    """Draw quantity skew: log-normal weights of the devices.

    Parameters
    ----------
    devices
        K.
    skew
        Log standard deviation; 0 is even.
    rng
        Generator.

    Returns
    -------
    array
        Positive weights. Shape [K].
    """
    return np.asarray(np.exp(skew * rng.standard_normal(devices)))


def split_iid(sizes: ArrayLike, rng: np.random.Generator) -> tuple[IntArray, ...]:
    """Deal range(sum(sizes)) at random into devices of these sizes.

    Parameters
    ----------
    sizes
        Examples per device. Shape [K].
    rng
        Generator.

    Returns
    -------
    tuple of array
        Indices of the examples of each device.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    return tuple(np.split(rng.permutation(int(counts.sum())), np.cumsum(counts)[:-1]))


def split_dirichlet(
    labels: IntArray, sizes: ArrayLike, concentration: float, rng: np.random.Generator
) -> tuple[IntArray, ...]:
    """Deal examples so that each device's class mix is drawn from Dirichlet(concentration * class frequency).

    Small concentrations give devices of few classes; large ones approach IID. Device sizes are met exactly: a
    device whose drawn class has run out takes from the classes that are left, in proportion to its mix.

    Parameters
    ----------
    labels
        Classes. Shape [N].
    sizes
        Examples per device, summing to N. Shape [K].
    concentration
        Positive; 0.1 is strongly skewed, 100 nearly IID.
    rng
        Generator.

    Returns
    -------
    tuple of array
        Indices of the examples of each device.

    Raises
    ------
    ValueError
        If the sizes do not sum to N, or the concentration is not positive.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    if counts.sum() != len(labels):
        raise ValueError(f"sizes sum to {counts.sum()}, there are {len(labels)} examples")
    if not concentration > 0:
        raise ValueError(f"concentration {concentration}: must be positive")
    classes, frequency = np.unique(labels, return_counts=True)
    stock = [list(rng.permutation(np.flatnonzero(labels == c))) for c in classes]
    mix = rng.dirichlet(concentration * len(classes) * frequency / frequency.sum(), size=len(counts))
    hands: list[list[int]] = [[] for _ in counts]
    # One example at a time in random order of devices, so that no device is left with the scraps.
    for k in rng.permutation(np.repeat(np.arange(len(counts)), counts)):
        left = np.array([len(s) for s in stock], dtype=float)
        odds = mix[k] * (left > 0)
        odds = odds / odds.sum() if odds.sum() > 0 else left / left.sum()
        hands[k].append(int(stock[rng.choice(len(classes), p=odds)].pop()))
    return tuple(np.array(hand, dtype=np.int64) for hand in hands)


def flip_labels(labels: IntArray, fraction: float, classes: int, rng: np.random.Generator) -> IntArray:
    """Return labels with round(fraction * N) of them moved to another class, uniformly.

    Parameters
    ----------
    labels
        Classes. Shape [N].
    fraction
        Share that is moved, in [0, 1].
    classes
        Number of classes.
    rng
        Generator.

    Returns
    -------
    array
        A copy. Shape [N].

    Raises
    ------
    ValueError
        If the fraction is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"label noise {fraction}: must lie in [0, 1]")
    out = labels.copy()
    hit = rng.permutation(len(labels))[: round(fraction * len(labels))]
    out[hit] = (out[hit] + rng.integers(1, classes, size=len(hit))) % classes
    return out
