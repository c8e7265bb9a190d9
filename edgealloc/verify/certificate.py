"""Checks certificates: is the claimed lower bound a lower bound? From the instance and the certificate alone.

Imports no solver and nothing of the problem model. Decided in three steps (docs/certificates.md):

1. the pieces of every device cover all that it may do, and the leaves of the tree cover the root box: exact
   comparisons of doubles;
2. every piece's line lies below the device's bandwidth: a tangent plane of a convex function;
3. the dual value of every leaf at its prices is at least the claimed bound: weak duality.

Steps 2 and 3 run in intervals; a leaf that they do not decide is decided in 128-bit balls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from flint import ctx

from edgealloc.certificate.file import AnyCertificate
from edgealloc.certificate.form import OUT
from edgealloc.certificate.prices import Certificate
from edgealloc.data.instance import Instance
from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.blocks import blocks_there
from edgealloc.verify.proof.cover import Box, Spans, check_cover, check_tree, root_box
from edgealloc.verify.proof.device import Device, Line, bandwidth_line, blocked
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number, sum_below
from edgealloc.verify.proof.share import Shares, gap_slope, gap_value, stability
from edgealloc.verify.proof.verdict import BITS, Budget, Found, Proof, TooMuchWork
from edgealloc.verify.subcarriers.leaf import check_subcarriers

__all__ = ["Proof", "check_certificate"]

NEAR = 0.1  # claims missed by a larger share than this are no matter of rounding, even where intervals are wide


def check_certificate(instance: Instance, certificate: AnyCertificate, *, every: bool = False) -> Proof:
    """Decide whether a certificate proves its lower bound (docs/certificates.md).

    Intervals first, balls of 128 bits where a claim is missed by little: what is accepted is proved. A proof that
    takes more work than the size of its file allows is a fault.

    Parameters
    ----------
    instance
        The instance.
    certificate
        What claims a lower bound of its optimum; nothing in it is believed.
    every
        Judge all leaves, for the bound that they prove together; otherwise stop at the first that does not hold.

    Returns
    -------
    Proof
        The bound that was proved; without faults it is at least the claimed one.
    """
    found = Found()
    if certificate.instance_name != instance.name:
        found.add("instance", repr(certificate.instance_name), f"{instance.name!r}, the name of the instance")
    if certificate.lower_bound <= 0.0 and not found.faults:
        return Proof((), lower_bound=certificate.lower_bound)  # G is a sum of terms, none of them negative
    budget = Budget.of(certificate.size)
    try:
        budget.tree(certificate)
        if not isinstance(certificate, Certificate):
            return check_subcarriers(instance, certificate, found, budget, every)
        return _check_prices(instance, certificate, found, budget, every)
    except TooMuchWork as error:
        found.add("work", str(error), "a smaller proof; the budget goes by the size of the file")
        return Proof(tuple(found.faults))


def _check_prices(
    instance: Instance, certificate: Certificate, found: Found, budget: Budget, every: bool
) -> Proof:
    _check_kind(instance, certificate, found)
    if not found.faults and certificate.kind == "prices":
        check_cover(instance, certificate, found.add)
    boxes = {}
    if not found.faults and certificate.kind == "prices":
        boxes = check_tree(instance, certificate, found.add)
    if found.faults:
        return Proof(tuple(found.faults))
    with np.errstate(all="ignore"):  # what overflows or is not a number proves nothing, and is treated so
        if certificate.kind == "common-rate":
            budget.prices(len(certificate.pieces))
            return _check_common(instance, certificate)
        return _check_leaves(instance, certificate, boxes, budget, every)


def _check_kind(instance: Instance, certificate: Certificate, found: Found) -> None:
    """Whether this kind of certificate is one for this kind of instance."""
    spec, pieces = instance.bound, certificate.pieces
    if instance.access == "ofdma":
        found.add("kind", certificate.kind, "a certificate for sub-carriers")
    if certificate.kind == "common-rate":
        simple = instance.keep_levels is None and instance.adapter_options is None
        simple &= instance.exclusion_penalty is None and instance.access == "fdma"
        if not (instance.common_keep and simple and spec.underfit == "inverse-keep"):
            found.add("kind", certificate.kind, "an instance with one continuous common keep rate")
    if (pieces.start is None) is (instance.access == "rb"):
        found.add(
            "pieces.start", "missing" if pieces.start is None else "given", f"other for access {instance.access}"
        )


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
    pooled: tuple[Number, ...] | None
    kind: type[Number]
    spans: Spans

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
        silent = instance.gain[pieces.device] == 0.0  # no rate, and something to send at any keep rate
        impossible = (least > budget_hz(instance)) | blocked(device, left) | silent
        # monotone: what a piece needs at its start it needs everywhere
        zero = kind.of(np.zeros(len(inside)))
        line = Line(line.base.where(inside, zero), line.slope.where(inside, zero), line.touch)
        total = kind.of(instance.samples).total()
        pooled = stability(instance, total, kind) if instance.bound.pooling == "global" else None
        return cls(
            instance, certificate, pieces.device, Shares.of(instance, pieces.device, pieces.option, kind), line,
            np.where(inside, least, 0.0), inside & (least > begins), inside & impossible, pooled, kind,
            Spans.of(pieces),
        )  # fmt: skip

    def dual(self, mu: float, q: float, box: Box, gone: BoolArray) -> tuple[FloatArray, Number, FloatArray]:
        """Least priced share of each device [K], constant of the dual value, least share of each piece [N]."""
        kind, instance, pieces = self.kind, self.instance, self.certificate.pieces
        price, at = kind.of(mu), kind.of(q)
        nu, constant = kind.of(0.0), -(price * kind.of(budget_hz(instance)))
        if self.pooled is not None:
            nu = gap_slope(self.pooled, at)
            constant = constant + gap_value(self.pooled, at) - nu * at
        left, right, inside = box.clip(self.spans, ~gone)
        use = np.flatnonzero(inside & ~self.impossible)
        floors = np.full(len(pieces), np.inf)
        ends = np.where(self.shares.out, 1.0, left)[use], np.where(self.shares.out, 1.0, right)[use]
        shares, line = self.shares.take(use), self.line.take(use)
        floors[use] = shares.floor(*ends, nu, price, line)
        flat = np.flatnonzero(self.stepped[use])  # there the constant may be worth more than the line
        if len(flat):
            level = Line(kind.of(self.least_hz[use][flat]), kind.of(np.zeros(len(flat))), line.touch[flat])
            again = shares.take(flat).floor(ends[0][flat], ends[1][flat], nu, price, level)
            floors[use[flat]] = np.fmax(floors[use[flat]], again)
        floors[use] = np.where(np.isnan(floors[use]), -np.inf, floors[use])
        return least_of(self.device, floors, instance.num_devices), constant, floors

    def value(self, mu: float, q: float, box: Box, gone: BoolArray) -> float:
        """The dual value of a box, rounded down; ``inf`` where some device has nothing left to do.

        ``gone`` [N] says which pieces are not counted.
        """
        least, constant, _ = self.dual(mu, q, box, gone)
        if np.any(np.isposinf(least)):
            return math.inf
        return sum_below(np.append(least, constant.lower()))

    def forced(self, mu: float, q: float, dropped: IntArray, gone: BoolArray) -> float:
        """The least dual value when any one of the pieces ``dropped`` (indices) is forced in, rounded down.

        ``gone`` [N] says which pieces are not counted.
        """
        least, constant, floors = self.dual(mu, q, root_box(self.instance), gone)
        if np.any(np.isposinf(least)) or not len(dropped):
            return math.inf
        whole = self.kind.of(sum_below(np.append(least, constant.lower())))
        rest = whole - self.kind.of(least[self.device[dropped]])
        values = (rest + self.kind.of(np.minimum(floors[dropped], 1e300))).lower()
        return float(np.min(values))

    def crowded(self, box: Box, gone: BoolArray) -> bool:
        """Whether the least bandwidths of a box (no ``gone`` [N]) exceed what there is, or a device is stuck."""
        _left, _right, inside = box.clip(self.spans, ~gone)
        needs = np.where(inside & ~self.impossible, self.least_hz, np.inf)
        least = least_of(self.device, needs, self.instance.num_devices)
        return bool(np.any(np.isposinf(least)) or sum_below(least) > budget_hz(self.instance))


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


def _check_leaves(
    instance: Instance, certificate: Certificate, boxes: dict[int, Box], budget: Budget, every: bool
) -> Proof:
    """Dual values of all leaves and rounds, the worst against the claim."""
    claim, found = certificate.lower_bound, Found()
    for cuts in (*(0 for _ in certificate.rounds), *(len(box.cuts) for box in boxes.values())):
        budget.prices(len(certificate.pieces), cuts)  # of all, before the first
    model, exact = Model.of(instance, certificate, Intervals), None
    gone = np.zeros(len(certificate.pieces), dtype=bool)
    proved, in_balls = math.inf, 0

    def decided(value: float, again: str, *args: object) -> float:
        nonlocal exact, in_balls
        # more digits help where intervals say nothing, or too little by a hair
        if value >= claim or not (value == -math.inf or value >= claim - NEAR * abs(claim)):
            return value
        in_balls += 1
        budget.prices(len(certificate.pieces), balls=True)
        with ctx.workprec(BITS):
            exact = exact or Model.of(instance, certificate, Balls)
            return max(value, float(getattr(exact, again)(*args)))

    for i, entry in enumerate(certificate.rounds):
        value = model.forced(entry.price_per_hz, entry.kept_share, entry.pieces, gone)
        value = decided(value, "forced", entry.price_per_hz, entry.kept_share, entry.pieces, gone)
        if not value >= claim:
            found.add(f"rounds[{i}]", f"proves {value!r} only", f"at least lower_bound {claim!r}")
            if not every:
                return Proof(tuple(found.faults), value, len(boxes), in_balls)
        proved = min(proved, value)
        gone = gone.copy()
        gone[entry.pieces] = True
    for i, box in boxes.items():
        if found.faults and not every:
            break
        node = certificate.nodes[i]
        if node.price_per_hz is None or node.kept_share is None:
            if not model.crowded(box, gone):
                proved = -math.inf
                found.add(
                    f"nodes[{i}]", "no prices, and bandwidths that may fit", "prices, or a box where nothing fits"
                )
            continue
        args = (node.price_per_hz, node.kept_share, box, gone)
        value = decided(model.value(*args), "value", *args)
        if not value >= claim:
            found.add(f"nodes[{i}]", f"proves {value!r} only", f"at least lower_bound {claim!r}")
        proved = min(proved, value)
    return Proof(tuple(found.faults), proved, len(boxes), in_balls)


def _check_common(instance: Instance, certificate: Certificate) -> Proof:
    """One rate for all: from ``cap`` on the spectrum is too small, and up to there G lies above a tangent."""
    proof = _common_in(instance, certificate, Intervals)
    if proof.faults:
        with ctx.workprec(BITS):
            return _common_in(instance, certificate, Balls)
    return proof


def _common_in(instance: Instance, certificate: Certificate, kind: type[Number]) -> Proof:
    found, pieces = Found(), certificate.pieces
    low, high = float(instance.keep_min.max()), float(instance.keep_max.min())
    top, touch = high if certificate.cap is None else certificate.cap, certificate.touch
    if certificate.cap is not None and not (
        sorted(pieces.device.tolist()) == list(range(instance.num_devices))
        and np.all((pieces.option == 0) & (pieces.left > 0) & (pieces.left <= certificate.cap))
    ):
        found.add("pieces", "another set", "one piece per device, that begins at the cap or before")
        return Proof(tuple(found.faults))
    if touch is None or not (low <= touch <= high and low <= top):
        found.add("touch, cap", f"{touch!r}, {top!r}", f"rates within [{low!r}, {high!r}]")
        return Proof(tuple(found.faults))
    if certificate.cap is not None:
        model = Model.of(instance, certificate, kind)
        least = np.where(model.impossible, np.inf, model.least_hz)
        if not sum_below(least) > instance.bandwidth_hz:
            text = f"{certificate.cap!r}, where at least {sum_below(least)!r} Hz are needed"
            found.add("cap", text, f"a keep rate that needs more than {instance.bandwidth_hz!r} Hz")
            top = high  # a cap that is none bounds nothing
    everyone = np.arange(instance.num_devices)
    shares = Shares.of(instance, everyone, np.zeros_like(everyone), kind)
    at, none = np.full(instance.num_devices, touch), kind.of(0.0)
    value, slope = (part.total() for part in shares.value_and_slope(at, none))
    if instance.bound.pooling == "global":
        term = stability(instance, kind.of(instance.samples).total(), kind)
        square = kind.of(touch) * kind.of(touch)
        value, slope = value + gap_value(term, square), slope + gap_slope(term, square) * square * 2.0
    # G is convex in x = log s
    falls = [(slope * (kind.of(end) / kind.of(touch)).log()).lower() for end in (low, max(low, min(top, high)))]
    proved = float((value + kind.of(min(float(fall) for fall in falls))).lower())
    if not proved >= certificate.lower_bound:
        found.add("lower_bound", repr(certificate.lower_bound), f"at most {proved!r}, which is proved")
    return Proof(tuple(found.faults), proved, 1, int(kind is Balls))
