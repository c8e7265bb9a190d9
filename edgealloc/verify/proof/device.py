r"""One device in a certificate: how little bandwidth a keep rate can need.

Written from docs/model.md (*What it costs*) and docs/mathematics.md (section 4) in a number type with
proven error bounds (:mod:`edgealloc.verify.proof.enclosures`); all arrays have one entry per piece.

With x = log s and the spectral efficiency v = log(1 + SNR) in nats, a device sends D(s) bits over ``b`` Hz in
``t = D ln2 / (v b)`` seconds with ``e = c D (e^v - 1) / v`` joules, ``c = N0 ln2 / g``. Computing takes at least
``tau_1 = (kappa W^3 / (E - e))^(1/2)`` (what energy is left) and ``tau_2 = W / f_max``, so

.. math:: b \ge D \ln 2 / (v\, t_1^{m}\, t_2^{1-m}), \qquad t_i = T - D/R - \tau_i, \qquad 0 \le m \le 1,

and the right side plus ``multiplier * h`` for a constraint h <= 0 is jointly convex in (x, v): its tangent plane
at any point, minimised over v, is a line in x below the bandwidth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.certificate.form import OUT
from edgealloc.certificate.prices import Planes
from edgealloc.data.instance import Instance
from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.proof.enclosures import Number

__all__ = [
    "Device", "Line", "bandwidth_line", "blocked", "energy_shape", "farthest", "gains_of", "most_efficient",
]  # fmt: skip

_TERMS = 7  # of a series


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """Constants of the device of each piece, as enclosures; names as in docs/model.md, ``c = N0 ln2 / g``."""

    d0: Number
    d1: Number
    w0: Number
    w1: Number
    slow: Number  # 1 / R_dl, 0 without a downlink
    energy: Number  # E - E0
    kappa: Number
    c: Number
    power: Number
    f_min: Number
    f_max: Number
    latency: Number  # T, less the time for what is downloaded beside the sub-adapter

    @classmethod
    def of(cls, instance: Instance, device: IntArray, option: IntArray, kind: type[Number]) -> Device:
        """Constants of the pieces of ``device`` [N]; ``option`` [N] names the row where there is a menu."""
        d1, w1 = instance.payload_lora_bits[device], instance.cycles_lora[device]
        more, beside = np.zeros((2, len(device)))  # cycles beside W0, bits downloaded beside D
        menus = instance.adapter_options
        if menus is not None:
            d1, w1 = d1.copy(), w1.copy()
            for i, (k, row) in enumerate(zip(device.tolist(), option.tolist(), strict=True)):
                menu = menus[k]
                if menu is not None and row != OUT:
                    d1[i], w1[i] = menu[row].payload_lora_bits, menu[row].cycles_lora
                    more[i], beside[i] = menu[row].cycles_fixed, menu[row].download_bits
        down = instance.downlink_bps[device]
        finite = np.isfinite(down)
        slow = kind.of(finite.astype(np.float64)) / kind.of(np.where(finite, down, 1.0))
        noise = (kind.of(10.0).log() * (kind.of(instance.noise_psd_dbm_per_hz) - 30.0) / 10.0).exp()
        ln2 = kind.of(2.0).log()

        def exact(values: FloatArray) -> Number:
            return kind.of(values[device])

        w0, latency = exact(instance.cycles_fixed), kind.of(np.full(len(device), instance.latency_s))
        if more.any():
            w0 = w0 + kind.of(more)
        if beside.any():
            latency = latency - kind.of(beside) * slow

        return cls(
            d0=exact(instance.payload_fixed_bits),
            d1=kind.of(d1),
            w0=w0,
            w1=kind.of(w1),
            slow=slow,
            energy=exact(instance.energy_j) - exact(instance.energy_static_j),
            kappa=exact(instance.capacitance),
            c=(noise * ln2) / kind.of(gains_of(instance, device, option)),
            power=exact(instance.power_max_w),
            f_min=exact(instance.freq_min_hz),
            f_max=exact(instance.freq_max_hz),
            latency=latency,
        )

    def take(self, index: Any) -> Device:
        """A selection of the pieces."""
        return Device(*(getattr(self, name).take(index) for name in self.__slots__))


def gains_of(instance: Instance, device: IntArray, option: IntArray) -> FloatArray:
    """Channel power gains of pieces [N] of one band: of the menu row where it has its own, else of the device."""
    gain, menus = instance.gain[device], instance.adapter_options
    if menus is None:
        return gain
    gain = gain.copy()
    for i, (k, row) in enumerate(zip(device.tolist(), option.tolist(), strict=True)):
        menu = menus[k]
        own = None if menu is None or row == OUT else menu[row].gain
        gain[i] = gain[i] if own is None else own
    return gain


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """``base + slope log(s / touch)``, not above the bandwidth in Hz for any s in the piece's interval."""

    base: Number
    slope: Number
    touch: FloatArray

    def at(self, keep: FloatArray) -> Number:
        """Its value at keep rates; shape [N]."""
        ratio = self.base.of(keep) / self.base.of(self.touch)
        return self.base + self.slope * ratio.log()

    def take(self, index: Any) -> Line:
        """A selection of the pieces."""
        return Line(self.base.take(index), self.slope.take(index), self.touch[index])


def energy_shape(v: Number) -> tuple[Number, Number]:
    """``(exp(v) - 1) / v`` and its derivative, the sum of ``v^n / (n! (n + 2))``, where v > 0. Same shape.

    Its closed form cancels at low spectral efficiencies. There terms from the eighth on add up to at most
    ``v^7 / 45360 / (1 - v)``.
    """
    eps = v.expm1() / v
    near = v.upper() < 0.05
    terms = v.of(np.zeros(near.shape))
    for n in range(_TERMS - 1, -1, -1):
        terms = terms * v + 1.0 / v.of(math.factorial(n) * (n + 2.0))
    rest = v.of(np.ones(near.shape)) / 40000.0
    for _ in range(_TERMS):
        rest = rest * v
    return eps, terms.hull(terms + rest).where(near, (v.exp() - eps) / v)


