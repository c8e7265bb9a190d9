"""Caps of the user's own as rows for SCIP, each divided by its limit."""

from __future__ import annotations

from typing import Any

from edgealloc.data.constraints import EnergyCap, ParticipationCap, SpectrumCap, SubcarrierCap
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import subcarrier_hz

__all__ = ["add_caps"]


def add_caps(problem: Problem, out: Any, bands: list[Any], energies: list[Any], scip: Any) -> None:
    """Add the constraints of a problem; those on power and energy need that nobody may be left out.

    Parameters
    ----------
    problem
        The problem; floors of keep rates are in its instance.
    out
        The :class:`~edgealloc.solvers.backends.scip_model.ScipModel` with all devices.
    bands, energies
        Share of the band (FDMA), and energy over what the budget leaves beside its static part, of each device.
    scip
        The module ``pyscipopt``.
    """
    inst = problem.instance
    budget = inst.energy_j - inst.energy_static_j

    def amount(row: Any, k: int) -> Any:
        if isinstance(row, ParticipationCap):
            return 1.0 if out.selected[k] is None else out.selected[k]
        if isinstance(row, EnergyCap):
            return float(inst.energy_static_j[k]) + float(budget[k]) * energies[k]
        if isinstance(row, SpectrumCap):
            if out.owner:
                return subcarrier_hz(inst) * scip.quicksum(out.owner[k])
            return (inst.block_hz or 0.0) * out.blocks[k] if out.blocks else inst.bandwidth_hz * bands[k]
        if out.power:
            return float(inst.power_max_w[k]) * scip.quicksum(out.power[k])
        _x, tau, eps, _phi, _beta = out.shares[k]
        return float(budget[k]) / inst.latency_s * scip.exp(eps - tau)

    for row in problem.constraints:
        members = row.members(inst)
        if isinstance(row, SubcarrierCap):
            for k in members:
                out.model.addCons(scip.quicksum(out.owner[k]) <= row.limit)
            continue
        size = row.limit or 1.0
        total = scip.quicksum(c / size * amount(row, k) for k, c in members.items())
        if not isinstance(total, float):
            out.model.addCons(total <= row.limit / size * (1.0 + 1e-12))
