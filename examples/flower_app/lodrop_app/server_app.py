"""The server: allocates every round, merges by mask whoever answered, says what became of everybody."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from edgealloc.flower import FedLoDrop, RoundReport, from_arrays, to_arrays
from edgealloc.models import evaluate
from edgealloc.rounds import plan_round
from lodrop_app.cell import system_of, task_of

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds."""
    config = context.run_config
    devices, seed = int(config["devices"]), int(config["seed"])
    task = task_of(devices, seed)

    def score(number: int, arrays: ArrayRecord) -> MetricRecord:
        task.handle.write(from_arrays(arrays))
        with task.feed.shortcuts():
            test = evaluate(task, task.test)
        return MetricRecord({"test-loss": test.loss, "test-accuracy": test.accuracy})

    strategy = FedLoDrop(
        partial(plan_round, system_of(task), seed=seed),
        min_nodes=devices,
        state_timeout_s=120.0,  # the first time it includes the start of the clients
        on_round=show,
    )
    result = strategy.start(
        grid,
        to_arrays(task.initial),
        num_rounds=int(config["rounds"]),
        timeout=float(config["timeout-s"]),
        evaluate_fn=score,
    )
    if config["out"]:
        out = Path(str(config["out"]))
        out.mkdir(parents=True, exist_ok=True)
        np.savez(out / "model.npz", **from_arrays(result.arrays))  # type: ignore[arg-type]
        history = [report.to_dict() for report in strategy.rounds]
        (out / "history.json").write_text(json.dumps(history, indent=1))


def show(report: RoundReport) -> None:
    """Print a round."""
    plan = report.plan
    if plan is not None:
        print(f"round {report.number}: {plan.status}, bound {plan.objective:.4f}, gap {plan.rel_gap:.0e}")
    for outcome in report.outcomes:
        settings = {} if plan is None else plan.devices.get(outcome.device, {})
        keep = f"keep {settings['keep']:.2f}" if "keep" in settings else ""
        print(
            f"  {outcome.device:8} {keep:10} {outcome.fate.value:9} weight {outcome.weight:.3f}  {outcome.brief}"
        )
