"""Every rule by which something is covered, by membership: a point of the root box lies in a leaf, and in a piece.

Trees, pieces and parts are cut at random, half of them then spoilt. What the checker accepts must hold every
point tried, most of them at ends of intervals and one double beside; what is whole must be accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edgealloc.certificate.form import OUT
from edgealloc.certificate.prices import Certificate, Cut, Node, Pieces, Planes
from edgealloc.certificate.subcarriers import Branch, OwnerCut, Part, SubcarrierCertificate
from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption
from edgealloc.verify.proof.cover import Spans, check_cover, check_tree
from edgealloc.verify.subcarriers.cover import Region, check_branches, check_parts

DEVICES, CARRIERS, TREES = 3, 4, 120


@dataclass(frozen=True)
class Point:
    """An allocation's choices: menu row or OUT and keep rate (0 when out) of each device, owners (-1: nobody)."""

    option: list[int]
    keep: list[float]
    owner: list[int]


def random_instance(make_instance: Any, rng: np.random.Generator, access: str) -> Instance:
    """Common rates, levels, menus, selection and ranges of each device's own, at random."""
    common, menu = bool(rng.random() < 0.4), tuple(AdapterOption(f"r={i}", 1e6, 1e8) for i in range(3))
    low = np.full(DEVICES, 0.05) if rng.random() < 0.5 else rng.uniform(0.02, 0.3, DEVICES)
    high = np.full(DEVICES, 1.0) if rng.random() < 0.5 else rng.uniform(0.35, 1.0, DEVICES)
    instance: Instance = make_instance(
        access, devices=DEVICES, subcarriers=CARRIERS, common_keep=common, keep_min=low, keep_max=high,
        adapter_options=(menu, None, menu[:2]) if rng.random() < 0.5 else None,
        exclusion_penalty=4.0 if rng.random() < 0.5 else None,
    )  # fmt: skip
    return instance


def random_point(instance: Instance, rng: np.random.Generator, ends: list[float]) -> Point | None:
    """A point that the instance allows; keep rates mostly at the given ends or beside them."""

    def rate(low: float, high: float) -> float:
        near = float(rng.choice(ends)) if ends and rng.random() < 0.8 else float(rng.uniform(low, high))
        near = float(np.nextafter(near, rng.choice([0.0, near, 1.0])))
        return min(max(near, low), high)

    inside = np.ones(DEVICES, bool) if instance.exclusion_penalty is None else rng.random(DEVICES) < 0.7
    keep = [rate(lo, hi) for lo, hi in zip(instance.keep_min.tolist(), instance.keep_max.tolist(), strict=True)]
    if instance.common_keep and inside.any():
        low, high = float(instance.keep_min[inside].max()), float(instance.keep_max[inside].min())
        if low > high:
            return None
        keep = [rate(low, high)] * DEVICES
    menus = instance.adapter_options or (None,) * DEVICES
    option = [int(rng.integers(len(menu or (0,)))) if on else OUT for menu, on in zip(menus, inside, strict=True)]
    taking = [-1, *np.flatnonzero(inside).tolist()]
    owner = [int(rng.choice(taking)) for _ in range(CARRIERS)]
    return Point(option, [s if on else 0.0 for s, on in zip(keep, inside, strict=True)], owner)


def random_cuts(instance: Instance, rng: np.random.Generator, owners: bool, lawful: bool) -> list[Any]:
    """Children by one rule: rates or options of a device, rates of all, owner of a sub-carrier."""
    k, middle = int(rng.integers(DEVICES)), float(rng.uniform(0.05, 0.9))
    after = float(rng.choice([middle, np.nextafter(middle, 1.0)]))
    rule = rng.choice(["rates", "options", "all", *(["owner"] * owners)])
    if rule == "owner":
        carrier = int(rng.integers(CARRIERS))
        return [OwnerCut(k, carrier, owned) for owned in (True, False)]
    if rule == "options":
        rows = [OUT, 0, 1, 2]
        some = tuple(int(r) for r in rows if rng.random() < 0.5)
        return [Cut(k, some), Cut(k, tuple(r for r in rows if r not in some))]
    if rule == "all" and (instance.common_keep or not lawful):
        return [Cut(None, None, 0.0, middle), Cut(None, None, after, 1.0)]
    third = min(1.0, middle + 0.1)
    return [Cut(k, None, 0.0, middle), Cut(k, None, after, third), Cut(k, None, third, 1.0)]


