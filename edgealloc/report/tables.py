"""Tables and sentences about a result: what each device got, which budget binds, how good it is proven to be.

Everything here reads a :class:`~edgealloc.formulation.result.Result` and computes nothing new; the pictures are in
:mod:`edgealloc.report.allocation_picture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import excess_gap, relative_gap
from edgealloc.errors import printable
from edgealloc.formulation.evaluation import Evaluation
from edgealloc.formulation.result import NOTHING_SCARCE, Result
from edgealloc.units import FloatArray, IntArray

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "BUDGET_WORDS",
    "allocation_table",
    "cell_text",
    "comparison_table",
    "device_order",
    "markdown_cell",
    "proof_text",
    "ranges_text",
]

# The binding constraints of `Evaluation.binding` in the words of a reader.
BUDGET_WORDS = {
    "latency_s": "deadline",
    "energy_j": "energy",
    "power_max_w": "power",
    "freq_max_hz": "processor",
    "freq_min_hz": "slowest clock",
    "keep_max": "keep_max",
    "keep_min": "keep_min",
}


def _shown(text: object) -> str:
    """Text as a cell of a rich table: nothing in it is markup, and nothing steers the terminal."""
    from rich.markup import escape

    return escape(printable(text))


def markdown_cell(text: object) -> str:
    """Text as a cell of a Markdown table."""
    return printable(text).replace("|", r"\|")


def allocated(result: Result) -> tuple[Allocation, Evaluation]:
    """The allocation of a result and what it uses; StatusError with the remedy where there is none."""
    result.raise_for_status()
    assert result.allocation is not None
    return result.allocation, result.problem.evaluate(result.allocation)


def bandwidth_per_device_hz(result: Result, allocation: Allocation) -> FloatArray:
    """Spectrum of each device in Hz, whatever the access scheme. Shape [K]."""
    if allocation.bandwidth_hz is not None:
        return np.where(allocation.selected, allocation.bandwidth_hz, 0.0)
    instance = result.problem.instance
    assert allocation.owner is not None
    owned = np.bincount(allocation.owner[allocation.owner >= 0], minlength=instance.num_devices)
    return np.asarray(owned * (instance.bandwidth_hz / instance.gain.shape[1]))


def device_order(allocation: Allocation, limit: int) -> tuple[IntArray, bool]:
    """Device indices [K] in file order, or by rising keep rate when there are more than ``limit``; and which."""
    count = len(allocation.keep)
    if count <= limit:
        return np.arange(count), False
    return np.argsort(np.where(allocation.selected, allocation.keep, -1.0), kind="stable"), True


def cell_text(instance: Instance) -> str:
    """Devices, spectrum and deadline of an instance in a few words."""
    band = instance.bandwidth_hz
    spectrum = f"{band / 1e6:.4g} MHz" if band >= 1e6 else f"{band / 1e3:.4g} kHz"
    if instance.num_subcarriers is not None:
        spectrum += f" in {instance.num_subcarriers} sub-carriers"
    elif instance.block_hz is not None:
        spectrum += f" in blocks of {instance.block_hz / 1e3:.4g} kHz"
    return f"{instance.num_devices} devices, {spectrum}, {instance.latency_s:g} s a round"


def ranges_text(indices: Sequence[int] | IntArray) -> str:
    """Rising indices [N] as ``0-3, 7, 9-10``; ``-`` for none."""
    runs: list[list[int]] = []
    for index in map(int, indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "-"


def binding_text(names: Sequence[str]) -> str:
    """The budgets with no room left, in words; ``nothing`` where the bound itself asks for no more."""
    return ", ".join(BUDGET_WORDS.get(name, name) for name in names) or "nothing"


def allocation_table(result: Result, max_rows: int = 40) -> Table:
    """What every device got and which of its budgets binds, as a rich table.

    Above ``max_rows`` devices the two ends of the list sorted by keep rate are shown and the number left
    out is stated.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    allocation, use = allocated(result)
    instance = result.problem.instance
    menu = instance.adapter_options is not None
    order, is_sorted = device_order(allocation, max_rows)
    title = f"{instance.name}: {cell_text(instance)}"
    table = Table(
        title=_shown(title) + (", by keep rate" if is_sorted else ""),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("device", no_wrap=True)
    if menu:
        table.add_column("adapter", no_wrap=True)
    units = {
        "keep": "",
        "dropout": "",
        "band": "kHz",
        "power": "mW",
        "clock": "GHz",
        "latency": "s",
        "energy": "J",
    }
    for head, unit in units.items():
        table.add_column(f"{head}\n{unit}", justify="right", no_wrap=True)
    if allocation.owner is not None:
        table.add_column("sub-carriers", overflow="fold", max_width=32)
    table.add_column("binds", overflow="fold")
    band = bandwidth_per_device_hz(result, allocation)
    cut = len(order) if not is_sorted else max_rows // 2
    for position, k in enumerate(order):
        if cut <= position < len(order) - cut:
            if position == cut:
                table.add_row(f"... {len(order) - 2 * cut} more", end_section=True)
            continue
        row = [_shown(instance.device_names[k])]
        if menu:
            options = instance.adapter_options[k] if instance.adapter_options else None
            row.append(_shown(options[int(allocation.option[k])].label) if options else "-")
        if not allocation.selected[k]:
            table.add_row(*row, *[""] * (len(table.columns) - len(row) - 1), "left out", style="dim")
            continue
        row += [f"{allocation.keep[k]:.4f}", f"{allocation.dropout[k]:.4f}"]
        row += [f"{band[k] / 1e3:.2f}", f"{use.power_w[k] * 1e3:.2f}"]
        row += [f"{allocation.freq_hz[k] / 1e9:.3f}", f"{use.latency_s[k]:.3f}", f"{use.energy_j[k]:.3f}"]
        if allocation.owner is not None:
            row.append(ranges_text(allocation.subcarriers_of(int(k))))
        table.add_row(*row, binding_text(use.binding[k]))
    return table


def proof_text(result: Result) -> str:
    """How good the allocation is and how that is known; for a result without one, why there is none."""
    if not result.status.has_allocation:
        reasons = [found.message for found in result.diagnosis] or [result.message or "no message"]
        lines = [f"{result.status.value} ({result.method}):", *(f"  - {line}" for line in reasons)]
        return printable("\n".join(lines), lines=True)
    _, use = allocated(result)
    instance = result.problem.instance
    lines = [
        f"status        {result.status.value} by {result.method} in {result.seconds:.3g} s",
        f"bound G       {result.objective:.10g} = underfitting {use.underfit:.6g} + stability {use.stability:.6g}",
        f"proven >=     {result.lower_bound:.10g}, so no allocation is better by more than "
        f"{max(0.0, result.objective - result.lower_bound):.2g}",
        f"gaps          {result.rel_gap:.2g} of G, {result.excess_gap:.2g} of what scarcity costs (G - unlimited)",
        f"unlimited     {result.free_objective:.10g}, what the bound could reach with no budget at all",
        f"resources     deadline {instance.latency_s:g} s, "
        f"{use.bandwidth_hz / instance.bandwidth_hz:.4%} of the spectrum used",
    ]
    if result.nothing_scarce:
        lines.append(f"              {NOTHING_SCARCE}")
    if not np.isfinite(result.lower_bound):
        lines[2:4] = ["proven        nothing: this method gives no lower bound"]
    if result.message:
        lines.append(f"remark        {result.message}")
    return printable("\n".join(lines), lines=True)


def comparison_table(results: Sequence[Result]) -> Table:
    """One row per method, best bound first; methods without an allocation last.

    Gaps are measured against the best lower bound that any of the methods proved: it holds for all of them.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = _shown(results[0].problem.instance.name) if results else None
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("method", "status"):
        table.add_column(head, no_wrap=True)
    for head in ("bound G", "proven >=", "rel_gap", "excess_gap", "nodes", "seconds"):
        table.add_column(head, justify="right", no_wrap=True)
    best = max((r.lower_bound for r in results if np.isfinite(r.lower_bound)), default=-np.inf)
    for result in sorted(results, key=lambda r: (not r.status.has_allocation, r.objective)):
        row = [_shown(result.method), result.status.value]
        lower = f"{result.lower_bound:.9g}" if np.isfinite(result.lower_bound) else "-"
        if result.status.has_allocation:
            gaps = ["-", "-"]
            if np.isfinite(best):
                relative = relative_gap(result.objective, best)
                gaps = [f"{relative:.2g}", f"{excess_gap(result.objective, best, result.free_objective):.2g}"]
            row += [f"{result.objective:.9g}", lower, *gaps]
        else:
            row += ["-", lower, "-", "-"]
        table.add_row(*row, str(result.nodes), f"{result.seconds:.3g}")
    return table
