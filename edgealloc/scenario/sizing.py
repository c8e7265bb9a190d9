"""How much spectrum a cell needs so that every device can keep a given share of its adapter.

Scenario generators use this to draw cells that are tight and yet feasible: the point computed here, in which
every device keeps the same share, is feasible by construction, and a solver starts by beating it. It is *not*
a solver: frequencies come from a coarse grid, sub-carriers are dealt out greedily.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.units import LN2, BoolArray, FloatArray, IntArray

__all__ = ["Demand", "OperatingPoint", "bandwidth_for_rate_hz", "deal_subcarriers", "least_bandwidth"]

# Processor frequencies tried per device: a grid between the slowest and the fastest possible one, then a finer
# one between the neighbours of its best point (the need is unimodal: formulation 5.2).
GRID_POINTS, GRID_LEVELS = 8, 2
# Spectrum bought beyond the computed need, so that rounding never turns a met budget into a broken one.
MARGIN = 1.0 + 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What K devices must do within one round and what they may spend on it. Shapes [K].

    Parameters
    ----------
    payload_bits, cycles
        Upload in bit and local work in cycles, at the keep rate that is asked for.
    time_s
        Time for computing and uploading in s (deadline less the download).
    energy_j
        Energy for computing and uploading in J (budget less the static part).
    freq_min_hz, freq_max_hz, capacitance
        Processor, as in :class:`~edgealloc.data.instance.Instance`.
    power_max_w
        Transmit power limit in W.
    """

    payload_bits: FloatArray
    cycles: FloatArray
    time_s: FloatArray
    energy_j: FloatArray
    freq_min_hz: FloatArray
    freq_max_hz: FloatArray
    capacitance: FloatArray
    power_max_w: FloatArray

    def take(self, rows: IntArray) -> Demand:
        """The demand of the devices with the indices ``rows`` [N]."""
        return Demand(*(getattr(self, name)[rows] for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """A processor frequency, a transmit power and the bandwidth they need. Shape [K] each.

    ``bandwidth_hz`` is NaN for a device that no frequency on the grid serves; ``rate_bps`` is the upload
    rate the point needs.
    """

    freq_hz: FloatArray
    power_w: FloatArray
    rate_bps: FloatArray
    bandwidth_hz: FloatArray

    def with_rows(self, rows: IntArray, other: OperatingPoint) -> OperatingPoint:
        """A copy in which ``rows``, indices [N], are replaced by the N devices of ``other``."""
        columns = [getattr(self, name).copy() for name in self.__slots__]
        for column, name in zip(columns, self.__slots__, strict=True):
            column[rows] = getattr(other, name)
        return OperatingPoint(*columns)

    def replaced(self, where: BoolArray, other: OperatingPoint) -> OperatingPoint:
        """A copy that takes ``other`` (of the same shape) where the mask says."""
        return OperatingPoint(*(np.where(where, getattr(other, n), getattr(self, n)) for n in self.__slots__))


def bandwidth_for_rate_hz(rate_bps: FloatArray, snr_hz: FloatArray, newton_steps: int = 12) -> FloatArray:
    """Bandwidth b in Hz with ``b log2(1 + x/b) = rate`` where ``x = p g / N0`` in Hz. Shape of the inputs.

    With ``y = x/b`` and ``c = rate ln2 / x`` this is ``ln(1 + y) = c y``, which has a positive root only for
    c < 1 (the wide-band limit); NaN otherwise. Newton from an upper bound on y falls monotonically, because
    ``ln(1 + y) - c y`` is concave, so fewer steps understate b.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        c = np.asarray(rate_bps * LN2) / snr_hz
        c = np.where((c > 0.0) & (c < 1.0), c, np.nan)
        # ln(1+y) <= (c/2)(1+y) - 1 - ln(c/2): the tangent of the logarithm at slope c/2.
        y = 1.0 + (2.0 / c) * (np.log(2.0 / c) - 1.0)
        for _ in range(newton_steps):
            y += (np.log1p(y) - c * y) / (c - 1.0 / (1.0 + y))
        return np.asarray(snr_hz / y)


def least_bandwidth(demand: Demand, gain_to_noise_hz_per_w: FloatArray, snr_min_db: float) -> OperatingPoint:
    """The operating point of each device that needs the least bandwidth, within a few per cent.

    Parameters
    ----------
    demand
        What each device must do.
    gain_to_noise_hz_per_w
        ``g / N0`` in Hz/W. Shape [K].
    snr_min_db
        Devices that would need a band so wide that the ratio of signal to noise in it falls below this are
        not served (NaN): they are out of coverage.
    """
    d = demand
    freq_low = np.maximum(d.freq_min_hz, d.cycles / np.maximum(d.time_s, 1e-12))
    with np.errstate(divide="ignore"):
        freq_high = np.minimum(d.freq_max_hz, np.sqrt(np.maximum(d.energy_j, 0.0) / (d.capacitance * d.cycles)))
    usable = (freq_low < freq_high) & (d.time_s > 0.0) & (d.energy_j > 0.0)
    ratio = np.where(usable, freq_high / freq_low, np.nan)
    best = OperatingPoint(*np.full((4, *d.cycles.shape), np.nan))
    centre, half = np.full(d.cycles.shape, 0.5), 0.5
    for _ in range(GRID_LEVELS):
        for offset in np.linspace(-1.0, 1.0, GRID_POINTS + 2)[1:-1] * half:
            freq = freq_low * ratio ** np.clip(
                centre + offset, 0.001, 0.999
            )  # the ends leave no time or no energy
            upload_s = d.time_s - d.cycles / freq
            energy_j = d.energy_j - d.capacitance * freq**2 * d.cycles
            power = np.minimum(d.power_max_w, energy_j / upload_s)
            rate = d.payload_bits / upload_s
            band = bandwidth_for_rate_hz(rate, power * gain_to_noise_hz_per_w, newton_steps=4)
            better = np.isfinite(band) & ~(band >= best.bandwidth_hz)
            best = best.replaced(better, OperatingPoint(freq, power, rate, band))
        found = np.log(best.freq_hz / freq_low) / np.log(ratio)
        centre, half = np.where(np.isfinite(found), found, centre), half * 2.0 / (GRID_POINTS + 1)
    snr_hz = best.power_w * gain_to_noise_hz_per_w
    band = bandwidth_for_rate_hz(best.rate_bps, snr_hz) * MARGIN
    covered = snr_hz / band >= 10.0 ** (snr_min_db / 10.0)
    return OperatingPoint(best.freq_hz, best.power_w, best.rate_bps, np.where(covered, band, np.nan))


def deal_subcarriers(
    point: OperatingPoint, gain_to_noise_hz_per_w: FloatArray, bisections: int = 12
) -> tuple[float, IntArray]:
    """Width in Hz of M equal sub-carriers that serve every device at its rate, and who owns which.

    Sub-carriers go, one by one, to the device that lacks the largest share of its rate, which takes its best
    free one and spreads its power evenly. The width is the least that a bisection finds workable.

    Parameters
    ----------
    point
        Rates and powers to reach. Shape [K], K <= M.
    gain_to_noise_hz_per_w
        ``g / N0`` in Hz/W. Shape [K, M].

    Returns
    -------
    width_hz, owner
        ``owner`` has shape [M], -1 where a sub-carrier is left over.
    """
    high = float(point.bandwidth_hz.sum()) / gain_to_noise_hz_per_w.shape[1]
    owner = _deal(point, gain_to_noise_hz_per_w, high)
    while owner is None:
        high *= 1.5
        owner = _deal(point, gain_to_noise_hz_per_w, high)
    low = high / 2.25
    for _ in range(bisections):
        middle = float(np.sqrt(low * high))
        trial = _deal(point, gain_to_noise_hz_per_w, middle)
        if trial is None:
            low = middle
        else:
            high, owner = middle, trial
    return high, owner


def _deal(point: OperatingPoint, snr_hz_per_w: FloatArray, width_hz: float) -> IntArray | None:
    """Owners [M] that meet every rate with sub-carriers of this width, or None when they run out."""
    devices, subcarriers = snr_hz_per_w.shape
    order = np.argsort(-snr_hz_per_w, axis=1)
    owner = np.full(subcarriers, -1, dtype=np.intp)
    met = np.zeros(devices)
    cursor = np.zeros(devices, dtype=np.intp)
    mine: list[list[int]] = [[] for _ in range(devices)]
    for _ in range(subcarriers):
        k = int(np.argmin(met))
        if met[k] >= MARGIN:
            break
        while owner[order[k, cursor[k]]] >= 0:
            cursor[k] += 1
        best = int(order[k, cursor[k]])
        owner[best] = k
        mine[k].append(best)
        share_w = point.power_w[k] / len(mine[k])
        snr = share_w * snr_hz_per_w[k, mine[k]] / width_hz
        met[k] = width_hz * np.log1p(snr).sum() / LN2 / point.rate_bps[k]
    return owner if met.min() >= MARGIN else None
