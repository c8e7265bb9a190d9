"""What every device got and which budget binds, as a listing: terminals, notebooks and papers show the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.formulation.problem import Problem
from edgealloc.tables.listing import Column, Listing
from edgealloc.units import FloatArray, IntArray

__all__ = [
    "BUDGET_WORDS",
    "bandwidth_per_device_hz",
    "device_listing",
    "device_order",
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

_NUMBERS = (
    Column("keep"),
    Column("dropout", spare=3),  # one minus keep
    Column("band", "kHz"),
    Column("power", "mW"),
    Column("clock", "GHz"),
    Column("latency", "s", spare=1),
    Column("energy", "J", spare=2),
)


def bandwidth_per_device_hz(problem: Problem, allocation: Allocation) -> FloatArray:
    """Spectrum of each device in Hz, whatever the access scheme. Shape [K]."""
    if allocation.bandwidth_hz is not None:
        return np.where(allocation.selected, allocation.bandwidth_hz, 0.0)
    instance = problem.instance
    assert allocation.owner is not None
    owned = np.bincount(allocation.owner[allocation.owner >= 0], minlength=instance.num_devices)
    return np.asarray(owned * (instance.bandwidth_hz / instance.gain.shape[1]))


def device_order(allocation: Allocation, limit: int) -> tuple[IntArray, bool]:
    """Device indices [K] in file order, or by rising keep rate when there are more than ``limit``; and which."""
    count = len(allocation.keep)
    if count <= limit:
        return np.arange(count), False
    return np.argsort(np.where(allocation.selected, allocation.keep, -1.0), kind="stable"), True


def ranges_text(indices: Sequence[int] | IntArray) -> str:
    """Rising indices [N] as ``0-3, 7, 9-10``; ``-`` for none."""
    runs: list[list[int]] = []
    for index in map(int, indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) or "-"


def _binding_text(names: Sequence[str]) -> str:
    """The budgets with no room left, in words; ``nothing`` where the bound itself asks for no more."""
    return ", ".join(BUDGET_WORDS.get(name, name) for name in names) or "nothing"


def device_listing(problem: Problem, allocation: Allocation, max_rows: int = 40) -> Listing:
    """What every device got and which of its budgets binds.

    Parameters
    ----------
    problem, allocation
        The allocation, and what it is one of.
    max_rows
        Above as many devices the two ends of the list sorted by keep rate are shown, with an empty row between,
        and the note says how many are left out.

    Returns
    -------
    Listing
        A row a device.
    """
    instance, use = problem.instance, problem.evaluate(allocation)
    menus, ofdma = instance.adapter_options, allocation.owner is not None
    order, is_sorted = device_order(allocation, max_rows)
    columns = [Column("device", number=False), *_NUMBERS, Column("binds", number=False, fold=True)]
    if ofdma:
        columns.insert(-1, Column("sub-carriers", number=False, fold=True))
    if menus is not None:
        columns.insert(1, Column("adapter", number=False))
    band = bandwidth_per_device_hz(problem, allocation)
    cut = len(order) if not is_sorted else max(max_rows // 2, 1)
    rows: list[tuple[str, ...]] = []
    for position, k in enumerate(order.tolist()):
        if cut <= position < len(order) - cut:
            if position == cut:
                rows.append(())
            continue
        row = [instance.device_names[k]]
        if menus is not None:
            menu = menus[k]
            row.append("-" if menu is None else menu[int(allocation.option[k])].label)
        if not allocation.selected[k]:
            rows.append((*row, *[""] * (len(columns) - len(row) - 1), "left out"))
            continue
        row += [f"{allocation.keep[k]:.4f}", f"{allocation.dropout[k]:.4f}"]
        row += [f"{band[k] / 1e3:.2f}", f"{use.power_w[k] * 1e3:.2f}"]
        row += [f"{allocation.freq_hz[k] / 1e9:.3f}", f"{use.latency_s[k]:.3f}", f"{use.energy_j[k]:.3f}"]
        if ofdma:
            row.append(ranges_text(allocation.subcarriers_of(k)))
        rows.append((*row, _binding_text(use.binding[k])))
    title = f"{instance.name}: {instance.words}" + (", by keep rate" if is_sorted else "")
    hidden = max(len(order) - 2 * cut, 0) if is_sorted else 0
    return Listing(title, tuple(columns), tuple(rows), f"... {hidden} more" if hidden else "")
