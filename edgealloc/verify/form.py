"""Checks of a solution's form: who is listed, what is given to whom, and whether it lies in range.

Nothing here needs a formula. Spectrum is added up exactly: a correctly rounded sum of doubles
(:func:`math.fsum`) with the limit subtracted has the sign of the exact difference.

What is checked is listed in docs/files.md, section *Verifying*.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.solution import Solution
from edgealloc.errors import Fault
from edgealloc.units import FloatArray
from edgealloc.verify.blocks import blocks_there, blocks_used

__all__ = [
    "Findings",
    "check_form",
    "check_numbers",
    "check_ranges",
    "check_spectrum",
    "check_stated_use",
    "total",
]

REL_TOL = 1e-9  # for stated numbers that are recomputed; budgets have no tolerance at all


@dataclass(slots=True)
class Findings:
    """Collects faults while the checks run."""

    faults: list[Fault] = field(default_factory=list)

    def add(self, where: str, name: str, value: Any, allowed: str) -> None:
        """Note a fault: where, which field, the value found, what is allowed."""
        shown = value if isinstance(value, str) else repr(value)
        self.faults.append(Fault(where, name, shown, allowed))

    def each(
        self, bad: Any, names: Sequence[str], key: str, values: FloatArray, allowed: str, limits: Any = None
    ) -> None:
        """A fault per device where ``bad``; ``limits`` (shape [K]) completes the text of what is allowed."""
        for k in np.flatnonzero(bad).tolist():
            text = allowed if limits is None else f"{allowed} {float(limits[k])!r}"
            self.add(names[k], key, float(values[k]), text)


_SCALARS = ("objective", "free_objective", "lower_bound", "rel_gap", "excess_gap")
_COLUMNS = ("keep", "dropout", "freq_hz", "rate_bps", "latency_s", "energy_j", "bandwidth_hz")
_ROWS = ("adapter_option", "subcarriers", "power_w")


def check_numbers(solution: Solution, found: Findings) -> None:
    """What no file can hold, but an object can: numbers that are not finite or below 0, columns of other lengths.

    A power below 0 would pay for another, and sub-carrier -1 is the last one.
    """
    for key in _SCALARS:
        value = getattr(solution, key)
        if value is not None and not math.isfinite(value):
            found.add("solution", key, value, "a finite number, or None")
    names = solution.device_names
    for key in (*_COLUMNS, *_ROWS, "selected"):
        column = getattr(solution, key)
        if (np.shape(column) if isinstance(column, np.ndarray) else (len(column),)) != (len(names),):
            found.add("solution", key, f"of length {len(column)}", f"one entry per device ({len(names)})")
            return
    for key in _COLUMNS:
        values = getattr(solution, key)
        absent = np.isnan(values) if key == "bandwidth_hz" else np.zeros(len(names), bool)
        found.each(~absent & ~((values >= 0) & (values < np.inf)), names, key, values, "a finite number >= 0")
    for name, mine, watts in zip(names, solution.subcarriers, solution.power_w, strict=True):
        for carrier in mine or ():
            if isinstance(carrier, bool) or not isinstance(carrier, int | np.integer) or carrier < 0:
                found.add(name, "subcarriers", repr(carrier), "whole numbers >= 0")
        for watt in watts if isinstance(watts, tuple) else (watts,):
            if not 0.0 <= watt < math.inf:
                found.add(name, "power_w", watt, "a finite number >= 0")


def check_form(instance: Instance, solution: Solution, found: Findings) -> None:
    """Names, order, and which of bandwidth, sub-carriers and menu labels stand where."""
    names, wanted = solution.device_names, instance.device_names
    if names != wanted:
        given = set(names)
        for name in wanted:
            if name not in given:
                found.add(name, "name", "(missing)", "every device of the instance")
        known, seen = set(wanted), set[str]()
        for name in names:
            if name not in known:
                found.add(name, "name", name, "a device of the instance")
            elif name in seen:
                found.add(name, "name", f"{name} (repeated)", "each device once")
            seen.add(name)
        if not found.faults:
            first = next(k for k, name in enumerate(names) if name != wanted[k])
            found.add(names[first], "name", f"at place {first}", f"the order of the instance: {wanted[first]}")
        return
    carriers, m = instance.num_subcarriers is not None, instance.num_subcarriers or 0
    menus = instance.adapter_options or (None,) * len(names)
    for k, name in enumerate(names):
        mine, watts, label = solution.subcarriers[k], solution.power_w[k], solution.adapter_option[k]
        if carriers != math.isnan(solution.bandwidth_hz[k]):
            found.add(
                name, "bandwidth_hz", float(solution.bandwidth_hz[k]), f"{'null' if carriers else 'a number'}"
            )
        if carriers and mine is None:
            found.add(name, "subcarriers", "null", "a list for access ofdma")
        elif not carriers and mine is not None:
            found.add(name, "subcarriers", mine, f"null for access {instance.access}")
        if isinstance(watts, tuple) is not carriers:
            found.add(name, "power_w", watts, "a list for access ofdma, otherwise a number")
        elif isinstance(watts, tuple) and mine is not None and len(watts) != len(mine):
            found.add(name, "power_w", f"{len(watts)} numbers", f"one per sub-carrier listed ({len(mine)})")
        for carrier in mine or ():
            if carrier >= m:
                found.add(name, "subcarriers", carrier, f"0..{m - 1}")
        labels = [row.label for row in menus[k] or ()] if solution.selected[k] else []
        if label not in labels if labels else label is not None:
            found.add(name, "adapter_option", label, f"one of {labels}" if labels else "null: there is no menu")


def check_ranges(instance: Instance, solution: Solution, found: Findings) -> None:
    """Keep and dropout rates, frequencies, power limits, levels, common rate, selection."""
    names, on, keep, freq = instance.device_names, solution.selected, solution.keep, solution.freq_hz
    off = ~on
    if instance.exclusion_penalty is None:
        found.each(off, names, "selected", on.astype(np.float64), "true: the instance has no selection")
    for key in ("keep", "freq_hz", "rate_bps", "latency_s", "energy_j"):
        values = getattr(solution, key)
        found.each(off & (values != 0), names, key, values, "0 for a device left out")
    found.each(on & ~(keep >= instance.keep_min), names, "keep", keep, "at least", instance.keep_min)
    found.each(on & ~(keep <= instance.keep_max), names, "keep", keep, "at most", instance.keep_max)
    wrong = np.abs(solution.dropout - (1.0 - keep)) > 2.0**-50
    found.each(wrong, names, "dropout", solution.dropout, "1 - keep:", 1.0 - keep)
    found.each(on & ~(freq >= instance.freq_min_hz), names, "freq_hz", freq, "at least freq_min_hz")
    found.each(on & ~(freq <= instance.freq_max_hz), names, "freq_hz", freq, "at most freq_max_hz")
    for k, levels in enumerate(instance.keep_levels or ()):
        if levels is not None and on[k] and keep[k] not in levels:
            found.add(names[k], "keep", float(keep[k]), f"one of the levels {levels.tolist()}")
    if instance.common_keep and on.any():
        first = float(keep[on][0])
        found.each(on & (keep != first), names, "keep", keep, f"{first!r}: one rate for all devices")
    for k, (name, watts) in enumerate(zip(names, solution.power_w, strict=True)):
        parts = list(watts) if isinstance(watts, tuple) else [watts]
        limit = float(instance.power_max_w[k]) if on[k] else 0.0
        if _excess(parts, limit) > 0:
            what = "power_max_w" if on[k] else "0 for a device left out"
            found.add(name, "power_w", total(parts), f"at most {limit!r} ({what})")


def check_spectrum(instance: Instance, solution: Solution, found: Findings) -> None:
    """Sub-carriers given once; or the sum of bandwidths, exactly, and whole resource blocks."""
    names, on, band = instance.device_names, solution.selected, solution.bandwidth_hz
    if instance.access == "ofdma":
        owner: dict[int, str] = {}
        for k, name in enumerate(names):
            mine = solution.subcarriers[k] or ()
            if mine and not on[k]:
                found.add(name, "subcarriers", mine, "none for a device left out")
            for carrier in mine:
                if carrier in owner:
                    found.add(name, "subcarriers", f"{carrier} (also of {owner[carrier]})", "one device each")
                owner[carrier] = name
        return
    found.each(~on & (band != 0), names, "bandwidth_hz", band, "0 for a device left out")
    if instance.block_hz is not None:
        blocks, there = blocks_used(instance, band), blocks_there(instance)
        found.each(np.isnan(blocks), names, "bandwidth_hz", band, "whole resource blocks")
        if not np.isnan(blocks).any():
            used = total(blocks.tolist())
            if used > there:
                found.add("uplink", "bandwidth_hz", f"{used:.0f} blocks in total", f"at most {there}")
            return
    over = _excess(band.tolist(), float(instance.bandwidth_hz))
    if over > 0:
        text = f"{total(band.tolist())!r} in total (over by {over:.3g})"
        found.add("uplink", "bandwidth_hz", text, f"at most {instance.bandwidth_hz!r}")


def check_stated_use(
    instance: Instance,
    solution: Solution,
    rate_bps: FloatArray,
    latency_s: FloatArray,
    energy_j: FloatArray,
    found: Findings,
) -> None:
    """Rate (bit/s), latency (s) and energy (J) as stated against the recomputed ones, shapes [K]."""
    for key, actual in (("rate_bps", rate_bps), ("latency_s", latency_s), ("energy_j", energy_j)):
        stated = getattr(solution, key)
        with np.errstate(invalid="ignore"):
            bad = solution.selected & ~(np.abs(stated - actual) <= REL_TOL * np.abs(actual))
        found.each(bad, instance.device_names, key, stated, "as recomputed,", actual)


def total(parts: list[float]) -> float:
    """Correctly rounded sum; beyond the range of doubles the infinity of its sign, nan where infinities cancel."""
    if not all(map(math.isfinite, parts)):
        return sum(parts)
    try:
        return math.fsum(parts)
    except OverflowError:  # on the way only, or of the sum itself
        exact = sum(map(Fraction, parts), Fraction(0))
        if abs(exact) <= Fraction(sys.float_info.max):
            return float(exact)
        return math.inf if exact > 0 else -math.inf


def _excess(parts: list[float], limit: float) -> float:
    """Sum of the parts minus the limit, rounded once: its sign is that of the exact difference."""
    return total([*parts, -limit])
