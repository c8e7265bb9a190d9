"""Federated rounds: masks out, local training, slices back, merge; deterministic and resumable.

Every random draw is keyed by (purpose, round, device) under the run's seed, so a run that was cut off goes on bit
for bit, and two runs that differ in one rate see the same batches. Same seed, platform, versions and thread
count: same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.errors import Fault, InputError, shown
from edgealloc.models.exchange.aggregation import aggregate
from edgealloc.models.exchange.dropout import round_generator
from edgealloc.models.exchange.ranks import restarted
from edgealloc.models.exchange.wire import AdapterShape, WireArray
from edgealloc.models.training.checkpoint import Point, Standing, load, save
from edgealloc.models.training.client import RESTARTS, FederatedOptions, Score, device_round, evaluate
from edgealloc.models.training.identity import environment, task_digest
from edgealloc.models.training.task import Task
from edgealloc.units import BoolArray, FloatArray, IntArray

LARGEST_LOSS = 1e3  # nats; a classifier that is sure and wrong loses some tens, so what loses more is not training


class Ending(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"  # all rounds
    STOPPED = "stopped early"  # no lower validation loss for ``patience`` rounds
    DIVERGED = "diverged"  # losses or weights that are no numbers any more; the scores are nan


@dataclass(frozen=True, slots=True)
class History:
    """What a run left behind.

    Parameters
    ----------
    rounds
        One record per round that was trained without diverging: ``round`` (from 0), ``local_loss``,
        ``validation_loss``, ``validation_accuracy``, ``reporting``, ``upload_bits`` [K], and every ``test_every``
        rounds ``test_loss``, ``test_accuracy``. With a ``robust`` rule the first has ``contaminated``, who is left
        out of the rounds after it, with the reason, by device.
    train, test
        Scores of the final adapter: that of the last round, with ``patience`` that of the best; nan where the run
        diverged.
    best_round, best_test
        The round of least validation loss, and its adapter's score on the test set; None and nan where not even
        the first round could be trained.
    state
        The final adapter, full size (A [rank, n_in], B [n_out, rank]), by name; where the run diverged the last
        one that was finite.
    ending
        How the run ended.
    reason
        Where it diverged: in which round, and what of it.
    """

    rounds: tuple[dict[str, Any], ...]
    train: Score
    test: Score
    best_round: int | None
    best_test: Score
    state: dict[str, WireArray]
    ending: Ending = Ending.COMPLETED
    reason: str = ""

    @property
    def contaminated(self) -> dict[int, str]:
        """The devices that the warm-up round of a ``robust`` rule found spoilt, each with the reason."""
        return _contaminated(self.rounds)

    def summary(self) -> dict[str, Any]:
        """Return the run as one flat record: scores, how it ended, and the bits that were sent in all."""
        return {
            "train_loss": self.train.loss,
            "train_accuracy": self.train.accuracy,
            "test_loss": self.test.loss,
            "test_accuracy": self.test.accuracy,
            "best_round": math.nan if self.best_round is None else self.best_round,
            "best_test_loss": self.best_test.loss,
            "best_test_accuracy": self.best_test.accuracy,
            "upload_bits": sum(sum(r["upload_bits"]) for r in self.rounds),
            "rounds_trained": len(self.rounds),
            "ending": self.ending.value,
            "reason": self.reason,
        }


def _contaminated(records: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    found = records[0].get("contaminated", {}) if records else {}
    return {int(k): why for k, why in found.items()}  # keys of JSON are text


def fingerprint(
    task: Task,
    rates: FloatArray,
    present: BoolArray,
    options: FederatedOptions,
    ranks: IntArray | None = None,
) -> str:
    """Return a hash of everything that a run's result depends on.

    Parameters
    ----------
    task
        What is learned.
    rates, present
        Keep rates, and who reports. Shapes [rounds, K].
    options
        How.
    ranks
        LoRA ranks, or None where every device has the server's. Shape [rounds, K].

    Returns
    -------
    str
        Hexadecimal SHA-256.
    """
    place = environment(task.feed.labels.device.type)
    digest = hashlib.sha256(json.dumps([asdict(options), place, task_digest(task)], sort_keys=True).encode())
    for array in (rates, present) if ranks is None else (rates, present, ranks):
        digest.update(np.ascontiguousarray(array).tobytes())
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
    ranks: ArrayLike | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> History:
    """Train for ``options.rounds`` rounds.

    With a ``robust`` rule the first is a warm-up of whole adapters, whatever ``keep`` says; who is contaminated by
    what it sent there is not asked again.

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
    ranks
        LoRA ranks [K], or [rounds, K], of 1 to the server's rank, which is that of the model; None: the server's.
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
    InputError
        For a checkpoint that is damaged, or of another run; for lower ranks with masks of single entries.
    ValueError
        For keep rates or ranks out of range.
    """  # noqa: DOC501 (no Diverged: it ends here)
    size = (options.rounds, len(task.devices))
    rates = np.broadcast_to(np.asarray(keep, dtype=float), size)
    present = np.broadcast_to(np.ones(size, bool) if reports is None else np.asarray(reports, bool), size)
    if not np.all((rates[present] > 0) & (rates[present] <= 1)):
        raise ValueError("keep rates of reporting devices must lie in (0, 1]")
    shape = AdapterShape.from_state(task.initial, wire_dtype=options.wire_dtype, sends_a=not options.freeze_a)
    sizes = None if ranks is None else np.broadcast_to(np.asarray(ranks), size)
    if sizes is not None and not (sizes.dtype.kind in "iu" and np.all((sizes >= 1) & (sizes <= shape.rank))):
        raise ValueError(f"ranks must be whole numbers of 1 to {shape.rank}, the rank of the adapter")
    if sizes is not None and options.masks == "entries" and np.any(sizes < shape.rank):
        allowed = f"{shape.rank} for all with masks of single entries, which are those of the full rank"
        raise InputError("training", [Fault("options", "ranks", shown(sizes[0].tolist()), allowed)])
    start = Point({name: np.array(value) for name, value in task.initial.items()}, {})
    identity = fingerprint(task, rates, present, options, sizes)
    standing = (load(checkpoint, identity) if checkpoint else None) or Standing(start, start)
    reason = ""

    with task.feed.shortcuts(), task.handle.base_restored() as shift_base:
        try:
            if not _finite(standing.now):
                raise Diverged("the checkpoint holds numbers that are not finite")
            for number in range(len(standing.records), options.rounds):
                if _patience_is_out(standing.records, options.patience):
                    break
                _apply(task, standing.now, shift_base)
                own = [None] * size[1] if sizes is None else sizes[number].tolist()
                here = rates[number], present[number].copy(), own
                here[1][list(_contaminated(standing.records))] = False
                now, record = train_round(task, shape, standing.now, number, *here, options)
                _apply(task, now, shift_base)
                record |= score_round(task, number, options)
                ahead = min((r["validation_loss"] for r in standing.records), default=np.inf)
                best = now if record["validation_loss"] < ahead else standing.best
                standing = Standing(now, best, (*standing.records, record))
                if checkpoint is not None:
                    save(checkpoint, identity, standing)
                if progress is not None:
                    progress(record)
        except Diverged as words:
            reason = str(words)

        best_test = train = test = Score(math.nan, math.nan)
        if standing.records:
            _apply(task, standing.best, shift_base)
            best_test = evaluate(task, task.test, options.precision)
        end = standing.best if options.patience else standing.now
        _apply(task, end, shift_base)
        if not reason:
            train = evaluate(task, np.concatenate(task.devices), options.precision)
            test = evaluate(task, task.test, options.precision)
            if not (train.loss <= LARGEST_LOSS and test.loss <= LARGEST_LOSS):
                reason = f"after the last round: training loss {train.loss:.3g}, test loss {test.loss:.3g}"
                train = test = Score(math.nan, math.nan)
        stopped = Ending.STOPPED if len(standing.records) < options.rounds else Ending.COMPLETED
        losses = [r["validation_loss"] for r in standing.records]
        return History(
            standing.records,
            train,
            test,
            int(np.argmin(losses)) if losses else None,
            best_test,
            end.state,
            Ending.DIVERGED if reason else stopped,
            reason,
        )


class Diverged(Exception):
    """Training is over; the message says in which round, and what went out of bounds."""


def train_round(
    task: Task,
    shape: AdapterShape,
    point: Point,
    number: int,
    rates: FloatArray,
    present: BoolArray,
    ranks: Sequence[int | None],
    options: FederatedOptions,
    enter: Callable[[int], None] | None = None,
) -> tuple[Point, dict[str, Any]]:
    """Train every device that reports and merge.

    Parameters
    ----------
    task, shape, point
        What is learned, the adapter's inventory, and the model before the round.
    number
        The round, from 0.
    rates, present
        Keep rates, and who reports. Shapes [K].
    ranks
        LoRA ranks, None for the server's. Of length K.
    options
        How.
    enter
        Called with every device before it trains, for what else it has of the model.

    Returns
    -------
    tuple of Point and dict
        The new model, and the beginning of the round's record.

    Raises
    ------
    Diverged
        When a loss, an upload or the merged adapter is no number, or too large.
    """
    updates, losses, bits = [], [], [0] * len(present)
    rule, warm_up = options.aggregation, options.aggregation.robust != "none" and number == 0
    if warm_up:  # who is screened has to send all
        rates = np.ones(len(present))
    else:
        rule = replace(rule, robust="none")
    for k in np.flatnonzero(present).tolist():
        if enter is not None:
            enter(k)
        try:
            update, loss, bits[k] = device_round(
                task, shape, point.state, k, number, float(rates[k]), options, ranks[k]
            )
        except OverflowError as error:
            raise Diverged(f"round {number + 1}, device {k}: {error}") from None
        if not loss <= LARGEST_LOSS:
            raise Diverged(f"round {number + 1}, device {k}: training loss {loss:.3g}")
        updates.append(update)
        losses.append(loss)
    with np.errstate(over="ignore", invalid="ignore"):
        merged = aggregate(point.state, updates, rule)
    residual = {name: point.residual.get(name, 0.0) + extra for name, extra in merged.base_residual.items()}
    state = merged.state
    if updates and options.aggregation.merge == "stack" and not options.freeze_a:
        state = restarted(state, round_generator(options.seed, RESTARTS, number))
    now = Point(state, residual or point.residual)
    if not _finite(now):
        raise Diverged(f"round {number + 1}: the merged adapter is not finite")
    mean = float(np.mean(losses)) if losses else None
    record: dict[str, Any] = {"round": number, "local_loss": mean, "reporting": len(updates), "upload_bits": bits}
    if warm_up:
        reasons = () if merged.screening is None else merged.screening.reasons
        heard = zip(np.flatnonzero(present).tolist(), reasons, strict=bool(updates))
        record["contaminated"] = {str(k): why for k, why in heard if why}
    return now, record


def score_round(task: Task, number: int, options: FederatedOptions) -> dict[str, Any]:
    """The rest of a round's record: scores of the model as it stands.

    Parameters
    ----------
    task, number, options
        What is learned, the round, from 0, and how often the test set is asked.

    Returns
    -------
    dict
        Losses in nats and accuracies, by name.

    Raises
    ------
    Diverged
        When a loss is no number, or too large.
    """
    record: dict[str, Any] = {}
    sets = {"validation": task.validation}
    if options.test_every and (number + 1) % options.test_every == 0:
        sets["test"] = task.test
    for name, index in sets.items():
        score = evaluate(task, index, options.precision)
        if not score.loss <= LARGEST_LOSS:
            raise Diverged(f"round {number + 1}: {name} loss {score.loss:.3g}")
        record |= {f"{name}_loss": score.loss, f"{name}_accuracy": score.accuracy}
    return record


def _finite(point: Point) -> bool:
    return all(np.all(np.isfinite(a)) for part in (point.state, point.residual) for a in part.values())


def _patience_is_out(records: Sequence[Mapping[str, Any]], patience: int) -> bool:
    """Whether the last ``patience`` rounds had no lower validation loss than the rounds before them."""
    losses = [r["validation_loss"] for r in records]
    return 0 < patience < len(losses) and min(losses[-patience:]) >= min(losses[:-patience])