def spoilt(cuts: list[Any], rng: np.random.Generator) -> list[Any]:
    """One child lost, or its cut moved, narrowed, or about something else."""
    i = int(rng.integers(len(cuts)))
    cut = cuts[i]
    if rng.random() < 0.3:
        return cuts[:i] + cuts[i + 1 :]
    if isinstance(cut, OwnerCut):
        other = [replace(cut, owned=not cut.owned), replace(cut, device=(cut.device + 1) % DEVICES)]
        other.append(replace(cut, subcarrier=(cut.subcarrier + 1) % CARRIERS))
    else:
        later, fewer = float(np.nextafter(np.nextafter(cut.low, 1.0), 1.0)), (cut.options or (0, 1))[:1]
        other = [replace(cut, low=later), replace(cut, high=0.9 * cut.high), replace(cut, options=fewer)]
        other.append(replace(cut, device=None if cut.device is not None else 0))
    return [*cuts[:i], other[int(rng.integers(len(other)))], *cuts[i + 1 :]]


Tree = list[tuple[int, Any]]


def random_tree(instance: Instance, rng: np.random.Generator, owners: bool, sound: bool) -> Tree:
    """(Parent, cut) of every node; unless ``sound``, one split is spoilt or by a rule that may not be allowed."""
    tree: Tree = [(-1, None)]
    leaves, splits = [0], int(rng.integers(1, 5))
    bad = int(rng.integers(splits)) if not sound else -1
    for step in range(splits):
        at = leaves.pop(int(rng.integers(len(leaves))))
        cuts = random_cuts(instance, rng, owners, lawful=step != bad)
        if step == bad and rng.random() < 0.7:
            cuts = spoilt(cuts, rng)
        leaves += range(len(tree), len(tree) + len(cuts))
        tree += [(at, cut) for cut in cuts]
    return tree


def ends_of(tree: Tree) -> list[float]:
    return [end for _, cut in tree if isinstance(cut, Cut) for end in (cut.low, cut.high) if 0.0 < end <= 1.0]


def random_pieces(instance: Instance, rng: np.random.Generator) -> Pieces:
    """Pieces that cover everything, overlapping in places, points of their own in others."""
    rows: list[tuple[int, int, float, float]] = []
    menus = instance.adapter_options or (None,) * DEVICES
    for k in range(DEVICES):
        for option in range(len(menus[k] or (0,))):
            inner = rng.uniform(instance.keep_min[k], instance.keep_max[k], int(rng.integers(0, 4)))
            ends = [float(instance.keep_min[k]), *np.sort(inner).tolist(), float(instance.keep_max[k])]
            for a, b in pairwise(ends):
                rows.append((k, option, a, min(b * float(rng.choice([1.0, 1.1])), 1.0)))
                if rng.random() < 0.3:
                    rows.append((k, option, a, a))
        if instance.exclusion_penalty is not None:
            rows.append((k, OUT, 0.0, 0.0))
    device, option, left, right = (np.array(column) for column in zip(*rows, strict=True))
    zero, none = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.intp)
    return Pieces(device, option, left, right, Planes(np.maximum(left, 0.01), zero, zero, none, zero))


def faults_of(check: Callable[..., Any], *args: Any) -> tuple[list[str], Any]:
    found: list[str] = []
    return found, check(*args, lambda key, value, allowed: found.append(f"{key} {value}"))


@pytest.mark.parametrize("sound", [True, False])
def test_points_are_in_leaves_and_in_pieces(make_instance: Any, sound: bool) -> None:
    """Trees of boxes, and what of the pieces a box keeps."""
    accepted, held = 0, 0
    for seed in range(TREES):
        rng = np.random.default_rng(seed)
        instance = random_instance(make_instance, rng, "fdma")
        pieces, tree = random_pieces(instance, rng), random_tree(instance, rng, False, sound)
        parents = {parent for parent, _ in tree}
        nodes = tuple(
            Node(p, cut, *((None, None) if i in parents else (0.0, 0.5))) for i, (p, cut) in enumerate(tree)
        )
        certificate = Certificate(instance.name, "prices", 0.0, pieces, nodes)
        assert faults_of(check_cover, instance, certificate)[0] == []
        faults, boxes = faults_of(check_tree, instance, certificate)
        assert not (sound and faults), (seed, faults)
        if faults:
            continue
        accepted += 1
        spans, everything = Spans.of(pieces), np.ones(len(pieces), bool)
        clipped = [box.clip(spans, everything) for box in boxes.values()]
        for _ in range(15):
            point = random_point(instance, rng, ends_of(tree) + pieces.right[pieces.right > 0].tolist())
            if point is None:
                continue
            option, keep = np.array(point.option)[pieces.device], np.array(point.keep)[pieces.device]
            homes = [
                set(pieces.device[ok & (pieces.option == option) & (left <= keep) & (keep <= right)].tolist())
                for left, right, ok in clipped
            ]
            assert any(len(home) == DEVICES for home in homes), (seed, point)
            held += 1
    assert held > 500
    assert accepted == TREES if sound else 10 < accepted < 0.8 * TREES


