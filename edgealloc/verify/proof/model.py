"""All pieces of a certificate by prices in one number type, and the dual values of leaves.

Many leaves are evaluated together: arrays hold the pieces of one leaf after another. Why dual values are bounds:
docs/certificates.md, section *Prices*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgealloc.certificate.form import OUT, Kept
from edgealloc.certificate.prices import Certificate, Prices
from edgealloc.data.instance import Instance
from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.blocks import blocks_there
from edgealloc.verify.folding import Rows
from edgealloc.verify.proof.cover import Box, Spans, root_box
from edgealloc.verify.proof.device import Device, Line, bandwidth_line, blocked, gains_of
from edgealloc.verify.proof.enclosures import Number, sum_below
from edgealloc.verify.proof.pools import Pools, kept_shares
from edgealloc.verify.proof.share import Shares

__all__ = ["Leaf", "Model", "budget_hz", "least_of"]

AT_ONCE = 20_000  # pieces of leaves that are evaluated together
Leaf = tuple[Prices, Kept, Box]  # prices of a Hz and of the caps, kept shares, and what is left to devices


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """All pieces in one number type: lines, shares and what cannot be used at all."""

    instance: Instance
    certificate: Certificate
    device: IntArray
    shares: Shares
    line: Line
    least_hz: FloatArray  # not above the bandwidth anywhere in the piece; whole blocks where there are blocks
    stepped: BoolArray  # where that is more than the line says at the start
    impossible: BoolArray
    pools: Pools | None
    kind: type[Number]
    spans: Spans
    rows: Rows

    @classmethod
    def of(cls, instance: Instance, certificate: Certificate, kind: type[Number]) -> Model:
        """Evaluate every piece; ``impossible`` ones need more than all bandwidth from their start on."""
        pieces = certificate.pieces
        inside = pieces.option != OUT
        left = np.where(inside, pieces.left, 1.0)
        device = Device.of(instance, pieces.device, pieces.option, kind)
        line = bandwidth_line(device, pieces.line, left)
        begins = line.at(left).lower()
        least = np.maximum(begins, 0.0)
        if pieces.start is not None:
            least = np.maximum(least, bandwidth_line(device, pieces.start, left).at(left).lower())
        if instance.block_hz is not None:
            least = np.nextafter(blocks_at_least(least, instance.block_hz) * instance.block_hz, 0.0)
        silent = gains_of(instance, pieces.device, pieces.option) == 0.0  # no rate, and something to send
        rows = Rows.of(instance, certificate.constraints)
        most = np.minimum(budget_hz(instance), rows.most_hz())[pieces.device]
        impossible = (least > most) | blocked(device, left) | silent
        # monotone: what a piece needs at its start it needs everywhere
        zero = kind.of(np.zeros(len(inside)))
        line = Line(line.base.where(inside, zero), line.slope.where(inside, zero), line.touch)
        return cls(
            instance, certificate, pieces.device, Shares.of(instance, pieces.device, pieces.option, kind), line,
            np.where(inside, least, 0.0), inside & (least > begins), inside & impossible, Pools.of(instance, kind),
            kind, Spans.of(pieces), rows,
        )  # fmt: skip

    @property
    def at_once(self) -> int:
        """How many leaves are evaluated together: as many as make arrays long, and no more."""
        return max(1, AT_ONCE // max(1, len(self.device)))

    def priced(
        self, leaves: Sequence[Leaf], gone: BoolArray, only: Sequence[BoolArray] | None = None
    ) -> tuple[Floors, FloatArray]:
        """Least priced shares of the pieces of many leaves, from below, and constants of the dual values [J].

        Not counted are the pieces of ``gone`` [N], and of leaf j those outside of ``only[j]`` [N].
        """
        kind, instance, rows = self.kind, self.instance, self.rows
        each = np.zeros((1 + len(rows), len(leaves)))
        for j, (prices, _, _) in enumerate(leaves):
            each[: len(prices), j] = prices
        price = kind.of(each[0])
        constant = -(price * kind.of(budget_hz(instance)))
        for i, limit in enumerate(rows.limit.tolist()):
            constant = constant - kind.of(each[1 + i]) * kind.of(limit)
        slope = kind.of(np.zeros(len(leaves) * instance.num_devices))
        if self.pools is not None:
            rest, slope = self.pools.priced(np.array([kept_shares(q) for _, q, _ in leaves]))
            constant = constant + rest
        uses, lefts, rights = [], [], []
        for j, (_, _, box) in enumerate(leaves):
            left, right, inside = box.clip(self.spans, ~gone)
            use = np.flatnonzero(inside & ~self.impossible & (True if only is None else only[j]))
            uses.append(use)
            lefts.append(left[use])
            rights.append(right[use])
        use, which = np.concatenate(uses), np.repeat(np.arange(len(leaves)), [len(some) for some in uses])
        shares, line, price = self.shares.take(use), self.line.take(use), price.take(which)
        nu = slope.take(which * instance.num_devices + self.device[use])  # of the device's own pool
        fee = np.zeros(len(use))
        for i in range(len(rows)):
            one, device = kind.of(each[1 + i][which]), self.device[use]
            price = price + one * kind.of(rows.spectrum[i][device])
            fee = np.nextafter(fee + (one * kind.of(rows.devices[i][device])).lower(), -np.inf)
        ends = [np.where(shares.out, 1.0, np.concatenate(column)) for column in (lefts, rights)]
        floors = shares.floor(ends[0], ends[1], nu, price, line)
        flat = np.flatnonzero(self.stepped[use])  # there the constant may be worth more than the line
        if len(flat):
            level = Line(kind.of(self.least_hz[use][flat]), kind.of(np.zeros(len(flat))), line.touch[flat])
            again = shares.take(flat).floor(ends[0][flat], ends[1][flat], nu.take(flat), price.take(flat), level)
            floors[flat] = np.fmax(floors[flat], again)
        if len(rows):
            floors = np.where(shares.out, floors, np.nextafter(floors + np.maximum(fee, 0.0), -np.inf))
        floors = np.where(np.isnan(floors), -np.inf, floors)
        return Floors(len(leaves), instance.num_devices, which, use, self.device[use], floors), constant.lower()

    def dual(self, leaf: Leaf, gone: BoolArray) -> tuple[FloatArray, float, FloatArray]:
        """Least priced share of each device [K], constant of the dual value, least share of each piece [N]."""
        found, constant = self.priced([leaf], gone)
        floors = np.full(len(self.device), np.inf)
        floors[found.piece] = found.least
        return found.by_device()[0], float(constant[0]), floors

    def values(self, leaves: Sequence[Leaf], gone: BoolArray) -> list[float]:
        """The dual value of each leaf, rounded down; ``inf`` where some device has nothing left to do.

        ``gone`` [N] says which pieces are not counted.
        """
        found: list[float] = []
        for first in range(0, len(leaves), self.at_once):
            floors, constant = self.priced(leaves[first : first + self.at_once], gone)
            found += added(floors.by_device(), constant)
        return found

    def nearer(
        self, rough: Model, leaf: Leaf, gone: BoolArray, claim: float, spend: Callable[[int], None]
    ) -> float:
        """The dual value of a leaf with those pieces in this number type that keep the rough one from a claim.

        ``gone`` [N] says which pieces are not counted; ``spend`` is told how many are judged anew, with the pools
        beyond the first.
        """
        least, constant, floors = rough.dual(leaf, gone)
        lacks = claim - added(least[None, :], np.array([constant]))[0]
        weak = np.isfinite(claim) & ~(floors >= least[self.device] + lacks) | np.isneginf(floors)
        spend(int(weak.sum()) + (0 if self.pools is None else self.pools.count - 1))
        found, exact = self.priced([leaf], gone, [weak])
        floors[found.piece] = np.fmax(floors[found.piece], found.least)
        least = least_of(self.device, floors, self.instance.num_devices)
        return added(least[None, :], np.fmax(exact, constant))[0]

    def forced(self, prices: Prices, q: Kept, dropped: IntArray, gone: BoolArray) -> float:
        """The least dual value when any one of the pieces ``dropped`` (indices) is forced in, rounded down.

        ``gone`` [N] says which pieces are not counted.
        """
        least, constant, floors = self.dual((prices, q, root_box(self.instance)), gone)
        if np.any(np.isposinf(least)) or not len(dropped):
            return math.inf
        whole = self.kind.of(sum_below(np.append(least, constant)))
        rest = whole - self.kind.of(least[self.device[dropped]])
        values = (rest + self.kind.of(np.minimum(floors[dropped], 1e300))).lower()
        return float(np.min(values))

    def crowded(self, box: Box, gone: BoolArray) -> bool:
        """Whether the least bandwidths of a box (no ``gone`` [N]) exceed what there is, or a device is stuck."""
        _left, _right, inside = box.clip(self.spans, ~gone)
        needs = np.where(inside & ~self.impossible, self.least_hz, np.inf)
        least = least_of(self.device, needs, self.instance.num_devices)
        return sum_below(least) > budget_hz(self.instance) or self.exceeds(needs)

    def exceeds(self, needs: FloatArray) -> bool:
        """Whether the least that devices need of a row adds up to more, by what pieces need in Hz >= 0, [N]."""
        inside = self.certificate.pieces.option != OUT
        for spectrum, devices, limit in zip(self.rows.spectrum, self.rows.devices, self.rows.limit, strict=True):
            with np.errstate(invalid="ignore"):
                taken = spectrum[self.device] * needs + devices[self.device] * inside
            taken = np.where(np.isfinite(needs), np.nextafter(np.nextafter(taken, 0.0), 0.0), np.inf)
            if sum_below(least_of(self.device, taken, self.instance.num_devices)) > limit:
                return True
        return False


@dataclass(frozen=True, slots=True, eq=False)
class Floors:
    """Least priced shares of pieces, from below, for J leaves and K devices.

    Parameters
    ----------
    leaves, devices
        J and K.
    leaf, piece, device, least
        Of which leaf, piece and device, and the share. Shapes [T].
    """

    leaves: int
    devices: int
    leaf: IntArray
    piece: IntArray
    device: IntArray
    least: FloatArray

    def by_device(self) -> FloatArray:
        """The least of each device in each leaf; ``inf`` where it has nothing left. Shape [J, K]."""
        found = least_of(self.leaf * self.devices + self.device, self.least, self.leaves * self.devices)
        return found.reshape(self.leaves, self.devices)


def added(least: FloatArray, constant: FloatArray) -> list[float]:
    """Sums over the devices, rounded down: ``least`` [J, K] and ``constant`` [J]."""
    return [
        math.inf if math.inf in row else sum_below(np.array([*row, c]))
        for row, c in zip(least.tolist(), constant.tolist(), strict=True)
    ]


def least_of(device: IntArray, values: FloatArray, count: int) -> FloatArray:
    """Least value of each device's pieces, ``inf`` without any. Shape [K]."""
    least = np.full(count, np.inf)
    np.minimum.at(least, device, values)
    return least


def budget_hz(instance: Instance) -> float:
    """Bandwidth that can be handed out: B, or the whole blocks in it, a hair more for rounding."""
    if instance.block_hz is None:
        return instance.bandwidth_hz
    # allocations round n blocks to the nearest double each, so their sum, and this, may be half a unit more
    return math.nextafter(math.nextafter(blocks_there(instance) * instance.block_hz, math.inf), math.inf)


def blocks_at_least(bandwidth_hz: FloatArray, block_hz: float) -> FloatArray:
    """Least whole number of blocks for a bandwidth, rounded down where it is a near thing; >= 1. Any shape."""
    with np.errstate(invalid="ignore"):
        count = np.ceil(bandwidth_hz / block_hz * (1.0 - 2.0**-50))
    return np.maximum(count, 1.0)
