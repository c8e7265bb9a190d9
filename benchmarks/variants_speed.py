"""Variants by branch and bound: levels, blocks, menus, selection, perturbation, a common rate, curves.

    python -m benchmarks.variants_speed                   # all variants, 5 cells each
    python -m benchmarks.variants_speed --only levels     # those whose name contains a word
    python -m benchmarks.variants_speed --write           # also to benchmarks/results/variants_speed.*

``edgealloc`` method bnb to a relative gap of 1e-6, warm (compiled code loaded), one thread, one run a cell, cells
of the scenario generator. Alone on a machine, please: these are wall-clock times. About 4 minutes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from benchmarks.ofdma_speed import time_to
from benchmarks.record import machine, save_page, save_rows
from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption, UnderfitCurve
from edgealloc.files.instance import instance_hash
from edgealloc.formulation.problem import Problem
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import solve_bnb

REL_GAP = 1e-6
LIMIT_S = 60.0
LEVELS = np.arange(1, 21) / 20.0
# Falls in two steps, so that shares have several local minima.
STEPS = UnderfitCurve(
    np.array([0.02, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0]), np.array([6.0, 5.5, 3.0, 2.8, 0.9, 0.5, 0.0])
)


def levels(cell: Instance) -> Instance:
    """Twenty keep levels for everybody."""
    return cell.with_changes(keep_levels=(LEVELS,) * cell.num_devices)


def menu(cell: Instance) -> Instance:
    """Three adapter ranks: a smaller one uploads less and underfits more."""
    menus = tuple(
        tuple(
            AdapterOption(f"r={rank}", bits * rank / 16.0, work * rank / 16.0, factor)
            for rank, factor in ((4, 1.5), (8, 1.2), (16, 1.0))
        )
        for bits, work in zip(cell.payload_lora_bits, cell.cycles_lora, strict=True)
    )
    return cell.with_changes(adapter_options=menus)


def underfit(cell: Instance, name: str) -> Instance:
    """Another underfitting term; ``perturbation`` is smaller by its nature, and has five times the weight."""
    curve, weight = (STEPS, 1.0) if name == "curve" else (None, 5.0)
    weight *= cell.bound.underfit_weight
    return cell.with_changes(
        bound=replace(cell.bound, underfit=name, underfit_curve=curve, underfit_weight=weight)
    )


def device(cell: Instance) -> Instance:
    """One stability term per device."""
    return cell.with_changes(bound=replace(cell.bound, pooling="device"))


def common(cell: Instance) -> Instance:
    """One keep rate for all."""
    return cell.with_changes(common_keep=True)


def fdma(devices: int) -> CellOptions:
    """Continuous bandwidth."""
    return CellOptions(devices=devices)


def blocks(devices: int) -> CellOptions:
    """Whole blocks of 3.75 kHz."""
    return CellOptions(devices=devices, access="rb")


def ofdma(devices: int, subcarriers: int) -> CellOptions:
    """Sub-carriers."""
    return CellOptions(devices=devices, access="ofdma", subcarriers=subcarriers)


VARIANTS: dict[str, tuple[CellOptions, Callable[[Instance], Instance]]] = {
    "levels, K = 1000": (fdma(1000), levels),
    "blocks, K = 1000": (blocks(1000), lambda cell: cell),
    "blocks and levels, K = 1000": (blocks(1000), levels),
    "menu, K = 1000": (fdma(1000), menu),
    "selection, K = 1000": (fdma(1000), lambda cell: cell.with_changes(exclusion_penalty=4.0)),
    "common rate, K = 1000": (fdma(1000), common),
    "perturbation, K = 1000": (fdma(1000), lambda cell: underfit(cell, "perturbation")),
    "perturbation, K = 20": (fdma(20), lambda cell: underfit(cell, "perturbation")),
    "OFDMA (6, 32), levels": (ofdma(6, 32), levels),
    "OFDMA (8, 64), levels, device pooling": (ofdma(8, 64), lambda cell: device(levels(cell))),
    "OFDMA (6, 32), menu": (ofdma(6, 32), menu),
    "OFDMA (6, 32), selection": (ofdma(6, 32), lambda cell: cell.with_changes(exclusion_penalty=4.0)),
    "OFDMA (8, 64), perturbation": (ofdma(8, 64), lambda cell: underfit(cell, "perturbation")),
    "OFDMA (8, 64), common rate": (ofdma(8, 64), common),
    "OFDMA (4, 16), curve with steps": (ofdma(4, 16), lambda cell: underfit(cell, "curve")),
    "OFDMA (8, 64), curve with steps, device pooling": (
        ofdma(8, 64),
        lambda cell: device(underfit(cell, "curve")),
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One cell: times in s (inf: not reached), gaps relative."""

    variant: str
    seed: int
    hash: str
    status: str
    objective: float
    lower_bound: float
    rel_gap: float
    excess_gap: float
    total_s: float
    to_1e3_s: float
    nodes: int


def measure(variant: str, seed: int, limit_s: float = LIMIT_S) -> Row:
    """Solve one cell."""
    options, change = VARIANTS[variant]
    instance = change(make_cell(options, np.random.default_rng(seed)).instance)
    problem = Problem(instance)
    begin = time.perf_counter()
    result = solve_bnb(problem, Options(rel_gap=REL_GAP, time_limit=limit_s))
    seconds = time.perf_counter() - begin
    return Row(
        variant, seed, instance_hash(instance)[:12], result.status.value, result.objective, result.lower_bound,
        result.rel_gap, result.excess_gap, seconds, time_to(result, 1e-3), result.nodes,
    )  # fmt: skip


def table(rows: list[Row]) -> str:
    """Medians by variant as a markdown table."""
    lines = [
        "| variant | cells | proved | median s | worst s | to 1e-3 s | median nodes | worst gap | worst excess |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for variant in dict.fromkeys(row.variant for row in rows):
        mine = [row for row in rows if row.variant == variant]
        seconds = [row.total_s for row in mine]
        proved = sum(row.status in ("optimal", "infeasible") for row in mine)
        coarse = median(row.to_1e3_s for row in mine)
        lines.append(
            f"| {variant} | {len(mine)} | {proved} | {median(seconds):.3g} | {max(seconds):.3g} | {coarse:.3g} "
            f"| {median(row.nodes for row in mine):g} | {max(row.rel_gap for row in mine):.2g} "
            f"| {max(row.excess_gap for row in mine):.2g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="S", help="seconds per cell")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for variant in VARIANTS:
        if arguments.only not in variant:
            continue
        measure(variant, 0)  # compile
        for seed in range(1, arguments.seeds + 1):
            rows.append(measure(variant, seed, arguments.limit))
            row = rows[-1]
            print(f"{variant} seed {seed}: {row.status} gap {row.rel_gap:.2g} in {row.total_s:.2f} s", flush=True)
        if arguments.write:  # after each variant: a run that is stopped keeps what it has
            note = f"{machine()}; to a relative gap of {REL_GAP:g}, {arguments.limit:g} s at most"
            save_page("variants_speed", f"# Speed of branch and bound by variant\n\n{note}\n\n{table(rows)}")
            save_rows("variants_speed", rows)
    print(table(rows))


if __name__ == "__main__":
    main()
