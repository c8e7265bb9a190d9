"""Latency of a round, warm, and what energy policies are worth.

    python -m benchmarks.online_latency             # prints the tables (about five minutes on a quiet machine)
    python -m benchmarks.online_latency --write     # also benchmarks/results/online_latency.md
    python -m benchmarks.online_latency --rounds 20 --quick

Rounds are those of one random cell whose fading moves on with correlation 0.9 (a cell with 1.5 times the spectrum
that it bought for its first channel). A round's time runs from the new gains to the checked allocation with its
bound: it includes making the instance. Compiled code is loaded before; one thread. Rounds that are infeasible (a
device in too deep a fade) are counted apart: proving that takes less time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.record import machine, save_page
from edgealloc.data.instance import Instance
from edgealloc.rounds.clairvoyant import clairvoyant
from edgealloc.rounds.simulation import SimulateOptions, draw_rounds, simulate, summary
from edgealloc.rounds.solver import RoundSolver
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions

SEED = 7
CORRELATION = 0.9


@dataclass(frozen=True, slots=True)
class Case:
    """One row: a cell, a method, perhaps a time budget in s, and the aim for median and 99th percentile in ms."""

    name: str
    cell: CellOptions
    method: str
    budget_s: float | None = None
    aim_ms: tuple[float, float] | None = None
    penalty: float | None = None


_OFDMA = CellOptions(devices=10, access="ofdma", subcarriers=64)
CASES = (
    Case("FDMA K=20", CellOptions(devices=20), "convex", aim_ms=(2.0, 5.0)),
    Case("FDMA K=1000", CellOptions(devices=1000), "convex", aim_ms=(50.0, np.inf)),
    Case("OFDMA (10,64), P-SCA with bound", _OFDMA, "psca", aim_ms=(100.0, 250.0)),
    Case("OFDMA (10,64), auto within 100 ms", _OFDMA, "auto", 0.1),
    Case("OFDMA (10,64), auto within 250 ms", _OFDMA, "auto", 0.25),
    Case("OFDMA (10,64) with selection, auto within 250 ms", _OFDMA, "auto", 0.25, penalty=4.0),
    Case("FDMA K=20 with selection, bnb", CellOptions(devices=20), "auto", penalty=4.0),
    Case("FDMA K=20 with selection, auto within 50 ms", CellOptions(devices=20), "auto", 0.05, penalty=4.0),
    Case("blocks K=20 with selection, bnb", CellOptions(devices=20, access="rb"), "auto", penalty=4.0),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of a case: times in ms, gaps of the rounds with an allocation."""

    case: Case
    served: int
    without: int
    median_ms: float
    p99_ms: float
    worst_ms: float
    cpu_ms: float
    rel_gap: float
    worst_gap: float
    excess_gap: float

    @property
    def over_budget(self) -> str:
        """99th percentile of a round's time over the time budget."""
        return "" if self.case.budget_s is None else f"{self.p99_ms / 1e3 / self.case.budget_s:.2f}"


def measure(case: Case, rounds: int) -> Row:
    """Play the rounds of a case."""
    rng = np.random.default_rng(SEED)
    cell = make_cell(case.cell, rng)
    options = SimulateOptions(rounds=rounds + 5, correlation=CORRELATION, exclusion_penalty=case.penalty)
    trace = draw_rounds(options, cell, rng)
    solver = RoundSolver(case.method, time_budget_s=case.budget_s)
    times, cpu, gaps, excess, without = [], [], [], [], 0
    for number in range(rounds + 5):
        gain = trace.gain[number].copy()
        started, worked = time.perf_counter(), time.process_time()
        instance: Instance = trace.base.with_changes(gain=gain)
        result = solver.solve(instance)
        seconds, work = time.perf_counter() - started, time.process_time() - worked
        if number < 5:  # compiles, loads, and learns how late solvers come home
            continue
        if result.allocation is None:
            without += 1
            continue
        assert not result.problem.violations(result.allocation)
        times.append(1e3 * seconds)
        cpu.append(1e3 * work)
        gaps.append(result.rel_gap)
        excess.append(result.excess_gap)
    at = [float(np.percentile(times, q)) for q in (50, 99, 100)]
    return Row(
        case,
        len(times),
        without,
        *at,
        float(np.median(cpu)),
        float(np.median(gaps)),
        max(gaps),
        float(np.median(excess)),
    )


