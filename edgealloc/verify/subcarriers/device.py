r"""One device on sub-carriers in a certificate: the profit rate that a keep rate needs, and what a set earns.

Written from docs/certificates.md (section OFDMA) in a number type with proven error bounds; arrays have one entry
per point (device row, water level, keep rate). With the water level omega, ``alpha = B_m / (omega ln 2)`` and
``Y = 1 / t``, a keep rate s that is feasible on a set S meets, for every omega,

.. math:: \sum_{m \in S} \pi_m(\omega) \ge \psi_\omega(s) = \min_Y Y (D(s) - \alpha\, e(s, 1/Y)),

where e is the least of three pieces: energy left at the clock that the deadline asks for, at the least clock, and
``p_max t``. In ``(z, Y)``, ``z = s Y``, the right side is convex for any mixture of the pieces, and the fastest
clock is the linear constraint ``1 + z (W_1 / f_max + D_1 / R) + Y (W_0 / f_max + D_0 / R - T) <= 0``: a tangent
plane lies below it for *all* keep rates and upload times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.proof.device import Device
from edgealloc.verify.proof.enclosures import Number

__all__ = ["Needs", "Radio", "needs"]

_BISECTIONS = 60
_CANCELLED = 2.0**-20  # of the window: of a time to compute below it too few digits are left in the difference
_HAIR = 2.0**-42


@dataclass(frozen=True, slots=True, eq=False)
class Radio:
    """Sub-carriers of all devices.

    Parameters
    ----------
    width
        B_m in Hz.
    inverse
        1 / a = N0 B_m / g in W; anything where the gain is 0. Shape [K, M].
    dead
        Where the gain is 0. Shape [K, M].
    """

    width: Number
    inverse: Number
    dead: BoolArray

    @classmethod
    def of(cls, instance: Instance, kind: type[Number]) -> Radio:
        """Sub-carriers of an instance."""
        noise = (kind.of(10.0).log() * (kind.of(instance.noise_psd_dbm_per_hz) - 30.0) / 10.0).exp()
        width = kind.of(instance.bandwidth_hz) / float(instance.gain.shape[1])
        dead = instance.gain == 0.0
        return cls(width, noise * width / kind.of(np.where(dead, 1.0, instance.gain)), dead)

    def watt(self, level: FloatArray) -> Number:
        """What a watt is worth at water levels [L] in W, ``B_m / (omega ln 2)`` in bit/J."""
        return self.width / (self.width.of(level) * self.width.of(2.0).log())

    def profits(self, device: IntArray, level: FloatArray) -> FloatArray:
        """Doubles not below pi_m(omega) in bit/s. ``device``, ``level`` [L]; shape [L, M]."""
        kind = type(self.width)
        omega, noise = kind.of(level[:, None]), self.inverse.take(device)
        y, unit = omega / noise, self.width / kind.of(2.0).log()
        over = (omega - noise) / noise
        # ln y - 1 + 1/y cancels where y is close to 1; it is at most (y - 1)^2 / (2 y), for ln y <= (y - 1/y) / 2
        rate = np.fmin((unit * (y.log() - 1.0 + 1.0 / y)).upper(), (unit * over * over / y / 2.0).upper())
        # both are positive below 1 too, where the profit is 0: any enclosure does there
        profit = np.where((y.upper() <= 1.0) | self.dead[device], 0.0, np.maximum(rate, 0.0))
        return np.asarray(profit)


@dataclass(frozen=True, slots=True, eq=False)
class Needs:
    """Tangent planes at (s, at): for all (s', Y) at least ``value + pull (s' - s) Y + lean (Y - at)`` is needed.

    Parameters
    ----------
    value, pull, lean, at
        Shape [N]; ``at`` is where the plane touches.
    unserved
        Points whose keep rate surely no spectrum and no power can serve. Shape [N].
    """

    value: Number
    pull: Number
    lean: Number
    at: Number
    unserved: BoolArray

    def floor(self, top: FloatArray) -> FloatArray:
        """Doubles not above ``value + lean (Y - at)`` for any 0 <= Y <= top. Shape [N]."""
        kind = type(self.value)
        lean = self.lean
        rise = kind.of(np.maximum(lean.upper(), 0.0)) * self.at
        with np.errstate(invalid="ignore"):
            far = np.maximum((kind.of(top) - self.at).upper(), 0.0)
        fall = kind.of(np.maximum(-lean.lower(), 0.0)) * kind.of(far)
        return np.where(self.unserved, np.inf, (self.value - rise - fall).lower())

    def take(self, index: Any) -> Needs:
        """A selection of the points."""
        return Needs(
            self.value.take(index), self.pull.take(index), self.lean.take(index), self.at.take(index),
            self.unserved[index],
        )  # fmt: skip


def needs(row: Device, watt: Number, keep: FloatArray) -> Needs:
    """Planes at keep rates [N]; one device row and worth of a watt per point.

    Where they touch is found in doubles by bisection; any place would do.
    """
    kind = type(watt)
    s = kind.of(keep)
    bits, work = row.d0 + row.d1 * s, row.w0 + row.w1 * s
    window = row.latency - bits * row.slow
    heat, cube = row.kappa * row.f_min * row.f_min, row.kappa * work * work * work
    longest = window - work / row.f_max
    unserved = (longest.upper() < 0.0) | ((row.energy - heat * work).upper() < 0.0)
    unserved |= (window.upper() < 0.0) | ((row.energy * window * window - cube).upper() < 0.0)
    time, first, second, part, press = _touch(
        *(_mid(x) for x in (bits, watt, window, longest, cube, row.energy, heat * work, row.power))
    )
    t, theta, beta = kind.of(time), kind.of(part), kind.of(press)
    y, tau = 1.0 / t, window - t
    # pieces of the energy that may be sent, the fall of each with s, and e - t e'
    zero = kind.of(np.zeros(len(keep)))
    # nothing to compute, or no heat of it: products of zeros are no longer exact
    cold = (row.kappa.upper() == 0.0) | ((row.w0.upper() == 0.0) & (row.w1.upper() == 0.0))
    burnt = zero.where(cold, cube / (tau * tau))
    faster = row.kappa * work * work * row.w1 / (tau * tau) * 3.0 + burnt * (row.d1 * row.slow) / tau * 2.0
    faster = zero.where(cold, faster)
    energies = (row.energy - burnt, row.energy - heat * work, row.power * t)
    falls = (faster, heat * row.w1, zero)
    leans = (row.energy - burnt + zero.where(cold, t * burnt / tau * 2.0), energies[1], zero)

    def mixed(parts: tuple[Number, Number, Number]) -> Number:
        one, other = (parts[0].where(i == 0, parts[1].where(i == 1, parts[2])) for i in (first, second))
        return one + (theta * (other - one)).where(part > 0.0, zero)

    pressed = press > 0.0
    value = y * (bits - watt * mixed(energies)) + (beta * (1.0 - y * longest)).where(pressed, zero)
    pull = row.d1 + watt * mixed(falls) + (beta * (row.w1 / row.f_max + row.d1 * row.slow)).where(pressed, zero)
    lean = bits - watt * mixed(leans) - (beta * longest).where(pressed, zero)
    # outside the domain of the piece that is used there is no plane
    sound = cold | (tau.lower() > 0.0) | ((first != 0) & ((second != 0) | (part == 0.0)))
    return Needs(value.where(sound, kind.of(np.full(len(keep), -np.inf))), pull, lean, y, unserved)


def _touch(
    bits: FloatArray, watt: FloatArray, window: FloatArray, longest: FloatArray, cube: FloatArray,
    energy: FloatArray, idle: FloatArray, power: FloatArray,
) -> tuple[FloatArray, IntArray, IntArray, FloatArray, FloatArray]:  # fmt: skip
    """(Upload time of the least profit rate, two pieces, share of the second, multiplier of the fastest clock).

    ``D - alpha (e - t e')`` falls with t: bisection on its sign. The share makes it 0 where it jumps.
    """

    def lean(t: FloatArray) -> tuple[FloatArray, IntArray]:
        tau = np.maximum(window - t, 1e-100)
        burnt = cube / (tau * tau)
        left = np.where(tau > _CANCELLED * window, energy - burnt, np.inf)
        pieces = np.stack((left, energy - idle, power * t))
        active = np.argmin(pieces, axis=0)
        e = np.choose(active, (pieces[0] + 2.0 * t * burnt / tau, pieces[1], np.zeros_like(t)))
        return bits - watt * e, active

    high = np.where(longest > 0.0, longest, 1e-300)
    clear = np.minimum(high, window * (1.0 - 2.0 * _CANCELLED))
    # negative there, it is beyond too, where digits are lost: a fast clock leaves next to no time of the window
    high = np.where((longest > 0.0) & (lean(clear)[0] < 0.0), clear, high)
    last, last_piece = lean(high)
    # a hair above 0, which rounding cannot turn: 1 / t may go far, and the plane must not fall on its way
    hair = _HAIR * bits
    low = np.zeros_like(high)
    a, b = low, high
    for _ in range(_BISECTIONS):
        middle = 0.5 * (a + b)
        up = lean(middle)[0] > hair
        a, b = np.where(up, middle, a), np.where(up, b, middle)
    before, first = lean(a)
    after, second = lean(b)
    share = (before - hair) / np.maximum(before - after, 1e-300)
    part = np.clip(np.where(first == second, 0.0, share), 0.0, 1.0)
    end = last >= 0.0
    time = np.where(end, high, np.where(a > 0.0, a, b))
    first, part = np.where(end, last_piece, first), np.where(end, 0.0, part)
    return time, first, second, part, np.where(end, np.maximum(last - hair, 0.0) / high, 0.0)


def _mid(x: Number) -> FloatArray:
    lower, upper = x.lower(), x.upper()
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(np.isfinite(lower) & np.isfinite(upper), 0.5 * (lower + upper), math.inf))
