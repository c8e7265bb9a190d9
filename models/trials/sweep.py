"""Pilot runs: final losses over dropout rates, per masking, scaling and aggregation rule. Resumable."""

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

from edgealloc.files.disk import make_folder, write_file
from edgealloc.models.exchange.aggregation import Aggregation
from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.federated import run
from edgealloc.models.training.task import Setup, Task, build_task
from edgealloc.report.tables import markdown_cell

RULES: Mapping[str, FederatedOptions] = {
    "zero-filled": FederatedOptions(),
    "keepers": FederatedOptions(aggregation=Aggregation("keepers")),
    "inverted": FederatedOptions(scaling="inverted", aggregation=Aggregation("keepers")),
    "exact": FederatedOptions(aggregation=Aggregation(correction="exact")),
    "fair": FederatedOptions(aggregation=Aggregation(correction="fair")),
    "ffa": FederatedOptions(freeze_a=True),
    "reset": FederatedOptions(semantics="reset"),
}

Record = dict[str, Any]


def run_key(setup: Setup, options: FederatedOptions, dropout: float | str, seed: int) -> str:
    """Return a short hash of everything that a pilot run depends on."""
    facts = json.dumps([setup.identity(), asdict(options), dropout, seed], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def read_records(store: Path) -> list[Record]:
    """Read the records of earlier runs; a last line that was cut off is dropped."""
    if not store.exists():
        return []
    records = []
    for line in store.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def append_record(store: Path, record: Record) -> None:
    """Append one line; a last line that was cut off is removed first."""
    make_folder(store.parent)
    if store.exists() and not store.read_text(encoding="utf-8").endswith("\n"):
        whole = "".join(json.dumps(r) + "\n" for r in read_records(store))
        write_file(whole, store)
    with store.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def sweep(
    setup: Setup,
    rules: Iterable[str],
    dropouts: Sequence[float],
    seeds: Sequence[int],
    *,
    store: Path | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
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
        JSON-lines file: runs that it holds are not repeated, new ones are appended.
    options
        Replaces fields of every rule's options, for example ``{"rounds": 5}``.
    device
        Torch device.
    progress
        Called with each record.

    Returns
    -------
    list of dict
        One record per run, in the order asked for.
    """
    known = {r["key"]: r for r in (read_records(store) if store else [])}
    out = []
    for seed in seeds:
        task: Task | None = None
        for rule in rules:
            for dropout in dropouts:
                chosen = replace(RULES[rule], **(options or {}), seed=seed)
                key = run_key(setup, chosen, dropout, seed)
                if key not in known:
                    task = task or build_task(setup, seed, device=device)
                    known[key] = _pilot(task, setup, rule, chosen, dropout, key)
                    if store is not None:
                        append_record(store, known[key])
                out.append(known[key])
                if progress is not None:
                    progress(known[key])
    return out


def _pilot(task: Task, setup: Setup, rule: str, options: FederatedOptions, dropout: float, key: str) -> Record:
    """Train once and return the record: what was asked for, the final scores, and the processor time in s."""
    start = time.process_time()
    history = run(task, 1.0 - dropout, options)
    return {
        "key": key,
        "data": setup.name,
        "rule": rule,
        "dropout": dropout,
        "seed": options.seed,
        "samples": setup.train_size,
        "devices": setup.devices,
        **history.summary(),
        "cpu_seconds": round(time.process_time() - start, 2),
    }


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
        One row per data set, rule and dropout rate: means of losses (nats) and accuracies, and the half-width of
        the 95 % interval of the test loss.
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
        width = half_width([m["test_loss"] for m in members])
        rows.append(
            {
                "data": data,
                "rule": rule,
                "dropout": dropout,
                "seeds": len(members),
                **mean,
                "test_loss_ci95": width,
            }
        )
    return rows


def markdown(rows: Iterable[Record]) -> str:
    """Render summary rows as a table; the least test loss of each data set and rule is bold, if rates differ."""
    rows = list(rows)
    losses: dict[tuple[str, str], list[float]] = {}
    for r in rows:
        losses.setdefault((r["data"], r["rule"]), []).append(r["test_loss"])
    least = {group: min(values) for group, values in losses.items() if len(values) > 1}
    lines = [
        "| data | rule | dropout | seeds | train loss | test loss | 95 % +- | test accuracy | best-round loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        mark = "**" if r["test_loss"] == least.get((r["data"], r["rule"])) else ""
        lines.append(
            f"| {markdown_cell(r['data'])} | {r['rule']} | {r['dropout']:g} | {r['seeds']} "
            f"| {r['train_loss']:.3f} | {mark}{r['test_loss']:.3f}{mark} | {r['test_loss_ci95']:.3f} "
            f"| {r['test_accuracy']:.3f} | {r['best_test_loss']:.3f} |"
        )
    return "\n".join(lines) + "\n"
