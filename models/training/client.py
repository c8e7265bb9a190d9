"""One device in one round: take the sub-adapter, train its kept entries, return its slices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgealloc.errors import Fault, shown
from edgealloc.models.exchange.aggregation import Aggregation, Update
from edgealloc.models.exchange.dropout import (
    Masks,
    Method,
    draw_masks,
    full_masks,
    masked,
    round_generator,
    slice_adapter,
)
from edgealloc.models.exchange.wire import WIRE_DTYPES, AdapterShape, State, pack, unpack
from edgealloc.models.training.cache import Feed
from edgealloc.models.training.ranges import number, require, whole, word
from edgealloc.models.training.task import Task
from edgealloc.units import IntArray

# Purposes of a draw, the first part of its key.
MASK_DRAWS, BATCH_DRAWS, RESTARTS, SPARSE_DRAWS, TASK_SEEDS, CLUSTER_SEEDS, ROUTER_DRAWS = range(7)


@dataclass(frozen=True, slots=True)
class FederatedOptions:
    """Options of a federated run.

    Parameters
    ----------
    rounds, local_epochs, batch_size
        Rounds, passes over its data that a device makes per round, and examples per step.
    learning_rate, weight_decay
        AdamW on every device, started afresh each round.
    masks
        ``exact`` count, ``bernoulli``, or ``entries`` of B, which are drawn once for all rounds and devices, see
        :func:`edgealloc.models.exchange.dropout.draw_masks`.
    scaling
        ``inverted``: a device trains with its adapter's product scaled by 1/s^2 (1/s where A is frozen, and so
        never dropped), so that its mean is unchanged;
        ``none``: as it is.
    semantics
        ``sub-adapter``: only kept entries train and travel. ``reset``: dropped entries start at zero, then all
        train and all travel (the paper's public code; for comparison only: nothing is saved on the wire).
    freeze_a
        FFA-LoRA: A stays at its initial value and is never sent.
    aggregation
        How the server merges.
    wire_dtype
        Number format of uploads.
    precision
        ``float32``, or ``bfloat16`` where the processor has it (autocast; the adapter itself stays float32).
    test_every
        Evaluate the test set every so many rounds, for curves (0: only at the end).
    patience
        Stop after so many rounds in a row without a lower validation loss, and end with the adapter of the best
        round (0: train all rounds and end with the last).
    seed
        Masks and batches.

    Raises
    ------
    InputError
        Names every option that is none of these, or no number in its range.
    """

    rounds: int = 10
    local_epochs: int = 3
    batch_size: int = 20
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    masks: Method = "exact"
    scaling: Literal["none", "inverted"] = "none"
    semantics: Literal["sub-adapter", "reset"] = "sub-adapter"
    freeze_a: bool = False
    aggregation: Aggregation = field(default_factory=Aggregation)
    wire_dtype: str = "float32"
    precision: Literal["float32", "bfloat16"] = "float32"
    test_every: int = 0
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            "training",
            [
                *(whole(name, getattr(self, name), 1) for name in ("rounds", "local_epochs", "batch_size")),
                *(whole(name, getattr(self, name), 0) for name in ("test_every", "patience", "seed")),
                number("learning_rate", self.learning_rate, 0.0, above=True),
                number("weight_decay", self.weight_decay, 0.0),
                word("scaling", self.scaling, ("none", "inverted")),
                word("semantics", self.semantics, ("sub-adapter", "reset")),
                word("masks", self.masks, ("exact", "bernoulli", "entries")),
                word("precision", self.precision, ("float32", "bfloat16")),
                word("wire_dtype", self.wire_dtype, WIRE_DTYPES),
                *self._rule_faults(),
            ],
        )

    def _rule_faults(self) -> list[Fault]:
        """What is no rule of merging, and what does not go with a frozen A or with a sparse B beside one."""
        rule: object = self.aggregation
        if not isinstance(rule, Aggregation):
            return [Fault("options", "aggregation", shown(rule), "an Aggregation")]
        wanted = (
            {"freeze_a": True, "scaling": "none", "semantics": "sub-adapter"} if self.masks == "entries" else {}
        )
        faults = [
            Fault("options", field, shown(getattr(self, field)), f"{value} with masks of single entries")
            for field, value in wanted.items()
            if getattr(self, field) != value
        ]
        return faults + rule.misfits(sends_a=not self.freeze_a, masks=self.masks)


@dataclass(frozen=True, slots=True)
class Score:
    """How a model does on a set of examples.

    Parameters
    ----------
    loss
        Mean cross-entropy in nats.
    accuracy
        Share of examples that are classified right.
    """

    loss: float
    accuracy: float


def evaluate(task: Task, index: IntArray, precision: str = "float32") -> Score:
    """Score the model's present adapter on some examples; call inside ``feed.shortcuts()``.

    Parameters
    ----------
    task
        The model and its examples.
    index
        Which examples. Shape [N].
    precision
        ``float32`` or ``bfloat16``, as in :class:`FederatedOptions`.

    Returns
    -------
    Score
        Mean loss in nats, and accuracy.
    """
    loss, right = 0.0, 0
    with torch.no_grad(), _precision(precision, task.feed):
        for batch in task.feed.by_length(index, 128):
            logits = task.feed.logits(batch).float()
            labels = task.feed.labels[batch]
            loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
            right += int((logits.argmax(1) == labels).sum())
    return Score(loss / len(index), right / len(index))


def _precision(precision: str, feed: Feed) -> torch.autocast:
    kind = feed.labels.device.type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def train_locally(
    task: Task,
    examples: IntArray,
    masks: Masks,
    options: FederatedOptions,
    rng: np.random.Generator,
    scale: float = 1.0,
) -> float:
    """Train the model's present adapter on one device's examples, kept entries only.

    Gradients outside the masks are set to zero. Dropped entries start at zero, so AdamW, whose moments and decay
    then vanish too, leaves them there: the full-size computation equals training the slices.

    Parameters
    ----------
    task
        The model, with the device's masked adapter written into it.
    examples
        Indices of the device's examples. Shape [N].
    masks
        What trains.
    options
        Epochs, batch size, rates.
    rng
        Order of examples.
    scale
        Factor on the LoRA scaling (1/s^2 for inverted dropout).

    Returns
    -------
    float
        Mean loss over the last epoch, in nats.
    """
    named = {
        name: p for name, p in task.handle.parameters.items() if not (options.freeze_a and ".lora_A." in name)
    }
    kept: list[tuple[nn.Parameter, Tensor]] = []
    for name, p in named.items():
        mask = masks.spread(name)
        if mask is not None and not mask.all():
            kept.append((p, torch.from_numpy(mask.astype(np.float32)).to(p)))
    optimiser = torch.optim.AdamW(
        list(named.values()), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    total = 0.0
    with task.handle.scaled(scale):
        for _ in range(options.local_epochs):
            total = 0.0
            for batch in task.feed.shuffled(examples, options.batch_size, rng):
                with _precision(options.precision, task.feed):
                    logits = task.feed.logits(batch)
                loss = nn.functional.cross_entropy(logits.float(), task.feed.labels[batch])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                for p, mask_tensor in kept:
                    if p.grad is not None:
                        p.grad.mul_(mask_tensor)
                optimiser.step()
                total += float(loss.detach()) * len(batch)
    return total / len(examples)


def inverse_scale(keep: float, sends_a: bool) -> float:
    """The factor that leaves the mean of a dropped product as it was: 1/s^2, or 1/s where A is never dropped."""
    return 1.0 / keep**2 if sends_a else 1.0 / keep


def round_masks(
    shape: AdapterShape, k: int, number: int, keep: float, options: FederatedOptions, rank: int | None = None
) -> Masks:
    """What one device gets in one round.

    Parameters
    ----------
    shape, k, number, keep, options, rank
        As for :func:`device_round`.

    Returns
    -------
    Masks
        The same for whoever asks.
    """
    key = (SPARSE_DRAWS,) if options.masks == "entries" else (MASK_DRAWS, number, k)
    return draw_masks(shape, keep, round_generator(options.seed, *key), options.masks, rank)


def device_round(
    task: Task,
    shape: AdapterShape,
    state: State,
    k: int,
    number: int,
    keep: float,
    options: FederatedOptions,
    rank: int | None = None,
) -> tuple[Update, float, int]:
    """Run one device in one round.

    Parameters
    ----------
    task
        The model, and every device's examples.
    shape
        The adapter's inventory.
    state
        The server's adapter, full size, by name.
    k, number
        The device, and the round.
    keep
        Its keep rate in (0, 1].
    options
        Masks, training, wire format.
    rank
        Its LoRA rank, at most the server's; None: the server's.

    Returns
    -------
    tuple of Update, float and int
        What it returns, its mean loss in nats, and the bits that it sent.

    Raises
    ------
    OverflowError
        If it has a number that the wire format cannot hold.
    """
    masks = round_masks(shape, k, number, keep, options, rank)
    task.handle.write(masked(state, masks))
    sends = full_masks(shape, rank) if options.semantics == "reset" else masks
    scale = inverse_scale(keep, shape.sends_a) if options.scaling == "inverted" else 1.0
    rng = round_generator(options.seed, BATCH_DRAWS, number, k)
    loss = train_locally(task, task.devices[k], sends, options, rng, scale)
    slices = slice_adapter(task.handle.read(), sends, sends_a=shape.sends_a)
    wire = pack(slices, shape.wire_dtype)
    received = unpack(wire, slices, shape.wire_dtype)
    return Update(received, sends, float(len(task.devices[k]))), loss, 8 * len(wire)
