"""Does a planned run train the better model? The plan of a whole run against rivals that know one round only.

    python -m benchmarks.planned_runs --data FOLDER [--curves FOLDER] [--task sst2 trec ...] [--seeds 10 11 ...]

Per task: learning constants from pilot runs of other seeds (OUT/learning_curves.csv, and files of --curves as for
benchmarks.learning_curves), a cell whose spectrum is TIGHTNESS times what the keep rate 0.3 needs of everybody
within the deadline of a round, and the time and energy of as many such rounds as the pilots had. The plan chooses
rounds, deadline and allocation within them; its rivals train all those rounds: the proven optimum of one round,
one common rate, equal shares, everybody without dropout (late or not), few devices without dropout. Rivals whose
keep rates are alike to a hundredth are trained once. Each is judged where it stops and at its round of least
validation loss. Finished runs are kept in OUT/planned_runs.jsonl and not
repeated. Writes OUT/planned_runs.md, with the rounds and the keep rate that the curve predicts as the best against
those measured, and OUT/planned_runs.csv, a line per run. On one thread; same platform, same bits.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning_curves import ROUNDS, measured, read_rows, records_of
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec
from edgealloc.models.training.digits import DIGITS_LEARNING_RATE
from edgealloc.models.training.task import Setup, adapter_shape, source_setup
from edgealloc.models.trials.cell import plans_for, trial_cell
from edgealloc.models.trials.curves import curves_from_records
from edgealloc.models.trials.learning import LearningFit, fit_learning
from edgealloc.models.trials.plans import Plan
from edgealloc.models.trials.runs import plan_from_run, run_table, validate_runs
from edgealloc.models.trials.store import Record
from edgealloc.models.trials.sweep import RULES
from edgealloc.models.trials.validate import Validation
from edgealloc.report.tables import markdown_cell
from edgealloc.runs import plan_run
from edgealloc.runs.training import TrainingRun
from edgealloc.scenario.options import CellOptions

TASKS = ("sst2", "trec", "clinc10", "banking77", "digits")
RIVALS = ("auto", "baseline:common", "baseline:equal", "stragglers", "admission")
ALIKE = 0.01  # keep rates
DEADLINE_S = 10.0  # of a round, for the rivals
HEAD = """# Planned runs against their rivals

