"""Rounds of several federations, one a cluster, in which every device reads the experts of the others too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.models.exchange.dropout import slice_adapter
from edgealloc.models.exchange.wire import AdapterShape, State, a_name, b_name, pack
from edgealloc.models.training.checkpoint import Point
from edgealloc.models.training.client import FederatedOptions, Score, evaluate, round_masks
from edgealloc.models.training.experts.router import Router
from edgealloc.models.training.federated import (
    LARGEST_LOSS,
    Diverged,
    Ending,
    History,
    score_round,
    train_round,
)
from edgealloc.models.training.task import Task
from edgealloc.units import FloatArray, IntArray

__all__ = ["Federation", "train_routed"]

_NAN = Score(math.nan, math.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Federation:
    """One cluster: its devices' task, what they keep and fetch.

    Parameters
    ----------
    task
        With the cluster's devices; its handle and initial adapter have the routers.
    rates
        Keep rates. Shape [rounds, K'].
    fetched
        Experts that each device fetches, its own among them, 1 to M. Shape [K'].
    nearest
        The other clusters, the nearest first. Of length M - 1.
    options
        How, with a seed of its own.
    """

    task: Task
    rates: FloatArray
    fetched: IntArray
    nearest: tuple[int, ...]
    options: FederatedOptions


class _Stand:
    """All clusters' models, and the model that is trained and scored as one of them."""

    def __init__(self, router: Router, cells: Sequence[Federation]) -> None:
        self.router, self.cells = router, cells
        self.points = [Point({n: np.array(v) for n, v in cell.task.initial.items()}, {}) for cell in cells]

    def put(self, own: int, points: Sequence[Point]) -> None:
        """Make the model that of a cluster, beside the others as they are in ``points``, all of them open."""
        self.router.stand([point.state for e, point in enumerate(points) if e != own])
        self.cells[own].task.handle.write(points[own].state)

    def enter(self, own: int, k: int) -> None:
        """Close what a device of the cluster did not fetch."""
        cell = self.cells[own]
        missing = set(cell.nearest[int(cell.fetched[k]) - 1 :])
        others = [e for e in range(len(self.cells)) if e != own]
        self.router.close(np.array([e in missing for e in others]))

    def download_bits(self, shape: AdapterShape, own: int, number: int) -> list[int]:
        """What each device of a cluster gets: sub-adapter, head and router, and whole experts of others."""
        cell, bits = self.cells[own], []
        for k, count in enumerate(cell.fetched.tolist()):
            masks = round_masks(shape, k, number, float(cell.rates[number, k]), cell.options)
            slices = slice_adapter(self.points[own].state, masks, sends_a=shape.sends_a)
            sent = [slices, *(_expert(shape, self.points[e].state) for e in cell.nearest[: count - 1])]
            bits.append(8 * sum(len(pack(part, shape.wire_dtype)) for part in sent))
        return bits


def _expert(shape: AdapterShape, state: State) -> State:
    """What travels of an expert of another cluster: its factors, without head and router."""
    names = {name(u.name) for u in shape.layers for name in ((a_name, b_name) if shape.sends_a else (b_name,))}
    return {name: value for name, value in state.items() if name in names}


def train_routed(
    router: Router,
    cells: Sequence[Federation],
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[History, ...]:
    """Train all clusters round by round; in a round, each reads the others as they were when it began.

    Parameters
    ----------
    router
        Of the model that all tasks share.
    cells
        M >= 2 clusters; their options differ in the seed only.
    progress
        Called with each record of each cluster, which says of which it is.

    Returns
    -------
    tuple of History
        One per cluster, with ``download_bits`` of its devices in the records and its routers in the state.
    """
    options = cells[0].options
    stand = _Stand(router, cells)
    shapes = [
        AdapterShape.from_state(cell.task.initial, wire_dtype=options.wire_dtype, sends_a=not options.freeze_a)
        for cell in cells
    ]
    records: list[list[dict[str, Any]]] = [[] for _ in cells]
    best = [list(stand.points) for _ in cells]
    reason = ""
    with cells[0].task.feed.shortcuts(), router.installed():
        try:
            for number in range(options.rounds):
                _one_round(stand, shapes, number, records, best, progress)
        except Diverged as words:
            reason = str(words)
        ends = [_scored(stand, e, best[e], bool(records[e]), reason) for e in range(len(cells))]
    return tuple(
        History(
            tuple(records[e]), train, test, _lowest(records[e]), best_test, stand.points[e].state,
            Ending.DIVERGED if words else Ending.COMPLETED, words,
        )
        for e, (train, test, best_test, words) in enumerate(ends)
    )  # fmt: skip


def _one_round(
    stand: _Stand,
    shapes: Sequence[AdapterShape],
    number: int,
    records: list[list[dict[str, Any]]],
    best: list[list[Point]],
    progress: Callable[[dict[str, Any]], None] | None,
) -> None:
    """Train all clusters on the experts as they are, then score them on those that came of it."""
    after, begun = [], []
    for e, cell in enumerate(stand.cells):
        stand.put(e, stand.points)
        devices = len(cell.task.devices)
        point, record = train_round(
            cell.task, shapes[e], stand.points[e], number, cell.rates[number], np.ones(devices, bool),
            [None] * devices, cell.options, enter=lambda k, e=e: stand.enter(e, k),  # type: ignore[misc]
        )  # fmt: skip
        after.append(point)
        begun.append(record | {"download_bits": stand.download_bits(shapes[e], e, number)})
    stand.points = after
    scored = []
    for e, cell in enumerate(stand.cells):
        stand.put(e, after)
        scored.append(begun[e] | score_round(cell.task, number, cell.options))
    for e, record in enumerate(scored):  # a round that diverges anywhere leaves no record anywhere
        ahead = min((r["validation_loss"] for r in records[e]), default=np.inf)
        if record["validation_loss"] < ahead:
            best[e] = list(after)
        records[e].append(record)
        if progress is not None:
            progress(record | {"cluster": e})


def _scored(
    stand: _Stand, e: int, best: Sequence[Point], trained: bool, reason: str
) -> tuple[Score, Score, Score, str]:
    """Scores of a cluster's model: on training and test, and on test as it was at its best; why they are nan."""
    task, precision = stand.cells[e].task, stand.cells[e].options.precision
    best_test = _NAN
    if trained:
        stand.put(e, best)
        best_test = evaluate(task, task.test, precision)
    stand.put(e, stand.points)
    if reason:
        return _NAN, _NAN, best_test, reason
    train, test = evaluate(task, np.concatenate(task.devices), precision), evaluate(task, task.test, precision)
    if train.loss <= LARGEST_LOSS and test.loss <= LARGEST_LOSS:
        return train, test, best_test, ""
    words = f"after the last round: training loss {train.loss:.3g}, test loss {test.loss:.3g}"
    return _NAN, _NAN, best_test, words


def _lowest(records: Sequence[dict[str, Any]]) -> int | None:
    return int(np.argmin([r["validation_loss"] for r in records])) if records else None
