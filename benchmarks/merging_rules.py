"""All rules of merging and all neighbouring methods under one budget of uploads, on real data.

    python -m benchmarks.merging_rules --data FOLDER [--task sst2 trec clinc10 sst2+trec] [--seeds 0 1 2]
    python -m benchmarks.merging_rules --join OUT1 OUT2 ...

Every row may upload, over all rounds and devices, what 20 rounds of the zero-filled mean at dropout 0.3 do on
the same ground; one that sends less in a round trains more of them, at most 30. Routers, warm-ups and whole
first rounds count. A run is judged at its round of least validation loss, by its test loss there; runs of
several adapters at one such round each. Differences are to the reference of the same seed (or to the row that
is named): same sentences, split and initial adapter. Every device trains on 100 sentences of a task, classes
mixed unevenly (Dirichlet, concentration 0.5); 200 are for validation, 500 for the test.

*One task, five devices*: 100 sentences each. FedLEASE warms up for five rounds that every device trains for
itself and sends once, whole; its experts are judged on all test sentences, as one adapter is, though a device
may have few of the classes.

*Flipped labels, ten devices* of 100 sentences: with fewer than six devices CLAIR does not ask who goes against
the others, and of 50 sentences each, three local epochs, SST-2 showed in one draw no direction in common that
it could tell flipped labels by. Classes are mixed evenly, and in a section of its own unevenly, where
directions differ among honest devices too. All labels of three devices are moved to another class; validation
and test are honest. CLAIR's first round sends whole adapters. What devices would send that are left out is not
given to the others, so rounds are as if all sent. There is no other robust rule to compare with: the bound on
an update's size is for replies in Flower, and flipped labels change no size. The rival is who knows the three
beforehand.

*Two tasks, five devices each*: ten devices of 100 sentences, half of them of either task; one model with a head
for each task (no sentence competes for classes of the other). One adapter for all against experts, against a
federation for each task, and against every device alone, which sends nothing, so that uploads are not equal: 20
rounds of whole adapters. A device is judged on its own task's sentences; a cluster with devices of both on
both. Merging over all devices halves the steps of a head that half of them train: that is part of sharing.

*Two tasks on each of five devices*: 100 sentences of each task. One adapter, trained on both, against an
adapter and a head for each task, of which both are sent: dropped as the reference is, or with A frozen,
orthogonal to the other task's, and B sparse. The last column has the test loss with the other task's product
added to the model too.

Finished runs are kept in OUT/merging_rules.jsonl and not repeated, so that processes with an OUT each may share
the work, by task, seed and rules; ``--join`` writes the page of several such folders and trains nothing. Writes
OUT/merging_rules.md. On one thread; same platform, same bits.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.merging_rows import SECTIONS, Record, Section, budget_of
from edgealloc.models.trials.sweep import half_width

TASKS = ("sst2", "trec", "clinc10", "sst2+trec")
ROWS = [name for section in SECTIONS for name in section.rows]
HEADER = (
    "| row | seeds | kbit a device and round | uploads | rounds | best round | test loss there | difference "
    "| accuracy | beside |\n|---|---|---|---|---|---|---|---|---|---|"
)

Key = tuple[str, int, str]


def key_of(record: Record) -> Key:
    """Task, seed and row of a record."""
    return record["data"], record["seed"], record["entry"]


def read_stores(folders: Sequence[Path]) -> dict[Key, Record]:
    """Read the finished runs of some folders; one that is there twice must be the same.

    Raises
    ------
    SystemExit
        For two runs of one key that differ, and for runs without what the page needs.
    """
    found: dict[Key, Record] = {}
    for folder in dict.fromkeys(folders):
        store = folder / "merging_rules.jsonl"
        for line in store.read_text(encoding="utf-8").splitlines() if store.exists() else ():
            record = json.loads(line)
            if "budget" not in record:
                raise SystemExit(f"{store}: runs of an older layout of this benchmark: remove the file")
            # nan, of a run that diverged, is not equal to itself, but its text is
            if json.dumps(found.setdefault(key_of(record), record)) != json.dumps(record):
                raise SystemExit(f"{store}: {key_of(record)} is there with another result: remove one of the two")
    return found


def mean_of(values: Sequence[float], sign: str = "") -> str:
    """Mean with the half width of its 95 % interval, where there are values enough for one."""
    text = f"{np.mean(values):{sign}.3f}"
    return text if len(values) < 2 else f"{text} +- {half_width(values):.3f}"


def beside(runs: Sequence[Record]) -> str:
    """What else runs found: counts one by one, figures as means."""
    parts = []
    for name in runs[0]["figures"]:
        values = [run["figures"][name] for run in runs]
        counts = all(isinstance(value, int) for value in values)
        parts.append(f"{name} {', '.join(map(str, values)) if counts else mean_of(values)}")
    return "; ".join(parts)


def best_rounds(run: Record) -> str:
    """The round of least validation loss; of several runs the first and the last such round."""
    found = np.atleast_1d(run["best_round"])
    return f"{found.min()}" if found.min() == found.max() else f"{found.min()} to {found.max()}"


def row_of(section: Section, name: str, own: Mapping[tuple[int, str], Record]) -> str | None:
    """A line of a table from the finished runs of one task, by seed and row; None where there are none."""
    seen = {seed: run for (seed, entry), run in own.items() if entry == name}
    runs = [run for run in seen.values() if math.isfinite(run["best_test_loss"])]
    if not runs:
        return f"| {name} | 0 ({len(seen)} diverged) |" + " |" * 8 if seen else None
    against = section.against(name)
    others = {s: r for (s, entry), r in own.items() if entry == against and math.isfinite(r["best_test_loss"])}
    apart = [
        run["best_test_loss"] - others[run["seed"]]["best_test_loss"] for run in runs if run["seed"] in others
    ]
    difference = mean_of(apart, "+") if apart and name != against else ""
    if difference and against != section.reference:
        difference += f" to *{against}*"
    share = [run["upload_bits"] / run["budget"] for run in runs]
    spread = {f"{run['round_bits'] / run['devices'] / 1e3:.0f}": run["rounds"] for run in runs}
    lost = f" ({len(seen) - len(runs)} diverged)" if len(runs) < len(seen) else ""
    cells = [
        name,
        f"{len(runs)}{lost}",
        ", ".join(spread),  # they differ between seeds where the number of experts does
        f"{100 * np.mean(share):.0f} %",
        ", ".join(map(str, spread.values())),
        ", ".join(map(best_rounds, runs)),
        mean_of([run["best_test_loss"] for run in runs]),
        difference,
        mean_of([run["best_test_accuracy"] for run in runs]),
        beside(runs),
    ]
    return f"| {' | '.join(cells)} |"


def report(records: Sequence[Record]) -> str:
    """A table per section and task: means and paired differences with 95 % intervals."""
    lines = []
    for section in SECTIONS:
        begun = False
        for data in dict.fromkeys(r["data"] for r in records if r["entry"] in section.rows):
            if not begun:
                lines += [f"## {section.title}", ""]
                begun = True
            own = {(r["seed"], r["entry"]): r for r in records if r["data"] == data}
            rows = [row_of(section, name, own) for name in section.rows]
            lines += [f"### {data}", "", HEADER, *(row for row in rows if row is not None), ""]
    devices = ", ".join(sorted({r["device"] for r in records}))
    return "\n".join([*lines, f"Trained on: {devices}. *Uploads*: of what may be sent.", ""])


def asked_rows(section: Section, data: str, rules: Sequence[str]) -> list[str]:
    """Rows of a section that are asked for and fit the task."""
    return [name for name in section.rows if name in rules] if section.pair == ("+" in data) else []


def train(asked: argparse.Namespace, known: dict[Key, Record]) -> None:
    """Train what is asked for and not known yet; every finished run is written at once."""
    import torch

    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    for seed in asked.seeds:
        for data in asked.task:
            for section in SECTIONS:
                rows = [n for n in asked_rows(section, data, asked.rules) if (data, seed, n) not in known]
                if not rows:
                    continue
                ground = section.ground(data.split("+"), asked.data, seed, asked.device)
                budget = budget_of(ground, seed)
                for name in rows:
                    found = section.rows[name].train(ground, seed, budget)
                    record = {"data": data, "seed": seed, "entry": name, "device": asked.device, "budget": budget}
                    record |= found
                    known[data, seed, name] = record
                    line = json.dumps(record)
                    with (asked.out / "merging_rules.jsonl").open("a", encoding="utf-8") as file:
                        file.write(line + "\n")
                    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the text sets")
    parser.add_argument("--task", nargs="+", default=list(TASKS), help="folders of --data; two at once: ONE+OTHER")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rules", nargs="+", default=ROWS, choices=ROWS, metavar="ROW", help="rows of the tables")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--join", nargs="+", type=Path, default=[], metavar="OUT", help="only write their page")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    asked = parser.parse_args(arguments)
    for data in asked.task:
        if data.count("+") > 1 or not all(data.split("+")):
            parser.error(f"--task {data}: one folder, or two as ONE+OTHER")
    if asked.join and asked.data:
        parser.error("--join trains nothing: leave --data out")
    if not (asked.join or asked.data):
        parser.error("--data FOLDER is needed to train, --join OUT ... to write a page only")
    for name in "+".join(asked.task).split("+") if asked.data else ():
        if not (asked.data / name).is_dir():
            parser.error(f"--task: {asked.data} has no folder {name}")

    known = read_stores([asked.out, *asked.join])
    if asked.data:
        train(asked, known)
    wanted = [
        (data, seed, name)
        for data in asked.task
        for section in SECTIONS
        for name in asked_rows(section, data, asked.rules)
        for seed in asked.seeds
    ]
    if missing := [key for key in wanted if key not in known]:
        named = "\n".join(f"  {data}, seed {seed}: {name}" for data, seed, name in missing)
        print(f"{len(missing)} of {len(wanted)} runs are missing:\n{named}", file=sys.stderr)
    if not known:
        raise SystemExit("no runs: no page is written")
    chosen = [r for key, r in sorted(known.items(), key=lambda item: item[0][:2]) if key[0] in asked.task]
    (asked.out / "merging_rules.md").write_text(report(chosen), encoding="utf-8")


if __name__ == "__main__":
    main()
