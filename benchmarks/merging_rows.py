"""What is trained in each row of :mod:`benchmarks.merging_rules`, for as many rounds as its uploads last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.two_tasks import Ground, joined
from edgealloc.models.training.client import FederatedOptions, evaluate
from edgealloc.models.training.experts.lease import LeaseOptions, run_experts
from edgealloc.models.training.federated import History, run
from edgealloc.models.training.several import run_tasks, together
from edgealloc.models.training.task import Setup, Task, build_task, source_setup, with_flipped
from edgealloc.models.trials.sweep import RULES

__all__ = ["SECTIONS", "Record", "Row", "Section", "budget_of"]

Record = dict[str, Any]

ROUNDS, MOST_ROUNDS = 20, 30  # of the reference; of any other row
KEEP, WARM_UP = 0.7, 5
RANKS = (2, 4, 4, 8, 8)
FLIPPED = (1, 4, 8)  # of ten devices
EACH, VALIDATION, TEST = 100, 200, 500  # sentences: of a device, of a task

Train = Callable[[Ground, int, int], Record]  # of a ground, a seed, and the bits that may be sent


@dataclass(frozen=True, slots=True)
class Row:
    """How a row is trained, and the row of the same section and seed that its loss is compared with."""

    train: Train
    against: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that are trained on the same ground.

    Parameters
    ----------
    title
        Above its tables.
    pair
        Whether it takes two tasks at once.
    ground
        Makes the ground from the names of the tasks, the folder of the data, the seed and the torch device.
    rows
        By name; the first is the reference, which no row is above in what it sends.
    """

    title: str
    pair: bool
    ground: Callable[[Sequence[str], Path, int, str], Ground]
    rows: Mapping[str, Row]

    @property
    def reference(self) -> str:
        """The zero-filled mean that the others are compared with."""
        return next(iter(self.rows))

    def against(self, name: str) -> str:
        """The row that a row is compared with; the reference is compared with itself."""
        return self.rows[name].against or self.reference


def setup_of(data: str, folder: Path, devices: int = 5, concentration: float | None = 0.5) -> Setup:
    """Devices of ``EACH`` sentences; classes are mixed by Dirichlet of some concentration, or evenly (None)."""
    setup = replace(source_setup(str(folder / data)), name=data, devices=devices, concentration=concentration)
    return replace(setup, train_size=EACH * devices, validation_size=VALIDATION, test_size=TEST)


def _one(devices: int, concentration: float | None = 0.5) -> Callable[[Sequence[str], Path, int, str], Ground]:
    def ground(names: Sequence[str], folder: Path, seed: int, device: str) -> Ground:
        return Ground(build_task(setup_of(names[0], folder, devices, concentration), seed, device=device))

    return ground


def _two(apart: bool) -> Callable[[Sequence[str], Path, int, str], Ground]:
    def ground(names: Sequence[str], folder: Path, seed: int, device: str) -> Ground:
        setups = [setup_of(name, folder) for name in names]
        parts = [build_task(setup, seed, device=device) for setup in setups]
        return joined(names, parts, setups[0], seed, apart=apart, device=device)

    return ground


def _sent(histories: Sequence[History]) -> int:
    return sum(sum(record["upload_bits"]) for history in histories for record in history.rounds)


def budget_of(ground: Ground, seed: int) -> int:
    """What ``ROUNDS`` rounds of the zero-filled mean send, in bits; one of them is trained to count."""
    return ROUNDS * _sent([run(ground.task, KEEP, FederatedOptions(seed=seed, rounds=1))])


