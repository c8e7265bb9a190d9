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
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from flint import ctx

from edgealloc.certificate.file import AnyCertificate
from edgealloc.certificate.form import Kept
from edgealloc.certificate.prices import Certificate, Prices
from edgealloc.data.constraints import Constraint, fitted
from edgealloc.data.instance import Instance
from edgealloc.errors import InputError
from edgealloc.units import BoolArray, IntArray
from edgealloc.verify.folding import priced_rows, with_constraints
from edgealloc.verify.proof.cover import MAX_FAULTS, Box, check_cover, check_tree
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number, sum_below
from edgealloc.verify.proof.model import Leaf, Model
from edgealloc.verify.proof.pools import cluster_count
from edgealloc.verify.proof.share import Shares, gap_slope, gap_value, stability
from edgealloc.verify.proof.verdict import BITS, Budget, Found, Proof, TooMuchWork
from edgealloc.verify.subcarriers.leaf import check_subcarriers

__all__ = ["Proof", "check_certificate", "wants_digits"]

NEAR = 0.1  # claims missed by a larger share than this are no matter of rounding, even where intervals are wide


def check_certificate(
    instance: Instance,
    certificate: AnyCertificate,
    *,
    constraints: Iterable[Constraint] = (),
    every: bool = False,
    budget: Budget | None = None,
) -> Proof:
    """Decide whether a certificate proves its lower bound (docs/certificates.md).

    Intervals first, balls of 128 bits where a claim is missed by little: what is accepted is proved. A proof that
    takes more work than the size of its file allows is a fault.

    Parameters
    ----------
    instance
        The instance.
    certificate
        What claims a lower bound of its optimum; nothing in it is believed.
    constraints
        What holds beside the instance; a certificate that uses another proves nothing of it.
    every
        Judge all leaves, for the bound that they prove together; otherwise stop at the first that does not hold.
    budget
        Of the work of several certificates together; None: what the size of this one allows.

    Returns
    -------
    Proof
        The bound that was proved; without faults it is at least the claimed one.

    Raises
    ------
    InputError
        For ``constraints`` that do not fit the instance; those of the certificate are findings.
    """
    found, stated = Found(), {_key(row) for row in fitted(constraints, instance)}
    if certificate.instance_name != instance.name:
        found.add("instance", repr(certificate.instance_name), f"{instance.name!r}, the name of the instance")
    budget = budget or Budget.of(certificate.size)
    try:
        budget.constraints(len(certificate.constraints), instance.num_devices)
        try:
            rows = fitted(certificate.constraints, instance)
            folded = with_constraints(instance, rows)
        except InputError as error:
            wrong = (replace(fault, field=f"constraints.{fault.field}") for fault in error.faults)
            return Proof((*found.faults, *wrong))
        for row in (row for row in rows if _key(row) not in stated):
            found.add("constraints", str(row), "constraints that the solution states")
            if len(found.faults) >= MAX_FAULTS:
                break
        if not certificate.nodes and certificate.kind != "common-rate" and certificate.lower_bound <= 0.0:
            return Proof(tuple(found.faults), 0.0)  # no term of G is negative, in any instance
        instance = folded
        budget.caps(len(priced_rows(certificate.constraints)))
        budget.tree(certificate, max(len(menu or ()) for menu in instance.adapter_options or ((),)))
        if not isinstance(certificate, Certificate):
            return check_subcarriers(instance, certificate, found, budget, every)
        return _check_prices(instance, certificate, found, budget, every)
    except TooMuchWork as error:
        found.add("work", str(error), "a smaller proof; the budget goes by the size of the file")
        return Proof(tuple(found.faults))


def _key(row: Constraint) -> Hashable:
    """What tells constraints apart that are fitted: kind, limit, name, devices and their coefficients."""
    devices = row.devices
    return type(row), row.limit, row.name, frozenset(devices.items()) if isinstance(devices, Mapping) else devices


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
            budget.rounds(1, len(certificate.pieces))
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
        simple &= instance.device_underfit is None
        if not (instance.common_keep and simple and spec.underfit == "inverse-keep"):
            found.add("kind", certificate.kind, "an instance with one continuous common keep rate")
    if (pieces.start is None) is (instance.access == "rb"):
        found.add(
            "pieces.start", "missing" if pieces.start is None else "given", f"other for access {instance.access}"
        )


