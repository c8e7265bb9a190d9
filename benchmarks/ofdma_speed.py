"""OFDMA: time to proofs of 1e-3 to 1e-6 by size, against a target for each size, and SCIP on the smallest cells.

    python -m benchmarks.ofdma_speed                          # all sizes, (4,16) to (32,256), 5 cells each
    python -m benchmarks.ofdma_speed --sizes 4x16             # quick look
    python -m benchmarks.ofdma_speed --scip 60 --write        # the table, to benchmarks/results/ofdma_speed.*
    python -m benchmarks.ofdma_speed --scip 300 --write       # the same, 25 minutes longer

Alone on a machine, please: these are wall-clock times. The table takes about 10 minutes.

Ours: ``edgealloc`` method bnb from the checked instance, warm (compiled code loaded), one thread, one run a cell;
the times to a gap come from the snapshots of that run. SCIP: the direct model in logarithmic variables of the back
end ``scip``, with its own time limit; its gap is its own bound against its own repaired point, and "ours to that
gap" is our time to the same relative gap.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from benchmarks.record import machine, save_page, save_rows
from edgealloc.data.instance import Instance
from edgealloc.files.instance import instance_hash
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import solve_bnb

SIZES = ("4x16", "6x32", "8x64", "16x128", "32x256")
LIMITS_S = {"4x16": 10.0, "6x32": 20.0, "8x64": 40.0, "16x128": 60.0, "32x256": 120.0}
# What each size is to reach: (gap, seconds). Gap 1e-3 is to be proved in a tenth of the seconds.
TARGETS = {
    "4x16": (1e-6, 1.0),
    "6x32": (1e-6, 5.0),
    "8x64": (1e-6, 30.0),
    "16x128": (1e-5, 60.0),
    "32x256": (1e-4, 120.0),
}
REL_GAP = 1e-6


@dataclass(frozen=True, slots=True)
class Row:
    """One cell: times in s (inf: not reached), gaps relative; ``scip_*`` nan where SCIP was not run."""

    size: str
    seed: int
    hash: str
    status: str
    objective: float
    lower_bound: float
    rel_gap: float
    excess_gap: float
    total_s: float
    to_1e3_s: float
    to_1e4_s: float
    to_1e5_s: float
    to_1e6_s: float
    rounds: int
    nodes: int
    scip_gap: float = math.nan
    scip_s: float = math.nan
    scip_objective: float = math.nan
    scip_lower_bound: float = math.nan
    to_scip_gap_s: float = math.nan


def cell_instance(size: str, seed: int) -> Instance:
    """A cell of the scenario generator with a size like 4x16."""
    devices, subcarriers = (int(part) for part in size.split("x"))
    options = CellOptions(devices=devices, access="ofdma", subcarriers=subcarriers)
    return make_cell(options, np.random.default_rng(seed)).instance


def time_to(result: Result, gap: float) -> float:
    """First time in s at which a relative gap was proved; inf if never."""
    return min((snapshot.seconds for snapshot in result.trace if snapshot.rel_gap <= gap), default=math.inf)


def measure(size: str, seed: int, scip_s: float, limit_s: float) -> Row:
    """Solve one cell by bnb and, for a positive time, by SCIP."""
    instance = cell_instance(size, seed)
    problem = Problem(instance)
    begin = time.perf_counter()
    ours = solve_bnb(problem, Options(rel_gap=REL_GAP, time_limit=limit_s))
    total = time.perf_counter() - begin
    row = Row(
        size, seed, instance_hash(instance)[:12], ours.status.value, ours.objective, ours.lower_bound,
        ours.rel_gap, ours.excess_gap, total, *(time_to(ours, gap) for gap in (1e-3, 1e-4, 1e-5, 1e-6)),
        ours.iterations, ours.nodes,
    )  # fmt: skip
    if scip_s <= 0.0:
        return row
    from edgealloc.solvers.backends.scip_run import solve_scip

    begin = time.perf_counter()
    peer = solve_scip(problem, Options(rel_gap=REL_GAP, time_limit=scip_s))
    scip = {
        "scip_gap": peer.rel_gap,
        "scip_s": time.perf_counter() - begin,
        "scip_objective": peer.objective,
        "scip_lower_bound": peer.lower_bound,
        "to_scip_gap_s": time_to(ours, max(peer.rel_gap, REL_GAP)),
    }
    return replace(row, **scip)


def table(rows: list[Row]) -> str:
    """Medians by size as a markdown table."""
    lines = [
        "| (K, M) | cells | proved | to 1e-3 s | to 1e-4 s | to 1e-5 s | to 1e-6 s | worst gap | worst excess |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size in dict.fromkeys(row.size for row in rows):
        mine = [row for row in rows if row.size == size]
        proved = sum(row.rel_gap <= REL_GAP for row in mine)
        times = [
            median(values)
            for values in zip(*((r.to_1e3_s, r.to_1e4_s, r.to_1e5_s, r.to_1e6_s) for r in mine), strict=True)
        ]
        shown = " | ".join(f"{t:.3g}" for t in times)
        gap, excess = max(row.rel_gap for row in mine), max(row.excess_gap for row in mine)
        lines.append(
            f"| ({size.replace('x', ', ')}) | {len(mine)} | {proved} | {shown} | {gap:.2g} | {excess:.2g} |"
        )
    lines += [
        "",
        "| (K, M) | target | median s | worst s | 1e-3 in | median s | worst s |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in dict.fromkeys(row.size for row in rows):
        gap, seconds = TARGETS[size]
        mine = [row for row in rows if row.size == size]
        ends = [getattr(row, f"to_1e{round(-math.log10(gap))}_s") for row in mine]
        coarse = [row.to_1e3_s for row in mine]
        lines.append(
            f"| ({size.replace('x', ', ')}) | {gap:.0e} in {seconds:g} s | {median(ends):.3g} | {max(ends):.3g} "
            f"| {seconds / 10:g} s | {median(coarse):.3g} | {max(coarse):.3g} |"
        )
    peers = [row for row in rows if not math.isnan(row.scip_s)]
    if peers:
        lines += [
            "",
            "| cell | SCIP s | SCIP gap | ours to that gap s | ratio | ours to 1e-6 s | SCIP value over ours |",
            "|---|---|---|---|---|---|---|",
        ]
    for row in peers:
        ratio = row.scip_s / row.to_scip_gap_s if row.to_scip_gap_s > 0 else math.nan
        lines.append(
            f"| {row.size} seed {row.seed} | {row.scip_s:.1f} | {row.scip_gap:.2g} | {row.to_scip_gap_s:.3g} "
            f"| {ratio:.0f} | {row.to_1e6_s:.3g} | {row.scip_objective / row.objective:.5f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=SIZES, choices=SIZES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scip", type=float, default=0.0, metavar="S", help="seconds of SCIP on each 4x16 cell")
    parser.add_argument(
        "--limit", type=float, default=None, metavar="S", help="our time limit; by size when not given"
    )
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for size in ("4x16", "16x128"):  # compile; the large one needs all kernels
        solve_bnb(Problem(cell_instance(size, 0)), Options(rel_gap=1e-4))
    rows = []
    for size in arguments.sizes:
        for seed in range(1, arguments.seeds + 1):
            scip_s = arguments.scip if size == "4x16" else 0.0
            rows.append(measure(size, seed, scip_s, arguments.limit or LIMITS_S[size]))
            row = rows[-1]
            print(f"{size} seed {seed}: {row.status} gap {row.rel_gap:.2g} in {row.total_s:.2f} s", flush=True)
    text = table(rows)
    print(text)
    if arguments.write:
        save_page("ofdma_speed", f"# OFDMA speed\n\n{machine()}; medians over cells\n\n{text}")
        save_rows("ofdma_speed", rows)


if __name__ == "__main__":
    main()