def _fits(bits: int, once: int) -> int:
    """Rounds that bits last for, at most ``MOST_ROUNDS``."""
    return max(1, min(bits // once, MOST_ROUNDS))


def _outcome(
    once: int,
    rounds: int,
    histories: Sequence[History],
    figures: Mapping[str, float] | None = None,
    *,
    devices: int,
    share: Sequence[float] | None = None,
    before: int = 0,
) -> Record:
    """A record: scores at the rounds of least validation loss, as means over runs of some shares."""
    weight = np.full(len(histories), 1 / len(histories)) if share is None else np.asarray(share)
    best = [0 if h.best_round is None else h.best_round + 1 for h in histories]
    endings = [h.ending.value for h in histories]
    return {
        "devices": devices,
        "round_bits": once,
        "upload_bits": before + (_sent(histories) if once else 0),
        "rounds": rounds,
        "best_round": best[0] if len(best) == 1 else best,
        "best_test_loss": float(weight @ [h.best_test.loss for h in histories]),
        "best_test_accuracy": float(weight @ [h.best_test.accuracy for h in histories]),
        "ending": "diverged" if "diverged" in endings else endings[0],
        "figures": dict(figures or {}),
    }


def _rule(rule: str, keep: float = KEEP, ranks: Sequence[int] | None = None) -> Train:
    """A rule of ``RULES`` on one task, or one adapter on two."""

    def train(ground: Ground, seed: int, budget: int) -> Record:
        task, options = ground.task, replace(RULES[rule], seed=seed, rounds=1)
        once = _sent([run(task, keep, options, ranks=ranks)])
        rounds = _fits(budget, once)
        # with such patience a run never stops, and leaves the model of its best round
        seen = run(task, keep, replace(options, rounds=rounds, patience=rounds), ranks=ranks)
        figures = {}
        with task.feed.shortcuts():
            for name, (_, test) in zip(ground.names, ground.own, strict=True):
                figures[name] = evaluate(task, test).loss
        return _outcome(once, rounds, [seen], figures, devices=len(task.devices))

    return train


def _flipped(rule: str, flipped: Sequence[int] = (), known: bool = False) -> Train:
    """Ten devices, of which some may have flipped labels; rounds are counted as if nobody were left out."""

    def train(ground: Ground, seed: int, budget: int) -> Record:
        task = with_flipped(ground.task, flipped, seed)
        options = replace(RULES[rule], seed=seed)
        once = first = budget // ROUNDS
        if rule == "clair":  # whose first round has whole adapters
            first = _sent([run(task, KEEP, replace(options, rounds=1))])
        rounds = 1 + _fits(budget - first, once)
        present = np.array([not known or k not in flipped for k in range(len(task.devices))])
        seen = run(task, KEEP, replace(options, rounds=rounds), reports=present)
        figures = {}
        if rule == "clair":
            left_out = set(seen.contaminated)
            figures = {"flipped left out": len(left_out & set(flipped)), "others": len(left_out - set(flipped))}
        return _outcome(once, rounds, [seen], figures, devices=len(task.devices))

    return train


def _experts(router: bool) -> Train:
    """FedLEASE; the warm-up's whole adapters and the routers count among the uploads."""

    def train(ground: Ground, seed: int, budget: int) -> Record:
        task, lease = ground.task, LeaseOptions(warmup_rounds=WARM_UP, router=router)
        options = FederatedOptions(seed=seed, rounds=1)
        probe = run_experts(task, KEEP, options, lease, held=ground.held)
        before, once = sum(probe.warmed.upload_bits), _sent(probe.histories)
        rounds = _fits(budget - before, once)
        leased = run_experts(task, KEEP, replace(options, rounds=rounds), lease, held=ground.held)
        share = (np.bincount(leased.labels) / len(leased.labels)).tolist()
        figures = {"experts": len(share), "silhouette of two": leased.dendrogram.silhouette(2)}
        if ground.kinds:
            pairs = set(zip(leased.labels.tolist(), ground.kinds, strict=True))
            figures["of both tasks"] = len(pairs) - len(share)
        return _outcome(
            once, rounds, leased.histories, figures, devices=len(task.devices), share=share, before=before
        )

    return train


def _kinds(ground: Ground, seed: int, budget: int) -> Record:
    """Devices of one task are a federation of their own, as if it were known who has what."""
    options, own = FederatedOptions(seed=seed, rounds=1), []
    for kind, (validation, test) in enumerate(ground.own):
        devices = tuple(d for d, k in zip(ground.task.devices, ground.kinds, strict=True) if k == kind)
        own.append(replace(ground.task, devices=devices, validation=validation, test=test))
    once = _sent([run(task, KEEP, options) for task in own])
    rounds = _fits(budget, once)
    histories = [run(task, KEEP, replace(options, rounds=rounds)) for task in own]
    figures = {name: h.best_test.loss for name, h in zip(ground.names, histories, strict=True)}
    return _outcome(once, rounds, histories, figures, devices=len(ground.task.devices))


def _alone(ground: Ground, seed: int, budget: int) -> Record:
    """Every device for itself: whole adapters, nothing is sent; judged on the examples of its own task."""
    options, histories = FederatedOptions(seed=seed, rounds=ROUNDS), []
    for share, (validation, test) in zip(ground.task.devices, ground.held or [], strict=True):
        task = replace(ground.task, devices=(share,), validation=validation, test=test)
        histories.append(run(task, 1.0, options))
    return _outcome(0, ROUNDS, histories, devices=len(histories))


def _each(train: Callable[[tuple[Task, ...], FederatedOptions], tuple[History, ...]], rule: str) -> Train:
    """An adapter for each of two tasks that all devices have; both are sent."""

    def whole(ground: Ground, seed: int, budget: int) -> Record:
        options = replace(RULES[rule], seed=seed, rounds=1)
        once = _sent(train(ground.parts, options))
        rounds = _fits(budget, once)
        histories = train(ground.parts, replace(options, rounds=rounds, patience=rounds))
        figures = {name: h.best_test.loss for name, h in zip(ground.names, histories, strict=True)}
        both = [score.loss for score in together(ground.parts, histories)]
        figures["with both products added"] = float(np.mean(both))
        return _outcome(once, rounds, histories, figures, devices=len(ground.task.devices))

    return whole


def _dropped(parts: tuple[Task, ...], options: FederatedOptions) -> tuple[History, ...]:
    return tuple(run(part, KEEP, options) for part in parts)


def _orthogonal(density: float) -> Callable[[tuple[Task, ...], FederatedOptions], tuple[History, ...]]:
    def train(parts: tuple[Task, ...], options: FederatedOptions) -> tuple[History, ...]:
        return run_tasks(parts, [density] * len(parts), options)

    return train


def _flipped_rows(mix: str) -> dict[str, Row]:
    spoilt = f"mean, 3 of 10 flipped{mix}"
    return {
        f"mean, all honest{mix}": Row(_flipped("zero-filled")),
        spoilt: Row(_flipped("zero-filled", FLIPPED)),
        f"CLAIR, 3 of 10 flipped{mix}": Row(_flipped("clair", FLIPPED), spoilt),
        f"flipped known and left out{mix}": Row(_flipped("zero-filled", FLIPPED, known=True), spoilt),
        f"CLAIR, all honest{mix}": Row(_flipped("clair")),
    }


SECTIONS = (
    Section(
        "One task, five devices",
        False,
        _one(5),
        {
            "zero-filled, dropout .3": Row(_rule("zero-filled")),
            "no dropout": Row(_rule("zero-filled", 1.0)),
            "inverted, dropout .3": Row(_rule("inverted")),
            "inverted, dropout .5": Row(_rule("inverted", 0.5)),
            "LoRA-FAIR, dropout .3": Row(_rule("fair")),
            "ridge projection, dropout .3": Row(_rule("project")),
            "FFA (A frozen), dropout .3": Row(_rule("ffa")),
            "sparse B, density .3": Row(_rule("sparse", 0.3)),
            "HetLoRA, ranks 2 to 8": Row(_rule("norm", 1.0, RANKS)),
            "FlexLoRA, ranks 2 to 8": Row(_rule("svd", 1.0, RANKS)),
            "FLoRA, ranks 2 to 8": Row(_rule("stack", 1.0, RANKS)),
            "FedLEASE, dropout .3": Row(_experts(router=True)),
            "FedLEASE without router, dropout .3": Row(_experts(router=False)),
        },
    ),
    Section("Flipped labels, ten devices, even mix", False, _one(10, None), _flipped_rows("")),
    Section("Flipped labels, ten devices, uneven mix", False, _one(10), _flipped_rows(", uneven")),
    Section(
        "Two tasks, five devices each",
        True,
        _two(apart=True),
        {
            "one adapter for all devices": Row(_rule("zero-filled")),
            "FedLEASE, two tasks": Row(_experts(router=True)),
            "FedLEASE without router, two tasks": Row(_experts(router=False)),
            "an adapter for the devices of each task": Row(_kinds),
            "every device alone": Row(_alone),
        },
    ),
    Section(
        "Two tasks on each of five devices",
        True,
        _two(apart=False),
        {
            "one adapter for both tasks": Row(_rule("zero-filled")),
            "sparse and orthogonal, density .3": Row(_each(_orthogonal(0.3), "sparse")),
            "sparse and orthogonal, density .7": Row(_each(_orthogonal(0.7), "sparse")),
            "an adapter for each task, dropout .3": Row(_each(_dropped, "zero-filled")),
        },
    ),
)
