"""Boxes of the OFDMA search tree: which sub-carriers, menu rows and keep rates a device may still take."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps
from edgealloc.solvers.ofdma.master import Master, MasterPoint
from edgealloc.solvers.ofdma.pricing.mode import Mode
from edgealloc.solvers.row import SMAX, SMIN
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["OfdmaBox", "Region", "root_box", "split", "wide_mixture"]

_SAME = 1e-9  # keep rates this close are not parted
_WIDE = 1.01  # a mixture of keep rates within this ratio is not wide
_ASIDE = 1.0007  # the mean set may be a set; no certificate could show on which side of a cut at its cap it lies
_END = 0.1  # what a part of a wide mixture keeps of its range, at least, in logarithms
_INTEGRAL = 1e-6  # weights this close to 0 or 1 count as such; a wrong guess only costs a node


@dataclass(frozen=True, slots=True)
class OfdmaBox:
    """All assignments that meet the restrictions.

    Parameters
    ----------
    owners
        (device, sub-carrier, 1 or 0): the device owns it, or does not.
    modes
        (device, modes allowed; -1 for being left out).
    keeps
        (device, least, greatest keep rate).
    rates
        Least and greatest keep rate of every device, for one common rate.
    """

    owners: tuple[tuple[int, int, int], ...] = ()
    modes: tuple[tuple[int, tuple[int, ...]], ...] = ()
    keeps: tuple[tuple[int, float, float], ...] = ()
    rates: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A box as arrays.

    Parameters
    ----------
    fixed
        1 owned, 0 not, -1 open. Shape [K, M].
    modes
        Modes allowed, as pricing takes them; None where not. Length I.
    out
        Which devices may be left out. Shape [K].
    low, high
        Keep range of each device. Shape [K].
    """

    fixed: IntArray
    modes: tuple[Mode | None, ...]
    out: BoolArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, cell: OfdmaCell, box: OfdmaBox) -> Region:
        """The arrays of a box."""
        fixed = np.full((cell.devices, cell.subcarriers), -1, np.int64)
        out = np.isfinite(cell.out)
        for k, m, own in box.owners:
            if own:
                fixed[:, m] = 0
                out[k] = False  # a device left out owns nothing
            fixed[k, m] = own
        allowed = np.ones(len(cell.device), bool)
        for k, some in box.modes:
            mine = np.arange(cell.start[k], cell.start[k + 1])
            allowed[mine] &= np.isin(mine, some)
            out[k] &= -1 in some
        low, high = np.full(cell.devices, box.rates[0]), np.full(cell.devices, box.rates[1])
        for k, least, greatest in box.keeps:
            low[k], high[k] = max(low[k], least), min(high[k], greatest)
        modes: list[Mode | None] = []
        for i, k in enumerate(cell.device):
            levels = cell.levels[i]
            levels = levels[~np.isnan(levels)]
            inside = levels[(levels >= low[k]) & (levels <= high[k])]
            if not allowed[i] or (len(levels) and not len(inside)):
                modes.append(None)
                continue
            row = cell.rows[i].copy()
            if not len(levels):
                row[SMIN], row[SMAX] = max(row[SMIN], low[k]), min(row[SMAX], high[k])
            fits = row[SMIN] <= row[SMAX]
            modes.append(
                Mode(row, cell.objective, inside, cell.inv_a[k], cell.log2_a[k], int(cell.most[k]))
                if fits
                else None
            )
        return cls(fixed, tuple(modes), out, low, high)

    def usable(self, master: Master) -> BoolArray:
        """Which columns of the master lie in the box. Shape [N]."""
        n = master.count
        device, mode, keep = master.device[:n], master.mode[:n], master.keep[:n]
        permitted = np.array([m is not None for m in self.modes])
        inside = permitted[mode] & (keep >= self.low[device]) & (keep <= self.high[device])
        return np.asarray(self.fitting(master) & np.where(mode < 0, self.out[device], inside))

    def fitting(self, master: Master) -> BoolArray:
        """Which columns of the master have sets that the box allows, at any mode and keep rate. Shape [N]."""
        mask, fixed = master.mask[: master.count], self.fixed[master.device[: master.count]]
        return np.asarray(~(((fixed == 1) & ~mask) | ((fixed == 0) & mask)).any(axis=1))


def root_box(cell: OfdmaCell) -> OfdmaBox:
    """Every assignment, at any rate that a device may keep."""
    if not cell.common:
        return OfdmaBox()
    return OfdmaBox(rates=(float(cell.rows[:, SMIN].min()), float(cell.rows[:, SMAX].max())))


