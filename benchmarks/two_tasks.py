"""Two tasks of sentences in one model: one adapter, and for each task a head of its own.

Of every sentence it is known which task it is of, so the classes of the other task never compete: their logits are
-inf, and their part of the head gets no gradient from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgealloc.models.training.backbone import AdapterHandle, add_adapter, load_backbone
from edgealloc.models.training.cache import Feed
from edgealloc.models.training.examples import Examples
from edgealloc.models.training.task import Setup, Task
from edgealloc.units import IntArray

__all__ = ["Ground", "joined"]

Held = tuple[IntArray, IntArray]


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What a row is trained on.

    Parameters
    ----------
    task
        The task, with all devices.
    names, parts
        Of two tasks their names, and each for itself in a model of its own; empty for one task.
    own
        Of two tasks the indices in ``task`` of the validation and test examples of each.
    kinds
        Where each device has one of two tasks: which. Of length K, else empty.
    """

    task: Task
    names: tuple[str, ...] = ()
    parts: tuple[Task, ...] = ()
    own: tuple[Held, ...] = ()
    kinds: tuple[int, ...] = ()

    @property
    def held(self) -> list[Held] | None:
        """For each device the indices of the validation and test examples of its task; None: those of all."""
        return [self.own[kind] for kind in self.kinds] or None


class Heads(Feed):
    """Feeds sentences of several tasks to one model; ``closed`` [N, classes] is added to the logits."""

    closed: Tensor | None = None  # not while the shortcuts are proven against the plain model

    def logits(self, index: Tensor) -> Tensor:
        """Return logits [B, classes], -inf for the classes of other tasks."""
        out = super().logits(index)
        return out if self.closed is None else out + self.closed[index]


def joined(
    names: Sequence[str], parts: Sequence[Task], setup: Setup, seed: int, *, apart: bool, device: str = "cpu"
) -> Ground:
    """Put the sentences of several tasks before one model.

    Parameters
    ----------
    names, parts
        The tasks, of the same backbone and as many devices each.
    setup
        Of one of them, for backbone and adapter.
    seed
        Of the heads and the adapter.
    apart
        True: the devices of the tasks are different ones. False: device k has its sentences of every task.
    device
        Torch device.

    Returns
    -------
    Ground
        With T K devices where they are apart, else K.
    """
    classes = [int(part.handle.model.config.num_labels) for part in parts]
    counts = [len(part.feed) for part in parts]
    begins = np.cumsum([0, *counts[:-1]])
    first = np.cumsum([0, *classes[:-1]])
    inputs = {}
    for name in parts[0].feed.inputs:
        pieces = [part.feed.inputs[name].cpu().numpy() for part in parts]
        width = max(piece.shape[1] for piece in pieces)  # what is added is masked
        inputs[name] = np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]))) for p in pieces])
    labels = np.concatenate([p.feed.labels.cpu().numpy() + c for p, c in zip(parts, first, strict=True)])
    model = load_backbone(setup.backbone, sum(classes), seed).model
    handle = AdapterHandle.of(add_adapter(model, setup.lora or setup.usual_lora, seed))
    feed = Heads(handle, Examples(inputs, labels), device=device)
    closed = np.full((len(labels), sum(classes)), -np.inf, dtype=np.float32)
    for begin, count, low, size in zip(begins, counts, first, classes, strict=True):
        closed[begin : begin + count, low : low + size] = 0.0
    feed.closed = torch.from_numpy(closed).to(device)

    each = [[share + begin for share in part.devices] for part, begin in zip(parts, begins, strict=True)]
    own = tuple((p.validation + begin, p.test + begin) for p, begin in zip(parts, begins, strict=True))
    validation, test = (np.concatenate([held[i] for held in own]) for i in (0, 1))
    if apart:
        devices = [share for shares in each for share in shares]
        kinds = [t for t, shares in enumerate(each) for _ in shares]
    else:
        devices, kinds = [np.concatenate(shares) for shares in zip(*each, strict=True)], []
    task = Task(handle, feed, tuple(devices), validation, test, handle.read())
    return Ground(task, tuple(names), tuple(parts), own, tuple(kinds))
