"""What a part of a leaf has to show in an OFDMA certificate, and a device's share at keep rates and over cells.

Derived in docs/certificates.md, section *OFDMA*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgealloc.certificate.subcarriers import Part
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray
from edgealloc.verify.proof.device import Device
from edgealloc.verify.proof.enclosures import Number
from edgealloc.verify.proof.share import Shares
from edgealloc.verify.subcarriers.device import Radio

__all__ = ["SUM", "Claim", "Model", "row_of", "share_ends", "share_slopes", "share_values"]

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
    """

    instance: Instance
    kind: type[Number]
    rows: Device
    shares: Shares
    radio: Radio
    number: dict[tuple[int, int], int]

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
        return cls(instance, kind, rows, shares, Radio.of(instance, kind), {p: i for i, p in enumerate(pairs)})


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


def _shares(model: Model, claim: Claim, count: int) -> Shares:
    return model.shares.take(np.full(count, row_of(model, claim)))


def share_values(model: Model, claim: Claim, keep: FloatArray) -> FloatArray:
    """Share at keep rates from below. Shape [N]."""
    return _shares(model, claim, len(keep)).value(keep, claim.nu).lower()


def share_slopes(model: Model, claim: Claim, keep: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share at keep rates from below, and its slope in log s from above; not for curves. Shapes [N]."""
    value, slope = _shares(model, claim, len(keep)).value_and_slope(keep, claim.nu)
    return value.lower(), slope.upper()


def share_ends(model: Model, claim: Claim, edges: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values at the ends of the cells of a concave function below the share, and the least share. Shapes [E - 1].

    The least share of closed forms, convex in s^2, also by the tangents at both ends.
    """
    kind, shares = model.kind, _shares(model, claim, len(edges) - 1)
    left, right = shares.concave_ends(edges[:-1], edges[1:], claim.nu)
    least = np.minimum(left, right)
    if shares.curve is not None:
        return left, right, np.maximum(least, shares.curve_least(edges[:-1], edges[1:], claim.nu))
    value, slope = _shares(model, claim, len(edges)).value_and_slope(edges, claim.nu)
    square = kind.of(edges) * kind.of(edges)
    wide = square.take(np.s_[1:]) - square.take(np.s_[:-1])
    for part, sign in ((np.s_[:-1], 1.0), (np.s_[1:], -1.0)):  # slope in log s is 2 s^2 times that in s^2
        change = slope.take(part) * sign / square.take(part) * wide * 0.5
        tangent = value.take(part).lower() + np.minimum(change.lower(), 0.0)
        least = np.maximum(least, np.nextafter(tangent, -np.inf))
    return left, right, least
