"""Covers, decided exactly: pieces over everything that devices may do, and leaves over the root box.

Keep rates are doubles, in files and so in allocations: intervals that end at one double and begin at the next
leave no rate out. A device that is left out has keep rate 0.

What has to be covered is in docs/certificates.md, section *Prices*.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import pairwise

import numpy as np

from edgealloc.certificate.form import Kept
from edgealloc.certificate.prices import OUT, Certificate, Cut, Pieces, Prices
from edgealloc.data.instance import Instance
from edgealloc.units import BoolArray, FloatArray
from edgealloc.verify.folding import priced_rows
from edgealloc.verify.proof.pools import cluster_count, wrong_kept

__all__ = [
    "MAX_FAULTS",
    "Box",
    "Report",
    "Spans",
    "check_cover",
    "check_tree",
    "cuts_not_covered",
    "levels_of",
    "options_of",
    "root_box",
    "uncovered",
]

Report = Callable[[str, object, str], None]
MAX_FAULTS = 10  # of one kind; more of them tell nothing new


def check_cover(instance: Instance, certificate: Certificate, report: Report) -> None:
    """Whether the pieces are well formed and cover every option of every device."""
    pieces, count = certificate.pieces, instance.num_devices
    if np.any((pieces.device < 0) | (pieces.device >= count)):
        report("pieces.device", "a number", f"devices 0..{count - 1}")
        return
    inside = pieces.option != OUT
    bad = ~((pieces.left > 0) & (pieces.left <= pieces.right) & (pieces.right <= 1)) & inside
    bad |= ~inside & ((pieces.left != 0) | (pieces.right != 0))
    for i in np.flatnonzero(bad)[:MAX_FAULTS].tolist():
        report(
            f"pieces[{i}]", f"[{pieces.left[i]!r}, {pieces.right[i]!r}]", "0 < left <= right <= 1, or 0 when out"
        )
    bad = inside & ((pieces.line.touch <= 0) | (pieces.line.efficiency < 0))
    for i in np.flatnonzero(bad)[:MAX_FAULTS].tolist():
        report(f"pieces.line[{i}]", "touch or efficiency", "positive")
    order = np.lexsort((pieces.left, pieces.option, pieces.device))
    device, option = pieces.device[order], pieces.option[order]
    fresh = np.flatnonzero((device[1:] != device[:-1]) | (option[1:] != option[:-1])) + 1
    ends = pairwise([0, *fresh.tolist(), len(order)])
    groups = {
        (int(device[a]), int(option[a])): order[a:b] for a, b in ends if a < b
    }  # there may be no piece at all
    missing, low, high, levels = 0, instance.keep_min, instance.keep_max, levels_of(instance)
    if instance.common_keep and instance.exclusion_penalty is None:  # one rate for all: what everybody may take
        low, high = np.full(count, low.max()), np.full(count, high.min())
    for k in range(count):
        for row in options_of(instance, k):
            mine = groups.pop((k, row), order[:0])
            if row == OUT:
                gap = None if len(mine) else "nothing for leaving it out"
            else:
                gap = uncovered(levels[k], float(low[k]), float(high[k]), pieces.left[mine], pieces.right[mine])
            if gap is not None and missing < MAX_FAULTS:
                missing += 1
                report(
                    "pieces",
                    f"device {instance.device_names[k]!r}, option {row}: {gap}",
                    "a cover of its keep rates",
                )
    for k, row in list(groups)[:MAX_FAULTS]:
        report("pieces.option", f"{row} for device {instance.device_names[k]!r}", "an option that the device has")


def options_of(instance: Instance, k: int) -> list[int]:
    """Rows of a device's menu, 0 without one, and OUT where it may be left out."""
    menu = instance.adapter_options[k] if instance.adapter_options is not None else None
    rows = list(range(len(menu))) if menu else [0]
    return rows + ([OUT] if instance.exclusion_penalty is not None else [])


def uncovered(
    levels: FloatArray | None, low: float, high: float, left: FloatArray, right: FloatArray
) -> str | None:
    """What of the keep rates in [low, high] no interval holds; None when all are held.

    Parameters
    ----------
    levels
        The only keep rates that count, increasing, shape [L]; None: all doubles do.
    low, high
        Range of the keep rates.
    left, right
        Ends of the intervals, increasing left ends. Shape [N].
    """
    if levels is not None:
        # the farthest that intervals reach which begin at a level or before
        reached = np.append(-np.inf, np.maximum.accumulate(right))[np.searchsorted(left, levels, side="right")]
        lost = levels[(low <= levels) & (levels <= high) & (reached < levels)]
        return f"level {float(lost[0])!r}" if len(lost) else None
    reach = math.nextafter(low, 0.0)
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        if a > math.nextafter(reach, 2.0):
            break
        reach = max(reach, b)
    return None if reach >= high else f"({reach!r}, {high!r}]"


