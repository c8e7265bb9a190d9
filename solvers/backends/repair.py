"""Strict feasibility for points of outside solvers: keep rates are shaved, budgets never stretched.

Resources cap keep rates from above only (docs/model.md), so whatever serves a keep rate serves every
smaller one: per device the rates that given resources serve are an interval, and bisection finds its end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.formulation.device import (
    AdapterChoice,
    chosen_adapter,
    compute_energy_j,
    cycles,
    download_s,
    payload_bits,
)
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import block_count, blocks_of, spare_hz, subcarrier_rate_bps
from edgealloc.solvers.fdma.response import BANDWIDTH, COMPUTE, bandwidths, new_table
from edgealloc.solvers.row import device_rows
from edgealloc.units import LN2, FloatArray

__all__ = ["repair"]

MARGIN = 1e-12  # share of each budget left unused, to absorb rounding in evaluate()


def repair(problem: Problem, point: Allocation, redeal: bool = True) -> Allocation | None:
    """Shave keep rates until the point breaks no budget; owners, frequencies and choices stay.

    Shares of the spectrum and powers are scaled down to what there is, never up. A hair's violation can cost a
    device at ``keep_min`` everything, and a whole step where keep rates are discrete or common; with ``redeal``
    the point's own keep rates are then also tried on the least bandwidths that carry them (FDMA and blocks).

    Parameters
    ----------
    problem
        What the point is for.
    point
        An allocation that may break budgets.
    redeal
        Whether the spectrum may be dealt anew.

    Returns
    -------
    Allocation or None
        None when a selected device is infeasible even at its least keep rate with these resources.
    """
    inst = problem.instance
    numbers = [point.keep, point.freq_hz, point.power_w]
    numbers += [point.bandwidth_hz] if point.bandwidth_hz is not None else []
    if not all(np.all(np.isfinite(a)) for a in numbers):
        return None
    if problem.evaluate(point).feasible:
        return point
    on = point.selected if inst.exclusion_penalty is not None else np.ones(inst.num_devices, dtype=bool)
    point = replace(
        point, selected=on, keep=_allowed(problem, np.clip(point.keep, inst.keep_min, inst.keep_max), on)
    )
    found = [_shaved(problem, point)]
    coarse = found[0] is None or inst.keep_levels is not None or inst.common_keep
    if redeal and inst.access != "ofdma" and coarse:
        found.append(_redealt(problem, point))
    fits = [a for a in found if a is not None and problem.evaluate(a).feasible]
    if not fits and problem.constraints:
        fits = _within_constraints(problem, point)
    return min(fits, key=lambda a: problem.evaluate(a).objective, default=None)


def _within_constraints(problem: Problem, point: Allocation) -> list[Allocation]:
    """The point with ever less spectrum, power and lower keep rates, until it fits."""
    for hair in (1e-9 * 8.0**n for n in range(6)):
        band = None if point.bandwidth_hz is None else point.bandwidth_hz * (1.0 - hair)
        less = replace(point, keep=point.keep * (1.0 - 4.0 * hair), bandwidth_hz=band)
        found = _shaved(problem, replace(less, power_w=point.power_w * (1.0 - hair)))
        if found is not None and problem.evaluate(found).feasible:
            return [found]
    return []


def _allowed(problem: Problem, keep: FloatArray, on: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> FloatArray:
    """Keep rates moved to the nearest level, and to the least of all where one rate is common. Shape [K]."""
    inst = problem.instance
    keep = keep.copy()
    for i, levels in enumerate(inst.keep_levels or ()):
        if levels is not None:
            keep[i] = levels[np.argmin(np.abs(levels - keep[i]))]
    if inst.common_keep and on.any():
        keep[:] = keep[on].min()
    return keep


@dataclass(frozen=True, slots=True, eq=False)
class _Resources:
    """What a point gives its devices; ``power_w`` tells which keep rates that serves.

    Parameters
    ----------
    problem, adapter
        The problem, and the chosen menu rows.
    freq_hz
        Processor frequencies. Shape [K].
    bandwidth_hz
        FDMA and blocks: bandwidth of each device. Shape [K].
    owner, subcarrier_w
        OFDMA: owner of and power on each sub-carrier. Shape [M].
    """

    problem: Problem
    adapter: AdapterChoice
    freq_hz: FloatArray
    bandwidth_hz: FloatArray | None = None
    owner: np.ndarray[tuple[int], np.dtype[np.intp]] | None = None
    subcarrier_w: FloatArray | None = None

    @classmethod
    def of(cls, problem: Problem, point: Allocation) -> _Resources | None:
        """The resources of a point, scaled down where it takes more than there is; None for too many blocks."""
        inst, on = problem.instance, point.selected
        adapter = chosen_adapter(inst, np.maximum(point.option, 0))
        freq = np.clip(point.freq_hz, inst.freq_min_hz, inst.freq_max_hz)
        if point.owner is not None:
            owner = np.where((point.owner >= 0) & (point.owner < inst.num_devices), point.owner, -1)
            owner[(owner >= 0) & ~on[owner]] = -1
            power = np.where(owner >= 0, np.maximum(point.power_w, 0.0), 0.0)
            total = np.bincount(owner[owner >= 0], weights=power[owner >= 0], minlength=inst.num_devices)
            limit = inst.power_max_w * (1.0 - MARGIN)
            power *= np.where(total > limit, limit / np.maximum(total, limit), 1.0)[owner]
            return cls(problem, adapter, freq, owner=owner, subcarrier_w=power)
        assert point.bandwidth_hz is not None
        band = np.where(on, np.maximum(point.bandwidth_hz, 0.0), 0.0)
        if inst.block_hz is not None:
            blocks = blocks_of(band, inst.block_hz)
            if blocks.sum() > block_count(inst.bandwidth_hz, inst.block_hz):
                return None
            band = blocks * inst.block_hz
        elif band.sum() > inst.bandwidth_hz * (1.0 - MARGIN):
            band = band * (inst.bandwidth_hz / band.sum() * (1.0 - MARGIN))
        return cls(problem, adapter, freq, bandwidth_hz=band)

    def power_w(self, keep: FloatArray) -> FloatArray:
        """Power in W with which keep rates meet deadline, power and energy; NaN where none does. Shape [K]."""
        inst = self.problem.instance
        bits, work = payload_bits(inst, self.adapter, keep), cycles(self.adapter, keep)
        time_s = (inst.latency_s - download_s(inst, self.adapter, bits) - work / self.freq_hz) * (1.0 - MARGIN)
        energy_j = inst.energy_j * (1.0 - MARGIN) - inst.energy_static_j
        energy_j = energy_j - compute_energy_j(inst, work, self.freq_hz) * (1.0 + MARGIN)
        with np.errstate(all="ignore"):
            if self.bandwidth_hz is not None:
                band, noise = self.bandwidth_hz, inst.noise_psd_w_per_hz
                need = np.expm1(bits * LN2 / (time_s * band)) * noise * band / inst.gain * (1.0 + MARGIN)
            else:
                assert self.owner is not None
                assert self.subcarrier_w is not None
                rate, need = subcarrier_rate_bps(inst, self.owner, self.subcarrier_w)
                time_s = np.where(bits <= rate * time_s, bits / rate, np.nan)
            fits = (time_s > 0) & (energy_j > 0) & (need <= inst.power_max_w) & (need * time_s <= energy_j)
        return np.where(fits, need, np.nan)

    def greatest(self, high: FloatArray) -> FloatArray:
        """Greatest allowed keep rates up to ``high`` that are served, NaN where none is. Shape [K]."""
        inst = self.problem.instance
        low = np.where(np.isnan(self.power_w(high)), inst.keep_min, high)
        low = np.where(np.isnan(self.power_w(low)), np.nan, low)
        for _ in range(60):
            middle = 0.5 * (low + high)
            fits = ~np.isnan(self.power_w(middle))
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        for i, levels in enumerate(inst.keep_levels or ()):
            if levels is not None:
                below = levels[levels <= low[i]]  # none, if low is NaN
                low[i] = below[-1] if len(below) else np.nan
        return low


def _shaved(problem: Problem, point: Allocation) -> Allocation | None:
    """The greatest keep rates, not above the point's, that its own resources serve."""
    on, resources = point.selected, _Resources.of(problem, point)
    if resources is None:
        return None
    keep = resources.greatest(point.keep)
    if np.isnan(keep[on]).any():
        return None
    return _assembled(problem, point, resources, _allowed(problem, np.where(on, keep, point.keep), on))


