"""All routes on all public cases: ``python -m benchmarks.agreement CASES``; writes docs/agreement.md.

Objectives are those of repaired points. A bound above a feasible point, or an objective more than 1e-5 above
the best for no reason that is known, ends the run with exit code 1. The table is written anew after every case.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.errors import EdgeallocError
from edgealloc.files.instance import load_instance
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS, find_method
from edgealloc.solvers.base import Options

BACKENDS = ("cvxpy:CLARABEL", "cvxpy:SCS", "pyomo:ipopt", "scip", "highs")
NEAR = 1e-5  # routes agree to this, relatively
UNKNOWN = "for no reason that is known"


@dataclass(frozen=True, slots=True)
class Run:
    """One route on one case."""

    case: str
    method: str
    result: Result
    seconds: float


def routes(problem: Problem) -> list[str]:
    """Our own exact methods that take a problem, then the back ends that do."""
    own = [m.name for m in METHODS.values() if m.chosen and m.takes(problem)]
    others = []
    for name in BACKENDS:
        if not find_method(name).takes(problem):
            continue
        if name == "pyomo:ipopt" and problem.structure.discrete:
            continue  # integers: IPOPT has none
        others.append(name)
    return own + others


def run_case(instance: Instance, rel_gap: float, time_limit: float) -> list[Run]:
    """All routes on one instance."""
    problem, runs = Problem(instance), []
    for name in routes(problem):
        started = time.perf_counter()
        try:
            result = find_method(name).run(problem, Options(rel_gap=rel_gap, time_limit=time_limit))
        except EdgeallocError as error:
            print(f"{instance.name} {name}: {error}", file=sys.stderr)
            continue
        runs.append(Run(instance.name, name, result, time.perf_counter() - started))
        print(f"{instance.name} {name}: {result.status.value} {result.objective:.9g}", file=sys.stderr, flush=True)
    return runs


def contradictions(runs: list[Run]) -> list[str]:
    """Pairs of routes of one case of which one must be wrong."""
    found = []
    for one in runs:
        for other in runs:
            if one.result.lower_bound > other.result.objective * (1.0 + 1e-12):
                found.append(
                    f"{one.case}: bound {one.result.lower_bound!r} of {one.method} lies above the feasible "
                    f"objective {other.result.objective!r} of {other.method}"
                )
    return found


def outside(runs: list[Run], time_limit: float) -> list[str]:
    """Routes of one case whose objective is more than :data:`NEAR` above the best, each with the reason."""
    best = min(run.result.objective for run in runs)
    if math.isinf(best):
        return []
    return [
        f"{run.case}, {run.method}: {_above(run, best)}; {_reason(run, time_limit)}"
        for run in runs
        if not run.result.objective <= best * (1.0 + NEAR)
    ]


def _above(run: Run, best: float) -> str:
    return f"{run.result.objective / best - 1.0:.1e} above" if run.result.allocation is not None else "no point"


def _reason(run: Run, time_limit: float) -> str:
    """Why a route may be outside; :data:`UNKNOWN` is a finding."""
    result = run.result
    if run.seconds >= 0.95 * time_limit:
        return "stopped at the time limit"
    if result.status is Status.LOCALLY_SOLVED and not result.problem.structure.log_convex:
        return "a local optimum of a problem that is not convex, and called no more than that"
    if result.allocation is None and result.status in (Status.ERROR, Status.NO_SOLUTION):
        return f"gave up, and says so: {result.message}"
    return UNKNOWN


def row(runs: list[Run]) -> str:
    """A line of the table: the proven interval, then how far each route is above the best, and its own gap."""
    low = max(run.result.lower_bound for run in runs)
    best = min(run.result.objective for run in runs)
    cells = []
    by_name = {run.method: run for run in runs}
    for name in columns():
        run = by_name.get(name)
        if run is None:
            cells.append("")
        elif run.result.allocation is None:
            cells.append(run.result.status.value)
        else:
            gap = f"{run.result.rel_gap:.0e}" if math.isfinite(run.result.rel_gap) else "none"
            mark = "" if run.result.objective <= best * (1.0 + NEAR) else " *"
            cells.append(f"{run.result.objective / best - 1.0:.0e} / {gap}{mark}")
    value = f"{best:.9g}" if math.isfinite(best) else "infeasible"
    width = f"{max(0.0, best - low) / abs(best):.0e}" if math.isfinite(best) else ""
    return f"| {runs[0].case} | {value} | {width} | " + " | ".join(cells) + " |"


def columns() -> list[str]:
    """Method names in the order of the table."""
    return [m.name for m in METHODS.values() if m.chosen] + list(BACKENDS)


def main() -> int:
    """Run all routes and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", type=Path, help="folder of instance files")
    parser.add_argument("--out", type=Path, default=Path("docs/agreement.md"))
    parser.add_argument("--rel-gap", type=float, default=5e-6)
    parser.add_argument("--time-limit", type=float, default=90.0)
    parser.add_argument("--max-devices", type=int, default=1000)
    parser.add_argument("--access", default="fdma,rb,ofdma")
    args = parser.parse_args()
    lines: list[str] = []
    wrong: list[str] = []
    stray: list[str] = []
    for path in sorted(args.cases.glob("*-*.json")):
        instance = load_instance(path)
        if instance.num_devices > args.max_devices or instance.access not in args.access.split(","):
            continue
        runs = run_case(instance, args.rel_gap, args.time_limit)
        if runs:
            lines.append(row(runs))
            wrong += contradictions(runs)
            stray += outside(runs, args.time_limit)
        args.out.write_text(page(args, lines, wrong, stray), encoding="utf-8")
    print(page(args, lines, wrong, stray))
    return 1 if wrong or any(UNKNOWN in line for line in stray) else 0


def page(args: argparse.Namespace, lines: list[str], wrong: list[str], stray: list[str]) -> str:
    """The document."""
    text = [
        f"# Agreement of all routes on the public cases: {args.access.replace(',', ', ')}",
        "",
        f"Written by `python -m benchmarks.agreement CASES --rel-gap {args.rel_gap:g} --time-limit "
        f"{args.time_limit:g} --max-devices {args.max_devices} --access {args.access}`.",
        "Per route: how far its repaired objective is above the best, and its own proven gap. `proven to` is the "
        "relative width of the interval that all routes prove together. Empty: the route does not take the case.",
        f"A star marks an objective more than {NEAR:g} above the best; the list below says why.",
        "",
        "| case | best objective | proven to | " + " | ".join(columns()) + " |",
        "|" + "---|" * (len(columns()) + 3),
        *lines,
        "",
        f"Outside {NEAR:g}: " + ("none." if not stray else ""),
        *(f"- {line}" for line in stray),
        "",
        "Bounds above a feasible point of another route: " + ("none." if not wrong else ""),
        *(f"- {line}" for line in wrong),
    ]
    return "\n".join(text).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main())