def _check_leaves(
    instance: Instance, certificate: Certificate, boxes: dict[int, Box], budget: Budget, every: bool
) -> Proof:
    """Dual values of all leaves and rounds, the worst against the claim."""
    claim, found, count = certificate.lower_bound, Found(), len(certificate.pieces)
    budget.rounds(len(certificate.rounds), count)  # of all, before the first
    left = count - len(np.unique(np.concatenate([[], *(entry.pieces for entry in certificate.rounds)])))
    pools = cluster_count(instance) or 0
    for box in boxes.values():
        listed = sum(cut.options is not None for cut in box.cuts.values())
        budget.prices(count, left, len(box.cuts), listed, pools)
    model, gone = Model.of(instance, certificate, Intervals), np.zeros(count, dtype=bool)
    proved, exact = math.inf, _Exact(model, budget, claim)
    for i, entry in enumerate(certificate.rounds):
        args = (*entry.priced, entry.pieces, gone)
        value = model.forced(*args)
        if wants_digits(value, exact.claim):
            value = max(value, exact.forced(*args))
        if not value >= claim:
            found.add(f"rounds[{i}]", f"proves {value!r} only", f"at least lower_bound {claim!r}")
            if not every:
                return Proof(tuple(found.faults), value, len(boxes), exact.used)
        proved = min(proved, value)
        gone = gone.copy()
        gone[entry.pieces] = True
    priced: dict[int, Leaf] = {}
    for i, box in boxes.items():
        node = certificate.nodes[i]
        if node.priced is not None:
            priced[i] = (*node.priced, box)
        elif not (model.crowded(box, gone) or exact.crowded(box, gone)):
            proved = -math.inf
            found.add(
                f"nodes[{i}]", "no prices, and bandwidths that may fit", "prices, or a box where nothing fits"
            )
            if not every:
                break
    numbers = list(priced)
    for first in range(0, len(numbers), model.at_once):
        if found.faults and not every:
            break
        some = numbers[first : first + model.at_once]
        for i, value in zip(some, model.values([priced[i] for i in some], gone), strict=True):
            value = max(value, exact.value(priced[i], gone)) if wants_digits(value, exact.claim) else value
            proved = min(proved, value)
            if not value >= claim:
                found.add(f"nodes[{i}]", f"proves {value!r} only", f"at least lower_bound {claim!r}")
                if not every:
                    break
    return Proof(tuple(found.faults), proved, len(boxes), exact.used)


def wants_digits(value: float, claim: float) -> bool:
    """Whether balls may prove a claim that intervals do not: where these say nothing, or too little by a hair."""
    return not value >= claim and (value == -math.inf or value >= claim - NEAR * abs(claim))


@dataclass(slots=True, eq=False)
class _Exact:
    """The model in balls, made when it is first asked for, and how often it was."""

    rough: Model
    budget: Budget
    claim: float
    used: int = 0
    made: Model | None = None

    def forced(self, prices: Prices, q: Kept, dropped: IntArray, gone: BoolArray) -> float:
        """:meth:`Model.forced` in balls."""
        self.budget.in_balls(len(gone))
        with ctx.workprec(BITS):
            return self._model().forced(prices, q, dropped, gone)

    def value(self, leaf: Leaf, gone: BoolArray) -> float:
        """The dual value of a leaf in balls, of those pieces only that keep it from the claim."""
        with ctx.workprec(BITS):
            return self._model().nearer(self.rough, leaf, gone, self.claim, self.budget.in_balls)

    def crowded(self, box: Box, gone: BoolArray) -> bool:
        """:meth:`Model.crowded` in balls."""
        with ctx.workprec(BITS):
            return self._model().crowded(box, gone)

    def _model(self) -> Model:
        self.used += 1
        if self.made is None:
            self.budget.in_balls(len(self.rough.device))
            self.made = Model.of(self.rough.instance, self.rough.certificate, Balls)
        return self.made


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
        if not (sum_below(least) > instance.bandwidth_hz or model.exceeds(least)):
            text = f"{certificate.cap!r}, where at least {sum_below(least)!r} Hz are needed"
            found.add("cap", text, f"a keep rate that needs more than {instance.bandwidth_hz!r} Hz, or than a cap")
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