Written by `python -m benchmarks.planned_runs --data FOLDER --curves FOLDER`: rule {rule}, five devices on one
band, constants from pilot runs of other seeds, trained and judged on seeds {seeds}. `bnb` is the proven
optimum of one round under the same learning curve, with all rounds that the pilots had. Losses in nats, 95 %
intervals, differences paired by seed. `predicted` counts those who report only, and knows nothing of the data that
is lost with the others. The second table of each task: the best number of rounds at the rates of each plan in
which everybody reports, as the curve predicts it and as it was measured, by means over the seeds.
"""


def setup_of(task: str, folder: Path) -> Setup:
    """The task as the pilots had it: five devices, 500 sentences."""
    if task == "digits":
        return Setup()
    sizes: dict[str, Any] = {"train_size": 500, "validation_size": 200, "test_size": 500}
    return replace(source_setup(str(folder / task)), name=task, devices=5, **sizes)


def cell(setup: Setup, tightness: float, seed: int) -> Instance:
    """Draw a cell in which the adapter is sent that is trained; its samples are the training set."""
    options = CellOptions(
        devices=setup.devices, architecture="minilm-l6", bits=32.0, latency_s=DEADLINE_S, reference_keep=0.3
    )
    shape = adapter_shape(setup)
    drawn = trial_cell(
        options,
        float(shape.payload_fixed_bits),
        float(shape.payload_lora_bits),
        np.random.default_rng(seed),
        tightness=tightness,
    )
    share = np.full(setup.devices, setup.train_size / setup.devices)
    return drawn.with_changes(name=setup.name, samples=share)


def plans_of(instance: Instance, curve: LearningSpec, most: int) -> tuple[list[Plan], dict[str, float]]:
    """The planned run and its rivals within the same time and energy, and their predicted losses in nats."""
    time, energy = most * DEADLINE_S, most * np.asarray(instance.energy_j)
    planned = plan_run(instance, time_s=time, energy_j=energy, rounds=(1, most), curve=curve, caps=False)
    print(planned)
    run = TrainingRun(instance, curve, time, energy)
    rivals = plans_for(run.single(most).instance, RIVALS)
    plans = [plan_from_run(planned), *alike([replace(plan, rounds=most) for plan in rivals])]
    return plans, {plan.name: predicted(curve, plan, instance) for plan in plans}


def alike(plans: Sequence[Plan]) -> list[Plan]:
    """Plans whose keep rates differ, those of one kind under one name."""
    kinds: list[Plan] = []
    for plan in plans:
        for place, other in enumerate(kinds):
            same = np.array_equal(plan.reports, other.reports)
            if same and np.all(np.abs(plan.keep - other.keep)[plan.reports] <= ALIKE):
                kinds[place] = replace(other, name=f"{other.name}, {plan.name}")
                break
        else:
            kinds.append(plan)
    return kinds


def predicted(curve: LearningSpec, plan: Plan, instance: Instance) -> float:
    """F of those who report; nan where nobody does, for nobody learns anything then."""
    on = plan.reports
    if not on.any() or plan.rounds is None:
        return float("nan")
    share = np.where(on, instance.samples, 0.0) / float(instance.samples[on].sum())
    keep = np.where(on, plan.keep, 1.0)
    left = share @ (1.0 / (1.0 + (curve.pace * plan.rounds * keep**curve.exponent) ** curve.order))
    damped = np.sqrt(1.0 + curve.protection * max(1.0 - float(share @ keep**2), 0.0))
    return float(curve.floor + curve.drop * left + curve.overfit * plan.rounds**curve.growth / damped)


@dataclass(frozen=True, slots=True)
class Best:
    """Where a plan's rates do best: as its curve predicts from 1 to ``most`` rounds, and in the rounds it trained.

    Losses in nats; measured ones are means over the seeds, ``lost`` is what stopping at the predicted round loses
    against the measured best, both within the rounds trained. ``keep`` is the mean by samples.
    """

    plan: str
    keep: float
    trained: int
    predicted_round: int
    predicted_loss: float
    measured_round: int
    measured_loss: float
    lost: float


def bests(
    plans: Sequence[Plan], seen: Validation, curve: LearningSpec, instance: Instance, most: int
) -> list[Best]:
    """Predicted and measured best numbers of rounds of all plans in which everybody reports.

    A curve that was fitted with everybody says nothing of the others.
    """
    found = []
    for plan in plans:
        runs = [r for r in seen.finals if r["plan"] == plan.name]
        if plan.rounds is None or not plan.reports.all() or any(r["ending"] == "diverged" for r in runs):
            continue
        losses = np.zeros(plan.rounds)
        for row in seen.curves:
            if row["plan"] == plan.name:
                losses[row["round"] - 1] += row["test_loss"] / len(runs)
        said = [predicted(curve, replace(plan, rounds=r), instance) for r in range(1, most + 1)]
        stop, measured_at = int(np.argmin(said)), int(np.argmin(losses))
        keep = float(instance.samples @ plan.keep / instance.samples.sum())
        lost = float(losses[min(stop, plan.rounds - 1)] - losses[measured_at])
        told = (stop + 1, said[stop], measured_at + 1, float(losses[measured_at]), lost)
        found.append(Best(plan.name, keep, plan.rounds, *told))
    return found


def best_table(found: Sequence[Best]) -> str:
    """Markdown: the best rounds of each plan's rates, and of these rates the best, predicted and measured."""
    lines = [
        "| rates of | mean keep rate | best round, predicted | loss there | best round, measured | loss there "
        "| lost by stopping as predicted |",
        "|---|---|---|---|---|---|---|",
    ]
    for best in found:
        last = " (its last)" * (best.measured_round == best.trained)
        lines.append(
            f"| {markdown_cell(best.plan)} | {best.keep:.2f} | {best.predicted_round} | {best.predicted_loss:.3f} "
            f"| {best.measured_round}{last} | {best.measured_loss:.3f} | {best.lost:.3f} |"
        )
    said, seen = (min(found, key=key) for key in (lambda b: b.predicted_loss, lambda b: b.measured_loss))
    lines.append(
        f"\nBest rate of these: {said.keep:.2f} predicted, {seen.keep:.2f} measured; the predicted one's own best "
        f"is {said.measured_loss - seen.measured_loss:.3f} nats above the least."
    )
    return "\n".join(lines) + "\n"


