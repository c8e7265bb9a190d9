"""What rounds that follow each other ask of P-SCA's model: the last spectrum used again, what energy is worth."""

from __future__ import annotations

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.psca.model import Model
from edgealloc.solvers.psca.plan import best_plan
from edgealloc.solvers.psca.rounding.finish import allocation_of
from edgealloc.units import FloatArray

__all__ = ["energy_worth", "on_spectrum"]

_STEP = 1e-4  # relative step of the difference quotient in energy_worth


def on_spectrum(problem: Problem, start: Allocation) -> Allocation | None:
    """The best allocation on the spectrum that ``start`` deals, under this round's channel; None without one."""
    model, k = Model.of(problem), problem.instance.num_devices
    if start.owner is not None:
        share = (start.owner[None, :] == np.arange(k)[:, None]).astype(np.float64)
    else:
        assert start.bandwidth_hz is not None
        band = np.where(start.selected, start.bandwidth_hz, 0.0)
        if model.blocks and problem.instance.block_hz is not None:
            band = np.floor(band / problem.instance.block_hz + 1e-9) * problem.instance.block_hz
        share = (band * min(1.0, (1.0 - 1e-13) * model.column_hz / max(band.sum(), 1e-300)) / model.column_hz)[
            :, None
        ]
    plan = best_plan(problem, model.caps(share)[:, :, 0], model.has_row)
    return None if plan is None else allocation_of(model, share, plan)


def energy_worth(problem: Problem, allocation: Allocation) -> FloatArray:
    """What one more joule for a device would take off the bound, per J, its spectrum fixed. Shape [K].

    ``-dG/ds`` times the growth of the largest keep rate that its spectrum carries, a central difference. At an
    optimum of continuous FDMA this is the derivative of the optimal bound in ``energy_j`` (envelope theorem: what
    a joule saves of the spectrum is worth just as much). 0 for a device left out.
    """
    inst, on, k = problem.instance, allocation.selected, problem.instance.num_devices
    if allocation.owner is not None:
        share = (allocation.owner[None, :] == np.arange(k)[:, None]).astype(np.float64)
    else:
        assert allocation.bandwidth_hz is not None
        width = Model.of(problem).column_hz
        share = (np.where(on, allocation.bandwidth_hz, 0.0) / width)[:, None]
    row = np.maximum(allocation.option, 0), np.arange(k)
    caps = [
        Model.of(Problem(inst.with_changes(energy_j=factor * inst.energy_j), problem.underfit)).caps(share)[
            :, :, 0
        ][row]
        for factor in (1.0 - _STEP, 1.0 + _STEP)
    ]
    keep, weight = np.where(on, allocation.keep, 1.0), inst.weights
    square = np.square(np.where(on, keep, 0.0))
    if problem.pooled:
        spread = problem.stability.pooled_slope(float(weight @ square)) * weight
    else:
        spread = weight * problem.stability.slope(square)
    factor = np.ones(k)
    for i, menu in enumerate(inst.adapter_options or ()):
        if menu is not None:
            factor[i] = menu[int(row[0][i])].underfit_factor
    fall = -inst.bound.underfit_weight * weight * factor * problem.underfit.slope(keep) - 2.0 * keep * spread
    rise = (caps[1] - caps[0]) / (2.0 * _STEP * inst.energy_j)
    limited = on & (caps[0] > 0.0) & (keep >= (1.0 - 1e-9) * caps[0])  # its spectrum could not carry more
    return np.where(limited, np.maximum(fall, 0.0) * np.maximum(rise, 0.0), 0.0)
