"""Pilot runs: losses of every round over dropout rates, per masking, scaling and aggregation rule. Resumable."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.models.exchange.aggregation import Aggregation
from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.federated import Ending, run
from edgealloc.models.training.identity import setup_identity
from edgealloc.models.training.task import Setup, Task, build_task
from edgealloc.models.trials.store import Record, opened, scores
from edgealloc.report.tables import markdown_cell

RULES: Mapping[str, FederatedOptions] = {
    "zero-filled": FederatedOptions(),
    "keepers": FederatedOptions(aggregation=Aggregation("keepers")),
    "inverted": FederatedOptions(scaling="inverted", aggregation=Aggregation("keepers")),
    "exact": FederatedOptions(aggregation=Aggregation(correction="exact")),
    "fair": FederatedOptions(aggregation=Aggregation(correction="fair")),
    "project": FederatedOptions(aggregation=Aggregation(correction="project")),
    "norm": FederatedOptions(aggregation=Aggregation(weighting="norm")),
    "svd": FederatedOptions(aggregation=Aggregation(merge="svd")),
    "stack": FederatedOptions(aggregation=Aggregation(merge="stack")),
    "clair": FederatedOptions(aggregation=Aggregation(robust="clair")),
    "ffa": FederatedOptions(freeze_a=True),
    "sparse": FederatedOptions(freeze_a=True, masks="entries"),
    "reset": FederatedOptions(semantics="reset"),
}

CURVES = ("validation_loss", "test_loss", "test_accuracy")  # what a record keeps of every round, under ``curves``

# What is merged alike where nobody drops anything: one run at dropout 0 does for all of them.
_ALIKE_WHOLE = ("zero-filled", "keepers", "inverted")


def run_key(identity: Mapping[str, Any], options: FederatedOptions, dropout: float | str, seed: int) -> str:
    """Return a short hash of everything that a pilot run depends on.

    Parameters
    ----------
    identity
        Of the task (:func:`edgealloc.models.training.identity.setup_identity`).
    options, dropout, seed
        How it is trained.

    Returns
    -------
    str
        Sixteen hexadecimal digits.
    """
    facts = json.dumps([identity, asdict(options), dropout, seed], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def sweep(
    setup: Setup,
    rules: Iterable[str],
    dropouts: Sequence[float],
    seeds: Sequence[int],
    *,
    store: Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    curves: bool = False,
    progress: Callable[[Record], None] | None = None,
) -> list[Record]:
    """Train once per rule, dropout rate and seed, the same rate on every device.

    Parameters
    ----------
    setup
        The task.
    rules
        Names from ``RULES``.
    dropouts
        Dropout rates in [0, 1).
    seeds
        Seeds of data, initial adapter, masks and batches.
    store
        JSON-lines file: runs that it holds are not repeated, new ones are appended. A run that was cut off goes on
        after its last whole round.
    options
        Replaces fields of every rule's options, for example ``{"rounds": 5}``.
    device
        Torch device.
    curves
        Whether losses of every round are needed. A store of before they were kept has runs without: they are
        trained again then, and taken as they are otherwise.
    progress
        Called with each record.

    Returns
    -------
    list of dict
        One record per run, in the order asked for. ``ending`` says how it ended; the scores of a run that diverged
        are nan. ``curves`` has the names of ``CURVES`` and a number per round.

    Raises
    ------
    InputError
        If another process writes to the store, or the checkpoint of a run that was cut off is damaged.
    """
    out = []
    identity = setup_identity(setup, device)
    with opened(store) as kept:
        for seed in seeds:
            task: Task | None = None
            for rule in rules:
                for dropout in dropouts:
                    alike = dropout == 0.0 and rule in _ALIKE_WHOLE
                    chosen = replace(RULES["zero-filled" if alike else rule], **(options or {}), seed=seed)
                    key = run_key(identity, chosen, dropout, seed)
                    told = {
                        "data": setup.name,
                        "rule": rule,
                        "samples": setup.train_size,
                        "devices": setup.devices,
                    }
                    if key not in kept.known or (curves and "curves" not in kept.known[key]):
                        task = task or build_task(setup, seed, device=device)
                        kept.add(_pilot(task, dropout, chosen, key, kept.checkpoint(key)) | told)
                    out.append(scores(kept.known[key]) | told)
                    if progress is not None:
                        progress(out[-1])
    return out


def _pilot(task: Task, dropout: float, options: FederatedOptions, key: str, checkpoint: Path | None) -> Record:
    """Train once and return the record: the final scores, and the processor time in s."""
    start = time.process_time()
    history = run(task, 1.0 - dropout, replace(options, test_every=options.test_every or 1), checkpoint=checkpoint)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return {
        "key": key,
        "dropout": dropout,
        "seed": options.seed,
        "blind_loss": blind_loss(task),
        **history.summary(),
        "curves": {name: [r.get(name) for r in history.rounds] for name in CURVES},
        "cpu_seconds": round(time.process_time() - start, 2),
    }


def blind_loss(task: Task) -> float:
    """The training loss in nats of who knows how frequent each class is, and nothing of the texts: the entropy.

    The logarithm of the number of classes where they are equally frequent.
    """
    labels = task.feed.labels.cpu().numpy()[np.concatenate(task.devices)]
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-np.sum(share * np.log(share)))


def half_width(values: Sequence[float], confidence: float = 0.95) -> float:
    """Return the half-width of Student's confidence interval of a mean.

    Parameters
    ----------
    values
        Independent samples. Length N.
    confidence
        Of the interval.

    Returns
    -------
    float
        In the unit of the values; nan for a single value.
    """
    if len(values) < 2:
        return math.nan
    from scipy.stats import t

    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(t.ppf(0.5 + confidence / 2, len(values) - 1)) * spread


def summarise(records: Iterable[Record]) -> list[Record]:
    """Average records over seeds.

    Parameters
    ----------
    records
        As :func:`sweep` returns them.

    Returns
    -------
    list of dict
        One row per data set, rule and dropout rate: means of losses (nats) and accuracies, the half-width of the
        95 % interval of the test loss, and how many runs diverged, whose means are nan.
    """
    groups: dict[tuple[str, str, float], list[Record]] = {}
    for r in records:
        groups.setdefault((r["data"], r["rule"], r["dropout"]), []).append(r)
    rows = []
    for (data, rule, dropout), members in groups.items():
        mean = {
            name: float(np.mean([m[name] for m in members]))
            for name in ("train_loss", "test_loss", "test_accuracy", "best_test_loss", "best_test_accuracy")
        }
        rows.append(
            {
                "data": data,
                "rule": rule,
                "dropout": dropout,
                "seeds": len(members),
                "diverged": sum(m.get("ending") == Ending.DIVERGED for m in members),
                **mean,
                "test_loss_ci95": half_width([m["test_loss"] for m in members]),
            }
        )
    return rows


def markdown(rows: Iterable[Record]) -> str:
    """Render summary rows as a table; the least test loss of each data set and rule is bold, if rates differ."""
    rows = list(rows)
    losses: dict[tuple[str, str], list[float]] = {}
    for r in rows:
        if not math.isnan(r["test_loss"]):
            losses.setdefault((r["data"], r["rule"]), []).append(r["test_loss"])
    least = {group: min(values) for group, values in losses.items() if len(values) > 1}
    lines = [
        "| data | rule | dropout | seeds | train loss | test loss | 95 % +- | test accuracy | best-round loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if r.get("diverged"):
            lines.append(
                f"| {markdown_cell(r['data'])} | {r['rule']} | {r['dropout']:g} | {r['seeds']} | | "
                f"diverged in {r['diverged']} | | | |"
            )
            continue
        mark = "**" if r["test_loss"] == least.get((r["data"], r["rule"])) else ""
        lines.append(
            f"| {markdown_cell(r['data'])} | {r['rule']} | {r['dropout']:g} | {r['seeds']} "
            f"| {r['train_loss']:.3f} | {mark}{r['test_loss']:.3f}{mark} | {r['test_loss_ci95']:.3f} "
            f"| {r['test_accuracy']:.3f} | {r['best_test_loss']:.3f} |"
        )
    return "\n".join(lines) + "\n"
