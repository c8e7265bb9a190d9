"""Federated rounds: masks out, local training, slices back, merge; deterministic and resumable.

Every random draw is keyed by (purpose, round, device) under the run's seed, so a run that was cut off goes on bit
for bit, and two runs that differ in one rate see the same batches. Same seed, platform, versions and thread
count: same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.models.exchange.aggregation import aggregate
from edgealloc.models.exchange.wire import AdapterShape, WireArray
from edgealloc.models.training.checkpoint import Point, Standing, load, save
from edgealloc.models.training.client import FederatedOptions, Score, device_round, evaluate
from edgealloc.models.training.task import Task
from edgealloc.units import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class History:
    """What a run left behind.

    Parameters
    ----------
    rounds
        One record per round: ``round``, ``local_loss``, ``validation_loss``, ``validation_accuracy``,
        ``reporting``, ``upload_bits`` [K], and every ``test_every`` rounds ``test_loss``, ``test_accuracy``.
    train, test
        Scores of the final adapter.
    best_round, best_test
        The round of least validation loss, and its adapter's score on the test set.
    state
        The final adapter, full size (A [rank, n_in], B [n_out, rank]), by name.
    """

    rounds: tuple[dict[str, Any], ...]
    train: Score
    test: Score
    best_round: int
    best_test: Score
    state: dict[str, WireArray]

    def summary(self) -> dict[str, float]:
        """Return the run as one flat record."""
        return {
            "train_loss": self.train.loss,
            "train_accuracy": self.train.accuracy,
            "test_loss": self.test.loss,
            "test_accuracy": self.test.accuracy,
            "best_round": float(self.best_round),
            "best_test_loss": self.best_test.loss,
            "best_test_accuracy": self.best_test.accuracy,
            "upload_bits": float(sum(sum(r["upload_bits"]) for r in self.rounds)),
        }


def fingerprint(task: Task, rates: FloatArray, present: BoolArray, options: FederatedOptions) -> str:
    """Return a hash of everything that a run's result depends on, but for the backbone's weights.

    Parameters
    ----------
    task
        What is learned.
    rates, present
        Keep rates, and who reports. Shapes [rounds, K].
    options
        How.

    Returns
    -------
    str
        Hexadecimal SHA-256.
    """
    digest = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
    for array in (rates, present, *task.devices, task.validation, task.test, task.feed.labels.cpu().numpy()):
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, value in task.initial.items():
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _apply(task: Task, point: Point, shift_base: Callable[[dict[str, WireArray]], None]) -> None:
    shift_base(point.residual)
    task.handle.write(point.state)


def run(
    task: Task,
    keep: ArrayLike,
    options: FederatedOptions,
    *,
    reports: BoolArray | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> History:
    """Train for ``options.rounds`` rounds.

    Parameters
    ----------
    task
        What is learned.
    keep
        Keep rates [K] in (0, 1], the same every round, or [rounds, K].
    options
        How.
    reports
        Which devices report, [K] or [rounds, K] (default: all). The others are left out of the round.
    checkpoint
        File that is written after every round, and picked up if it belongs to the same run.
    progress
        Called with each round's record.

    Returns
    -------
    History
        The run. The model is left with the final adapter; its base weights are restored.

    Raises
    ------
    ValueError
        For keep rates out of range, or a checkpoint of another run.
    """
    size = (options.rounds, len(task.devices))
    rates = np.broadcast_to(np.asarray(keep, dtype=float), size)
    present = np.broadcast_to(np.ones(size, bool) if reports is None else np.asarray(reports, bool), size)
    if not np.all((rates[present] > 0) & (rates[present] <= 1)):
        raise ValueError("keep rates of reporting devices must lie in (0, 1]")
    shape = AdapterShape.from_state(task.initial, wire_dtype=options.wire_dtype, sends_a=not options.freeze_a)
    start = Point({name: np.array(value) for name, value in task.initial.items()}, {})
    identity = fingerprint(task, rates, present, options)
    standing = (load(checkpoint, identity) if checkpoint else None) or Standing(start, start)

    with task.feed.shortcuts(), task.handle.base_restored() as shift_base:
        for number in range(len(standing.records), options.rounds):
            _apply(task, standing.now, shift_base)
            updates, losses, bits = [], [], [0] * size[1]
            for k in np.flatnonzero(present[number]).tolist():
                update, loss, bits[k] = device_round(
                    task, shape, standing.now.state, k, number, float(rates[number, k]), options
                )
                updates.append(update)
                losses.append(loss)
            merged = aggregate(standing.now.state, updates, options.aggregation)
            residual = {
                name: standing.now.residual.get(name, 0.0) + extra for name, extra in merged.base_residual.items()
            }
            now = Point(merged.state, residual or standing.now.residual)
            _apply(task, now, shift_base)
            score = evaluate(task, task.validation, options.precision)
            record: dict[str, Any] = {
                "round": number,
                "local_loss": float(np.mean(losses)) if losses else None,
                "validation_loss": score.loss,
                "validation_accuracy": score.accuracy,
                "reporting": len(updates),
                "upload_bits": bits,
            }
            if options.test_every and (number + 1) % options.test_every == 0:
                test = evaluate(task, task.test, options.precision)
                record |= {"test_loss": test.loss, "test_accuracy": test.accuracy}
            ahead = min((r["validation_loss"] for r in standing.records), default=np.inf)
            best = now if score.loss < ahead else standing.best
            standing = Standing(now, best, (*standing.records, record))
            if checkpoint is not None:
                save(checkpoint, identity, standing)
            if progress is not None:
                progress(record)

        _apply(task, standing.best, shift_base)
        best_test = evaluate(task, task.test, options.precision)
        _apply(task, standing.now, shift_base)
        return History(
            standing.records,
            evaluate(task, np.concatenate(task.devices), options.precision),
            evaluate(task, task.test, options.precision),
            int(min(standing.records, key=lambda r: r["validation_loss"])["round"]),
            best_test,
            standing.now.state,
        )
