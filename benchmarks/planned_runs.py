"""Does a planned run train the better model? The plan of a whole run against rivals that know one round only.

    python -m benchmarks.planned_runs --data FOLDER [--curves FOLDER] [--task sst2 trec ...] [--seeds 10 11 ...]

Per task: learning constants from pilot runs of other seeds (OUT/learning_curves.csv, and files of --curves as for
benchmarks.learning_curves), a cell whose spectrum is TIGHTNESS times what the keep rate 0.3 needs of everybody
within the deadline of a round, and the time and energy of as many such rounds as the pilots had. The plan chooses
rounds, deadline and allocation within them; its rivals train all those rounds: the proven optimum of one round,
one common rate, equal shares, everybody without dropout (late or not), few devices without dropout. Rivals whose
keep rates are alike to a hundredth are trained once. Each is judged where it stops and at its round of least
validation loss. Finished runs are kept in OUT/planned_runs.jsonl and not
repeated. Writes OUT/planned_runs.md. On one thread; same platform, same bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
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
from edgealloc.models.trials.sweep import RULES
from edgealloc.runs import plan_run
from edgealloc.runs.training import TrainingRun
from edgealloc.scenario.options import CellOptions

TASKS = ("sst2", "trec", "clinc10", "banking77", "digits")
RIVALS = ("auto", "baseline:common", "baseline:equal", "stragglers", "admission")
ALIKE = 0.01  # keep rates
DEADLINE_S = 10.0  # of a round, for the rivals


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
    parts = []
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
        parts.append(f"## {task}\n\n{run_table(seen, plans[0].name, said)}")
        (asked.out / "planned_runs.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
