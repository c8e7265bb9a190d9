"""Continuous FDMA side by side: method ``convex`` against IPOPT and SCIP, same instances, one run.

    python -m benchmarks.fdma_speed                     # K = 10, 100, 1000 with peers, then up to 1e6 alone
    python -m benchmarks.fdma_speed --sizes 10 --large  # quick look
    python -m benchmarks.fdma_speed --write             # also write benchmarks/results/fdma_speed.md and .csv

What is timed. Ours: ``edgealloc.solve(instance)`` from the checked instance to the finished result, best of
many, warm (compiled code loaded); the cold cost is measured apart, in fresh processes. Peers: the solve call
alone, which favours them, with the time to build their model beside it. Every peer's point is evaluated
by the problem model and repaired to strict feasibility; its gap is taken against our proven bound.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import PEERS
from benchmarks.record import save_page, save_rows
from edgealloc.data.instance import Instance
from edgealloc.files.instance import instance_hash, load_instance
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.backends.judge import judge

REL_GAP = 1e-6
PACKAGE = {"ipopt": "casadi", "scip": "pyscipopt"}


@dataclass(frozen=True, slots=True)
class Row:
    """One solver on one instance.

    ``build_s``, ``solve_s``: wall clock in s (ours builds nothing). ``objective``: of the feasible point (peers:
    repaired). ``rel_gap``: (objective - our lower bound) / objective. ``lower_bound``: the solver's own.
    ``violation``: largest relative excess over a budget before the repair. ``ratio_solve``, ``ratio_total``:
    the peer's solve, and build + solve, over our time.
    """

    devices: int
    instance: str
    hash: str
    solver: str
    status: str
    build_s: float
    solve_s: float
    ratio_solve: float
    ratio_total: float
    objective: float
    rel_gap: float
    lower_bound: float
    violation: float
    detail: str


@dataclass(frozen=True, slots=True)
class Alone:
    """Our method by itself in a fresh process; memory in MiB (peak resident set).

    ``start_s``: processor time in s of starting Python and importing everything; other times are wall clock in s.
    ``instance_mib``: the peak once the instance is drawn, before any solve.
    """

    devices: int
    seed: int
    arrays_sha256: str
    status: str
    rel_gap: float
    excess_gap: float
    feasible: bool
    start_s: float
    first_solve_s: float
    best_solve_s: float
    device_us: float
    instance_mib: float
    peak_mib: float


def draw_instance(devices: int, seed: int) -> Instance:
    """The benchmark's cell: defaults of the scenario generator, spectrum bought for a keep rate of 0.3."""
    from edgealloc.scenario.cell import make_cell
    from edgealloc.scenario.options import CellOptions

    options = CellOptions(devices=devices, access="fdma", name=f"fdma-{devices}-seed{seed}")
    return make_cell(options, np.random.default_rng(seed)).instance


def time_ours(instance: Instance, budget_s: float = 2.0, least: int = 3) -> tuple[Any, float, int]:
    """Result, best time in s and number of runs of method ``convex``; repeats for ``budget_s``."""
    from edgealloc.api import solve

    best, runs, spent = math.inf, 0, 0.0
    result = solve(instance, method="convex", rel_gap=REL_GAP)  # warm-up: loads or compiles the hot loops
    while runs < least or spent < budget_s:
        started = time.perf_counter()
        result = solve(instance, method="convex", rel_gap=REL_GAP)
        seconds = time.perf_counter() - started
        best, runs, spent = min(best, seconds), runs + 1, spent + seconds
    return result, best, runs


def compare(instance: Instance, peers: Iterable[str], time_limit_s: float) -> list[Row]:
    """Our method and the peers on one instance, ours first."""
    problem = Problem(instance)
    result, ours_s, runs = time_ours(instance)
    if not result.status.has_allocation or not problem.evaluate(result.allocation).feasible:
        raise RuntimeError(f"{instance.name}: our own result is not a feasible allocation ({result.status})")
    k, digest = instance.num_devices, instance_hash(instance)[:12]
    lower = result.lower_bound
    rows = [
        Row(
            devices=k,
            instance=instance.name,
            hash=digest,
            solver="edgealloc convex",
            status=result.status.value,
            build_s=0.0,
            solve_s=ours_s,
            ratio_solve=1.0,
            ratio_total=1.0,
            objective=result.objective,
            rel_gap=result.rel_gap,
            lower_bound=lower,
            violation=0.0,
            detail=f"best of {runs}, {result.iterations} iterations",
        )
    ]
    for name in peers:
        extra = {"repeats": 5} if name == "ipopt" else {"rel_gap": REL_GAP}
        run = PEERS[name](problem, time_limit_s=time_limit_s, **extra)
        objective, violation = math.inf, math.nan
        if run.allocation is not None:
            judged = judge(problem, run.allocation)
            objective, violation = judged.objective, judged.violation
        gap = (objective - lower) / abs(objective) if math.isfinite(objective) else math.inf
        rows.append(
            Row(
                devices=k,
                instance=instance.name,
                hash=digest,
                solver=run.peer,
                status=run.status,
                build_s=run.build_s,
                solve_s=run.solve_s,
                ratio_solve=run.solve_s / ours_s,
                ratio_total=(run.build_s + run.solve_s) / ours_s,
                objective=objective,
                rel_gap=gap,
                lower_bound=run.lower_bound,
                violation=violation,
                detail=run.detail,
            )
        )
    return rows


