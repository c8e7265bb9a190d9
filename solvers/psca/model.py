"""A problem as P-SCA sees it: columns of spectrum, device rows, and the iterate they move.

OFDMA has M columns, the sub-carriers, to be owned whole. FDMA and resource blocks have one, the whole band, shared
in fractions: the same rate function, hence the same sub-problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import block_count, subcarrier_hz
from edgealloc.solvers.fdma.cell import SHRINK
from edgealloc.solvers.psca import device as dev
from edgealloc.solvers.psca.cap import keep_cap
from edgealloc.solvers.row import (
    BIT0,
    BIT1,
    CYC0,
    CYC1,
    DEADLINE,
    DOWN,
    ENERGY,
    FMAX,
    FMIN,
    KAPPA,
    PMAX,
    SMAX,
    device_rows,
)
from edgealloc.units import LN2, BoolArray, FloatArray, IntArray

__all__ = ["Iterate", "Model"]


_NARROW = 1e-3  # least width, in logarithms, of a box that the interior-point method works in


@dataclass(frozen=True, slots=True, eq=False)
class Iterate:
    """Where the method stands.

    Parameters
    ----------
    y
        log keep, log(upload time / T), log(f / freq_max), power / power_max, elastic. Shape [K, 5].
    share
        Shares of the columns. Shape [K, M].
    option
        Menu row of each device, -1 without a menu. Shape [K].
    active
        Devices that take part. Shape [K].
    """

    y: FloatArray
    share: FloatArray
    option: IntArray
    active: BoolArray

    @property
    def keep(self) -> FloatArray:
        """Keep rates, 0 for a device left out. Shape [K]."""
        return np.where(self.active, np.exp(self.y[:, dev.X]), 0.0)

    @property
    def lack(self) -> float:
        """Largest elastic: the share of a payload that is not yet sent."""
        return float(np.max(self.y[self.active, dev.ELASTIC], initial=0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Arrays of one problem; K devices, M columns, O menu rows.

    Parameters
    ----------
    problem
        The problem.
    column_hz
        Width of a column in Hz.
    blocks
        Number of resource blocks in the column, 0 where shares are continuous or columns whole.
    inverse_w, order
        Noise over gain 1/a of each device and column in W (``inf`` without gain), and its order upwards. [K, M].
    rows, has_row
        Device rows per menu row [O, K, WIDTH], and which of them exist [O, K].
    """

    problem: Problem
    column_hz: float
    blocks: int
    inverse_w: FloatArray
    order: IntArray
    rows: FloatArray
    has_row: BoolArray

    @classmethod
    def of(cls, problem: Problem) -> Model:
        """The arrays of any problem."""
        inst = problem.instance
        blocks = 0
        if inst.access == "ofdma":
            width, gain = subcarrier_hz(inst), inst.gain
        else:
            width, gain = inst.bandwidth_hz, inst.gain[:, None]
            if inst.access == "rb" and inst.block_hz is not None:
                blocks = block_count(inst.bandwidth_hz, inst.block_hz)
                width = blocks * inst.block_hz
        with np.errstate(divide="ignore"):
            inverse = np.ascontiguousarray(inst.noise_psd_w_per_hz * width / gain)
        sizes = np.array([len(m) if m is not None else 0 for m in inst.adapter_options or (None,) * len(gain)])
        depth = max(int(sizes.max(initial=0)), 1)
        has = np.arange(depth)[:, None] < np.maximum(sizes, 1)
        options = [np.where(sizes > 0, np.minimum(o, sizes - 1), -1) for o in range(depth)]
        rows = [device_rows(inst, chosen_adapter(inst, option), SHRINK) for option in options]
        order = np.argsort(inverse, axis=1, kind="stable")
        return cls(problem, width, blocks, inverse, order, np.stack(rows), has)

    @property
    def band(self) -> float:
        """Bit/s of a whole column per unit of log(1 + SNR)."""
        return self.column_hz / LN2

    @property
    def binary(self) -> bool:
        """Whether columns must be owned whole."""
        return self.problem.instance.access == "ofdma"

    def row(self, option: IntArray) -> FloatArray:
        """Device rows under menu rows. Shape [K, WIDTH]."""
        return self.rows[np.maximum(option, 0), np.arange(len(option))]

    def first_options(self) -> IntArray:
        """The menu row with the least payload, which is the easiest to carry; -1 without a menu. Shape [K]."""
        inst = self.problem.instance
        menus = inst.adapter_options or (None,) * inst.num_devices
        return np.array([-1 if m is None else int(np.argmin([r.payload_lora_bits for r in m])) for m in menus])

    def caps(self, share: FloatArray) -> FloatArray:
        """Largest keep rate per menu row on shares [K, M], rate, power, level above least 1/a. Shape [O, K, 4]."""
        depth, k = self.has_row.shape
        out = np.full((depth, k, 4), -2.0)
        sorted_inverse = np.take_along_axis(self.inverse_w, self.order, axis=1)
        sorted_share = np.take_along_axis(share, self.order, axis=1)
        for o, i in zip(*np.nonzero(self.has_row), strict=True):
            out[o, i] = _cap(self.rows[o, i], self.band, sorted_inverse[i], sorted_share[i])
        return out

    def caps_of(self, device: int, share: FloatArray) -> FloatArray:
        """Largest keep rate of one device per menu row on its shares [M]; -2 without such a row. Shape [O]."""
        order = self.order[device]
        inverse, sorted_share = self.inverse_w[device, order], share[order]
        most = [
            _cap(row, self.band, inverse, sorted_share)[0] if has else -2.0
            for row, has in zip(self.rows[:, device], self.has_row[:, device], strict=True)
        ]
        return np.array(most)

    def table(self, option: IntArray, y: FloatArray) -> FloatArray:
        """Device table of the sub-problem at an iterate; linear terms are left to the caller. Shape [K, 19]."""
        problem, inst = self.problem, self.problem.instance
        row = self.row(option)
        d0, d1, w0, w1, down = row.T[[BIT0, BIT1, CYC0, CYC1, DOWN]]
        energy, kappa, power, f_min, f_max, deadline = row.T[[ENERGY, KAPPA, PMAX, FMIN, FMAX, DEADLINE]]
        bits = d0 + d1 * row[:, SMAX]
        bits = np.where(bits > 0.0, bits, 1.0)
        table = np.zeros((len(row), dev.TABLE_COLUMNS))
        table[:, dev.D0], table[:, dev.D1] = d0 / bits, d1 / bits
        table[:, dev.W0], table[:, dev.W1] = w0 / (deadline * f_max), w1 / (deadline * f_max)
        table[:, dev.DOWN] = bits * down / deadline
        table[:, dev.HEAT] = kappa * f_max**3 * deadline / energy
        table[:, dev.SEND] = power * deadline / energy
        table[:, dev.BAND] = self.band * deadline / bits
        table[:, dev.PHI_LO] = np.minimum(np.log(f_min / f_max), -_NARROW)
        low, high = self.keep_range()
        table[:, dev.X_LO], table[:, dev.X_HI] = np.log(low), np.maximum(np.log(high), np.log(low) + _NARROW)
        factor = chosen_adapter(inst, option).underfit_factor
        under = inst.bound.underfit_weight * inst.weights * factor
        if problem.underfit.name == "inverse-keep":
            table[:, dev.UNDER] = under
        else:  # any other term by its tangent in x = log s, which lies above a concave one
            keep = np.clip(np.exp(y[:, dev.X]), inst.keep_min, inst.keep_max)
            table[:, dev.SLOPE] = under * problem.underfit.slope(keep) * keep
        table[:, dev.X_REF] = y[:, dev.X]
        table[:, dev.WEIGHT], table[:, dev.SCALE] = inst.weights, problem.stability.scale
        table[:, dev.P_REF] = y[:, dev.POWER]
        return table

    def keep_range(self) -> tuple[FloatArray, FloatArray]:
        """Range of the relaxed keep rates: between least and largest level, or what all share. Shapes [K]."""
        inst = self.problem.instance
        low, high = inst.keep_min.copy(), inst.keep_max.copy()
        for k, levels in enumerate(inst.keep_levels or ()):
            if levels is not None:
                low[k], high[k] = levels.min(), levels.max()
        if inst.common_keep:
            low, high = np.full_like(low, low.max()), np.full_like(high, high.min())
        return low, high

    def pool(self) -> FloatArray:
        """Kind and constants of the stability term. Shape [5]."""
        term = self.problem.stability
        kind = dev.GLOBAL_GAP if self.problem.pooled else dev.OWN_GAP
        return np.array([kind, term.base, term.spread, term.curvature, term.sparsity], dtype=np.float64)

    def start(self) -> Iterate | None:
        """Equal shares, and per device a point within deadline and energy; None where a device has none."""
        inst = self.problem.instance
        k, m = self.inverse_w.shape
        option = self.first_options()
        y = np.zeros((k, dev.NUM_Y))
        low, high = self.keep_range()
        y[:, dev.X] = np.log(np.minimum(low * 1.05, np.sqrt(low * high)))
        y[:, dev.POWER] = 0.5
        table = self.table(option, y)
        keep = np.exp(y[:, dev.X])
        bits, work = table[:, dev.D0] + table[:, dev.D1] * keep, table[:, dev.W0] + table[:, dev.W1] * keep
        best = np.full(k, -1.0)
        for part in np.linspace(0.01, 0.99, 50):
            phi = table[:, dev.PHI_LO] * part
            time = 0.9 * (1.0 - bits * table[:, dev.DOWN] - work * np.exp(-phi))
            left = 1.0 - table[:, dev.HEAT] * work * np.exp(2.0 * phi)
            with np.errstate(divide="ignore", invalid="ignore"):
                power = np.minimum(0.8, 0.9 * left / (table[:, dev.SEND] * time))
                worth = np.where((time > 0.0) & (left > 0.0), time * np.log1p(20.0 * power), -1.0)
                better = worth > best
                y[better, dev.THETA] = np.log(time[better])
            y[better, dev.PHI], y[better, dev.POWER] = phi[better], power[better]
            best = np.maximum(best, worth)
        active = best > 0.0
        if (not active.all() and inst.exclusion_penalty is None) or not active.any():
            return None
        share = np.where(active[:, None], np.full((k, m), 0.9 / active.sum()), 0.0)
        return Iterate(y, share, option, active)

    def settled(self, at: Iterate, keep: FloatArray, caps: FloatArray) -> Iterate:
        """The iterate with power, time and clock that its shares serve best (``caps`` [K, 4]) at keep rates [K].

        A device whose shares do not carry the least keep rate stays where the sub-problem put it.
        """
        y = at.y.copy()
        row = self.row(at.option)
        d0, d1, w0, w1, down = row.T[[BIT0, BIT1, CYC0, CYC1, DOWN]]
        power_max, f_min, f_max, deadline = row.T[[PMAX, FMIN, FMAX, DEADLINE]]
        for k in np.flatnonzero(at.active & (keep > 0.0) & (caps[:, 1] > 0.0)):
            bits, work = d0[k] + d1[k] * keep[k], w0[k] + w1[k] * keep[k]
            upload = bits / caps[k, 1]
            room = deadline[k] - bits * down[k] - upload
            clock = min(max(work / room if room > 0.0 else f_max[k], f_min[k]), f_max[k])
            y[k] = (
                math.log(keep[k]),
                math.log(upload / deadline[k]),
                math.log(clock / f_max[k]),
                min(max(caps[k, 2] / power_max[k], 1e-9), 1.0),
                0.0,
            )
        return replace(at, y=y)


def _cap(
    row: FloatArray, band: float, inverse: FloatArray, share: FloatArray
) -> tuple[float, float, float, float]:
    used = share > 0.0
    return keep_cap(row, band, inverse[used], share[used], int(np.count_nonzero(used)))  # type: ignore[no-any-return]
