"""Constraints of the user's own, decided for a solution: sums in exact arithmetic, energies in balls.

A cap of a sum holds where the sum exceeds the limit by no more than 2^-50 of it (docs/constraints.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from flint import arb, ctx

from edgealloc.data.constraints import (
    HAIR,
    Constraint,
    EnergyCap,
    KeepFloor,
    ParticipationCap,
    PowerCap,
    SubcarrierCap,
)
from edgealloc.data.instance import Instance
from edgealloc.data.solution import Solution
from edgealloc.verify.budgets import PRECISIONS, Demand, use_as_balls
from edgealloc.verify.form import Findings

__all__ = ["check_constraints"]


def check_constraints(
    instance: Instance, solution: Solution, rows: Iterable[Constraint], demand: Demand, found: Findings
) -> None:
    """Note every constraint that an allocation breaks.

    Parameters
    ----------
    instance, solution
        The instance, and an allocation whose form is sound.
    rows
        Constraints that fit the instance.
    demand
        Adapter figures of the devices under their menu rows.
    found
        Collects the faults.
    """
    for row in rows:
        on = {k: c for k, c in row.members(instance).items() if solution.selected[k]}
        if isinstance(row, KeepFloor | SubcarrierCap):
            for k in on:
                name = instance.device_names[k]
                if isinstance(row, SubcarrierCap) and (count := len(solution.subcarriers[k] or ())) > row.limit:
                    found.add(name, "subcarriers", f"{count} sub-carriers", f"at most {row.limit:.0f}, says {row}")
                elif isinstance(row, KeepFloor) and not solution.keep[k] >= row.limit:
                    found.add(name, "keep", float(solution.keep[k]), f"at least {row.limit!r}, says {row}")
        elif isinstance(row, EnergyCap):
            _check_energy(instance, solution, row, on, demand, found)
        else:
            total = sum((Fraction(c) * _amount(instance, solution, row, k) for k, c in on.items()), Fraction(0))
            if total > Fraction(row.limit) * (1 + HAIR):
                found.add(row.label, row.key, f"a sum of {float(total)!r}", f"at most {row.limit!r}, says {row}")


def _amount(instance: Instance, solution: Solution, row: Constraint, k: int) -> Fraction:
    """What device k takes of what a cap limits, exactly."""
    if isinstance(row, ParticipationCap):
        return Fraction(1)
    if isinstance(row, PowerCap):
        watts = solution.power_w[k]
        each = watts if isinstance(watts, tuple) else (watts,)
        total = Fraction(0)
        for watt in each:
            total += Fraction(watt)
        return total
    if instance.access == "ofdma":
        width = Fraction(float(instance.bandwidth_hz)) / int(instance.gain.shape[1])
        return width * len(solution.subcarriers[k] or ())
    return Fraction(float(solution.bandwidth_hz[k]))


def _check_energy(
    instance: Instance, solution: Solution, row: EnergyCap, on: dict[int, float], demand: Demand, found: Findings
) -> None:
    """A cap on energies: the precision of balls grows until the sum is on one side; else it counts as broken."""
    for bits in PRECISIONS:
        with ctx.workprec(bits):
            spent = (arb(c) * use_as_balls(instance, solution, demand, k)[1] for k, c in on.items())
            total, limit = sum(spent, start=arb(0)), arb(row.limit) * (1 + arb(1) / 2**50)
            if total <= limit:
                return
            if total > limit:
                break
    found.add(row.label, row.key, f"a sum of {float(total.mid())!r}", f"at most {row.limit!r}, says {row}")