def measure_alone(devices: int, seed: int) -> Alone:
    """Measure this process: start, first solve, best solve and memory. Run it in a fresh one."""
    from edgealloc.api import solve

    start_s = time.process_time()
    instance = draw_instance(devices, seed)
    instance_mib = _peak_mib()
    started = time.perf_counter()
    result = solve(instance, method="convex", rel_gap=REL_GAP)
    first_s = time.perf_counter() - started
    result, best_s, _ = time_ours(instance, budget_s=min(2.0, 3 * first_s), least=2)
    peak_mib = _peak_mib()  # before the check below, which is not part of a solve
    return Alone(
        devices=devices,
        seed=seed,
        arrays_sha256=_array_hash(instance),
        status=result.status.value,
        rel_gap=result.rel_gap,
        excess_gap=result.excess_gap,
        feasible=result.allocation is not None and Problem(instance).evaluate(result.allocation).feasible,
        start_s=start_s,
        first_solve_s=first_s,
        best_solve_s=best_s,
        device_us=1e6 * best_s / devices,
        instance_mib=instance_mib,
        peak_mib=peak_mib,
    )


def _array_hash(instance: Instance) -> str:
    """First 12 digits of the SHA-256 of all per-device arrays; the JSON hash takes gigabytes at 1e6 devices."""
    digest = hashlib.sha256()
    for field in fields(instance):
        value = getattr(instance, field.name)
        if isinstance(value, np.ndarray):
            digest.update(value.tobytes())
    return digest.hexdigest()[:12]


