"""Dual values of leaves, forced pieces and least bandwidths: against loops over single pieces, in plain floats.

What a share or a plane comes to is the matter of their own tests; here lines are made up, no number like another.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flint import ctx
from scipy.optimize import minimize_scalar

from edgealloc.certificate.form import OUT
from edgealloc.certificate.prices import Certificate, Cut, Pieces, Planes
from edgealloc.data.constraints import Constraint, ParticipationCap, SpectrumCap
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray
from edgealloc.verify.blocks import blocks_there
from edgealloc.verify.folding import Rows
from edgealloc.verify.proof import model as module
from edgealloc.verify.proof.cover import Box, root_box
from edgealloc.verify.proof.device import Device, Line, bandwidth_line, blocked
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number
from edgealloc.verify.proof.model import Leaf, Model, added, blocks_at_least, budget_hz, least_of
from tests.verify.proof.plain import bound, gap, plane, uneven

CAPS: tuple[Constraint, ...] = (
    SpectrumCap(4.1e5, {0: 0.7, 2: 1.3}), ParticipationCap(1.9, {0: 0.37, 1: 0.83, 2: 0.59}),
)  # fmt: skip
WHERE = [
    (0, 0, 0.05, 0.31), (0, 0, 0.31, 0.77), (0, 0, 0.77, 1.0), (0, 1, 0.05, 1.0), (0, OUT, 0.0, 0.0),
    (1, 0, 0.05, 0.43), (1, 0, 0.43, 1.0), (1, OUT, 0.0, 0.0), (2, 0, 0.05, 0.29), (2, 0, 0.29, 1.0),
    (2, OUT, 0.0, 0.0),
]  # fmt: skip
N = len(WHERE)
HZ = np.array([1.1e5, 2.3e5, 3.1e5, 1.7e5, 0.0, 0.9e5, 2.9e5, 0.0, 1.3e5, 3.7e5, 0.0])
NONE = np.zeros(N, bool)


def pieces_of(start: bool = False) -> Pieces:
    """Those of ``WHERE``, with planes that say nothing."""
    device, option, left, right = (np.array(column) for column in zip(*WHERE, strict=True))
    zero, none = np.zeros(N), np.zeros(N, dtype=np.intp)
    planes = Planes(np.full(N, 0.37), zero, zero, none, zero)
    return Pieces(device, option, left, right, planes, planes if start else None)


def model_of(
    make_instance: Any,
    pooling: str = "global",
    caps: tuple[Constraint, ...] = CAPS,
    kind: type[Number] = Intervals,
    **changes: Any,
) -> Model:
    """With lines and least bandwidths made up, of which some are more than the line says."""
    clusters = (7, 2, 7) if pooling == "cluster" else None
    instance = uneven(make_instance, bound=bound(pooling=pooling), clusters=clusters, **changes)
    with np.errstate(all="ignore"):
        made = Model.of(instance, Certificate("", "prices", 0.0, pieces_of(), constraints=caps), kind)
    base, slope = np.linspace(0.9, 1.3, N) * HZ, np.linspace(0.3, 0.7, N) * HZ
    stepped = np.arange(N) % 3 == 0
    return replace(made, line=Line(kind.of(base), kind.of(slope), np.full(N, 0.37)), least_hz=HZ, stepped=stepped)


def leaves_of(pooling: str, caps: tuple[Constraint, ...] = CAPS) -> list[Leaf]:
    """Boxes that cut pieces and lose some; prices of the caps in all but one."""
    boxes = [
        Box(), Box({0: Cut(0, (0, OUT), 0.41, 0.83)}),
        Box({1: Cut(1, (0,), 0.0, 0.37), 2: Cut(2, None, 0.31, 1.0)}),
        Box({0: Cut(0, (1,), 0.13, 0.71)}, 0.11, 0.59),
    ]  # fmt: skip
    leaves: list[Leaf] = []
    for j, box in enumerate(boxes):
        prices = (1.3e-6 + 0.7e-6 * j, *((0.3e-6 + 1e-7 * j, 0.23 + 0.11 * j)[: len(caps)] if j != 1 else ()))
        q: Any = 0.17 + 0.19 * j
        leaves.append((prices, (q, 0.91 - 0.2 * j) if pooling == "cluster" else q, box))
    return leaves


def known(model: Model, leaf: Leaf, gone: Any) -> tuple[FloatArray, float]:
    """Least priced share of each piece, ``inf`` where it does not count, and the constant: one after another."""
    prices, q, box = leaf
    instance, kind = model.instance, model.kind
    extra = [*prices[1:], 0.0, 0.0][: len(model.rows)]
    constant = -prices[0] * budget_hz(instance) - sum(y * b for y, b in zip(extra, model.rows.limit, strict=True))
    total, nu = float(instance.samples.sum()), np.zeros(3)
    if instance.bound.pooling != "device":
        groups = [[1], [0, 2]] if isinstance(q, tuple) else [[0, 1, 2]]
        for group, at in zip(groups, q if isinstance(q, tuple) else (q,), strict=True):
            held = float(instance.samples[group].sum())
            value, slope = gap(instance.bound, held, at)
            constant += held / total * (value - slope * at)
            nu[group] = slope
    floors = np.full(N, np.inf)
    lefts, rights, inside = box.clip(model.spans, ~gone)
    for i in np.flatnonzero(inside & ~model.impossible):
        k, out = WHERE[i][0], WHERE[i][1] == OUT
        price = prices[0] + sum(y * float(a[k]) for y, a in zip(extra, model.rows.spectrum, strict=True))
        fee = sum(y * float(c[k]) for y, c in zip(extra, model.rows.devices, strict=True))
        ends = (np.array([1.0 if out else end[i]]) for end in (lefts, rights))
        left, right = ends
        lines = [model.line.take(np.array([i]))]
        if model.stepped[i]:
            lines.append(Line(kind.of(model.least_hz[[i]]), kind.of(np.zeros(1)), np.array([0.37])))
        shares = model.shares.take(np.array([i]))
        each = [shares.floor(left, right, kind.of(nu[[k]]), kind.of(np.array([price])), line)[0] for line in lines]
        floors[i] = max(each) + (0.0 if out else fee)
    return floors, constant


def best(floors: FloatArray) -> list[float]:
    return [float(np.min(floors[[i for i in range(N) if WHERE[i][0] == k]])) for k in range(3)]


@pytest.mark.parametrize("caps", [CAPS, CAPS[:1], ()], ids=["caps", "one cap", "none"])
@pytest.mark.parametrize("pooling", ["global", "cluster", "device"])
def test_leaves_are_sums_over_devices(
    make_instance: Any, pooling: str, caps: tuple[Constraint, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several leaves at once, however many are taken together, with pieces gone and impossible ones."""
    model, leaves = model_of(make_instance, pooling, caps), leaves_of(pooling, caps)
    model = replace(model, impossible=np.arange(N) == 8)
    gone = np.arange(N) == 1
    wanted = [known(model, leaf, gone) for leaf in leaves]
    sums = [sum(best(floors)) + constant for floors, constant in wanted]
    assert math.inf not in sums
    for at_once in (20_000, 2 * N, 5):
        monkeypatch.setattr(module, "AT_ONCE", at_once)
        assert model.at_once == max(1, at_once // N)
        values = model.values(leaves, gone)
        assert values == pytest.approx(sums, rel=1e-11)
        assert np.all(np.array(values) <= np.array(sums) + 1e-15)
    only = [np.arange(N) % 2 == j % 2 for j in range(len(leaves))]
    found, constants = model.priced(leaves, gone, only)
    for j, (floors, constant) in enumerate(wanted):
        counted = np.flatnonzero(np.isfinite(floors) & only[j])
        assert found.piece[found.leaf == j].tolist() == counted.tolist()
        assert found.least[found.leaf == j] == pytest.approx(floors[counted], rel=1e-12)
        assert constants[j] == pytest.approx(constant, rel=1e-12)
        least, one, each = model.dual(leaves[j], gone)
        assert least == pytest.approx(best(floors), rel=1e-12)
        assert one == constants[j]
        assert each == pytest.approx(floors, rel=1e-12)
    everything = np.array([row[0] == 1 for row in WHERE])
    assert model.values(leaves, everything) == [math.inf] * len(leaves)


def test_a_level_counts_where_it_is_worth_more(make_instance: Any) -> None:
    """Each of line and level is the better one somewhere, in the leaves above."""
    model, leaf = model_of(make_instance), leaves_of("global")[0]
    both = known(model, leaf, NONE)[0]
    line = known(replace(model, stepped=NONE), leaf, NONE)[0]
    assert 0 < np.sum(both > line * (1.0 + 1e-9)) < np.sum(model.stepped)
    assert np.all(model.dual(leaf, NONE)[2][both > line] > line[both > line])


@pytest.mark.parametrize("pooling", ["global", "cluster"])
def test_the_least_with_a_piece_forced_in(make_instance: Any, pooling: str) -> None:
    model, (prices, q, _) = model_of(make_instance, pooling), leaves_of(pooling)[0]
    gone = np.arange(N) == 5
    floors, constant = known(model, (prices, q, root_box(model.instance)), gone)
    whole, least = sum(best(floors)) + constant, best(floors)
    for dropped in ([0], [9], [2, 6], [1, 3, 9]):
        wanted = min(whole - least[WHERE[i][0]] + floors[i] for i in dropped)
        value = model.forced(prices, q, np.array(dropped), gone)
        assert value == pytest.approx(wanted, rel=1e-11)
        assert value <= wanted
    assert model.forced(prices, q, np.array([5]), gone) > 1e299  # it is gone already
    assert model.forced(prices, q, np.zeros(0, np.intp), gone) == math.inf
    assert model.forced(prices, q, np.array([0]), np.array([row[0] == 1 for row in WHERE])) == math.inf


@pytest.mark.parametrize("pooling", ["global", "cluster", "device"])
def test_pieces_that_keep_a_leaf_from_its_claim(make_instance: Any, pooling: str) -> None:
    """Those and no others are judged anew: less than what is lacking above the least of their device."""
    rough, leaf = model_of(make_instance, pooling), leaves_of(pooling)[0]
    least, constant, floors = rough.dual(leaf, NONE)
    value, spent = added(least[None, :], np.array([constant]))[0], []
    gaps = np.sort(floors - least[rough.device])
    more = {"global": 0, "cluster": 1, "device": 0}[pooling]
    fine = model_of(make_instance, pooling, kind=Balls)
    fine = replace(fine, line=Line(fine.line.base * 1.1, fine.line.slope, fine.line.touch))
    for lack in (*(0.5 * (gaps[1:] + gaps[:-1])).tolist(), gaps[-1] + 1.0):
        if lack <= 0.0:
            continue
        weak = floors - least[rough.device] < lack
        with ctx.workprec(128):
            again = np.where(weak, np.fmax(floors, fine.dual(leaf, NONE)[2]), floors)
            exact = fine.priced([leaf], NONE)[1][0]
            found = fine.nearer(rough, leaf, NONE, value + lack, spent.append)
        assert spent.pop() == weak.sum() + more
        assert found == added(np.array([best(again)]), np.array([max(exact, constant)]))[0]
    # a claim that nothing fits: only what is not known at all
    base = rough.line.base.lower().copy()
    base[3] = np.nan
    unknown = replace(rough, line=Line(Intervals.of(base), rough.line.slope, rough.line.touch), stepped=NONE)
    with ctx.workprec(128), np.errstate(invalid="ignore"):
        assert math.isfinite(fine.nearer(unknown, leaf, NONE, math.inf, spent.append))
        assert spent == [1 + more]
        assert fine.nearer(unknown, leaf, NONE, 9.0, spent.append) == pytest.approx(value, rel=0.5)
    assert spent[1] > 1 + more


def test_rows_that_are_exceeded(make_instance: Any) -> None:
    """By the sum of what every device needs at least, to the last digit."""
    model = model_of(make_instance)
    rng = np.random.default_rng(1)
    over = 0
    for _ in range(60):
        spectrum, devices = rng.uniform(0.1, 1.9, (2, 2, 3)) * rng.choice([0.0, 1.0, 1.0], (2, 2, 3))
        required = np.where([row[1] == OUT for row in WHERE], np.inf, rng.uniform(0.1, 0.9, N))
        spare = np.where([row[1] == OUT for row in WHERE], 0.0, required)
        for needs, out in ((required, False), (spare, True)):
            for r in range(2):
                least = []
                for k in range(3):
                    mine = [needs[i] for i in range(N) if WHERE[i][0] == k and WHERE[i][1] != OUT]
                    down = [
                        math.nextafter(math.nextafter(spectrum[r, k] * hz + devices[r, k], 0.0), 0.0)
                        for hz in mine
                    ]
                    least.append(0.0 if out else min(down))
                edge = math.nextafter(math.fsum(least), -math.inf)
                limit = np.full(2, np.inf)
                for at, exceeded in ((edge, False), (math.nextafter(edge, -math.inf), True)):
                    limit[r] = at
                    assert replace(model, rows=Rows(spectrum, devices, limit)).exceeds(needs) is exceeded
                    over += exceeded
    assert over == 240
    row = Rows(np.zeros((1, 3)), np.full((1, 3), 0.3), np.array([9.0]))
    assert replace(model, rows=row).exceeds(np.where(model.device == 1, np.inf, 0.5))  # whoever can do nothing
    assert not replace(model, rows=row).exceeds(np.where(np.arange(N) == 5, np.inf, 0.5))
    assert not replace(model, rows=Rows(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0))).exceeds(HZ)


