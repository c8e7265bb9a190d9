"""All rules of merging under one budget of uploads, on real data.

    python -m benchmarks.merging_rules --data FOLDER [--task sst2 trec clinc10] [--seeds 0 1 2] [--rules ...]

Five devices with 100 sentences each and classes mixed unevenly (Dirichlet, concentration 0.5). Every rule may
upload, over all rounds, what 20 rounds of the zero-filled mean at dropout 0.3 do; one that sends less in a round
trains more of them, at most 30. Each run is judged at its round of least validation loss, and compared with the
zero-filled mean of the same seed: same sentences, split and initial adapter. Finished runs are kept in
OUT/merging_rules.jsonl and not repeated. Writes OUT/merging_rules.md. On one thread; same platform, same bits.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.federated import run
from edgealloc.models.training.task import Setup, Task, build_task, source_setup
from edgealloc.models.trials.sweep import RULES, half_width

Record = dict[str, Any]

TASKS = ("sst2", "trec", "clinc10")
DEVICES, ROUNDS, MOST_ROUNDS = 5, 20, 30
RANKS = (2, 4, 4, 8, 8)
REFERENCE = "zero-filled, dropout .3"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is compared: a rule of ``RULES``, the keep rate of all devices, and their ranks where these differ."""

    rule: str
    keep: float
    ranks: tuple[int, ...] | None = None


ENTRIES = {
    REFERENCE: Entry("zero-filled", 0.7),
    "no dropout": Entry("zero-filled", 1.0),
    "inverted, dropout .3": Entry("inverted", 0.7),
    "inverted, dropout .5": Entry("inverted", 0.5),
    "LoRA-FAIR, dropout .3": Entry("fair", 0.7),
    "ridge projection, dropout .3": Entry("project", 0.7),
    "FFA (A frozen), dropout .3": Entry("ffa", 0.7),
    "sparse B, density .3": Entry("sparse", 0.3),
    "HetLoRA, ranks 2 to 8": Entry("norm", 1.0, RANKS),
    "FlexLoRA, ranks 2 to 8": Entry("svd", 1.0, RANKS),
    "FLoRA, ranks 2 to 8": Entry("stack", 1.0, RANKS),
}


def setup_of(task: str, folder: Path) -> Setup:
    """Five devices, 500 sentences, classes mixed unevenly."""
    sizes: dict[str, Any] = {"train_size": 500, "validation_size": 200, "test_size": 500}
    return replace(source_setup(str(folder / task)), name=task, devices=DEVICES, concentration=0.5, **sizes)


def trained(task: Task, entry: Entry, seed: int, budget: int) -> Record:
    """Train as long as the uploads last, and score the round of least validation loss."""
    options: FederatedOptions = replace(RULES[entry.rule], seed=seed, rounds=1)
    once = sum(run(task, entry.keep, options, ranks=entry.ranks).rounds[0]["upload_bits"])
    rounds = ROUNDS if budget == 0 else max(1, min(budget // once, MOST_ROUNDS))
    seen = run(task, entry.keep, replace(options, rounds=rounds), ranks=entry.ranks)
    best = -1 if seen.best_round is None else seen.best_round
    return {
        "round_bits": once,
        "rounds": rounds,
        "best_round": best + 1,
        "best_test_loss": seen.best_test.loss,
        "best_test_accuracy": seen.best_test.accuracy,
        "test_loss": seen.test.loss,
        "ending": seen.ending.value,
    }


def report(records: Sequence[Record]) -> str:
    """A table per task: means, and paired differences to the reference with 95 % intervals."""
    lines = []
    for data in dict.fromkeys(r["data"] for r in records):
        own = [r for r in records if r["data"] == data]
        base = {r["seed"]: r["best_test_loss"] for r in own if r["entry"] == REFERENCE}
        lines += [
            f"## {data}",
            "",
            "| rule | seeds | kbit a device and round | rounds | best round | test loss there "
            "| against the reference | accuracy |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name in dict.fromkeys(r["entry"] for r in own):
            runs = [r for r in own if r["entry"] == name and r["seed"] in base]
            if not runs:
                continue
            loss = [r["best_test_loss"] for r in runs]
            apart = [r["best_test_loss"] - base[r["seed"]] for r in runs]
            against = "" if name == REFERENCE else f"{np.mean(apart):+.3f} +- {half_width(apart):.3f}"
            rounds = ", ".join(str(r["best_round"]) for r in runs)
            accuracy = np.mean([r["best_test_accuracy"] for r in runs])
            lines.append(
                f"| {name} | {len(runs)} | {runs[0]['round_bits'] / DEVICES / 1e3:.0f} | {runs[0]['rounds']} "
                f"| {rounds} | {np.mean(loss):.3f} +- {half_width(loss):.3f} | {against} | {accuracy:.3f} |"
            )
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the text sets")
    parser.add_argument("--task", nargs="+", default=list(TASKS), help="folders of --data")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rules", nargs="+", default=list(ENTRIES), help="rows of the table")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    asked = parser.parse_args(arguments)

    import torch

    torch.set_num_threads(1)
    store = asked.out / "merging_rules.jsonl"
    records = [json.loads(line) for line in store.read_text().splitlines()] if store.exists() else []
    known = {(r["data"], r["seed"], r["entry"]) for r in records}
    for seed in asked.seeds:
        for data in asked.task:
            task, budget = None, 0
            for name in dict.fromkeys((REFERENCE, *asked.rules)):
                if (data, seed, name) not in known:
                    task = task or build_task(setup_of(data, asked.data), seed)
                    found = trained(task, ENTRIES[name], seed, budget)
                    records.append({"data": data, "seed": seed, "entry": name, **found})
                    with store.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(records[-1]) + "\n")
                    print(json.dumps(records[-1]), flush=True)
                if name == REFERENCE:
                    first = next(r for r in records if (r["data"], r["seed"], r["entry"]) == (data, seed, name))
                    budget = first["round_bits"] * first["rounds"]
    records = [r for r in records if r["data"] in asked.task and math.isfinite(r["best_test_loss"])]
    (asked.out / "merging_rules.md").write_text(report(records), encoding="utf-8")


if __name__ == "__main__":
    main()
