"""Checks certificates of kind ``subcarriers``; see :mod:`edgealloc.verify.certificate` and docs/certificates.md.

For any prices mu >= 0 of sub-carriers and any Q0 in [0, 1], with nu = gap'(Q0), and any region of the tree

    G >= gap(Q0) - nu Q0 - sum_m mu_m + sum_k least_k,

where least_k is not above the priced share ``share_nu(cap_k(S)) + mu(S)`` of any set S that the region allows
device k, nor above its cost when it is left out. A claim of infeasibility counts devices left out instead.
"""

from __future__ import annotations

import math

import numpy as np
from flint import ctx

from edgealloc.certificate.form import OUT
from edgealloc.certificate.subcarriers import Branch, SubcarrierCertificate
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number, sum_below
from edgealloc.verify.proof.share import gap_slope, gap_value, stability
from edgealloc.verify.proof.verdict import BITS, Budget, Found, Proof
from edgealloc.verify.subcarriers.claim import Claim, Model
from edgealloc.verify.subcarriers.cover import Region, check_branches, check_parts
from edgealloc.verify.subcarriers.parts import excluded, left_open

__all__ = ["check_subcarriers", "claims_of", "leaf_value"]

COUNTED = 1e-9  # of a device: what a claim of infeasibility must prove more than, in the scale of its prices
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
    for i, region in regions.items():
        budget.leaf(certificate, i, len(region.owners))  # of all, before the first
    proved, in_balls = math.inf, 0
    with np.errstate(all="ignore"):  # what overflows or is not a number proves nothing, and is treated so
        model, exact = Model.of(instance, Intervals, counting), None
        for i, region in regions.items():
            if found.faults and not every:
                break
            node = certificate.nodes[i]
            why, value, final = _check_leaf(model, node, region, counting, budget)
            wanted = _counted(node) if counting else certificate.lower_bound
            enough = value > wanted if counting else value >= wanted
            near = counting or value >= certificate.lower_bound - NEAR * abs(certificate.lower_bound)
            if (why or not enough) and near and not final:
                in_balls += 1
                budget.leaf(certificate, i, len(region.owners), balls=True)
                with ctx.workprec(BITS):
                    exact = exact or Model.of(instance, Balls, counting)
                    why, value, _ = _check_leaf(exact, node, region, counting, budget)
                enough = value > wanted if counting else value >= wanted
            if why:
                found.add(f"nodes[{i}]", why, "a proof")
            if not enough:
                allowed = f"more than {wanted!r} devices left out" if counting else f"at least {wanted!r}"
                found.add(f"nodes[{i}]", f"proves {value!r} only", allowed)
            proved = min(proved, -math.inf if why else value)
    if counting and not found.faults:
        proved = math.inf
    return Proof(tuple(found.faults), proved, len(regions), in_balls)


def _counted(node: Branch) -> float:
    """What the devices counted as left out must exceed; with a margin, for no number near 0 is to decide."""
    assert node.prices is not None
    return COUNTED * max(1.0, float(np.sum(node.prices)))


def _check_leaf(
    model: Model, node: Branch, region: Region, counting: bool, budget: Budget
) -> tuple[str | None, float, bool]:
    """(What of the proof does not hold, value that it proves, whether more digits are of no use)."""
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
    claims = claims_of(model, node, region, counting)
    sets = left_open(model, claims)
    for j, rows in enumerate(sets):
        if rows is None:
            return f"parts[{j}]: cuts that leave too many sets open", value, True
    rest = excluded(model, claims, [rows for rows in sets if rows is not None], budget)
    for j, rows in enumerate(rest):
        if len(rows):
            one = np.flatnonzero(rows[0]).tolist()
            return f"parts[{j}]: {len(rows)} sets that nothing excludes, one is {one}", value, False
    return None, value, False


def leaf_value(model: Model, node: Branch, counting: bool) -> tuple[float, FloatArray]:
    """(Bound that a leaf proves if its least costs are right, cost of leaving out each device [K]), from below."""
    instance, kind = model.instance, model.kind
    assert node.prices is not None
    assert node.least is not None
    constant = 0.0
    if instance.bound.pooling == "global" and not counting:
        term, at = _pooled(model), kind.of(node.kept_share)
        constant = float((gap_value(term, at) - gap_slope(term, at) * at).lower())
    terms = np.concatenate(([constant], node.least, -node.prices))
    first = [model.number[k, 0] for k in range(instance.num_devices)]
    return sum_below(terms), np.asarray(model.shares.out_cost.lower())[first]


def _pooled(model: Model) -> tuple[Number, ...]:
    return stability(model.instance, model.kind.of(model.instance.samples).total(), model.kind)


def _nu(model: Model, node: Branch, counting: bool) -> Number:
    if model.instance.bound.pooling != "global" or counting:
        return model.kind.of(0.0)
    return gap_slope(_pooled(model), model.kind.of(node.kept_share))


def claims_of(model: Model, node: Branch, region: Region, counting: bool) -> list[Claim]:
    """What the parts of a leaf have to show."""
    instance = model.instance
    fixed, nu = region.fixed(instance), _nu(model, node, counting)
    assert node.prices is not None
    assert node.least is not None
    claims = []
    for part in node.parts:
        k = part.device
        points = region.levels(instance, k)
        if counting:
            points = np.array([region.range(instance, k)[0]]) if points is None else points[:1]
        if points is not None:
            points = points[(points >= part.keep[0]) & (points <= part.keep[-1])]
            if not len(points):
                continue
        claims.append(Claim(part, float(node.least[k]), node.prices, nu, fixed[k], points))
    return claims
