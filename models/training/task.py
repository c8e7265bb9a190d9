"""What is learned by whom: data, model and the devices' shares, built from a short description."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.models.exchange.dropout import round_generator
from edgealloc.models.exchange.wire import AdapterShape, State
from edgealloc.models.training.backbone import AdapterHandle, LoraSpec, add_adapter, load_backbone
from edgealloc.models.training.cache import Feed
from edgealloc.models.training.examples import (
    Examples,
    device_sizes,
    encode,
    flip_labels,
    skewed_weights,
    split_dirichlet,
    split_iid,
)
from edgealloc.models.training.ranges import number, require, whole
from edgealloc.models.training.texts import load_sources
from edgealloc.units import IntArray

_SAMPLE, _NOISE, _SPLIT, _FLIPS = 10, 11, 12, 13  # purposes of a draw, the first part of its key


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned: a model, one feed for all its examples, and who holds which.

    Parameters
    ----------
    handle
        The model's adapter; its values at the start of a run are the initial adapter.
    feed
        Every example, by index.
    devices
        [K] index arrays: the training examples of each device.
    validation, test
        Indices of the examples for model choice, shape [V], and of those for the final word, shape [T].
    initial
        The initial adapter, so that every run starts from the same point.

    Raises
    ------
    ValueError
        If an example is in two of training, validation and test.
    """

    handle: AdapterHandle
    feed: Feed
    devices: tuple[IntArray, ...]
    validation: IntArray
    test: IntArray
    initial: State

    def __post_init__(self) -> None:
        train = np.concatenate(self.devices)
        for name, held in (("validation", self.validation), ("test", self.test)):
            if shared := np.intersect1d(train, held).size:
                raise ValueError(f"{shared} {name} examples are also in training")
        if shared := np.intersect1d(self.validation, self.test).size:
            raise ValueError(f"{shared} examples are in both validation and test")


@dataclass(frozen=True, slots=True)
class Setup:
    """A federated learning task in a few words.

    Parameters
    ----------
    name
        Name in tables.
    train_file, test_file
        Text files or data sets as in :func:`edgealloc.models.training.texts.load_text`; None for the offline
        digits. Without a test file the test examples are taken from the training file, apart from the others.
    backbone
        ``minilm``, a local path or a hub name; the digits bring their own.
    train_size, validation_size, test_size
        Examples of each kind, drawn by the seed; fewer test examples if there are not as many.
    devices
        K.
    quantity_skew
        Log standard deviation of the devices' shares (0: even).
    concentration
        Dirichlet concentration of the class mix per device (None: IID).
    label_noise
        Share of training labels that are flipped. Validation and test labels never are.
    max_length
        Longest text in tokens.
    lora
        What is adapted (None: query and value of the last layer for text, every linear layer for the digits).

    Raises
    ------
    InputError
        Names every number that is out of its range.
    """

    name: str = "digits"
    train_file: str | None = None
    test_file: str | None = None
    backbone: str = "minilm"
    train_size: int = 200
    validation_size: int = 150
    test_size: int = 500
    devices: int = 5
    quantity_skew: float = 0.0
    concentration: float | None = None
    label_noise: float = 0.0
    max_length: int = 64
    lora: LoraSpec | None = None

    def __post_init__(self) -> None:
        sizes = ("train_size", "validation_size", "test_size", "devices", "max_length")
        require(
            "training",
            [
                *(whole(name, getattr(self, name), 1) for name in sizes),
                number("quantity_skew", self.quantity_skew, 0.0),
                number("label_noise", self.label_noise, 0.0, 1.0),
                None
                if self.concentration is None
                else number("concentration", self.concentration, 0.0, above=True),
            ],
        )

    @property
    def usual_lora(self) -> LoraSpec:
        """What is adapted where ``lora`` does not say."""
        if self.train_file is not None:
            return LoraSpec()
        from edgealloc.models.training.digits import DIGITS_LORA

        return DIGITS_LORA

    def most_training(self) -> int:
        """How many training examples there are, beside validation, and beside test if it comes from the same file.

        Raises
        ------
        OSError, ValueError
            If the training data cannot be read.
        """
        if self.train_file is None:
            from edgealloc.models.training.digits import NEW, load_digits

            return len(load_digits(NEW)) - self.validation_size - self.test_size
        rows = len(load_sources(self.train_file, self.test_file)[0].labels)
        return rows - self.validation_size - (self.test_size if self.test_file is None else 0)


def source_setup(data: str | None) -> Setup:
    """Describe a task by where its data are.

    Parameters
    ----------
    data
        None: the offline digits, with the sizes of :class:`Setup`. A folder that holds a file ``train`` is read
        with its ``test``, ``dev`` or ``val``, the first that there is. Any other name is one source of all
        examples, as :func:`edgealloc.models.training.texts.load_text` takes it.

    Returns
    -------
    Setup
        The description; nothing is read yet.
    """
    if data is None:
        return Setup()
    folder = Path(data)

    def find(names: tuple[str, ...]) -> str | None:
        paths = (folder / f"{name}{ending}" for name in names for ending in (".tsv", ".csv", ".jsonl"))
        return next((str(path) for path in paths if path.is_file()), None)

    train = find(("train",))
    if train is None:
        return Setup(folder.stem, train_file=data)
    return Setup(folder.resolve().name, train_file=train, test_file=find(("test", "dev", "val")))


