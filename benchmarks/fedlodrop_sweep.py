"""Pilot sweeps of the FedLoDrop trainer: final test loss over dropout rates.

    python benchmarks/fedlodrop_sweep.py --data FOLDER [--plan sst2 ...] [--out FOLDER]

FOLDER holds sst2/, trec/, clinc10/ as tab-separated files (train.tsv, and test.tsv or dev.tsv). Runs already in
OUT/fedlodrop_sweep.jsonl are not repeated, so an interrupted sweep goes on. Writes OUT/fedlodrop_sweep.csv (every
run, all digits) and OUT/fedlodrop_sweep.md (means over seeds). On one thread; same platform, same bits.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgealloc.models.training.task import Setup
from edgealloc.models.trials.store import read_records
from edgealloc.models.trials.sweep import markdown, summarise, sweep

COLUMNS = (
    "data",
    "rule",
    "dropout",
    "seed",
    "samples",
    "devices",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "best_round",
    "best_test_loss",
    "best_test_accuracy",
    "upload_bits",
    "key",
)
TEXT = ("data", "rule", "key")


@dataclass(frozen=True, slots=True)
class Plan:
    """One sweep: a setup, the rules and rates, and the seeds."""

    folder: str
    test_file: str
    rules: tuple[str, ...]
    dropouts: tuple[float, ...]
    setup: Setup
    seeds: tuple[int, ...] = (0, 1, 2)


_TEXT = Setup(train_size=500, validation_size=200, test_size=1000, devices=5)
LOW, HIGH = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7), (0.0, 0.3, 0.5, 0.7, 0.8, 0.9)

PLANS: dict[str, Plan] = {
    "sst2": Plan("sst2", "test.tsv", ("zero-filled",), LOW, replace(_TEXT, name="sst2")),
    "sst2-inverted": Plan("sst2", "test.tsv", ("inverted",), HIGH, replace(_TEXT, name="sst2")),
    "trec-noise": Plan(
        "trec", "dev.tsv", ("zero-filled",), LOW, replace(_TEXT, name="trec, 20 % flipped", label_noise=0.2)
    ),
    "clinc10": Plan("clinc10", "dev.tsv", ("zero-filled",), LOW, replace(_TEXT, name="clinc10")),
    "clinc10-inverted": Plan("clinc10", "dev.tsv", ("inverted",), HIGH, replace(_TEXT, name="clinc10")),
    # the validation's cell has ten devices: fewer local steps, other constants
    "sst2-10": Plan(
        "sst2", "test.tsv", ("zero-filled",), LOW, replace(_TEXT, name="sst2, 10 devices", devices=10)
    ),
    "rules": Plan(
        "sst2",
        "test.tsv",
        ("keepers", "exact", "fair", "project", "ffa", "reset"),
        (0.3,),
        replace(_TEXT, name="sst2"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--plan", nargs="+", choices=PLANS, default=list(PLANS), help="which sweeps to run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    parser.add_argument("--device", default="cpu", help="torch device")
    options = parser.parse_args(arguments)

    import torch

    torch.set_num_threads(1)
    store = options.out / "fedlodrop_sweep.jsonl"
    asked: list[dict[str, Any]] = []
    for name in options.plan:
        plan = PLANS[name]
        folder = options.data / plan.folder
        setup = replace(plan.setup, train_file=str(folder / "train.tsv"), test_file=str(folder / plan.test_file))
        asked += sweep(
            setup, plan.rules, plan.dropouts, plan.seeds, store=store, device=options.device, progress=_show
        )
    write([*committed(options.out), *read_records(store), *asked], options.out)
    print(markdown(summarise(asked)))
    print(f"CPU time of these runs: {sum(r['cpu_seconds'] for r in asked):.0f} s")


def _show(record: dict[str, Any]) -> None:
    print(
        f"{record['data']:20s} {record['rule']:12s} dropout {record['dropout']:.2f} seed {record['seed']}: "
        f"train {record['train_loss']:.3f} test {record['test_loss']:.3f} "
        f"accuracy {record['test_accuracy']:.3f} ({record['cpu_seconds']:.1f} s)",
        flush=True,
    )


def committed(out: Path) -> list[dict[str, Any]]:
    """Read the table of runs that is there, so that running one plan anew keeps the others."""
    path = out / "fedlodrop_sweep.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [{k: v if k in TEXT else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def write(records: list[dict[str, Any]], out: Path) -> None:
    """Write the table of runs and the table of means; of two records of a run the later one counts.

    There is no timing in them, so that they repeat bit for bit.
    """
    whole = [r | {k: int(r[k]) for k in ("seed", "samples", "devices")} for r in records]
    same = ("data", "rule", "dropout", "seed", "samples", "devices")  # keys change with versions and machines
    latest = {tuple(r[k] for k in same): r for r in whole}
    rows = sorted(latest.values(), key=lambda r: (r["data"], r["rule"], r["dropout"], r["seed"]))
    with (out / "fedlodrop_sweep.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    (out / "fedlodrop_sweep.md").write_text(markdown(summarise(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