def latency_table(rows: Sequence[Row]) -> str:
    """Markdown table of the latencies."""
    columns = ("rounds of", "median ms", "99 % ms", "worst ms", "aim", "CPU median ms", "99 % over budget")
    columns += ("rounds (without)", "gap: median, worst", "excess gap")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        aim = row.case.aim_ms
        goal = "" if aim is None else f"{aim[0]:g}" + (f" / {aim[1]:g}" if np.isfinite(aim[1]) else "")
        lines.append(
            f"| {row.case.name} | {row.median_ms:.3g} | {row.p99_ms:.3g} | {row.worst_ms:.3g} | {goal} | "
            f"{row.cpu_ms:.3g} | {row.over_budget} | {row.served} ({row.without}) | "
            f"{row.rel_gap:.1e}, {row.worst_gap:.1e} | {row.excess_gap:.1e} |"
        )
    return "\n".join(lines)


def long_horizon(seeds: int, rounds: int = 200) -> str:
    """Markdown table: excess of the bound over 200 rounds against the equal split."""
    lines = [
        "| cell | correlation | equal split: mean G - G_free | rollover | virtual queue | most spent |",
        "|---|---|---|---|---|---|",
    ]
    for correlation in (0.5, 0.9):
        for seed in range(1, seeds + 1):
            rng = np.random.default_rng(seed)
            cell = make_cell(CellOptions(devices=5), rng)
            frame = simulate(SimulateOptions(rounds=rounds, correlation=correlation), cell, rng)
            table = summary(frame).set_index("policy")
            base: Any = table.loc["equal-split", "excess"]
            parts = [f"{table.loc[name, 'excess'] / base - 1:+.1%}" for name in ("rollover", "virtual-queue")]
            used = f"{table['most_used'].max():.9f}"
            lines.append(f"| K=5, seed {seed} | {correlation} | {base:.4g} | {parts[0]} | {parts[1]} | {used} |")
    return "\n".join(lines)


def short_horizon(seeds: int, rounds: int = 5) -> str:
    """Markdown table: excess of the bound over a short horizon against the clairvoyant optimum."""
    lines = [
        "| cell | clairvoyant: mean G - G_free | equal split | rollover | virtual queue |",
        "|---|---|---|---|---|",
    ]
    for seed in range(1, seeds + 1):
        options = SimulateOptions(rounds=rounds, correlation=0.5)
        frames = []
        for attempt in range(2):  # the same draw twice: once for the policies, once for the clairvoyant
            rng = np.random.default_rng(seed)
            cell = make_cell(CellOptions(devices=3), rng)
            frames.append(simulate(options, cell, rng) if attempt == 0 else draw_rounds(options, cell, rng))
        frame, trace = frames
        budget = options.energy_share * rounds * trace.base.energy_j
        best = clairvoyant([trace.instance(t, budget) for t in range(rounds)], budget)
        if best is None or frame["objective"].isna().any():
            lines.append(f"| K=3, seed {seed} | a policy has a round without allocation | | | |")
            continue
        free = frame["free_objective"].mean()
        optimum = best.claimed - free
        parts = [
            f"{(frame[frame['policy'] == name]['objective'].mean() - free) / optimum - 1:+.1%}"
            for name in ("equal-split", "rollover", "virtual-queue")
        ]
        lines.append(f"| K=3, seed {seed} | {optimum:.4g} | {' | '.join(parts)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="latencies only")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    rows = []
    for case in CASES:
        rows.append(measure(case, args.rounds))
        print(latency_table(rows[-1:]).splitlines()[-1], flush=True)
    text = f"""# Rounds online

Written by `python -m benchmarks.online_latency --write`; {machine()}, one thread.

## Latency of a warm round

{latency_table(rows)}

Times run from the new gains to the checked allocation with its bound; "CPU" is processor time, which other work on
the machine does not lengthen. The aim is that of the specification, median / 99th percentile. "Without" are rounds
that are infeasible, not in the times. Gaps are proven.
"""
    if not args.quick:
        text += f"""
## Energy over 200 rounds

Horizon budget: half of R times the per-round budget. Change of the mean excess G - G_free against the equal split
(less is better), over the rounds in which every policy has an allocation.

{long_horizon(4)}

## Energy over 5 rounds, against the clairvoyant optimum

Excess over that of the clairvoyant optimum, which knows all channels beforehand (one convex program, Clarabel).

{short_horizon(8)}
"""
    print(text)
    if args.write:
        save_page("online_latency", text)


if __name__ == "__main__":
    main()