def test_boxes_in_which_nothing_fits(make_instance: Any) -> None:
    """The sum of the least bandwidths against the band, to the last digit; then the rows."""
    selected = np.array([row[1] == OUT for row in WHERE])
    model = model_of(make_instance, caps=())
    box = Box({0: Cut(0, (0,), 0.4, 1.0)})
    least = math.nextafter(2.3e5 + 0.9e5 + 1.3e5, -math.inf)

    def crowded(change: dict[str, Any], gone: Any = selected) -> bool:
        return replace(model, **change).crowded(box, gone)

    for band, full in ((least, False), (math.nextafter(least, 0.0), True)):
        assert crowded({"instance": replace(model.instance, bandwidth_hz=band)}) is full
    wide = {"instance": replace(model.instance, bandwidth_hz=least)}
    assert not crowded({"instance": replace(model.instance, bandwidth_hz=2.3e5)}, NONE)
    assert crowded(wide | {"impossible": np.arange(N) == 1})  # and the next piece needs more
    assert crowded(wide | {"impossible": np.isin(np.arange(N), [8, 9])})
    assert crowded(wide, selected | (np.arange(N) == 8))
    row = Rows(np.array([[1.0, 0.0, 0.0]]), np.zeros((1, 3)), np.array([2.2e5]))
    assert crowded(wide | {"rows": row})
    assert not crowded(wide | {"rows": replace(row, limit=np.array([2.4e5]))})


