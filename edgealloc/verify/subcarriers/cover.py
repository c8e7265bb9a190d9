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
from edgealloc.verify.proof.cover import Box, Report, cuts_not_covered, levels_of, options_of, root_box

__all__ = ["Region", "check_branches", "check_parts"]


@dataclass(frozen=True, slots=True)
class Region:
    """Restrictions of a node: box of options and keep rates, and who owns a sub-carrier or does not."""

    box: Box
    owners: tuple[OwnerCut, ...] = field(default=())

    def meet(self, cut: Cut | OwnerCut) -> Region:
        """The part of the region that meets a cut."""
        if isinstance(cut, OwnerCut):
            return Region(self.box, (*self.owners, cut))
        return Region(self.box.meet(cut), self.owners)

    def fixed(self, instance: Instance) -> NDArray[np.int8]:
        """1 owned, 0 not owned, -1 open; a sub-carrier has at most one owner. Shape [K, M]."""
        found = np.full(instance.gain.shape, -1, np.int8)
        for cut in self.owners:
            if cut.owned:
                found[:, cut.subcarrier] = np.where(found[:, cut.subcarrier] == 1, 1, 0)
                found[cut.device, cut.subcarrier] = 1
        for cut in self.owners:
            if not cut.owned:
                found[cut.device, cut.subcarrier] = 0
        return found

    def options(self, instance: Instance, k: int) -> list[int]:
        """Menu rows that a device may take, OUT among them where it may be left out."""
        cut, rows = self.box.cuts.get(k), options_of(instance, k)
        rows = rows if cut is None or cut.options is None else [row for row in rows if row in cut.options]
        owns = any(cut.owned and cut.device == k for cut in self.owners)  # a device left out owns nothing
        return [row for row in rows if not (owns and row == OUT)]

    def range(self, instance: Instance, k: int) -> tuple[float, float]:
        """Least and greatest keep rate of a device."""
        cut = self.box.cuts.get(k, Cut(k))
        low = max(float(instance.keep_min[k]), cut.low, self.box.low)
        return low, min(float(instance.keep_max[k]), cut.high, self.box.high)

    def levels(self, instance: Instance, k: int) -> FloatArray | None:
        """Keep levels [L] of a device that are in the region; None where it may keep any rate."""
        levels = levels_of(instance, k)
        if levels is None:
            return None
        low, high = self.range(instance, k)
        return np.asarray(levels[(levels >= low) & (levels <= high)])


def check_branches(instance: Instance, certificate: SubcarrierCertificate, report: Report) -> dict[int, Region]:
    """Regions of the leaves by node number, after checking that the children of every node cover it."""
    nodes, (count, carriers) = certificate.nodes, instance.gain.shape
    if not nodes or nodes[0].parent != -1 or nodes[0].cut is not None:
        report("nodes", "no root", "node 0 with parent -1 and no cut")
        return {}
    below: dict[int, list[int]] = {}
    regions = {0: Region(root_box(instance))}
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
            _check_numbers(f"nodes[{i}]", instance, nodes[i], report)
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


def _check_numbers(where: str, instance: Instance, node: Branch, report: Report) -> None:
    """Whether a leaf has the numbers that its proof needs, of the right size and sign."""
    count, carriers = instance.gain.shape
    assert node.prices is not None
    assert node.least is not None
    if len(node.prices) != carriers or np.any(node.prices < 0.0):
        report(f"{where}.prices", "prices", f"{carriers} numbers >= 0")
    if len(node.least) != count:
        report(f"{where}.least", len(node.least), f"{count} numbers")
    if not 0.0 <= node.kept_share <= 1.0:
        report(f"{where}.kept_share", node.kept_share, "a number in [0, 1]")
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
                lost = [s for s in wanted.tolist() if not any(p.keep[0] <= s <= p.keep[-1] for p in mine)]
                gap = f"keep rate {lost[0]!r}" if lost and low <= high else None
            else:
                gap = _gap(low, high, mine)
            if gap is not None:
                return f"device {instance.device_names[k]!r}, option {option}: {gap} is in no part"
    return None


def _gap(low: float, high: float, parts: list[Part]) -> str | None:
    """What of [low, high] no part holds; keep rates are doubles."""
    if low > high:
        return None
    reach = math.nextafter(low, 0.0)
    for part in sorted(parts, key=lambda p: float(p.keep[0])):
        if part.keep[0] > math.nextafter(reach, 2.0):
            break
        reach = max(reach, float(part.keep[-1]))
    return None if reach >= high else f"({reach!r}, {high!r}]"