def levels_of(instance: Instance) -> tuple[FloatArray | None, ...]:
    """Keep levels [L] of each device, None for any rate; with one rate for all, those that all lists share."""
    if instance.keep_levels is None:
        return (None,) * instance.num_devices
    if not (instance.common_keep and instance.exclusion_penalty is None):
        return instance.keep_levels
    lists = [levels for levels in instance.keep_levels if levels is not None]
    return (reduce(np.intersect1d, lists) if lists else None,) * instance.num_devices


@dataclass(frozen=True, slots=True)
class Box:
    """Restrictions of a node: one per device, and a keep interval of all that take part."""

    cuts: dict[int, Cut] = field(default_factory=dict)
    low: float = 0.0
    high: float = 1.0

    def meet(self, cut: Cut) -> Box:
        """The part of the box that meets a cut."""
        if cut.device is None:
            return replace(self, low=max(self.low, cut.low), high=min(self.high, cut.high))
        old = self.cuts.get(cut.device, Cut(cut.device))
        options = old.options if cut.options is None else cut.options
        if old.options is not None and cut.options is not None:
            held = frozenset(old.options)
            options = tuple(o for o in cut.options if o in held)
        new = Cut(cut.device, options, max(old.low, cut.low), min(old.high, cut.high))
        return replace(self, cuts={**self.cuts, cut.device: new})

    def clip(self, spans: Spans, keep: BoolArray) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Pieces cut to the box: left and right ends, and which of ``keep`` have any part in it. Shapes [N]."""
        pieces = spans.pieces
        out = pieces.option == OUT
        low, high = np.where(out, 0.0, self.low), np.full(len(pieces), self.high)
        ok = keep.copy()
        if self.cuts:
            lows, highs = np.full(spans.devices, -np.inf), np.full(spans.devices, np.inf)
            for k, cut in self.cuts.items():
                if k < spans.devices:
                    lows[k], highs[k] = cut.low, cut.high
                if cut.options is not None:
                    ok &= (pieces.device != k) | np.isin(pieces.option, cut.options)
            low, high = np.maximum(low, lows[pieces.device]), np.minimum(high, highs[pieces.device])
        left, right = np.maximum(pieces.left, low), np.minimum(pieces.right, high)
        ok &= left <= right
        # a piece that meets the box in one point is not needed where its neighbour holds that point too
        wide, longer = low < high, pieces.left < pieces.right
        ok &= ~(longer & (pieces.right == low) & np.where(wide, spans.goes_on, spans.point_next))
        ok &= ~(longer & (pieces.left == high) & np.where(wide, spans.goes_back, spans.point_before))
        return left, right, ok


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Pieces, and what the neighbours of the same option hold. Shapes [N].

    ``point_next``: the right end is a piece of its own; ``goes_on``: that, or a piece that holds the right end and
    more beyond it. ``point_before``, ``goes_back``: the same for the left end.
    """

    pieces: Pieces
    goes_on: BoolArray
    goes_back: BoolArray
    point_next: BoolArray
    point_before: BoolArray

    @property
    def devices(self) -> int:
        """How many devices there may be pieces of."""
        return int(self.pieces.device.max(initial=-1)) + 1

    @classmethod
    def of(cls, pieces: Pieces) -> Spans:
        """Neighbours in order of the left ends."""
        order = np.lexsort((pieces.right, pieces.left, pieces.option, pieces.device))
        device, option = pieces.device[order], pieces.option[order]
        left, right = pieces.left[order], pieces.right[order]
        same = (device[1:] == device[:-1]) & (option[1:] == option[:-1])
        point = left == right
        flags = np.zeros((4, len(pieces)), dtype=bool)
        after = same & point[1:] & (left[1:] == right[:-1])
        before = same & point[:-1] & (right[:-1] == left[1:])
        flags[0, order[:-1]] = after | (same & (left[1:] <= right[:-1]) & (right[1:] > right[:-1]))
        flags[1, order[1:]] = before | (same & (left[:-1] < left[1:]) & (right[:-1] >= left[1:]))
        flags[2, order[:-1]], flags[3, order[1:]] = after, before
        return cls(pieces, *flags)


