"""Several tasks in one federation: each with a frozen A and a sparse B of its own, merged for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.models.exchange.dropout import round_generator
from edgealloc.models.exchange.orthogonal import orthogonal_a
from edgealloc.models.exchange.wire import AdapterShape, a_name, b_name
from edgealloc.models.training.client import TASK_SEEDS, FederatedOptions, Score, evaluate
from edgealloc.models.training.federated import History, run
from edgealloc.models.training.task import Task

__all__ = ["run_tasks", "together"]


def run_tasks(tasks: Sequence[Task], keep: Sequence[ArrayLike], options: FederatedOptions) -> tuple[History, ...]:
    """Train several tasks side by side; what devices of one task send is merged among them only.

    Parameters
    ----------
    tasks
        T tasks of one adapter shape, each with its own devices, data, head and model.
    keep
        For each task its devices' densities of B, [K] or [rounds, K].
    options
        How; ``freeze_a``, and usually masks of single ``entries``. Its seed draws seed and A of every task.

    Returns
    -------
    tuple of History
        One per task.

    Raises
    ------
    ValueError
        If A is not frozen, tasks have other adapters, or there are more rows of A than inputs.
    """
    if not options.freeze_a:
        raise ValueError("several tasks keep to what their A reads: set freeze_a=True")
    shapes = [AdapterShape.from_state(task.initial) for task in tasks]
    if any(shape.layers != shapes[0].layers for shape in shapes):
        raise ValueError("all tasks need the same adapted layers, of the same rank")
    own = orthogonal_a(shapes[0], len(tasks), options.seed)
    histories = []
    for t, (task, rates) in enumerate(zip(tasks, keep, strict=True)):
        initial = dict(task.initial)
        for name, a in own[t].items():
            initial[name] = a.astype(task.initial[name].dtype)
        seed = int(round_generator(options.seed, TASK_SEEDS, t).integers(2**31))
        histories.append(run(replace(task, initial=initial), rates, replace(options, seed=seed)))
    return tuple(histories)


def together(tasks: Sequence[Task], histories: Sequence[History], precision: str = "float32") -> tuple[Score, ...]:
    """Score every task on its test set with the products of all other tasks added to the model.

    Parameters
    ----------
    tasks, histories
        As for :func:`run_tasks`, and what it returned.
    precision
        As in the options.

    Returns
    -------
    tuple of Score
        One per task, to be compared with ``History.test``: what tasks do to each other in one model.
    """
    scores = []
    layers = [
        name.removesuffix(".lora_B.weight") for name in histories[0].state if name.endswith(".lora_B.weight")
    ]
    for t, task in enumerate(tasks):
        others = [h.state for u, h in enumerate(histories) if u != t]
        added = {
            layer: np.sum(
                [s[b_name(layer)].astype(float) @ s[a_name(layer)].astype(float) for s in others], axis=0
            )
            for layer in layers
            if others
        }
        with task.feed.shortcuts(), task.handle.base_restored() as shift:
            shift(added)
            task.handle.write(histories[t].state)
            scores.append(evaluate(task, task.test, precision))
    return tuple(scores)