@pytest.mark.parametrize("sound", [True, False])
def test_points_are_in_leaves_of_subcarriers(make_instance: Any, sound: bool) -> None:
    """Trees of regions, over owners too."""
    accepted, held = 0, 0
    leaf = (np.zeros(CARRIERS), 0.5, np.zeros(DEVICES))
    for seed in range(TREES):
        rng = np.random.default_rng(1000 + seed)
        instance = random_instance(make_instance, rng, "ofdma")
        tree = random_tree(instance, rng, True, sound)
        parents = {parent for parent, _ in tree}
        nodes = tuple(Branch(p, cut, *(() if i in parents else leaf)) for i, (p, cut) in enumerate(tree))
        certificate = SubcarrierCertificate(instance.name, 0.0, nodes)
        faults, regions = faults_of(check_branches, instance, certificate)
        assert not (sound and faults), (seed, faults)
        if faults:
            continue
        accepted += 1
        for _ in range(15):
            point = random_point(instance, rng, ends_of(tree))
            if point is not None:
                assert any(holds(instance, region, point) for region in regions.values()), (seed, point)
                held += 1
    assert held > 500
    assert accepted == TREES if sound else 10 < accepted < 0.8 * TREES


def holds(instance: Instance, region: Region, point: Point) -> bool:
    """Whether a region has a point: options, rates, and who owns what."""
    fixed = region.fixed(instance)
    for k, (option, keep) in enumerate(zip(point.option, point.keep, strict=True)):
        low, high = region.range(instance, k)
        if option not in region.options(instance, k) or not (option == OUT or low <= keep <= high):
            return False
        mine = np.array(point.owner) == k
        if np.any(mine & (fixed[k] == 0)) or np.any(~mine & (fixed[k] == 1)):
            return False
    return True


@pytest.mark.parametrize("levels", [False, True])
def test_points_are_in_pieces_or_they_are_refused(make_instance: Any, levels: bool) -> None:
    """Pieces and parts that lack an end, a double between two, or a piece."""
    accepted, refused = 0, 0
    for seed in range(2 * TREES):
        rng = np.random.default_rng(2000 + seed)
        instance = random_instance(make_instance, rng, "ofdma" if seed % 2 else "fdma")
        if levels:
            rates = tuple(
                np.linspace(lo, hi, 4) for lo, hi in zip(instance.keep_min, instance.keep_max, strict=True)
            )
            instance = replace(instance, keep_levels=rates, common_keep=False)
        pieces = random_pieces(instance, rng)
        i = int(rng.integers(len(pieces)))
        left, right = pieces.left.copy(), pieces.right.copy()
        if pieces.option[i] != OUT and left[i] < right[i]:
            side, way = (left, 1.0) if rng.random() < 0.5 else (right, 0.0)
            side[i] = rng.choice([np.nextafter(side[i], way), 0.5 * (left[i] + right[i])])
        pieces = replace(pieces, left=left, right=right)
        if rng.random() < 0.2:
            some = np.flatnonzero(np.arange(len(left)) != i)
            pieces = Pieces(
                *(getattr(pieces, n)[some] for n in ("device", "option", "left", "right")), pieces.line
            )
            pieces = replace(pieces, line=Planes(*(getattr(pieces.line, n)[some] for n in Planes.__slots__)))
        if instance.access == "fdma":
            why: Any = faults_of(check_cover, instance, Certificate("", "prices", 0.0, pieces))[0]
        else:
            none = np.zeros(0)
            parts = tuple(
                Part(int(k), int(o), np.unique([a, b]), none, none, none)
                for k, o, a, b in zip(pieces.device, pieces.option, pieces.left, pieces.right, strict=True)
                if o != OUT
            )
            why = check_parts(instance, Region.root(instance), parts, False)
        if why:
            refused += 1
            continue
        accepted += 1
        for _ in range(15):
            point = random_point(instance, rng, [*pieces.left.tolist(), *pieces.right.tolist()])
            if point is None:
                continue
            if levels:
                point = replace(point, keep=[
                    float(rng.choice(rates[k])) if o != OUT else 0.0 for k, o in enumerate(point.option)
                ])  # fmt: skip
            for k, (option, keep) in enumerate(zip(point.option, point.keep, strict=True)):
                mine = (pieces.device == k) & (pieces.option == option)
                assert option == OUT or np.any(mine & (pieces.left <= keep) & (keep <= pieces.right)), (
                    seed,
                    point,
                )
    assert accepted > 30
    assert refused > 30