def test_blocks_are_counted_up(make_instance: Any) -> None:
    """But for a hair, which is what a quotient may be off by; none needs less than one."""
    for block in (0.37, 1.0, 1.8e5):
        for n in (1.0, 3.0, 2.0**20, 1e6 + 1.0):
            exact = n * block
            hz = np.array(
                [exact, exact * (1.0 + 0.75 * 2.0**-50), exact * (1.0 + 6 * 2.0**-50), exact * (1.0 - 1e-9)]
            )
            assert blocks_at_least(hz, block).tolist() == [n, n, n + 1.0, n]
    assert blocks_at_least(np.array([0.0, -3.0, 1e-9]), 0.37).tolist() == [1.0, 1.0, 1.0]
    instance = uneven(make_instance, "rb")
    whole = blocks_there(instance) * 1.7e4
    assert budget_hz(instance) == np.nextafter(np.nextafter(whole, np.inf), np.inf)
    assert budget_hz(uneven(make_instance)) == 1.3e6


def test_sums_and_least_values() -> None:
    least, constant = np.array([[0.3, 0.5], [0.7, np.inf], [0.9, -np.inf]]), np.array([-0.1, 0.2, 0.4])
    assert added(least, constant) == [math.nextafter(math.fsum([0.3, 0.5, -0.1]), -1.0), math.inf, -math.inf]
    found = least_of(np.array([2, 0, 2, 0]), np.array([0.7, 1.3, 0.4, 2.9]), 4)
    assert found.tolist() == [1.3, math.inf, 0.4, math.inf]


