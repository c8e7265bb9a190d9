"""Certificates of OFDMA searches: tree and prices from the record, the proof of each leaf by pricing once more.

Pricing says what each device costs at least at the prices of a leaf, and into which intervals its keep rates are
best cut. The rest is drafted here with the checker's own formulas: cuts, cells narrow enough for them, and water
levels that exclude the sets that the cuts leave open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgealloc.certificate.form import OUT, Cut
from edgealloc.certificate.subcarriers import Branch, OwnerCut, SubcarrierCertificate
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control
from edgealloc.solvers.certify.guess import Guesses
from edgealloc.solvers.certify.late import in_time
from edgealloc.solvers.certify.leaf import Leaf
from edgealloc.solvers.fdma.diagnose import no_level_in_common
from edgealloc.solvers.ofdma.box import OfdmaBox
from edgealloc.solvers.ofdma.box import Region as Boxed
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.node import Prices
from edgealloc.solvers.ofdma.record import OfdmaProof
from edgealloc.verify.proof.enclosures import Intervals
from edgealloc.verify.subcarriers.claim import Model
from edgealloc.verify.subcarriers.cover import Region
from edgealloc.verify.subcarriers.leaf import leaf_value

__all__ = ["ofdma_certificate"]


def ofdma_certificate(result: Result, control: Control) -> SubcarrierCertificate:
    """The certificate of an OFDMA search.

    Parameters
    ----------
    result
        Of method ``bnb`` for OFDMA, with its proof.
    control
        Its clock ends the writing.

    Returns
    -------
    SubcarrierCertificate
        It proves about the result's bound, or that nothing is feasible.
    """
    instance, proof = result.problem.instance, result.proof
    assert isinstance(proof, OfdmaProof)
    if no_level_in_common(instance):  # nobody has a keep rate to show a part for: all are left out
        free, all_out = np.zeros(proof.cell.subcarriers), np.ones(instance.num_devices)
        return SubcarrierCertificate(instance.name, math.inf, (Branch(-1, None, free, 0.0, all_out),))
    counting = proof.cell.counting
    nodes, leaves = _tree(proof, control)
    claim = result.lower_bound
    with np.errstate(all="ignore"):
        guess, exact = (Model.of(instance, kind, counting) for kind in (Guesses, Intervals))
        for i, (box, region, prices) in leaves.items():
            leaf = Leaf(proof.cell, guess, exact, region, Boxed.of(proof.cell, box), prices, nodes[i], control)
            nodes[i] = leaf.proved(1e-3 if counting else claim)
        if not counting:
            claim = min(claim, *(leaf_value(exact, nodes[i], counting)[0] for i in leaves))
    return SubcarrierCertificate(instance.name, math.inf if counting else claim, tuple(nodes))


def _tree(proof: OfdmaProof, control: Control) -> tuple[list[Branch], dict[int, tuple[OfdmaBox, Region, Prices]]]:
    """Nodes, root first; box, region and prices of the leaves."""
    cell, instance = proof.cell, proof.cell.problem.instance
    none = np.zeros(len(cell.pools.weight))
    zero = Prices(np.zeros(cell.subcarriers), none, np.full(len(cell.device), _first_level(cell)))
    visits, top = proof.record.visits, proof.root
    nodes, leaves = [Branch()], {}
    stack = [(0, top, Region.root(instance), zero)]
    while stack:
        in_time(control)
        number, box, region, guess = stack.pop()
        children, own = proof.record.visited(box)
        prices = own or guess
        if not any(child in visits for child in children):
            leaves[number] = (box, region, prices)
            continue
        for child, cut in zip(children, _cuts(cell, top, box, children), strict=True):
            nodes.append(Branch(number, cut))
            stack.append((len(nodes) - 1, child, region.meet(cut), prices))
    return nodes, leaves


def _first_level(cell: OfdmaCell) -> float:
    finite = cell.inv_a[np.isfinite(cell.inv_a)]
    return 4.0 * float(finite.min()) if len(finite) else 1.0


def _cuts(cell: OfdmaCell, top: OfdmaBox, box: OfdmaBox, children: Sequence[OfdmaBox]) -> list[Cut | OwnerCut]:
    """What each child adds to its parent; keep intervals of neighbours are made to touch."""
    if children[0].rates != box.rates:
        return list(_touching([Cut(None, None, *child.rates) for child in children], *top.rates))
    if len(children[0].keeps) > len(box.keeps):
        ends = [child.keeps[-1] for child in children]
        return list(_touching([Cut(k, None, low, high) for k, low, high in ends], 0.0, 1.0))
    cuts: list[Cut | OwnerCut] = []
    for child in children:
        if len(child.owners) > len(box.owners):
            k, m, own = child.owners[-1]
            cuts.append(OwnerCut(k, m, bool(own)))
        else:
            k, modes = child.modes[-1]
            cuts.append(Cut(k, tuple(OUT if i < 0 else max(int(cell.option[i]), 0) for i in modes)))
    return cuts


def _touching(cuts: list[Cut], bottom: float, top: float) -> Iterator[Cut]:
    """The cuts with intervals that leave no double out between them, nor beyond the first and the last end."""
    for cut in cuts:
        below = [other.high for other in cuts if other.high <= cut.low and other is not cut]
        low = min(cut.low, math.nextafter(max(below), 2.0)) if below else cut.low
        yield replace(cut, low=0.0 if cut.low <= bottom else low, high=1.0 if cut.high >= top else cut.high)