def check_tree(instance: Instance, certificate: Certificate, report: Report) -> dict[int, Box]:
    """Boxes of the leaves by node number, after checking that the children of every node cover it."""
    nodes, pieces = certificate.nodes, len(certificate.pieces)
    caps, clusters = len(priced_rows(certificate.constraints)), cluster_count(instance)
    for i, entry in enumerate(certificate.rounds):
        if np.any((entry.pieces < 0) | (entry.pieces >= pieces)):
            report(f"rounds[{i}].pieces", "a number", f"pieces 0..{pieces - 1}")
        _check_prices(f"rounds[{i}]", entry.priced, caps, clusters, report)
    if not nodes or nodes[0].parent != -1 or nodes[0].cut is not None:
        report("nodes", "no root", "node 0 with parent -1 and no cut")
        return {}
    below: dict[int, list[int]] = {}
    boxes = {0: root_box(instance)}
    for i, node in enumerate(nodes):
        if i:
            if not 0 <= node.parent < i or node.cut is None:
                report(f"nodes[{i}]", f"parent {node.parent}", "an earlier node, and a cut")
                return {}
            below.setdefault(node.parent, []).append(i)
            boxes[i] = boxes[node.parent].meet(node.cut)
        if node.priced is not None:
            _check_prices(f"nodes[{i}]", node.priced, caps, clusters, report)
    for i, children in below.items():
        if nodes[i].price_per_hz is not None:
            report(f"nodes[{i}]", "prices", "none: it has children")
        cuts = [cut for child in children if (cut := nodes[child].cut) is not None]
        why = cuts_not_covered(instance, boxes[i], cuts)
        if why is not None:
            report(f"nodes[{i}]", why, "children that cover it")
    return {i: box for i, box in boxes.items() if i not in below}


def root_box(instance: Instance) -> Box:
    """Everything; with one rate for all, the rates that all (with selection: any) devices may take."""
    low, high = instance.keep_min, instance.keep_max
    if not instance.common_keep:
        return Box()
    if instance.exclusion_penalty is None:
        return Box({}, float(low.max()), float(high.min()))
    return Box({}, float(low.min()), float(high.max()))


def _check_prices(
    where: str, priced: tuple[Prices, Kept], caps: int, clusters: int | None, report: Report
) -> None:
    prices, q = priced
    wrong = wrong_kept(clusters, q)
    if wrong is not None or not prices[0] >= 0.0:
        allowed = f"price_per_hz >= 0 and {wrong or 'kept_share in [0, 1]'}"
        report(where, f"prices {prices[0]!r}, {q!r:.80}", allowed)
    if len(prices) not in (1, caps + 1) or not all(price >= 0.0 for price in prices[1:]):
        report(where, f"cap_prices {list(prices[1:])!r:.80}", f"{caps} prices >= 0, one for each cap")


def cuts_not_covered(instance: Instance, box: Box, cuts: list[Cut]) -> str | None:
    """Why children with these cuts do not cover a box; None when they do."""
    devices = {cut.device for cut in cuts}
    if len(devices) > 1:
        return "children cut at different devices"
    k = devices.pop()
    if k is None:
        if not instance.common_keep:  # children [0, c] and [c, 1] would leave out one device on each side
            return "one interval for all devices, where each has a keep rate of its own"
        if any(cut.options is not None for cut in cuts):
            return "options without a device"
        return _gap(box.low, box.high, cuts)
    if not 0 <= k < instance.num_devices:
        return f"device {k}"
    old = box.cuts.get(k, Cut(k))
    allowed = [row for row in options_of(instance, k) if old.options is None or row in old.options]
    # for each option, the children that have it must cover the keep rates
    rows_of = [None if cut.options is None else frozenset(cut.options) for cut in cuts]
    for row in allowed:
        having = [cut for cut, rows in zip(cuts, rows_of, strict=True) if rows is None or row in rows]
        why = _gap(old.low, old.high, having)
        if why is not None:
            return f"option {row}: {why}"
    return None


def _gap(low: float, high: float, cuts: list[Cut]) -> str | None:
    reach = math.nextafter(low, -1.0)
    for cut in sorted(cuts, key=lambda cut: cut.low):
        if cut.low > math.nextafter(reach, 2.0):
            break
        reach = max(reach, cut.high)
    return None if reach >= high else f"keep rates ({reach!r}, {high!r}] are in no child"