def efficient(instance: Instance, k: int, row: int, s: float) -> float:
    """The spectral efficiency at which a device needs the least bandwidth, if only energy limits its frequency."""
    found = minimize_scalar(lambda v: plane(instance, k, row, (s, v), 1.0, 0, 0.0), bounds=(0.05, 4.0))
    return float(found.x)


@pytest.mark.parametrize("access", ["fdma", "rb"])
def test_what_pieces_need_at_least(make_instance: Any, access: str) -> None:
    """The line where a piece begins, or the plane of its start, in whole blocks; more than there is cannot be."""
    instance: Instance = uneven(make_instance, access)
    device, option, left, _ = (np.array(column) for column in zip(*WHERE, strict=True))
    zero, none = np.zeros(N), np.zeros(N, dtype=np.intp)
    touch, one = np.maximum(left, 0.05), np.ones(N)
    line, start = (
        Planes(
            at,
            np.array([efficient(instance, *case) for case in zip(device, option, at, strict=True)]),
            one,
            none,
            zero,
        )
        for at in (touch * 1.07, touch)
    )
    pieces = replace(pieces_of(), line=line, start=start if access == "rb" else None)
    certificate = Certificate("", "prices", 0.0, pieces, constraints=CAPS)
    model = Model.of(instance, certificate, Intervals)
    made = Device.of(instance, device, option, Intervals)
    safe = np.where(option == OUT, 1.0, left)
    begins = bandwidth_line(made, line, safe).at(safe).lower()
    least = np.maximum(begins, 0.0)
    if access == "rb":
        more = bandwidth_line(made, start, safe).at(safe).lower()
        blocks = [max(1, math.ceil(max(a, b) / 1.7e4 - 1e-9)) for a, b in zip(least, more, strict=True)]
        least = np.nextafter(np.array(blocks) * 1.7e4, 0.0)
    inside = option != OUT
    assert np.all(model.least_hz == np.where(inside, least, 0.0))
    assert np.all(model.stepped == (inside & (least > begins)))
    assert np.any(model.stepped) is np.True_
    assert np.sum(begins[inside] > 0.0) > 0
    plain = bandwidth_line(made, line, safe)
    for part, whole in ((model.line.base, plain.base), (model.line.slope, plain.slope)):
        assert np.all(part.lower() == np.where(inside, whole.lower(), 0.0))
    most = np.minimum(budget_hz(instance), model.rows.most_hz())[device]
    assert np.all(model.impossible == (inside & (least > most)))
    for band in (np.sort(least[inside])[3], math.nextafter(np.sort(least[inside])[3], 0.0)):
        if access == "fdma":
            narrow = Model.of(
                replace(instance, bandwidth_hz=float(band)), replace(certificate, constraints=()), Intervals
            )
            assert np.all(narrow.impossible == (inside & (least > band)))