def _text(setup: Setup, seed: int) -> tuple[Examples, int, Any]:
    """Return training, validation and test examples in this order, number of classes, and the model.

    Raises
    ------
    ValueError
        If there are too few examples.
    """
    assert setup.train_file is not None
    source, test = load_sources(setup.train_file, setup.test_file)
    rng = round_generator(seed, _SAMPLE)
    first = setup.train_size + setup.validation_size
    order = rng.permutation(len(source.labels))
    if test is None:
        held = source.take(order[first : first + setup.test_size])
    else:
        held = test.take(rng.permutation(len(test.labels))[: setup.test_size])
    if len(order) < first or not len(held.labels):
        raise ValueError(f"{setup.train_file}: {len(order)} rows are too few for {setup}")
    chosen = source.take(order[:first])
    texts = type(chosen)(
        chosen.texts + held.texts, np.concatenate([chosen.labels, held.labels]), chosen.label_names
    )
    backbone = load_backbone(setup.backbone, len(source.label_names), seed)
    return encode(texts, backbone.tokenizer, setup.max_length), len(source.label_names), backbone.model


def _digits(setup: Setup, seed: int) -> tuple[Examples, int, Any]:
    """The same as :func:`_text` for the offline digits.

    Raises
    ------
    ValueError
        If there are too few images.
    """
    from edgealloc.models.training.digits import NEW, digits_backbone, load_digits

    examples = load_digits(NEW)
    if setup.train_size + setup.validation_size >= len(examples):
        raise ValueError(f"there are {len(examples)} images of new digits: too few for {setup}")
    size = min(len(examples), setup.train_size + setup.validation_size + setup.test_size)
    chosen = round_generator(seed, _SAMPLE).permutation(len(examples))[:size]
    return examples.take(chosen), len(NEW), digits_backbone().model


def adapter_shape(setup: Setup, *, wire_dtype: str = "float32", sends_a: bool = True) -> AdapterShape:
    """Return the inventory of the adapter that a task trains, without its examples.

    Parameters
    ----------
    setup
        The description.
    wire_dtype, sends_a
        Taken over into the inventory.

    Returns
    -------
    AdapterShape
        Layers and head, and so the payload in bit.

    Raises
    ------
    MissingPackageError
        If torch, transformers, peft, or what reads the data is missing.
    OSError, ValueError
        If data or model cannot be read, or the model has nothing of what should be adapted.
    """
    if setup.train_file is None:
        from edgealloc.models.training.digits import digits_backbone

        model = digits_backbone().model
    else:
        classes = len(load_sources(setup.train_file, setup.test_file)[0].label_names)
        model = load_backbone(setup.backbone, classes).model
    handle = AdapterHandle.of(add_adapter(model, setup.lora or setup.usual_lora))
    return AdapterShape.from_state(handle.read(), wire_dtype=wire_dtype, sends_a=sends_a)


def build_task(
    setup: Setup, seed: int, *, device_weights: ArrayLike | None = None, device: str = "cpu", fast: bool = True
) -> Task:
    """Draw the examples, spread them over devices, load the model and fill the cache.

    Parameters
    ----------
    setup
        The description.
    seed
        Draws the examples, the noise, the split, and the initial adapter and head.
    device_weights
        Shares of the devices [K], for example an instance's samples; replaces ``devices`` and ``quantity_skew``.
    device
        Torch device.
    fast
        False trains without the cached path (for comparison).

    Returns
    -------
    Task
        Examples, shares and model.

    Raises
    ------
    MissingPackageError
        If torch, transformers, peft, or what reads the data is missing.
    OSError, ValueError
        If the data cannot be read, or are too few.
    """
    examples, classes, model = (_digits if setup.train_file is None else _text)(setup, seed)
    n, held = setup.train_size, setup.validation_size
    noise = round_generator(seed, _NOISE)
    labels = examples.labels.copy()
    labels[:n] = flip_labels(labels[:n], setup.label_noise, classes, noise)
    examples = examples.with_labels(labels)
    rng = round_generator(seed, _SPLIT)
    if device_weights is None:
        device_weights = skewed_weights(setup.devices, setup.quantity_skew, rng)
    sizes = device_sizes(n, device_weights)
    if setup.concentration is None:
        shares = split_iid(sizes, rng)
    else:
        shares = split_dirichlet(labels[:n], sizes, setup.concentration, rng)
    handle = AdapterHandle.of(add_adapter(model, setup.lora or setup.usual_lora, seed))
    feed = Feed(handle, examples, fast=fast, device=device)
    validation, test = np.arange(n, n + held), np.arange(n + held, len(examples))
    return Task(handle, feed, shares, validation, test, handle.read())


def with_flipped(task: Task, devices: Sequence[int], seed: int, share: float = 1.0) -> Task:
    """The same task with the labels of some devices wrong, to see what a rule makes of poisoned data.

    Parameters
    ----------
    task
        The task; it stays as it is, and shares its model and cache.
    devices
        Whose training labels are moved to another class, uniformly.
    seed
        Of the draw.
    share
        Of a device's labels that is moved, in [0, 1].

    Returns
    -------
    Task
        With labels of its own. With two classes and the share 1 they are all turned.

    Raises
    ------
    ValueError
        For a device that is not there, or a share outside [0, 1].
    """
    import torch

    labels = task.feed.labels.cpu().numpy().copy()
    classes = int(labels.max()) + 1
    for k in devices:
        if not 0 <= k < len(task.devices):
            raise ValueError(f"device {k}: must be one of 0 to {len(task.devices) - 1}")
        own = task.devices[k]
        labels[own] = flip_labels(labels[own], share, classes, round_generator(seed, _FLIPS, k))
    feed = copy(task.feed)
    feed.labels = torch.from_numpy(labels).to(task.feed.labels.device)
    return replace(task, feed=feed)