def _redealt(problem: Problem, point: Allocation) -> Allocation | None:
    """The point's keep rates, shaved by a thousandth at most, on the least bandwidths that carry them."""
    inst, on = problem.instance, point.selected
    adapter = chosen_adapter(inst, np.maximum(point.option, 0))
    rows = device_rows(inst, adapter, 10.0 * MARGIN)
    stepped = np.array([levels is not None for levels in inst.keep_levels or (None,) * len(on)])
    # A device that may shave can hold a small share of the band: its hair then pays for the hairs of all.
    for hair in (0.0, *(1e-11 * 2.0**n for n in range(27))):
        keep = np.where(stepped, point.keep, np.maximum(point.keep * (1.0 - hair), inst.keep_min))
        table = new_table(inst.num_devices)
        bandwidths(rows, np.log(keep), np.zeros_like(keep), table)
        band = np.where(on, table[BANDWIDTH], 0.0)
        fits = spare_hz(band, inst.bandwidth_hz) >= 0.0
        if inst.block_hz is not None and np.isfinite(band).all():
            blocks = np.ceil(band / inst.block_hz)
            fits = bool(blocks.sum() <= block_count(inst.bandwidth_hz, inst.block_hz))
            band = blocks * inst.block_hz
        if fits:
            with np.errstate(divide="ignore", invalid="ignore"):
                freq = np.nan_to_num(cycles(adapter, keep) / table[COMPUTE], nan=np.inf)
            dealt = replace(point, bandwidth_hz=band, freq_hz=np.clip(freq, inst.freq_min_hz, inst.freq_max_hz))
            resources = _Resources.of(problem, dealt)
            return _assembled(problem, point, resources, keep) if resources is not None else None
    return None


def _assembled(problem: Problem, point: Allocation, resources: _Resources, keep: FloatArray) -> Allocation:
    """Keep rates with the resources that serve them as an allocation; what a device left out has is dropped."""
    on = point.selected
    keep = np.where(on, keep, problem.instance.keep_min)
    power = resources.subcarrier_w
    if power is None:
        power = np.where(on, resources.power_w(keep), 0.0)
    return replace(
        point,
        keep=keep,
        freq_hz=resources.freq_hz,
        power_w=power,
        bandwidth_hz=resources.bandwidth_hz,
        owner=resources.owner,
    )