@pytest.mark.parametrize("access", ["fdma", "rb"])
def test_each_reason_makes_a_piece_impossible(make_instance: Any, access: str) -> None:
    """A device that may not take part, one without energy, one without a signal; each pair of them, too."""
    device, option, left, _ = (np.array(column) for column in zip(*WHERE, strict=True))
    inside, barred = option != OUT, (ParticipationCap(0.5, {0: 0.37, 1: 0.83, 2: 0.97}),)
    poor, mute = {"energy_j": np.array([3.1, 0.24, 0.08])}, {"gain": np.array([0.0, 1.1e-14, 0.0])}
    seen = set()
    for changes in ({}, poor, mute, poor | mute):
        for caps in ((), barred):
            instance = uneven(make_instance, access, **changes)
            pieces = pieces_of(start=access == "rb")
            with np.errstate(all="ignore"):
                model = Model.of(instance, Certificate("", "prices", 0.0, pieces, constraints=caps), Intervals)
                made = Device.of(instance, device, option, Intervals)
                stuck = blocked(made, np.where(inside, left, 1.0))
            silent = (
                (np.array([0.0 if "gain" in changes else 1.0, 1.0, 0.0 if "gain" in changes else 1.0])[device])
                == 0.0
            )
            silent &= ~((device == 0) & (option == 0))  # that row has a gain of its own
            many = (device != 0) & bool(caps)
            assert np.all(model.impossible == (inside & (many | stuck | silent)))
            assert np.all(model.line.base.lower()[~inside] == 0.0)
            seen |= set(zip(many.tolist(), stuck.tolist(), silent.tolist(), strict=True))
    assert {(True, False, False), (False, True, False), (True, True, False)} <= seen
    assert {row[2] for row in seen} == {False, True}
