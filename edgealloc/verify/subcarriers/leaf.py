"""Checks certificates of kind ``subcarriers``; see :mod:`edgealloc.verify.certificate` and docs/certificates.md.

For any prices mu >= 0 of sub-carriers and any Q0 in [0, 1], with nu = gap'(Q0), and any region of the tree

    G >= gap(Q0) - nu Q0 - sum_m mu_m + sum_k least_k,

where least_k is not above the priced share ``share_nu(cap_k(S)) + mu(S)`` of any set S that the region allows
device k, nor above its cost when it is left out. A claim of infeasibility counts devices left out instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from flint import ctx

from edgealloc.certificate.form import OUT
from edgealloc.certificate.subcarriers import Branch, SubcarrierCertificate
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number, sum_below
from edgealloc.verify.proof.pools import cluster_count, kept_shares
from edgealloc.verify.proof.verdict import BITS, Budget, Found, Proof
from edgealloc.verify.subcarriers.claim import Claim, Model
from edgealloc.verify.subcarriers.cover import Region, check_branches, check_parts
from edgealloc.verify.subcarriers.parts import excluded, left_open

__all__ = ["check_subcarriers", "claims_of", "leaf_value"]

COUNTED = 1e-9  # of a device: what a claim of infeasibility must prove more than, in the scale of its prices
AT_ONCE = 4_000  # planes and parts that are evaluated together, about 2 kB each
NEAR = 1e-9  # claims missed by a larger share than this are not a matter of rounding


def check_subcarriers(
    instance: Instance, certificate: SubcarrierCertificate, found: Found, budget: Budget, every: bool
) -> Proof:
    """Decide whether a sub-carrier certificate proves its lower bound; ``found`` may hold faults already."""
    if instance.access != "ofdma":
        found.add("kind", certificate.kind, f"a certificate for access {instance.access}")
        return Proof(tuple(found.faults))
    regions = check_branches(instance, certificate, found.add)
    if found.faults:
        return Proof(tuple(found.faults))
    counting = math.isinf(certificate.lower_bound)
    if counting and instance.exclusion_penalty is not None:
        found.add("lower_bound", "null", "a number: with selection every device can be left out")
        return Proof(tuple(found.faults))
    pools = cluster_count(instance) or 0
    planes = {i: region.planes(instance, certificate.nodes[i].parts, counting) for i, region in regions.items()}
    for i, region in regions.items():
        budget.leaf(certificate.nodes[i].parts, planes[i], len(region.owners), pools)  # of all, before the first
    judge = _Judge(instance, certificate, counting, budget, planes, pools)
    with np.errstate(all="ignore"):  # what overflows or is not a number proves nothing, and is treated so
        for batch in _batches(certificate, planes):
            if found.faults and not every:
                break
            judge.batch({i: regions[i] for i in batch}, found)
    if counting and not found.faults:
        judge.proved = math.inf
    return Proof(tuple(found.faults), judge.proved, len(regions), judge.in_balls)


def _batches(certificate: SubcarrierCertificate, planes: dict[int, int]) -> Iterator[list[int]]:
    """Leaves to be evaluated together: as many as make arrays long, and hold no more than a few megabytes."""
    batch: list[int] = []
    size = 0
    for i, mine in planes.items():
        if batch and size + mine > AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(i)
        size += mine + len(certificate.nodes[i].parts)
    yield batch


@dataclass(slots=True, eq=False)
class _Judge:
    """Judges leaves: in intervals, and in balls what these miss by little."""

    instance: Instance
    certificate: SubcarrierCertificate
    counting: bool
    budget: Budget
    planes: dict[int, int]
    pools: int
    proved: float = math.inf
    in_balls: int = 0
    models: dict[type[Number], Model] = field(default_factory=dict)

    def batch(self, regions: dict[int, Region], found: Found) -> None:
        """Find what the leaves prove, and the faults of those that do not prove what they have to."""
        nodes, claim = self.certificate.nodes, self.certificate.lower_bound
        said = self._said(Intervals, regions)
        close = {}
        for i, (why, value, final) in said.items():
            near = self.counting or value >= claim - NEAR * abs(claim)
            if near and not final and (why or not self._enough(i, value)):
                close[i] = regions[i]
        for i, region in close.items():  # one by one, for balls are dear
            self.in_balls += 1
            self.budget.leaf(nodes[i].parts, self.planes[i], len(region.owners), self.pools, balls=True)
            with ctx.workprec(BITS):
                said |= self._said(Balls, {i: region})
        for i, (why, value, _) in said.items():
            if why:
                found.add(f"nodes[{i}]", why, "a proof")
            if not self._enough(i, value):
                wanted = (
                    f"more than {_counted(nodes[i])!r} devices left out"
                    if self.counting
                    else f"at least {claim!r}"
                )
                found.add(f"nodes[{i}]", f"proves {value!r} only", wanted)
            self.proved = min(self.proved, -math.inf if why else value)

    def _enough(self, i: int, value: float) -> bool:
        """Whether a leaf proves what it has to."""
        return (
            value > _counted(self.certificate.nodes[i]) if self.counting else value >= self.certificate.lower_bound
        )

    def _said(self, kind: type[Number], regions: dict[int, Region]) -> dict[int, tuple[str | None, float, bool]]:
        """Of each leaf: what of the proof does not hold, what it proves, whether digits are of no use."""
        if kind not in self.models:
            self.models[kind] = Model.of(self.instance, kind, self.counting)
        model, nodes = self.models[kind], self.certificate.nodes
        found = {i: _stated(model, nodes[i], region, self.counting) for i, region in regions.items()}
        claims, home = [], []
        for i, region in regions.items():
            if found[i][0] is None:
                mine = claims_of(model, nodes[i], region, self.counting)
                claims += mine
                home += [(i, j) for j in range(len(mine))]
        sets = left_open(model, claims, self.budget)
        for (i, j), rows in zip(home, sets, strict=True):
            if rows is None and found[i][0] is None:
                found[i] = f"parts[{j}]: cuts that leave too many sets open", found[i][1], True
        live = [n for n, (i, _) in enumerate(home) if found[i][0] is None]
        rest = excluded(
            model, [claims[n] for n in live], [rows for n in live if (rows := sets[n]) is not None], self.budget
        )
        for n, rows in zip(live, rest, strict=True):
            (i, j), value = home[n], found[home[n][0]][1]
            if len(rows) and found[i][0] is None:
                one = np.flatnonzero(rows[0]).tolist()
                found[i] = f"parts[{j}]: {len(rows)} sets that nothing excludes, one is {one}", value, False
        return found


def _counted(node: Branch) -> float:
    """What the devices counted as left out must exceed; with a margin, for no number near 0 is to decide."""
    assert node.prices is not None
    return COUNTED * max(1.0, float(np.sum(node.prices)))


def _stated(model: Model, node: Branch, region: Region, counting: bool) -> tuple[str | None, float, bool]:
    """What of a leaf does not hold before its parts are looked at, what it proves, whether digits are no use."""
    instance = model.instance
    why = check_parts(instance, region, node.parts, counting)
    value, left_out = leaf_value(model, node, counting)
    if why is not None:
        return why, value, True
    assert node.least is not None
    for k in range(instance.num_devices):
        may_go = OUT in region.options(instance, k)
        if counting:  # a device that owns something is not left out
            may_go = not any(cut.owned and cut.device == k for cut in region.owners)
        if may_go and not node.least[k] <= left_out[k]:
            text = f"least[{k}] {float(node.least[k])!r}, but left out it costs {float(left_out[k])!r}"
            return text, value, False
    return None, value, False


def leaf_value(model: Model, node: Branch, counting: bool) -> tuple[float, FloatArray]:
    """(Bound that a leaf proves if its least costs are right, cost of leaving out each device [K]), from below."""
    instance = model.instance
    assert node.prices is not None
    assert node.least is not None
    constant = 0.0 if model.pools is None else float(_pooled(model, node)[0].lower()[0])
    terms = np.concatenate(([constant], node.least, -node.prices))
    first = [model.number[k, 0] for k in range(instance.num_devices)]
    return sum_below(terms), np.asarray(model.shares.out_cost.lower())[first]


def _pooled(model: Model, node: Branch) -> tuple[Number, Number]:
    """The constant [1] and the price of w s^2 of each device [K] that the tangents of a leaf give."""
    assert model.pools is not None
    return model.pools.priced(np.array([kept_shares(node.kept_share)]))


def claims_of(model: Model, node: Branch, region: Region, counting: bool) -> list[Claim]:
    """What the parts of a leaf have to show."""
    instance = model.instance
    fixed, zero = region.fixed(instance), model.kind.of(np.zeros(instance.num_devices))
    nu = zero if model.pools is None else _pooled(model, node)[1]
    assert node.prices is not None
    assert node.least is not None
    claims = []
    for part in node.parts:
        k, points = part.device, region.points(instance, part, counting)
        if points is not None and not len(points):
            continue
        claims.append(Claim(part, float(node.least[k]), node.prices, nu.take(k), fixed[k], points))
    return claims
