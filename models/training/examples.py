"""Labelled examples, and how they are spread over devices.

Reads tsv, csv, jsonl, Hugging Face data sets on disk and, where there is a network, from the hub. Splits are
drawn from a generator that is passed in. Needs numpy only (``datasets`` for Hugging Face sources).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgealloc.errors import needs
from edgealloc.units import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class TextData:
    """Sentences, or tuples of sentences, with class labels.

    Parameters
    ----------
    texts
        Tuples of one or two sentences. Length N.
    labels
        Class indices into ``label_names``. Shape [N].
    label_names
        The classes, sorted.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: IntArray
    label_names: tuple[str, ...]

    def take(self, index: ArrayLike) -> TextData:
        """Return the examples with these indices, shape [n], in this order."""
        chosen = np.asarray(index, dtype=np.int64)
        return TextData(tuple(self.texts[i] for i in chosen), self.labels[chosen], self.label_names)


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


def _rows(source: str | Path, split: str | None) -> Iterable[Mapping[str, Any]]:
    """Yield the rows of a file, of a data set on disk (a folder), or of one on the hub (any other name).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    MissingPackageError
        Without ``datasets``, where the source is no file.
    ValueError
        For an unknown ending, or a split that is not there.
    """
    path = Path(source)
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".tsv":  # quotes are text: sentences hold unbalanced ones
                yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            elif path.suffix == ".csv":
                yield from csv.DictReader(file)
            elif path.suffix in (".jsonl", ".json"):
                yield from (json.loads(line) for line in file if line.strip())
            else:
                raise ValueError(f"{path}: ending {path.suffix!r} is none of .tsv, .csv, .jsonl")
        return
    if path.suffix in (".tsv", ".csv", ".jsonl", ".json"):
        raise FileNotFoundError(f"{path}: no such file")
    needs("datasets", "train", f"reading the Hugging Face data set {str(source)!r}")
    import datasets

    found = datasets.load_from_disk(str(path)) if path.is_dir() else datasets.load_dataset(str(source))
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise ValueError(f"{source}: no split {split!r}; it has {', '.join(found)}")
        found = found[split]
    yield from found


def load_text(
    source: str | Path,
    *,
    text_fields: Sequence[str] | None = None,
    label_field: str = "label",
    label_names: Sequence[str] | None = None,
    split: str | None = "train",
) -> TextData:
    """Read a text classification set.

    Parameters
    ----------
    source
        A .tsv, .csv or .jsonl file with a header or keys; a folder written by ``datasets``; or a hub name.
    text_fields
        One or two columns that hold the sentences; by default every text column that is not the label.
    label_field
        The column that holds the class.
    label_names
        The classes and their order, from the training set; by default the sorted values found.
    split
        Which split of a Hugging Face data set.

    Returns
    -------
    TextData
        N examples and their classes.

    Raises
    ------
    ValueError
        If columns are missing or ambiguous, a row is short, or a label is not among ``label_names``.
    FileNotFoundError
        If there is no such file.
    MissingPackageError
        Without ``datasets``, where the source is no file.
    """
    rows = list(_rows(source, split))
    if not rows:
        raise ValueError(f"{source}: no rows")
    columns = list(rows[0])
    if label_field not in columns:
        raise ValueError(f"{source}: no column {label_field!r}; it has {', '.join(columns)}")
    if text_fields is None:
        text_fields = [c for c in columns if c != label_field and isinstance(rows[0][c], str)]
        if not 1 <= len(text_fields) <= 2:
            raise ValueError(f"{source}: text columns {text_fields}; name one or two of them in text_fields")
    wanted = (*text_fields, label_field)
    for number, row in enumerate(rows, start=1):
        if any(row.get(column) is None for column in wanted):
            raise ValueError(f"{source}: row {number} lacks a value in {', '.join(wanted)}")
    found = [str(row[label_field]) for row in rows]
    names = tuple(sorted(set(found)) if label_names is None else label_names)
    index = {name: i for i, name in enumerate(names)}
    if unknown := sorted(set(found) - set(names)):
        raise ValueError(f"{source}: labels {unknown[:5]} are not among {', '.join(names)}")
    texts = tuple(tuple(str(row[field]) for field in text_fields) for row in rows)
    return TextData(texts, np.array([index[name] for name in found], dtype=np.int64), names)


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
