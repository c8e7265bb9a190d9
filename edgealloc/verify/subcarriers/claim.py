"""What a part of a leaf has to show in an OFDMA certificate, and a device's share at keep rates and over cells.

Derived in docs/certificates.md, section *OFDMA*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgealloc.certificate.subcarriers import Part
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray
from edgealloc.verify.proof.device import Device
from edgealloc.verify.proof.enclosures import Number
from edgealloc.verify.proof.pools import Pools
from edgealloc.verify.proof.share import Shares
from edgealloc.verify.subcarriers.device import Radio

__all__ = ["SUM", "Claim", "Model", "Places", "row_of", "share_ends", "share_slopes", "share_values"]

SUM = 2.0**-51  # relative error of adding up one more term, generously


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An instance in one number type: a row per device and row of its menu.

    Parameters
    ----------
    rows, shares
        Constants and parts of the objective; shares of 0 where devices left out are counted. Shapes [R].
    number
        Row of (device, option).
    pools
        The stability terms that couple devices; None where there are none, or devices left out are counted.
    """

    instance: Instance
    kind: type[Number]
    rows: Device
    shares: Shares
    radio: Radio
    number: dict[tuple[int, int], int]
    pools: Pools | None

    @classmethod
    def of(cls, instance: Instance, kind: type[Number], counting: bool) -> Model:
        """All rows of an instance; ``counting``: the objective is the number of devices left out."""
        menus = instance.adapter_options
        pairs = [
            (k, j) for k in range(instance.num_devices) for j in range(len((menus[k] if menus else None) or (0,)))
        ]
        device, option = (np.array(column, dtype=np.intp) for column in zip(*pairs, strict=True))
        shares = Shares.of(instance, device, option, kind)
        if counting:
            zero = kind.of(np.zeros(len(pairs)))
            out = np.zeros(len(pairs), bool)
            shares = Shares("inverse-keep", zero, zero, None, out, kind.of(np.ones(len(pairs))))
        rows = Device.of(instance, device, option, kind)
        number = {pair: i for i, pair in enumerate(pairs)}
        pools = None if counting else Pools.of(instance, kind)
        return cls(instance, kind, rows, shares, Radio.of(instance, kind), number, pools)


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What one part has to show.

    Parameters
    ----------
    part
        The part.
    least
        What the priced share of the device is to reach.
    prices, nu
        Prices of the sub-carriers [M] and of the kept share.
    fixed
        1 owned, 0 not owned, -1 open. Shape [M].
    points
        Keep rates at which it is to be shown where only some are allowed, None: on the whole interval. Shape [J].
    """

    part: Part
    least: float
    prices: FloatArray
    nu: Number
    fixed: NDArray[np.int8]
    points: FloatArray | None

    @property
    def edges(self) -> FloatArray:
        """Keep rates at which the profit rate needed is asked for. Shape [E]."""
        return self.part.keep if self.points is None else self.points


def row_of(model: Model, claim: Claim) -> int:
    """Row of the model that a claim is about."""
    return model.number[claim.part.device, claim.part.option]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Whose share is asked for, at places of many claims one after another.

    Parameters
    ----------
    shares
        Shares of the row of each place.
    nu
        Price of the kept share. Shape [N].
    """

    shares: Shares
    nu: Number

    @classmethod
    def of(cls, model: Model, claims: Sequence[Claim], counts: Sequence[int]) -> Places:
        """So many places of each claim."""
        which = np.repeat(np.arange(len(claims)), counts)
        rows = np.array([row_of(model, claim) for claim in claims], dtype=np.intp)
        return cls(model.shares.take(rows[which]), model.kind.joined([claim.nu for claim in claims]).take(which))

    def take(self, index: Any) -> Places:
        """A selection of the places."""
        return Places(self.shares.take(index), self.nu.take(index))


def share_values(places: Places, keep: FloatArray) -> FloatArray:
    """Share at keep rates from below. Shape [N]."""
    return places.shares.value(keep, places.nu).lower()


def share_slopes(places: Places, keep: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share at keep rates from below, and its slope in log s from above; not for curves. Shapes [N]."""
    value, slope = places.shares.value_and_slope(keep, places.nu)
    return value.lower(), slope.upper()


def share_ends(places: Places, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values at both ends of cells of a concave function below the share, and the least share. Shapes [N].

    The least share of closed forms, convex in s^2, also by the tangents at both ends.
    """
    shares, nu = places.shares, places.nu
    left, right = shares.concave_ends(low, high, nu)
    least = np.minimum(left, right)
    if shares.curve is not None:
        return left, right, np.maximum(least, shares.curve_least(low, high, nu))
    begin, end = nu.of(low), nu.of(high)
    wide = end * end - begin * begin
    for touch, at, sign in ((low, begin, 1.0), (high, end, -1.0)):  # slope in log s is 2 s^2 times that in s^2
        value, slope = shares.value_and_slope(touch, nu)
        change = slope * sign / (at * at) * wide * 0.5
        tangent = value.lower() + np.minimum(change.lower(), 0.0)
        least = np.maximum(least, np.nextafter(tangent, -np.inf))
    return left, right, least