def _peak_mib() -> float:
    """Peak resident set of this process in MiB; ``ru_maxrss`` counts KiB on Linux and bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024.0 * 1024.0 if sys.platform == "darwin" else 1024.0)


def in_fresh_process(devices: int, seed: int, cache: str | None = None) -> Alone:
    """Run :func:`measure_alone` in a new interpreter; compiled code is cached in the folder ``cache`` if given."""
    environment = dict(os.environ) if cache is None else {**os.environ, "NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-m", "benchmarks.fdma_speed", "--measure", str(devices), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"measuring K = {devices} failed:\n{done.stderr}")
    return Alone(**json.loads(done.stdout.splitlines()[-1]))


def cold_start(seed: int) -> tuple[Alone, Alone]:
    """A small solve in a process that must compile, and in the next one, which finds the compiled code."""
    with tempfile.TemporaryDirectory() as cache:
        return in_fresh_process(100, seed, cache), in_fresh_process(100, seed, cache)


def table(rows: Sequence[Row] | Sequence[Alone]) -> str:
    """A markdown table with one line per row, numbers shortened."""
    if not rows:
        return "(none)"
    names = [f.name for f in fields(rows[0])]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [_text(name, value) for name, value in asdict(row).items()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _text(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.10g}" if name in ("objective", "lower_bound") else f"{value:.3g}"


def _verdict(what: str, value: float, target: float, at_least: bool) -> str:
    met = value >= target if at_least else value <= target
    return (
        f"- {what}: {value:.3g} (target {'>=' if at_least else '<='} {target:g}) - {'met' if met else 'NOT met'}"
    )


def verdicts(rows: Sequence[Row], alone: Sequence[Alone]) -> list[str]:
    """The targets that this run has figures for; the worst instance counts."""
    lines = []
    for k, name, target in ((1000, "IPOPT", 50.0), (100, "SCIP", 1000.0)):
        found = [r for r in rows if r.devices == k and r.solver.startswith(name)]
        if found:
            least, total = min(r.ratio_solve for r in found), min(r.ratio_total for r in found)
            lines.append(_verdict(f"K = {k}, {name} solve time over ours", least, target, True))
            lines.append(f"- K = {k}, {name} build and solve time over ours: {total:.3g}")
            if any(r.rel_gap > REL_GAP for r in found if r.objective < math.inf):
                lines.append(f"- K = {k}, {name} ended further than {REL_GAP:g} from our bound at least once")
    by_size = {a.devices: a for a in alone}
    if 10_000 in by_size and 1_000_000 in by_size:
        big = by_size[1_000_000]
        growth = big.device_us / by_size[10_000].device_us
        lines.append(_verdict("time per device at 1e6 over that at 1e4", growth, 1.5, False))
        lines.append(_verdict("peak memory at 1e6 devices, GiB", big.peak_mib / 1024.0, 4.0, False))
        proven = big.feasible and big.status == "optimal"
        lines.append(_verdict("relative gap at 1e6 devices", big.rel_gap if proven else math.inf, REL_GAP, False))
    return lines


def report(rows: Sequence[Row], alone: Sequence[Alone], cold: tuple[Alone, Alone] | None, command: str) -> str:
    """The whole run as markdown."""
    packages = ("edgealloc", "numpy", "scipy", "numba", "casadi", "pyscipopt")
    used = ", ".join(f"{p} {version(p)}" for p in packages if find_spec(p) is not None)
    parts = [
        "# Continuous FDMA: speed against IPOPT and SCIP",
        f"`{command}`",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores; "
        f"Python {platform.python_version()}; {used}.",
        f"Relative gap {REL_GAP:g}. Times are wall clock in s, ours the best of several warm solves. "
        "`rel_gap` compares each feasible (peers: repaired) objective with our lower bound.",
        "## Side by side",
        table(rows),
        "## Ours alone, one fresh process per size",
        table(alone),
    ]
    if cold is not None:
        compiled, cached = cold
        parts += [
            "## Cold start (100 devices)",
            f"First run ever: start {compiled.start_s:.2f} s, first solve {compiled.first_solve_s:.2f} s. "
            f"Next process: start {cached.start_s:.2f} s, first solve {cached.first_solve_s:.3f} s. "
            f"Warm: {cached.best_solve_s:.2g} s.",
        ]
    parts += ["## Targets", "\n".join(verdicts(rows, alone)) or "(no figures for them in this run)"]
    return "\n\n".join(parts) + "\n"


def write(text: str, rows: Sequence[Row], alone: Sequence[Alone]) -> None:
    """Write the report and both tables below ``benchmarks/results``."""
    save_page("fdma_speed", text)
    save_rows("fdma_speed", rows)
    save_rows("fdma_speed_alone", alone)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fdma_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 100, 1000], help="K compared with the peers")
    parser.add_argument("--large", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000], help="K, ours")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="seeds of the drawn cells")
    parser.add_argument("--cases", type=Path, nargs="*", default=[], help="instance files compared as well")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--scip-max", type=int, default=100, help="largest K that SCIP gets")
    parser.add_argument("--time-limit", type=float, default=300.0, help="of one peer solve, in s")
    parser.add_argument("--no-cold", action="store_true", help="skip the cold start, which compiles everything")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/fdma_speed.*")
    parser.add_argument("--measure", type=int, nargs=2, metavar=("K", "SEED"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.measure:
        print(json.dumps(asdict(measure_alone(*chosen.measure))))
        return 0
    peers = [name for name in chosen.peers if find_spec(PACKAGE[name]) is not None]
    for name in set(chosen.peers) - set(peers):
        print(
            f"skipping {name}: {PACKAGE[name]} is not installed (pip install 'edgealloc[bench]')", file=sys.stderr
        )
    instances = [load_instance(path) for path in chosen.cases]
    instances += [draw_instance(k, seed) for k in chosen.sizes for seed in chosen.seeds]
    rows: list[Row] = []
    for instance in instances:
        able = [name for name in peers if name != "scip" or instance.num_devices <= chosen.scip_max]
        rows += compare(instance, able, chosen.time_limit)
        print(f"{instance.name}: done", file=sys.stderr)
    alone = [in_fresh_process(k, chosen.seeds[0]) for k in chosen.large]
    cold = None if chosen.no_cold else cold_start(chosen.seeds[0])
    words = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python -m benchmarks.fdma_speed", *(Path(word).name for word in words)])
    text = report(rows, alone, cold, command)
    print(text)
    if chosen.write:
        write(text, rows, alone)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
