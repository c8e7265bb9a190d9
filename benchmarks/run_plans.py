"""Plans of whole runs: what the proof costs, and what planning wins over simple schemes.

    python -m benchmarks.run_plans                     # all cells, a few minutes
    python -m benchmarks.run_plans --only ofdma K=5    # those whose name contains a word
    python -m benchmarks.run_plans --write             # also to benchmarks/results/run_plans.*

One cell of the scenario generator a row: time for 12 rounds of its deadline, twice the energy of 12 rounds, 1 to
200 rounds, the typical learning curve. ``edgealloc.plan_run`` proves the plan to a gap of 1e-3, its proof is
written and checked by way of its JSON text; rivals plan for the same cell in the same run, each with its own best
number of rounds but those whose number or length is fixed. Seconds are those of the processor,
one thread, compiled code loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.record import machine, save_page, save_rows
from edgealloc.certificate.run import run_certificate_from_dict
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec
from edgealloc.errors import EdgeallocError
from edgealloc.files.instance import instance_hash
from edgealloc.runs.plan import RunPlan
from edgealloc.runs.planning import plan_run
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.verify.run import verify_run

GAP = 1e-3
LIMIT_S = 600.0
PROOF_S = 120.0  # for writing a proof
SPAN = (1, 200)
DEADLINES = 12  # of the cell, in the time of all rounds
CURVE = LearningSpec()
CELLS: dict[str, dict[str, Any]] = {
    **{f"FDMA K={k}": {"devices": k} for k in (5, 10, 20)},
    **{f"resource blocks K={k}": {"access": "rb", "devices": k} for k in (5, 10, 20)},
    **{f"OFDMA ({k}, {m})": {"access": "ofdma", "devices": k, "subcarriers": m} for k, m in ((4, 16), (8, 64))},
}
LOCAL = {
    "P-SCA": "psca",
    "equal shares": "baseline:equal",
    "no dropout": "baseline:no-dropout",
    "one rate for all": "baseline:common",
}
MIDDLE, OWN = "middle R", "own deadline"


@dataclass(frozen=True, slots=True)
class Row:
    """One plan of one cell; losses in nats, gap in percent of the proven bound, seconds of the processor."""

    cell: str
    instance: str
    plan: str
    status: str
    rounds: int
    loss: float
    bound: float
    above_percent: float
    solves: int
    seconds: float
    written_s: float | None = None
    checked_s: float | None = None
    proof_kb: float | None = None
    verdict: str | None = None


def rows_of(name: str, seed: int) -> list[Row]:
    """The exact plan of a cell and those of its rivals."""
    cell = make_cell(CellOptions(**CELLS[name]), np.random.default_rng(seed)).instance
    total: dict[str, Any] = {
        "time_s": DEADLINES * cell.latency_s,
        "energy_j": 2.0 * DEADLINES * cell.energy_j,
        "curve": CURVE,
        "caps": False,
        "rel_gap": GAP,
        "time_limit": LIMIT_S,
    }
    plan_run(cell, **total | {"rounds": (2, 2)})  # loads compiled code
    plans = {"exact": timed(cell, total | {"rounds": SPAN})}
    bound = plans["exact"][0].lower_bound
    for label, method in LOCAL.items():
        plans[label] = timed(cell, total | {"rounds": SPAN, "method": method})
    middle = round((SPAN[0] * SPAN[1]) ** 0.5)
    plans[MIDDLE] = timed(cell, total | {"rounds": (middle, middle)})
    # every round takes the cell's own deadline, so that the time holds no more than so many
    ample = cell.with_changes(energy_j=total["energy_j"])
    plans[OWN] = timed(ample, total | {"rounds": (1, DEADLINES), "caps": True})
    return [
        Row(
            f"{name}, seed {seed}",
            instance_hash(cell),
            label,
            plan.status.value,
            plan.rounds,
            plan.loss,
            plan.lower_bound,
            100.0 * (plan.loss / bound - 1.0),
            plan.solves,
            seconds,
            *(proof(cell, plan) if label == "exact" else ()),
        )
        for label, (plan, seconds) in plans.items()
    ]


def timed(cell: Instance, options: dict[str, Any]) -> tuple[RunPlan, float]:
    """A plan and the processor seconds that it took."""
    started = time.process_time()
    plan = plan_run(cell, **options)
    seconds = time.process_time() - started
    method = options.get("method", "exact")
    print(f"{cell.name}: {method}, {plan.rounds} rounds, {seconds:.2f} s", file=sys.stderr)
    return plan, seconds


def proof(cell: Instance, plan: RunPlan) -> tuple[float, float, float, str]:
    """Seconds to write and to check the proof of a plan's bound, its size in kB, and the checker's verdict."""
    times = [time.process_time()]
    try:
        plan, certificate = plan.certified(PROOF_S)
    except EdgeallocError as error:
        return time.process_time() - times[0], 0.0, 0.0, str(error).split(";")[0]
    text = json.dumps(certificate.to_file())
    times.append(time.process_time())
    report = verify_run(cell, plan.claims(), run_certificate_from_dict(json.loads(text)), rel_gap=GAP)
    times.append(time.process_time())
    return (
        times[1] - times[0],
        times[2] - times[1],
        len(text) / 1e3,
        "holds" if report.ok else str(report.faults[0]),
    )


def page(rows: list[Row]) -> str:
    """Two Markdown tables: the proofs, and the rivals."""
    cells = list(dict.fromkeys(row.cell for row in rows))
    found = {(row.cell, row.plan): row for row in rows}
    rivals = [*LOCAL, MIDDLE, OWN]
    lines = [
        "# Plans of whole runs\n",
        f"`python -m benchmarks.run_plans` on {machine()}. Gap asked for: {GAP:g}; "
        f"{SPAN[0]} to {SPAN[1]} rounds.\n",
        "| cell | status | rounds | loss | bound | gap | solves | CPU s | proof, kB | written | checked | it |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        row = found[cell, "exact"]
        lines.append(
            f"| {cell} | {row.status} | {row.rounds} | {row.loss:.5f} | {row.bound:.5f} "
            f"| {1.0 - row.bound / row.loss:.1e} | {row.solves} | {row.seconds:.2f} "
            f"| {row.proof_kb:.0f} | {row.written_s:.2f} | {row.checked_s:.2f} | {row.verdict} |"
        )
    lines += [
        "\nHow far rivals stay above the proven bound, in percent of it, and their rounds:\n",
        f"| cell | exact | {' | '.join(rivals)} |",
        "|---" * (len(rivals) + 2) + "|",
    ]
    for cell in cells:
        each = [found[cell, label] for label in ("exact", *rivals)]
        told = [f"{row.above_percent:.2f} ({row.rounds})" if row.rounds else row.status for row in each]
        lines.append(f"| {cell} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables, and write them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="cells whose name contains one, whatever the case")
    parser.add_argument("--seeds", type=int, default=1, help="cells of each kind")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    names = [name for name in CELLS if any(word.lower() in name.lower() for word in arguments.only)]
    rows = list[Row]()
    for name in names:
        for seed in range(arguments.seeds):
            rows += rows_of(name, seed)
            if arguments.write:  # what is done stays done
                save_page("run_plans", page(rows))
                save_rows("run_plans", rows)
    print(page(rows))


if __name__ == "__main__":
    main()
