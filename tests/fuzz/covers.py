"""Proofs that leave something out: random trees, mostly with a hole, to be refused where a point falls into it.

Trees, holes and points are those of ``tests/verify/test_covers.py``; here they come by seed, without end.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from edgealloc.certificate.prices import Certificate, Node
from edgealloc.certificate.subcarriers import Branch, SubcarrierCertificate
from edgealloc.data.instance import Instance
from edgealloc.verify.proof.cover import Spans, check_tree
from edgealloc.verify.subcarriers.cover import check_branches
from tests.fuzz.checks import Finding
from tests.fuzz.regimes import Rng, draw
from tests.verify.test_covers import (
    CARRIERS,
    DEVICES,
    Point,
    Tree,
    ends_of,
    faults_of,
    holds,
    random_instance,
    random_pieces,
    random_point,
    random_tree,
)

POINTS = 15


def forged(seed: int) -> tuple[list[Finding], Counter[str]]:
    """Findings about one tree of boxes and one of regions, and how many the checker refused."""
    rng = np.random.default_rng([3000, seed])
    found, ended = [], Counter[str]()
    for access in ("fdma", "ofdma"):
        instance = random_instance(_made(rng), rng, access)
        sound = bool(rng.random() < 0.2)
        tree = random_tree(instance, rng, access == "ofdma", sound)
        refused, lost = (_boxes if access == "fdma" else _regions)(instance, tree, rng)
        ended[f"tree {'refused' if refused else 'accepted'}"] += 1
        if refused and sound:
            found.append(Finding("rejected", access, f"a whole tree: {refused}"))
        if lost is not None:
            found.append(Finding("false proof", access, f"a tree is accepted that does not hold {lost}"))
    return found, ended


def _made(rng: Rng) -> Any:
    def make(access: Any, devices: int, subcarriers: int, **changes: Any) -> Instance:
        fields = draw(rng, access, devices)
        if access == "ofdma":
            fields["gain"] = rng.exponential(size=(devices, subcarriers))
        return Instance(**(fields | changes))

    return make


def _points(instance: Instance, tree: Tree, rng: Rng, more: list[float]) -> list[Point]:
    drawn = [random_point(instance, rng, ends_of(tree) + more) for _ in range(POINTS)]
    return [point for point in drawn if point is not None]


def _boxes(instance: Instance, tree: Tree, rng: Rng) -> tuple[list[str], Point | None]:
    """Why a tree of boxes is refused, or a point that no leaf holds."""
    pieces, parents = random_pieces(instance, rng), {parent for parent, _ in tree}
    nodes = tuple(Node(p, cut, *((None, None) if i in parents else (0.0, 0.5))) for i, (p, cut) in enumerate(tree))
    why, boxes = faults_of(check_tree, instance, Certificate(instance.name, "prices", 0.0, pieces, nodes))
    if why:
        return why, None
    spans, everything = Spans.of(pieces), np.ones(len(pieces), bool)
    clipped = [box.clip(spans, everything) for box in boxes.values()]
    for point in _points(instance, tree, rng, pieces.right[pieces.right > 0].tolist()):
        option, keep = np.array(point.option)[pieces.device], np.array(point.keep)[pieces.device]
        homes = [
            set(pieces.device[ok & (pieces.option == option) & (left <= keep) & (keep <= right)].tolist())
            for left, right, ok in clipped
        ]
        if not any(len(home) == DEVICES for home in homes):
            return [], point
    return [], None


def _regions(instance: Instance, tree: Tree, rng: Rng) -> tuple[list[str], Point | None]:
    """Why a tree of regions is refused, or a point that no leaf holds."""
    parents, leaf = {parent for parent, _ in tree}, (np.zeros(CARRIERS), 0.5, np.zeros(DEVICES))
    nodes = tuple(Branch(p, cut, *(() if i in parents else leaf)) for i, (p, cut) in enumerate(tree))
    why, regions = faults_of(check_branches, instance, SubcarrierCertificate(instance.name, 0.0, nodes))
    if why:
        return why, None
    for point in _points(instance, tree, rng, []):
        if not any(holds(instance, region, point) for region in regions.values()):
            return [], point
    return [], None
