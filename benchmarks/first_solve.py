"""How long the first solve takes, cold and warm, process start included.

    python -m benchmarks.first_solve                             this checkout
    python -m benchmarks.first_solve --tree ../before --write    and another one beside it

Cold: a fresh process with an empty cache. Warm: a fresh process with the cache that the cold one filled. Medians
of ``--runs`` of both, trees taking turns. Run it on a quiet machine; ``--cores 2`` allows two cores. Processor
seconds, of the process and its workers, suffer less from what else runs there.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).with_name("results") / "first_solve.md"
CELLS = {
    "convex, 20 devices (fdma)": ("convex", 'devices=20, access="fdma"'),
    "bnb, (6, 32) (ofdma)": ("bnb", 'devices=6, access="ofdma", subcarriers=32'),
    "psca, (6, 32) (ofdma)": ("psca", 'devices=6, access="ofdma", subcarriers=32'),
    "edgealloc warmup": ("warmup", ""),
}
WARM_UP = "from edgealloc.cli.app import main; main(['warmup'])"
SOLVE = """
import numpy as np, edgealloc
from edgealloc.scenario import CellOptions, make_cell
instance = make_cell(CellOptions({cell}), np.random.default_rng(0)).instance
assert edgealloc.solve(instance, "{method}").status.has_allocation
"""


class Times(NamedTuple):
    """Wall-clock time and processor time of a process with its workers, in s."""

    wall: float
    cpu: float


def first_solve(tree: Path, name: str, cache: str) -> Times:
    """A process of a checkout that solves one cell, or compiles everything."""
    method, cell = CELLS[name]
    code = SOLVE.format(cell=cell, method=method) if cell else WARM_UP
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join([str(tree), *_extra()])}
    started, used = time.perf_counter(), _cpu()
    run = subprocess.run([sys.executable, "-c", code], cwd=tree, env=environment, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{tree}: {name}: {run.stderr}")
    return Times(time.perf_counter() - started, _cpu() - used)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _extra() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(path).is_absolute()]


def measure(trees: dict[str, Path], runs: int) -> list[str]:
    """Rows of the table: medians in s, cold and warm, and the range of the cold ones."""
    times: dict[tuple[str, str], list[tuple[Times, Times]]] = {}
    for name, (method, _) in CELLS.items():
        for _ in range(runs):
            for state, tree in trees.items():
                if method == "warmup" and not (tree / "edgealloc" / "cli" / "warmup.py").exists():
                    continue  # the checkout has no such command
                with tempfile.TemporaryDirectory() as cache:
                    cold = first_solve(tree, name, cache)
                    times.setdefault((name, state), []).append((cold, first_solve(tree, name, cache)))
                    print(f"{name} {state}: cold {cold}, warm {times[name, state][-1][1]}", file=sys.stderr)
    rows = ["| first solve | state | cold s | range | cold, processor s | warm s | warm, processor s |"]
    rows.append("|---|---|---|---|---|---|---|")
    for (name, state), pairs in times.items():
        colds, warms = [cold for cold, _ in pairs], [warm for _, warm in pairs]
        walls = [one.wall for one in colds]
        cpu, warm_cpu = (statistics.median(one.cpu for one in one_kind) for one_kind in (colds, warms))
        rows.append(
            f"| {name} | {state} | {statistics.median(walls):.1f} | {min(walls):.1f} to {max(walls):.1f} "
            f"| {cpu:.1f} | {statistics.median(one.wall for one in warms):.2f} | {warm_cpu:.2f} |"
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, help="another checkout to measure as well, as `before`")
    parser.add_argument("--runs", type=int, default=5, help="fresh caches per cell and checkout")
    parser.add_argument("--cores", type=int, help="cores to use (Linux)")
    parser.add_argument("--write", action="store_true", help="write results/first_solve.md")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    trees = {"before": arguments.tree.resolve(), "after": HERE} if arguments.tree else {"after": HERE}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "llvmlite"))
    machine = f"{platform.system()} {platform.machine()}, {cores} cores; Python {platform.python_version()}"
    text = "# The first solve\n\nWritten by `python -m benchmarks.first_solve`. Wall-clock seconds of a whole\n"
    text += (
        f"process, medians of {arguments.runs}. Cold: empty cache; warm: filled cache, fresh process. Processor\n"
    )
    text += "seconds are those of the process and its workers; what else the machine did changes them less.\n\n"
    text += f"{machine}; {packages}. Load of the machine over 1, 5 and 15 minutes at the end: LOAD.\n\n"
    text += "\n".join(measure(trees, arguments.runs)) + "\n"
    text = text.replace("LOAD", ", ".join(f"{load:.1f}" for load in os.getloadavg()))
    print(text)
    if arguments.write:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