def rows_of(task: str, plans: Sequence[Plan], seen: Validation) -> list[Record]:
    """A row per run: who kept what, and the losses in nats of all rounds."""
    keeps = {plan.name: np.where(plan.reports, plan.keep, 0.0) for plan in plans}
    rows = []
    for run in seen.finals:
        own = [r for r in seen.curves if (r["plan"], r["seed"]) == (run["plan"], run["seed"])]
        told = {"task": task, "plan": run["plan"], "seed": run["seed"]}
        told["keep"] = " ".join(f"{keep:.4g}" for keep in keeps[run["plan"]])
        for name in ("validation_loss", "test_loss"):
            told[name] = " ".join(f"{r[name]:.4f}" for r in own)
        rows.append(told)
    return rows


def fits(folder: Path, curves: Path | None, rule: str, tasks: Sequence[str]) -> dict[str, LearningFit]:
    """Constants of each task that has pilot runs by this rule."""
    records = records_of(read_rows(folder / "learning_curves.csv")) + (measured(curves) if curves else [])
    known = {r["data"] for r in records if r["rule"] == rule}
    for task in tasks:
        if task not in known:
            print(f"{task}: left out: no pilot runs by the rule {rule}")
    return {t: fit_learning(curves_from_records(records, data=t, rule=rule)) for t in tasks if t in known}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the text sets")
    parser.add_argument("--task", nargs="+", default=list(TASKS), help="digits, or folders of --data")
    parser.add_argument("--curves", type=Path, help="folder of curves that were measured before")
    parser.add_argument("--rule", default="inverted", help="of scaling and merging")
    parser.add_argument("--tightness", type=float, default=1.0)
    parser.add_argument("--cell-seed", type=int, default=0)
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[10, 11, 12, 13, 14], help="other than the pilots'"
    )
    parser.add_argument("--dry", action="store_true", help="stop after the plans")
    parser.add_argument("--device", default="cpu", help="torch device of the training")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    asked = parser.parse_args(arguments)

    import torch

    torch.set_num_threads(1)
    head = HEAD.format(rule=asked.rule, seeds=", ".join(map(str, asked.seeds)))
    parts, rows = [], list[Record]()
    for task, fit in fits(asked.out, asked.curves, asked.rule, asked.task).items():
        if fit.doubts:
            print(f"{task}: left out: {'; '.join(fit.doubts)}")
            continue
        setup = setup_of(task, asked.data)
        instance = fit.apply(cell(setup, asked.tightness, asked.cell_seed))
        most = ROUNDS.get(task, 20)
        assert instance.learning is not None
        print(f"{task}: {instance.learning}")
        plans, said = plans_of(instance, instance.learning, most)
        for plan in plans:
            print(f"  {plan.name}: {plan.rounds} rounds, keep {np.round(plan.keep, 2)}, {said[plan.name]:.3f}")
        if asked.dry:
            continue
        options = replace(RULES[asked.rule])
        if task == "digits":
            options = replace(options, learning_rate=DIGITS_LEARNING_RATE)
        seen = validate_runs(
            plans,
            setup,
            options,
            samples=instance.samples,
            seeds=asked.seeds,
            store=asked.out / "planned_runs.jsonl",
            device=asked.device,
            progress=lambda r: print(
                f"{r['plan']:22s} seed {r['seed']} {r['test_loss']:.3f} {r['best_test_loss']:.3f}", flush=True
            ),
        )
        best = best_table(bests(plans, seen, instance.learning, instance, most))
        parts.append(f"## {task}\n\n{run_table(seen, plans[0].name, said)}\n{best}")
        rows += rows_of(task, plans, seen)
        (asked.out / "planned_runs.md").write_text("\n".join([head, *parts]), encoding="utf-8")
        with (asked.out / "planned_runs.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)


if __name__ == "__main__":
    main()
