"""Tangent planes below the least bandwidth as certificates have them: a point and two multipliers.

The planes are those of :func:`edgealloc.solvers.fdma.response.tangent`, per Hz instead of priced.

Derived: docs/mathematics.md, section 5.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.certificate.prices import Planes
from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.fdma.bandwidth import (
    BLOCKED,
    FREQ_FIXED,
    FREQ_MIN,
    KINK,
    POWER,
    POWER_FREQ_MAX,
    STATIONARY,
    best_efficiency,
    energy_shape,
)
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, DOWN, ENERGY, FMAX, KAPPA, PER_BIT, PMAX
from edgealloc.units import LN2, FloatArray

__all__ = ["planes_at"]

_SCARCE = 2.0**-21  # of the energy


def planes_at(rows: FloatArray, keep: FloatArray) -> Planes:
    """Planes that touch the least bandwidth at keep rates; none where no bandwidth suffices.

    Parameters
    ----------
    rows
        See :mod:`edgealloc.solvers.row`. Shape [N, WIDTH].
    keep
        Keep rates. Shape [N].
    """
    out = np.zeros((4, len(keep)))
    _planes(rows, keep, out)
    return Planes(keep, out[0], out[1], out[2].astype(np.intp), out[3])


@kernel
def _planes(rows, keep, out):  # type: ignore[no-untyped-def]
    """Kernel of :func:`planes_at`: efficiency, mix, limit and multiplier; flat in the efficiency at the touch."""
    for i in range(len(keep)):
        row = rows[i]
        regime, v = best_efficiency(row, keep[i], 0.0)
        if regime >= BLOCKED:
            continue
        bits, work = row[BIT0] + row[BIT1] * keep[i], row[CYC0] + row[CYC1] * keep[i]
        window = row[DEADLINE] - bits * row[DOWN]
        eps, eps1, _eps2 = energy_shape(v)
        e, e_v = row[PER_BIT] * bits * eps, row[PER_BIT] * bits * eps1
        t, t_v, mix = window - work / row[FMAX], 0.0, 0.0
        spare = row[ENERGY] - e
        if regime in (STATIONARY, KINK) and spare < _SCARCE * row[ENERGY]:
            regime = FREQ_FIXED  # what is left for computing has few digits, and is nothing beside what is sent
        if regime not in (POWER_FREQ_MAX, FREQ_FIXED):
            tau = math.sqrt(row[KAPPA] * work / spare) * work
            t, t_v, mix = window - tau, -tau * 0.5 * e_v / spare, 1.0
            slope = -1.0 / v - t_v / t
            if regime == KINK:
                mix = min(max((1.0 / v) / (slope + 1.0 / v), 0.0), 1.0)
        if not t > 0.0:
            continue
        band = bits * LN2 / (v * t)
        slope = band * (-1.0 / v - mix * t_v / t)
        limit, lam = 0, 0.0
        if regime in (FREQ_MIN, FREQ_FIXED):
            limit, lam = 1, -slope / e_v
        elif regime == POWER:
            limit, lam = 2, -slope / (e_v - row[PMAX] * t_v)
        elif regime == POWER_FREQ_MAX:
            limit, lam = 3, -slope / e_v
        out[0, i], out[1, i], out[2, i], out[3, i] = v, mix, limit, max(lam, 0.0)
