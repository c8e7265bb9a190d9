"""Covers at their edges: pieces, levels, boxes, neighbours and children, each rule by itself."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from edgealloc.certificate.form import OUT
from edgealloc.certificate.prices import Certificate, Cut, Node, Pieces, Planes, Round
from edgealloc.data.constraints import ParticipationCap, SpectrumCap
from edgealloc.data.spec import AdapterOption
from edgealloc.verify.proof.cover import (
    Box,
    Spans,
    check_cover,
    check_tree,
    cuts_not_covered,
    levels_of,
    options_of,
    root_box,
    uncovered,
)
from tests.verify.proof.plain import bound, down, up

MENU = tuple(AdapterOption(f"r={i}", 1e6, 1e8) for i in range(3))


def pieces_of(*rows: tuple[int, int, float, float]) -> Pieces:
    device, option, left, right = (np.array(column) for column in zip(*rows, strict=True))
    zero, none = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.intp)
    planes = Planes(np.full(len(rows), 0.37), zero, zero, none, zero)
    return Pieces(device.astype(np.intp), option.astype(np.intp), left, right, planes)


def said(check: Any, instance: Any, **parts: Any) -> list[tuple[str, str, str]]:
    """Faults as (field, value, allowed)."""
    found: list[tuple[str, str, str]] = []
    check(
        instance, Certificate("", "prices", 0.0, **parts),
        lambda key, value, allowed: found.append((key, str(value), allowed)),
    )  # fmt: skip
    return found


WHOLE = ((0, 0, 0.05, 1.0), (1, 0, 0.05, 0.4), (1, 0, up(0.4), 1.0))


def test_pieces_are_within_what_keep_rates_may_be(make_instance: Any) -> None:
    instance = make_instance(devices=2)
    more = ((0, 0, 5e-324, 1e-9), (0, 0, 0.3, 0.3), (1, 0, 1.0, 1.0))
    assert said(check_cover, instance, pieces=pieces_of(*WHOLE, *more)) == []
    for left, right in (
        (0.0, 0.3),
        (-0.1, 0.3),
        (0.3, down(0.3)),
        (0.9, up(1.0)),
        (math.nan, 0.3),
        (0.3, math.nan),
    ):
        ((field, value, allowed),) = said(check_cover, instance, pieces=pieces_of(*WHOLE, (0, 0, left, right)))
        assert (field, allowed) == ("pieces[3]", "0 < left <= right <= 1, or 0 when out")
        assert value == f"[{np.float64(left)!r}, {np.float64(right)!r}]"
    selecting = make_instance(devices=2, exclusion_penalty=4.3)
    outs = ((0, OUT, 0.0, 0.0), (1, OUT, 0.0, 0.0))
    assert said(check_cover, selecting, pieces=pieces_of(*WHOLE, *outs)) == []
    for left, right in ((0.0, 0.3), (-0.1, 0.0), (0.3, 0.3)):
        faults = said(check_cover, selecting, pieces=pieces_of(*WHOLE, *outs, (1, OUT, left, right)))
        assert [fault[0] for fault in faults] == ["pieces[5]"]


def test_devices_and_options_are_those_of_the_instance(make_instance: Any) -> None:
    instance = make_instance(devices=2, adapter_options=[MENU, None])
    whole = (*(((0, row, 0.05, 1.0)) for row in range(3)), *WHOLE[1:])
    assert said(check_cover, instance, pieces=pieces_of(*whole)) == []
    for device in (-1, 2, 7):
        faults = said(check_cover, instance, pieces=pieces_of(*whole, (device, 0, 0.3, 0.4)))
        assert faults == [("pieces.device", "a number", "devices 0..1")]
    for k, row in ((0, 3), (1, 1), (0, OUT), (1, OUT), (1, -2)):
        ends = (0.0, 0.0) if row == OUT else (0.3, 0.4)
        faults = said(check_cover, instance, pieces=pieces_of(*whole, (k, row, *ends)))
        assert faults == [("pieces.option", f"{row} for device 'dev-000{k}'", "an option that the device has")]
    for lost in range(3):
        ((field, value, allowed),) = said(
            check_cover, instance, pieces=pieces_of(*whole[:lost], *whole[lost + 1 :])
        )
        assert (field, allowed) == ("pieces", "a cover of its keep rates")
        assert value == f"device 'dev-0000', option {lost}: ({down(0.05)!r}, 1.0]"
    selecting = make_instance(devices=2, exclusion_penalty=4.3)
    ((_, value, _),) = said(check_cover, selecting, pieces=pieces_of(*WHOLE, (0, OUT, 0.0, 0.0)))
    assert value == "device 'dev-0001', option -1: nothing for leaving it out"


def test_without_pieces_nothing_is_covered(make_instance: Any) -> None:
    none, zero = np.zeros(0, np.intp), np.zeros(0)
    pieces = Pieces(none, none, zero, zero, Planes(zero, zero, zero, none, zero))
    values = [fault[1] for fault in said(check_cover, make_instance(devices=2), pieces=pieces)]
    assert values == [f"device 'dev-000{k}', option 0: ({down(0.05)!r}, 1.0]" for k in range(2)]
    assert Spans.of(pieces).devices == 0


def test_planes_have_a_place_and_an_efficiency(make_instance: Any) -> None:
    instance = make_instance(devices=2)
    pieces = pieces_of(*WHOLE)
    for name, value, good in (
        ("touch", 5e-324, True), ("touch", 0.0, False), ("touch", -0.1, False),
        ("efficiency", 0.0, True), ("efficiency", 0.37, True), ("efficiency", -5e-324, False),
    ):  # fmt: skip
        column = getattr(pieces.line, name).copy()
        column[1] = value
        faults = said(check_cover, instance, pieces=replace(pieces, line=replace(pieces.line, **{name: column})))
        assert faults == ([] if good else [("pieces.line[1]", "touch or efficiency", "positive")])


def test_ten_faults_of_a_kind_are_enough(make_instance: Any) -> None:
    instance = make_instance(devices=13)
    whole = [(k, 0, 0.05, 1.0) for k in range(13)]
    none = pieces_of(*((k, 0, 0.9, 0.3) for k in range(13)))
    fields = [fault[0] for fault in said(check_cover, instance, pieces=none)]
    assert fields == [f"pieces[{i}]" for i in range(10)] + ["pieces"] * 10
    flat = pieces_of(*whole)
    flat = replace(flat, line=replace(flat.line, touch=np.zeros(13)))
    assert [f[0] for f in said(check_cover, instance, pieces=flat)] == [f"pieces.line[{i}]" for i in range(10)]
    foreign = pieces_of(*whole, *((k, 5, 0.3, 0.4) for k in range(13)))
    found = said(check_cover, instance, pieces=foreign)
    assert [f[1] for f in found] == [f"5 for device {name!r}" for name in instance.device_names[:10]]


def test_common_rates_are_those_that_all_may_take(make_instance: Any) -> None:
    ranges = {"keep_min": np.array([0.05, 0.2]), "keep_max": np.array([0.7, 1.0])}
    common = pieces_of((0, 0, 0.2, 0.7), (1, 0, 0.2, 0.7))
    outs = pieces_of((0, 0, 0.2, 0.7), (1, 0, 0.2, 0.7), (0, OUT, 0.0, 0.0), (1, OUT, 0.0, 0.0))
    assert said(check_cover, make_instance(devices=2, common_keep=True, **ranges), pieces=common) == []
    for moved in ((0, 0, up(0.2), 0.7), (0, 0, 0.2, down(0.7))):
        assert said(check_cover, make_instance(devices=2, common_keep=True, **ranges), pieces=pieces_of(
            moved, (1, 0, 0.2, 0.7)
        ))  # fmt: skip
    for changes in ({}, {"common_keep": True, "exclusion_penalty": 4.3}, {"exclusion_penalty": 4.3}):
        some = outs if "exclusion_penalty" in changes else common
        values = [f[1] for f in said(check_cover, make_instance(devices=2, **ranges, **changes), pieces=some)]
        assert values == [
            f"device 'dev-0000', option 0: ({down(0.05)!r}, 0.7]", "device 'dev-0001', option 0: (0.7, 1.0]"
        ]  # fmt: skip
    for changes, box in (
        ({"common_keep": True}, Box({}, 0.2, 0.7)), ({}, Box()),
        ({"common_keep": True, "exclusion_penalty": 4.3}, Box({}, 0.05, 1.0)),
    ):  # fmt: skip
        assert root_box(make_instance(devices=2, **ranges, **changes)) == box


def test_a_cover_lacks_no_double() -> None:
    a, b = np.array([0.1, 0.3, 0.5]), np.array([0.4, down(0.5), 0.8])
    assert uncovered(None, 0.1, 0.8, a, b) is None
    assert uncovered(None, down(0.1), 0.8, a, b) == f"({down(down(0.1))!r}, 0.8]"
    assert uncovered(None, 0.1, up(0.8), a, b) == f"(0.8, {up(0.8)!r}]"
    assert uncovered(None, 0.1, 0.8, np.array([0.1, up(0.3), 0.5]), np.array([0.2, 0.6, 0.8])) == "(0.2, 0.8]"
    assert uncovered(None, 0.1, 0.8, a, np.array([0.4, down(down(0.5)), 0.8])) == f"({down(down(0.5))!r}, 0.8]"
    assert uncovered(None, 0.1, 0.8, a, np.array([0.9, 0.35, 0.6])) is None  # a later one that ends before
    levels = np.array([0.1, 0.3, 0.37, 0.6])
    assert uncovered(levels, 0.0, 1.0, np.array([0.1, 0.3, 0.5]), np.array([0.1, 0.37, 0.6])) is None
    assert uncovered(levels, 0.0, 1.0, np.array([up(0.1), 0.3]), np.array([0.2, 0.6])) == "level 0.1"
    assert uncovered(levels, 0.0, 1.0, np.array([0.1, 0.5]), np.array([0.3, 0.6])) == "level 0.37"
    assert uncovered(levels, 0.0, 1.0, np.array([0.1, 0.2]), np.array([0.6, 0.25])) is None
    for low, high, lost in ((0.1, 0.6, "0.1"), (up(0.1), 0.6, "0.6"), (0.3, down(0.6), None), (0.6, 0.6, "0.6")):
        assert uncovered(levels, low, high, np.array([0.3]), np.array([0.5])) == (lost and f"level {lost}")


def test_options_and_levels(make_instance: Any) -> None:
    menus = make_instance(devices=3, adapter_options=[MENU, None, MENU[:1]])
    assert [options_of(menus, k) for k in range(3)] == [[0, 1, 2], [0], [0]]
    out = replace(menus, exclusion_penalty=4.3)
    assert [options_of(out, k) for k in range(3)] == [[0, 1, 2, OUT], [0, OUT], [0, OUT]]
    assert options_of(make_instance(devices=2), 1) == [0]
    lists = [np.array([0.1, 0.3, 0.5]), None, np.array([0.3, 0.5, 0.7])]
    assert levels_of(make_instance(devices=3)) == (None,) * 3
    own = make_instance(devices=3, keep_levels=lists)
    assert [None if x is None else x.tolist() for x in levels_of(own)] == [[0.1, 0.3, 0.5], None, [0.3, 0.5, 0.7]]
    shared = levels_of(replace(own, common_keep=True))
    assert [None if x is None else x.tolist() for x in shared] == [[0.3, 0.5]] * 3
    either = levels_of(replace(own, common_keep=True, exclusion_penalty=4.3))
    assert [None if x is None else len(x) for x in either] == [3, None, 3]
    assert levels_of(make_instance(devices=3, keep_levels=[None] * 3, common_keep=True)) == (None,) * 3


def test_boxes_meet_cuts() -> None:
    box = Box({}, 0.1, 0.9).meet(Cut(None, None, 0.3, 1.0)).meet(Cut(None, None, 0.0, 0.7))
    assert box == Box({}, 0.3, 0.7)
    box = box.meet(Cut(1, None, 0.2, 0.8)).meet(Cut(0, (2, 0), 0.1, 0.6))
    assert box == Box({1: Cut(1, None, 0.2, 0.8), 0: Cut(0, (2, 0), 0.1, 0.6)}, 0.3, 0.7)
    box = box.meet(Cut(0, (0, 1), 0.0, 0.5)).meet(Cut(1, (1,), 0.4, 1.0)).meet(Cut(1, None, 0.0, 1.0))
    assert box == Box({1: Cut(1, (1,), 0.4, 0.8), 0: Cut(0, (0,), 0.1, 0.5)}, 0.3, 0.7)


def test_neighbours_and_what_a_box_keeps() -> None:
    """Against loops over single pieces; ends are few, so that most pieces meet the box in a point."""
    rng, ends = np.random.default_rng(2), [0.1, 0.37, 0.6]
    dropped = 0
    for _ in range(300):
        rows = []
        for _ in range(int(rng.integers(1, 14))):
            left, right = np.sort(rng.choice(ends, 2)).tolist()
            k, row = int(rng.integers(2)), int(rng.integers(-1, 2))
            rows.append((k, row, *((left, right) if row != OUT else (0.0, 0.0))))
        pieces, keep = pieces_of(*rows), rng.random(len(rows)) < 0.9
        spans = Spans.of(pieces)
        order = sorted(range(len(rows)), key=lambda i: (*rows[i], i))
        flags = np.zeros((4, len(rows)), dtype=bool)
        for i, j in pairwise(order):
            (k, row, a, b), (other, own, c, d) = rows[i], rows[j]
            if (k, row) == (other, own):
                flags[2, i], flags[3, j] = c == d == b, a == b == c
                flags[0, i] = flags[2, i] or (c <= b < d)
                flags[1, j] = flags[3, j] or (a < c <= b)
        found = (spans.goes_on, spans.goes_back, spans.point_next, spans.point_before)
        assert np.array_equal(np.array(found), flags)
        assert spans.devices == max(row[0] for row in rows) + 1
        low, high = np.sort(rng.choice([0.0, *ends, 1.0], 2)).tolist()
        cuts = {}
        for k in np.flatnonzero(rng.random(5) < 0.5).tolist():
            first, last = np.sort(rng.choice([0.0, *ends, 1.0], 2)).tolist()
            cuts[k] = Cut(k, None if rng.random() < 0.5 else tuple(rng.integers(-1, 2, 2).tolist()), first, last)
        lefts, rights, inside = Box(cuts, low, high).clip(spans, keep)
        for i, (k, row, a, b) in enumerate(rows):
            cut = cuts.get(k, Cut(k, None, -math.inf, math.inf))
            begin, end = max(cut.low, -math.inf if row == OUT else low), min(cut.high, high)
            begin = max(begin, 0.0)
            wanted = keep[i] and (cut.options is None or row in cut.options) and max(a, begin) <= min(b, end)
            wide = begin < end
            needless = (b == begin and flags[0 if wide else 2, i]) or (a == end and flags[1 if wide else 3, i])
            dropped += bool(wanted and a < b and needless)
            assert inside[i] == (wanted and not (a < b and needless)), (rows, i, cuts)
            assert (lefts[i], rights[i]) == (max(a, begin), min(b, end))
    assert dropped > 50


TREE = (Node(), Node(0, Cut(0, None, 0.0, 0.5), 0.37, 0.5), Node(0, Cut(0, None, up(0.5), 1.0), 0.37, 0.5))


def test_nodes_have_a_parent_and_a_cut_and_only_leaves_have_prices(make_instance: Any) -> None:
    instance, pieces = make_instance(devices=2), pieces_of(*WHOLE)
    rounds = tuple(Round(0.37, 0.5, np.array(some, np.intp)) for some in ((0, 2), (), (1,)))
    assert said(check_tree, instance, pieces=pieces, nodes=TREE, rounds=rounds) == []
    for some, bad in ((-1, True), (3, True), (2, False)):
        faults = said(
            check_tree,
            instance,
            pieces=pieces,
            nodes=TREE,
            rounds=(rounds[0], Round(0.0, 0.0, np.array([0, some]))),
        )
        assert faults == ([("rounds[1].pieces", "a number", "pieces 0..2")] if bad else [])
    for root in (None, Node(0), Node(-1, Cut(0))):
        nodes = () if root is None else (root, *TREE[1:])
        faults = said(check_tree, instance, pieces=pieces, nodes=nodes)
        assert faults == [("nodes", "no root", "node 0 with parent -1 and no cut")]
    for parent, cut in ((-1, Cut(0)), (3, Cut(0)), (4, Cut(0)), (1, None)):
        faults = said(check_tree, instance, pieces=pieces, nodes=(*TREE, Node(parent, cut, 0.37, 0.5)))
        assert faults == [("nodes[3]", f"parent {parent}", "an earlier node, and a cut")]
    faults = said(check_tree, instance, pieces=pieces, nodes=(replace(TREE[0], price_per_hz=0.0), *TREE[1:]))
    assert faults == [("nodes[0]", "prices", "none: it has children")]
    faults = said(check_tree, instance, pieces=pieces, nodes=TREE[:2])
    assert faults == [("nodes[0]", "option 0: keep rates (0.5, 1.0] are in no child", "children that cover it")]
    deep = (*TREE, Node(1, Cut(0, None, 0.0, 0.3), 0.37, 0.5), Node(1, Cut(0, None, 0.3, 0.5), 0.37, 0.5))
    deep = (deep[0], replace(deep[1], price_per_hz=None, kept_share=None), *deep[2:])
    boxes = check_tree(instance, Certificate("", "prices", 0.0, pieces, deep), lambda *_: None)
    assert {i: box.cuts[0] for i, box in boxes.items()} == {
        2: Cut(0, None, up(0.5), 1.0), 3: Cut(0, None, 0.0, 0.3), 4: Cut(0, None, 0.3, 0.5)
    }  # fmt: skip


def test_prices_are_of_all_caps_and_not_negative(make_instance: Any) -> None:
    """At nodes and in rounds; of none or of all, one kept share or one of each cluster."""
    instance, pieces = make_instance(devices=2), pieces_of(*WHOLE)
    caps = {"constraints": (SpectrumCap(4.1e5), ParticipationCap(1.9))}
    clusters = make_instance(devices=2, bound=bound(pooling="cluster"), clusters=(3, 5))
    one, many = "price_per_hz >= 0 and kept_share in [0, 1]", "2 prices >= 0, one for each cap"
    listed = "kept_share a list of 2 numbers in [0, 1], one of each cluster in the order of their names"
    for own, price, kept, capped, wrong in (
        (instance, 0.0, 0.0, (), None), (instance, 0.37, 1.0, (0.0, 0.3), None), (instance, -5e-324, 0.5, (), one),
        (instance, 0.37, -5e-324, (), one), (instance, 0.37, up(1.0), (), one), (instance, 0.37, (0.5,), (), one),
        (instance, 0.37, 0.5, (0.3,), many), (instance, 0.37, 0.5, (0.3,) * 3, many),
        (instance, 0.37, 0.5, (-5e-324, 0.3), many), (instance, 0.37, 0.5, (0.3, -0.1), many),
        (instance, math.nan, 0.5, (), one), (clusters, 0.37, (0.0, 1.0), (), None),
        (clusters, 0.37, 0.5, (), listed), (clusters, 0.37, (0.5,), (), listed),
        (clusters, 0.37, (0.5,) * 3, (), listed), (clusters, 0.37, (0.5, -0.1), (), listed),
    ):  # fmt: skip
        nodes, entry = (Node(-1, None, price, kept, capped),), Round(price, kept, np.zeros(0, np.intp), capped)
        faults = said(check_tree, own, pieces=pieces, nodes=nodes, rounds=(entry,), **caps)
        assert [fault[0] for fault in faults] == ([] if wrong is None else ["rounds[0]", "nodes[0]"])
        for _, value, allowed in faults:
            assert allowed == (wrong if wrong in (one, many) else f"price_per_hz >= 0 and {wrong}")
            assert value == (f"cap_prices {list(capped)!r}" if wrong == many else f"prices {price!r}, {kept!r}")


def test_children_cover_what_their_parent_has(make_instance: Any) -> None:
    instance = make_instance(devices=2, adapter_options=[MENU, None], exclusion_penalty=4.3)
    common = make_instance(devices=2, common_keep=True)

    def why(box: Box, *cuts: Cut, of: Any = instance) -> str | None:
        return cuts_not_covered(of, box, list(cuts))

    low, high = Cut(0, None, 0.0, 0.4), Cut(0, None, up(0.4), 1.0)
    assert why(Box(), high, low) is None
    assert why(Box(), low, replace(high, low=up(up(0.4)))) == "option 0: keep rates (0.4, 1.0] are in no child"
    assert (
        why(Box(), replace(low, low=5e-324), high) == f"option 0: keep rates ({down(0.0)!r}, 1.0] are in no child"
    )
    assert (
        why(Box(), low, replace(high, high=down(1.0)))
        == f"option 0: keep rates ({down(1.0)!r}, 1.0] are in no child"
    )
    assert why(Box({0: Cut(0, None, 0.1, 0.9)}), Cut(0, None, 0.1, 0.5), Cut(0, None, 0.5, 0.9)) is None
    assert why(Box({0: Cut(0, None, 0.1, 0.9)}), Cut(0, None, up(up(0.1)), 0.9)) is not None
    assert why(Box(), low, replace(high, device=1)) == "children cut at different devices"
    for k in (-1, 2):
        assert why(Box(), Cut(k)) == f"device {k}"
    assert why(Box(), Cut(0, (0, 1)), Cut(0, (2, OUT))) is None
    assert (
        why(Box(), Cut(0, (0, 1)), Cut(0, (2,))) == f"option -1: keep rates ({down(0.0)!r}, 1.0] are in no child"
    )
    assert why(Box(), Cut(0, (0, 2, OUT)), Cut(0, None, 0.5, 1.0)) is not None
    assert why(Box({0: Cut(0, (1, 2))}), Cut(0, (2,)), Cut(0, (1,), 0.0, 0.3), Cut(0, (1,), 0.3, 1.0)) is None
    apart = "one interval for all devices, where each has a keep rate of its own"
    assert why(Box(), Cut(None)) == apart
    assert why(Box(), Cut(None, (0,)), of=common) == "options without a device"
    assert why(Box({}, 0.2, 0.7), Cut(None, None, 0.2, 0.5), Cut(None, None, 0.4, 0.7), of=common) is None
    gap = why(Box({}, 0.2, 0.7), Cut(None, None, 0.2, 0.5), Cut(None, None, 0.6, 0.7), of=common)
    assert gap == "keep rates (0.5, 0.7] are in no child"