def bandwidth_line(device: Device, planes: Planes, left: FloatArray) -> Line:
    """The line that a tangent plane proves over keep rates >= ``left`` [N]; 0 where there is no plane.

    A plane that proves nothing (it lies outside its domain) has a base of ``-inf`` as lower end.
    """
    kind = type(device.d0)
    none = planes.efficiency == 0.0
    keep, v = kind.of(planes.touch), kind.of(np.where(none, 1.0, planes.efficiency))
    d_x, w_x = device.d1 * keep, device.w1 * keep
    bits, work = device.d0 + d_x, device.w0 + w_x
    window, window_x = device.latency - bits * device.slow, -(d_x * device.slow)
    eps, eps1 = energy_shape(v)
    e, e_x, e_v = device.c * bits * eps, device.c * d_x * eps, device.c * bits * eps1
    # the time to upload, limited by freq_max and by energy, with its derivatives
    t2, t2_x = window - work / device.f_max, window_x - w_x / device.f_max
    spare = device.energy - e
    tau = (device.kappa * work / spare).sqrt() * work
    growth = w_x / work * 1.5 + e_x / (spare * 2.0)
    t1, t1_x, t1_v = window - tau, window_x - tau * growth, -(tau * (e_v / (spare * 2.0)))
    zero = kind.of(np.zeros(len(none)))
    slow, fast = planes.mix > 0.0, planes.mix < 1.0
    m = kind.of(planes.mix)
    l1, l1_x, l1_v = (x.where(slow, zero) for x in (_log(t1, slow, kind), t1_x / t1, t1_v / t1))
    l2, l2_x = (x.where(fast, zero) for x in (_log(t2, fast, kind), t2_x / t2))
    rest = 1.0 - m
    # b >= D ln2 / (v t1^m t2^(1-m)) and its gradient
    base = bits * kind.of(2.0).log() / v * (-(m * l1 + rest * l2)).exp()
    b_x = base * (d_x / bits - m * l1_x - rest * l2_x)
    b_v = base * (-(1.0 / v) - m * l1_v)
    # a constraint h <= 0 with its multiplier
    heat = device.kappa * device.f_min * device.f_min
    for number, h, h_x, h_v in (
        (1, e + heat * work - device.energy, e_x + heat * w_x, e_v),
        (2, e - device.power * t1, e_x - device.power * t1_x, e_v - device.power * t1_v),
        (3, e - device.power * t2, e_x - device.power * t2_x, e_v),
    ):
        on = planes.limit == number
        if on.any():
            lam = kind.of(np.where(on, planes.multiplier, 0.0))
            base, b_x, b_v = (
                base + (lam * h).where(on, zero),
                b_x + (lam * h_x).where(on, zero),
                b_v + (lam * h_v).where(on, zero),
            )
    most = most_efficient(device, left)
    with np.errstate(invalid="ignore"):
        base = base - kind.of(b_v.abs_upper()) * kind.of(farthest(planes.efficiency, most))
    sound = (planes.touch > 0) & (planes.efficiency >= 0) & (planes.mix >= 0) & (planes.mix <= 1)
    sound &= (planes.limit >= 0) & (planes.limit <= 3) & (planes.multiplier >= 0)
    nothing = kind.of(np.full(len(none), -np.inf))
    base = base.where(~none, zero).where(sound, nothing)
    return Line(base, b_x.where(~none, zero), np.where(planes.touch > 0, planes.touch, 1.0))


def most_efficient(device: Device, keep: FloatArray) -> FloatArray:
    """Doubles not below the spectral efficiency in nats that keep rates from ``keep`` on can afford. Shape [N].

    ``(e^v - 1)/v`` is at least ``e^(v/2)`` and ``1 + v/2``, and sending takes at most all energy.
    """
    ratio = device.energy / (device.c * (device.d0 + device.d1 * device.d0.of(keep)))
    return np.asarray(np.minimum((ratio.log() * 2.0).upper(), ((ratio - 1.0) * 2.0).upper()))


def farthest(touch: FloatArray, most: FloatArray) -> FloatArray:
    """Doubles not below the distance of ``touch`` to any place in [0, most]. Shape [N]."""
    return np.asarray(np.maximum(touch, np.nextafter(most - touch, np.inf)))


def _log(t: Number, needed: BoolArray, kind: type[Number]) -> Number:
    return t.where(needed, kind.of(np.ones(len(needed)))).log()


def blocked(device: Device, keep: FloatArray) -> BoolArray:
    """Whether a keep rate, and any larger one, is surely impossible whatever the bandwidth. Shape [N].

    Sending takes more than ``c D`` joules, the limit of unlimited bandwidth. Computing at ``freq_min`` must fit
    what that leaves of the energy budget, and the time that is left must do for the power limit; a negative time
    never does.
    """
    kind = type(device.d0)
    s = kind.of(keep)
    bits, work = device.d0 + device.d1 * s, device.w0 + device.w1 * s
    window, e = device.latency - bits * device.slow, device.c * bits
    spare = device.energy - e
    t2 = window - work / device.f_max
    t1 = window - (device.kappa * work / spare).sqrt() * work
    over = (spare - device.kappa * device.f_min * device.f_min * work).upper() < 0.0
    over |= (device.power * t1 - e).upper() < 0.0
    return np.asarray(over | ((device.power * t2 - e).upper() < 0.0))