def wide_mixture(cell: OfdmaCell, master: Master, point: MasterPoint, least: float) -> tuple[int, float] | None:
    """The device whose mixture of keep rates gains most over its mean set, and a keep rate to part the mixture at.

    Resources with increasing returns (``perturbation``: s^2 of a cap that grows with the set) make the master mix
    few sub-carriers with many. The mean of the sets, sub-carriers in fractions, keeps less; the difference is what
    branching on the keep rate can win. None where no device gains ``least``.
    """
    used = np.flatnonzero(point.x > _INTEGRAL)
    widest, where = least, None
    for k in range(cell.devices):
        mine = used[master.device[used] == k]
        modes, keeps = np.unique(master.mode[mine]), master.keep[mine]
        if len(modes) != 1 or modes[0] < 0 or keeps.max() <= _WIDE * keeps.min():
            continue
        row, levels = cell.rows[modes[0]], cell.levels[modes[0]]
        if not np.isnan(levels).all():
            continue  # these are parted at their levels
        x = point.x[mine] / point.x[mine].sum()
        cap = keep_cap(row, cell.inv_a[k], cell.log2_a[k], (x @ master.mask[mine])[cell.order[k]])[0]
        nu = float(point.nu[cell.pools.device[k]])
        free = free_keeps(row, cell.objective, nu)
        value, keep = best_share(row, cell.objective, nu, free, np.empty(0), cap)
        gain = value - float(x @ (master.cost[mine] + nu * master.kept[mine]))
        if gain >= widest:
            end = (keeps.max() / keeps.min()) ** _END
            at = float(np.clip(keep * _ASIDE, keeps.min() * end, keeps.max() / end))
            widest, where = gain, (k, at)
    return where


def split(
    cell: OfdmaCell, box: OfdmaBox, master: Master, x: FloatArray, wide: tuple[int, float] | None = None
) -> tuple[tuple[OfdmaBox, ...], str]:
    """Children of a box that part the columns which the master mixes; none when it mixes nothing that matters.

    In this order: the mode of a device (left out is one), a ``wide`` mixture of keep rates as from
    :func:`wide_mixture`, a keep level, the owner of a sub-carrier, a continuous keep rate under a curve. What a
    device does moves the bound far more than who owns one sub-carrier of many (figures in docs/ofdma.md). Without
    a curve, where the share is convex in s^2, a mixture of continuous keep rates on one set is no better than
    their mean.

    Parameters
    ----------
    cell, box, master
        The problem as arrays, the box, and the columns.
    x
        Weights of the columns. Shape [N].
    wide
        A mode and a keep rate to part it at.

    Returns
    -------
    tuple of boxes, and str
        The children, and what they differ in.
    """
    used = np.flatnonzero(x > _INTEGRAL)
    names = cell.problem.instance.device_names
    columns = [used[master.device[used] == k] for k in range(cell.devices)]
    for k, mine in enumerate(columns):
        modes = sorted({int(i) for i in master.mode[mine]})
        if len(modes) > 1:
            first = max(modes, key=lambda i: (float(x[mine][master.mode[mine] == i].sum()), -i))
            rest = tuple(i for i in (-1, *range(cell.start[k], cell.start[k + 1])) if i != first)
            boxes = tuple(replace(box, modes=(*box.modes, (k, some))) for some in ((first,), rest))
            return boxes, f"mode of {names[k]}"
    if wide is not None:
        k, at = wide
        return _apart(box, k, at, at), f"keep rate of {names[k]} at {at:.6g}"
    mixed = [  # devices whose columns differ in their keep rate
        k
        for k, mine in enumerate(columns)
        if len(mine) and master.mode[mine[0]] >= 0 and np.ptp(master.keep[mine]) > 0.0
    ]
    for k in mixed:
        mine, keeps = columns[k], master.keep[columns[k]]
        if not np.isnan(cell.levels[master.mode[mine[0]]]).all():
            values = np.unique(cell.levels[cell.start[k] : cell.start[k + 1]])
            values = values[~np.isnan(values)]
            middle = float(x[mine] @ keeps / x[mine].sum())
            at = float(values[(values <= middle) & (values < keeps.max())][-1])
            after = float(values[values > at][0])
            return _apart(box, k, at, after), f"keep level of {names[k]} at {at:.6g}"
    weight = np.zeros((cell.devices, cell.subcarriers))
    np.add.at(weight, master.device[used], x[used, None] * master.mask[used])
    part = np.abs(weight - np.round(weight))
    if part.max() > _INTEGRAL:
        k, m = (int(i) for i in np.unravel_index(np.argmax(part), part.shape))
        children = tuple(replace(box, owners=(*box.owners, (k, m, own))) for own in (1, 0))
        return children, f"sub-carrier {m} to {names[k]}"
    for k in mixed:
        mine, keeps = columns[k], master.keep[columns[k]]
        if cell.curved and keeps.max() > keeps.min() * (1.0 + _SAME):
            at = float(x[mine] @ keeps / x[mine].sum())
            return _apart(box, k, at, at), f"keep rate of {names[k]} at {at:.6g}"
    return (), ""


def _apart(box: OfdmaBox, k: int, below: float, above: float) -> tuple[OfdmaBox, OfdmaBox]:
    """The boxes in which device k keeps at most ``below``, and at least ``above``."""
    low, high = (replace(box, keeps=(*box.keeps, (k, *ends))) for ends in ((0.0, below), (above, 1.0)))
    return low, high
