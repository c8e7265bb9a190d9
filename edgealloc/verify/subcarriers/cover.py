"""Covers of sub-carrier certificates, decided exactly: leaves over all assignments, parts over all keep rates.

What has to be covered is in docs/certificates.md, section *OFDMA*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgealloc.certificate.form import OUT, Cut
from edgealloc.certificate.subcarriers import Branch, OwnerCut, Part, SubcarrierCertificate
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray
from edgealloc.verify.proof.cover import (
    Box,
    Report,
    cuts_not_covered,
    levels_of,
    options_of,
    root_box,
    uncovered,
)
from edgealloc.verify.proof.pools import cluster_count, wrong_kept

__all__ = ["Region", "check_branches", "check_parts"]


@dataclass(frozen=True, slots=True)
class Region:
    """Restrictions of a node: box of options and keep rates, and who owns a sub-carrier or does not.

    ``steps`` are the keep levels [L] of each device of the instance, None for any rate.
    """

    box: Box
    steps: tuple[FloatArray | None, ...]
    owners: tuple[OwnerCut, ...] = field(default=())

    @classmethod
    def root(cls, instance: Instance) -> Region:
        """Everything that the instance allows."""
        return cls(root_box(instance), levels_of(instance))

    def meet(self, cut: Cut | OwnerCut) -> Region:
        """The part of the region that meets a cut."""
        if isinstance(cut, OwnerCut):
            return Region(self.box, self.steps, (*self.owners, cut))
        return Region(self.box.meet(cut), self.steps, self.owners)

    def fixed(self, instance: Instance) -> NDArray[np.int8]:
        """1 owned, 0 not owned, -1 open; a sub-carrier has at most one owner. Shape [K, M]."""
        found = np.full(instance.gain.shape, -1, np.int8)
        for cut in self.owners:
            if cut.owned:
                found[:, cut.subcarrier] = 0
                found[cut.device, cut.subcarrier] = 1
        for cut in self.owners:
            if not cut.owned:
                found[cut.device, cut.subcarrier] = 0
        return found

    def options(self, instance: Instance, k: int) -> list[int]:
        """Menu rows that a device may take, OUT among them where it may be left out."""
        cut, rows = self.box.cuts.get(k), options_of(instance, k)
        if cut is not None and cut.options is not None:
            left = frozenset(cut.options)
            rows = [row for row in rows if row in left]
        owns = any(cut.owned and cut.device == k for cut in self.owners)  # a device left out owns nothing
        return [row for row in rows if not (owns and row == OUT)]

    def range(self, instance: Instance, k: int) -> tuple[float, float]:
        """Least and greatest keep rate of a device."""
        cut = self.box.cuts.get(k, Cut(k))
        low = max(float(instance.keep_min[k]), cut.low, self.box.low)
        return low, min(float(instance.keep_max[k]), cut.high, self.box.high)

    def levels(self, instance: Instance, k: int) -> FloatArray | None:
        """Keep levels [L] of a device that are in the region; None where it may keep any rate."""
        levels = self.steps[k]
        return None if levels is None else _between(levels, *self.range(instance, k))

    def points(self, instance: Instance, part: Part, counting: bool) -> FloatArray | None:
        """Keep rates [J] at which a part has to show something where only some count; None: all that it holds.

        When devices left out are counted, the least keep rate is all that matters.
        """
        points = self.levels(instance, part.device)
        if counting:
            points = np.array([self.range(instance, part.device)[0]]) if points is None else points[:1]
        return None if points is None else _between(points, float(part.keep[0]), float(part.keep[-1]))

    def planes(self, instance: Instance, parts: tuple[Part, ...], counting: bool) -> int:
        """How many planes parts have: one for each water level and each keep rate that is asked for."""
        total = 0
        for part in parts:
            points = self.points(instance, part, counting)
            total += len(np.unique(part.level_w)) * len(part.keep if points is None else points)
        return total


def check_branches(instance: Instance, certificate: SubcarrierCertificate, report: Report) -> dict[int, Region]:
    """Regions of the leaves by node number, after checking that the children of every node cover it."""
    nodes, (count, carriers) = certificate.nodes, instance.gain.shape
    if not nodes or nodes[0].parent != -1 or nodes[0].cut is not None:
        report("nodes", "no root", "node 0 with parent -1 and no cut")
        return {}
    below: dict[int, list[int]] = {}
    clusters = None if math.isinf(certificate.lower_bound) else cluster_count(instance)  # counting has no terms
    regions = {0: Region.root(instance)}
    for i, node in enumerate(nodes):
        if not i:
            continue
        cut = node.cut
        if not 0 <= node.parent < i or cut is None:
            report(f"nodes[{i}]", f"parent {node.parent}", "an earlier node, and a cut")
            return {}
        if isinstance(cut, OwnerCut) and not (0 <= cut.device < count and 0 <= cut.subcarrier < carriers):
            report(f"nodes[{i}].cut", f"{cut.device}, {cut.subcarrier}", "a device and a sub-carrier that exist")
            return {}
        below.setdefault(node.parent, []).append(i)
        regions[i] = regions[node.parent].meet(cut)
    for i, children in below.items():
        if nodes[i].prices is not None:
            report(f"nodes[{i}]", "prices", "none: it has children")
        why = _not_covered(instance, regions[i], [cut for c in children if (cut := nodes[c].cut) is not None])
        if why is not None:
            report(f"nodes[{i}]", why, "children that cover it")
    leaves = {i: region for i, region in regions.items() if i not in below}
    for i in leaves:
        if nodes[i].prices is None:
            report(f"nodes[{i}]", "neither prices nor children", "one of them")
        else:
            _check_numbers(f"nodes[{i}]", instance, nodes[i], clusters, report)
    return leaves


def _not_covered(instance: Instance, region: Region, cuts: list[Cut | OwnerCut]) -> str | None:
    """Why children with these cuts do not cover a region; None when they do."""
    owners = {cut for cut in cuts if isinstance(cut, OwnerCut)}
    if not owners:
        return cuts_not_covered(instance, region.box, [cut for cut in cuts if isinstance(cut, Cut)])
    if len(owners) == 2 == len(cuts):
        one, other = owners
        if (one.device, one.subcarrier) == (other.device, other.subcarrier):
            return None
    return "children other than one sub-carrier owned and not owned by one device"


def _check_numbers(where: str, instance: Instance, node: Branch, clusters: int | None, report: Report) -> None:
    """Whether a leaf has the numbers that its proof needs, of the right size and sign."""
    count, carriers = instance.gain.shape
    assert node.prices is not None
    assert node.least is not None
    if len(node.prices) != carriers or np.any(node.prices < 0.0):
        report(f"{where}.prices", "prices", f"{carriers} numbers >= 0")
    if len(node.least) != count:
        report(f"{where}.least", len(node.least), f"{count} numbers")
    wrong = wrong_kept(clusters, node.kept_share)
    if wrong is not None:
        report(f"{where}.kept_share", f"{node.kept_share!r:.80}", wrong)
    for j, part in enumerate(node.parts):
        if not (part.device < count and part.option in options_of(instance, part.device)):
            report(f"{where}.parts[{j}]", f"{part.device}, {part.option}", "a device and an option that exist")
        edges = part.keep
        if not len(edges) or not (edges[0] > 0.0 and edges[-1] <= 1.0 and np.all(np.diff(edges) > 0.0)):
            report(f"{where}.parts[{j}].keep", "edges", "increasing keep rates in (0, 1]")
        if np.any(part.level_w <= 0.0) or np.any(part.slope < 0.0) or np.any(part.exclude_w <= 0.0):
            report(f"{where}.parts[{j}]", "a water level or slope", "levels > 0, slopes >= 0")


def check_parts(instance: Instance, region: Region, parts: tuple[Part, ...], counting: bool) -> str | None:
    """What of the options and keep rates of a region no part holds; None when they are covered.

    When devices left out are counted, the least keep rate is all that matters.
    """
    held: dict[tuple[int, int], list[Part]] = {}
    for part in parts:
        held.setdefault((part.device, part.option), []).append(part)
    for k in range(instance.num_devices):
        low, high = region.range(instance, k)
        levels = region.levels(instance, k)
        for option in region.options(instance, k):
            if option == OUT:
                continue
            mine = held.get((k, option), [])
            if levels is not None or counting:
                wanted = np.array([low]) if levels is None else levels[:1] if counting else levels
            else:
                wanted = None
            ends = np.array([part.keep[[0, -1]] for part in mine]).reshape(-1, 2)
            ends = ends[np.argsort(ends[:, 0])]
            gap = uncovered(wanted, low, high, ends[:, 0], ends[:, 1]) if low <= high else None
            if gap is not None:
                return f"device {instance.device_names[k]!r}, option {option}: {gap} is in no part"
    return None


def _between(levels: FloatArray, low: float, high: float) -> FloatArray:
    """The part of increasing numbers that lies in [low, high]."""
    return levels[np.searchsorted(levels, low) : np.searchsorted(levels, high, side="right")]
