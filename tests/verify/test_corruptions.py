"""Certificates of one band, corrupted: each corruption is refused, and no mutant proves more than the optimum."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgealloc import solve
from edgealloc.certificate.prices import seal
from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec
from edgealloc.solvers.certify.write import certified
from tests.solvers.fdma.random_instances import random_fdma
from tests.verify.spoiling import Change, lose, mutate, put, refused
from tests.verify.test_certificate import proved, tight


def lose_device(data: dict[str, Any]) -> None:
    pieces = data["pieces"]
    for part in (pieces, pieces["line"]):
        for values in part.values():
            if isinstance(values, list):
                del values[0]


PRICES: dict[str, Change] = {
    "format": put("format", by="edgealloc-certificate/2"),
    "unknown kind": put("kind", by="faith"),
    "wrong kind": put("kind", by="common-rate"),
    "other instance": put("instance", by="another"),
    "bound raised by 1e-9": put("lower_bound", by=lambda x: x * (1 + 1e-9)),
    "bound not a number": put("lower_bound", by="0.4"),
    "bound missing": lose("lower_bound"),
    "price raised": put("nodes", 0, "price_per_hz", by=lambda x: 1.01 * x),
    "price lowered": put("nodes", 0, "price_per_hz", by=lambda x: 0.99 * x),
    "price negative": put("nodes", 0, "price_per_hz", by=lambda x: -x),
    "price missing": lose("nodes", 0, "price_per_hz"),
    "kept share moved": put("nodes", 0, "kept_share", by=lambda x: 1.01 * x),
    "kept share above 1": put("nodes", 0, "kept_share", by=1.5),
    "no tree": put("nodes", by=[]),
    "root with a parent": put("nodes", 0, "parent", by=0),
    "leaf without proof": put("nodes", by=lambda n: [{"parent": -1}]),
    "a device lost": lose_device,
    "device number out of range": put("pieces", "device", 0, by=4),
    "device twice": put("pieces", "device", 0, by=1),
    "option that does not exist": put("pieces", "option", 0, by=1),
    "left out without selection": put("pieces", "option", 0, by=-1),
    "left end moved in": put("pieces", "left", 1, by=lambda x: math.nextafter(x, 1.0) + 1e-15),
    "right end moved in": put("pieces", "right", 1, by=lambda x: x - 1e-15),
    "ends swapped": lambda d: d["pieces"].update(left=d["pieces"]["right"], right=d["pieces"]["left"]),
    "touch moved": put("pieces", "line", "touch", 0, by=lambda x: 0.99 * x),
    "touch zero": put("pieces", "line", "touch", 0, by=0.0),
    "touch negative": put("pieces", "line", "touch", 0, by=-0.3),
    "efficiency moved": put("pieces", "line", "efficiency", 0, by=lambda x: 1.01 * x),
    "efficiency huge": put("pieces", "line", "efficiency", 0, by=1e6),
    "efficiency negative": put("pieces", "line", "efficiency", 0, by=lambda x: -x),
    "plane removed": put("pieces", "line", "efficiency", 0, by=0.0),
    "mix above 1": put("pieces", "line", "mix", 0, by=1.5),
    "mix below 0": put("pieces", "line", "mix", 0, by=-0.5),
    "mix moved": put("pieces", "line", "mix", 0, by=0.3),
    "limit unknown": put("pieces", "line", "limit", 0, by=7),
    "multiplier negative": lambda d: d["pieces"]["line"].update(limit=[1] * 4, multiplier=[-1e3] * 4),
    "multiplier huge": lambda d: d["pieces"]["line"].update(limit=[1] * 4, multiplier=[1e9] * 4),
    "column missing": lose("pieces", "line", "mix"),
    "column too short": lose("pieces", "left", 0),
    "column with text": put("pieces", "left", 0, by="0.05"),
    "column with a truth value": put("pieces", "left", 0, by=True),
    "blocks where there are none": lambda d: d["pieces"].update(start=d["pieces"]["line"]),
    "round without its piece": put("rounds", by=[{"price_per_hz": 1.0, "kept_share": 0.1, "pieces": [9]}]),
    "round that drops a device": put("rounds", by=[{"price_per_hz": 0.0, "kept_share": 0.1, "pieces": [0]}]),
    "unknown key": put("note", by="trust me"),
}  # fmt: skip


COMMON: dict[str, Change] = {
    "cap lowered": put("cap", by=lambda x: 0.999 * x),
    "cap raised": put("cap", by=lambda x: 1.001 * x),
    "cap removed": put("cap", by=None),
    "touch moved": put("touch", by=lambda x: 0.9 * x),
    "touch out of range": put("touch", by=2.0),
    "touch missing": lose("touch"),
    "a device lost": lose_device,
    "device twice": put("pieces", "device", 0, by=1),
    "plane begins beyond the cap": put("pieces", "left", 0, by=1.0),
    "efficiency moved": put("pieces", "line", "efficiency", 0, by=lambda x: 1.01 * x),
    "bound raised by 1e-9": put("lower_bound", by=lambda x: x * (1 + 1e-9)),
    "called prices": put("kind", by="prices"),
}


def leaf(data: dict[str, Any]) -> dict[str, Any]:
    """The leaf whose price per Hz is largest."""
    return max((n for n in data["nodes"] if "price_per_hz" in n), key=lambda n: float(n["price_per_hz"]))


def last_with(key: str, data: dict[str, Any]) -> dict[str, Any]:
    """The last cut that restricts keep rates, or options."""
    cuts = [n["cut"] for n in data["nodes"] if "cut" in n]
    wanted: list[dict[str, Any]] = [c for c in cuts if (c["options"] is not None) == (key == "options")]
    return wanted[-1]


def halved_tree(data: dict[str, Any]) -> None:
    """Cut off the last leaf: its sibling no longer covers the parent."""
    del data["nodes"][-1]


def leaf_without_prices(data: dict[str, Any]) -> None:
    """Claims that nothing fits where something does."""
    found = leaf(data)
    del found["price_per_hz"], found["kept_share"]


def raised_prices(data: dict[str, Any]) -> None:
    for node in data["nodes"]:
        if "price_per_hz" in node:
            node["price_per_hz"] = 1e-2


SEARCH: dict[str, Change] = {
    "bound raised": put("lower_bound", by=lambda x: x * (1 + 1e-5)),
    "a leaf lost": halved_tree,
    "two leaves of different parents": lambda d: d["nodes"][-1].update(parent=0),
    "parent after child": lambda d: d["nodes"][1].update(parent=2),
    "cut of another device": lambda d: d["nodes"][-1]["cut"].update(
        device=(d["nodes"][-1]["cut"]["device"] + 1) % 6
    ),
    "device that does not exist": lambda d: d["nodes"][-1]["cut"].update(device=60),
    "cut raised": lambda d: last_with("keep", d).update(low=last_with("keep", d)["low"] + 0.02),
    "cut lowered": lambda d: last_with("keep", d).update(high=0.5 * last_with("keep", d)["high"]),
    "prices raised": raised_prices,
    "leaf price zero": lambda d: leaf(d).update(price_per_hz=0.0),
    "leaf kept share moved": lambda d: leaf(d).update(kept_share=min(1.0, 3 * leaf(d)["kept_share"])),
    "leaf price lost": leaf_without_prices,
    "prices at an inner node": lambda d: d["nodes"][0].update(price_per_hz=1e-6, kept_share=0.1),
    "options lost": lambda d: d["nodes"][-1]["cut"].update(options=[]),
    "everything dropped": lambda d: d["rounds"].append(
        {"price_per_hz": 0.0, "kept_share": 0.1, "pieces": list(range(len(d["pieces"]["left"])))}
    ),
    "a level lost": lambda d: d["pieces"]["left"].__setitem__(0, d["pieces"]["right"][0] + 1e-9),
    "start efficiencies scaled": lambda d: d["pieces"]["start"].update(
        efficiency=[0.5 * v for v in d["pieces"]["start"]["efficiency"]]
    ),
    "start planes lost": put("pieces", "start", by=None),
}  # fmt: skip


@pytest.fixture(scope="module")
def honest(make_instance: Any) -> dict[str, tuple[Instance, dict[str, Any]]]:
    """An accepted certificate of each kind, as JSON objects."""
    found = {}
    for kind, common in (("prices", False), ("common-rate", True)):
        instance = tight(make_instance, common_keep=common)
        data = json.loads(json.dumps(proved(instance)[1].to_file()))
        assert not refused(instance, data)
        found[kind] = (instance, data)
    return found


@pytest.mark.parametrize("what", sorted(PRICES))
def test_corrupted_prices_are_refused(honest: Any, what: str) -> None:
    _refuses(honest["prices"], PRICES[what])


@pytest.mark.parametrize("what", sorted(COMMON))
def test_corrupted_common_rates_are_refused(honest: Any, what: str) -> None:
    _refuses(honest["common-rate"], COMMON[what])


@pytest.fixture(scope="module")
def searched() -> tuple[Instance, dict[str, Any]]:
    """An accepted certificate of a search with a tree: scarce blocks and a perturbation term."""
    rng = np.random.default_rng(0)
    instance = random_fdma(
        rng, 6, bound=BoundSpec(underfit="perturbation", underfit_weight=0.5), access="rb", block_hz=1e3,
        bandwidth_hz=1.2e4, gain=rng.uniform(1e-13, 1e-11, 6), latency_s=20.0, energy_j=20.0, cycles_fixed=1e9,
        payload_lora_bits=1e6, cycles_lora=1e8, capacitance=1e-28, freq_min_hz=1e8, freq_max_hz=1e9,
    )  # fmt: skip
    result = solve(instance, "bnb", rel_gap=1e-7)
    data = json.loads(json.dumps(certified(result, 1e-7)[1].to_file()))
    assert len(data["nodes"]) >= 7
    assert not refused(instance, data)
    return instance, data


@pytest.mark.parametrize("what", sorted(SEARCH))
def test_corrupted_searches_are_refused(searched: Any, what: str) -> None:
    _refuses(searched, SEARCH[what])


def _refuses(accepted: tuple[Instance, dict[str, Any]], change: Change) -> None:
    """With the checksum made good again: the mathematics must find it, not the seal."""
    instance, data = accepted
    bad = copy.deepcopy(data)
    change(bad)
    assert bad != data
    bad["sha256"] = seal(bad)
    assert refused(instance, bad)


@pytest.mark.parametrize("count", [150, pytest.param(600, marks=pytest.mark.slow)])
def test_no_mutant_proves_more_than_the_optimum(honest: Any, searched: Any, count: int) -> None:
    """Numbers changed at random, the claim raised above a feasible objective: no certificate may be accepted."""
    rng = np.random.default_rng(5)
    accepted = [(*pair, solve(pair[0], rel_gap=1e-9).objective) for pair in (*honest.values(), searched)]
    for trial in range(count):
        instance, data, objective = accepted[trial % len(accepted)]
        bad = copy.deepcopy(data)
        bad["lower_bound"] = objective * (1 + 1e-9)
        mutate(bad, rng)
        assert refused(instance, bad)


def test_any_flipped_digit_breaks_the_seal(honest: Any) -> None:
    instance, data = honest["prices"]
    text = json.dumps(data)
    places = [i for i, c in enumerate(text) if c.isdigit()]
    for i in places[:: max(1, len(places) // 200)]:
        flipped = text[:i] + str((int(text[i]) + 1) % 10) + text[i + 1 :]
        try:
            changed = json.loads(flipped)
        except ValueError:
            continue
        assert changed == data or refused(instance, changed), flipped[max(0, i - 20) : i + 20]


@pytest.mark.parametrize(
    ("field", "factor"),
    [("bandwidth_hz", 1.01), ("latency_s", 1.01), ("energy_j", 1.01), ("gain", 1.05), ("capacitance", 0.9)],
)
def test_an_easier_instance_is_not_covered(honest: Any, field: str, factor: float) -> None:
    """The certificate of an instance does not prove its bound for one with more resources."""
    instance, data = honest["prices"]
    easier = replace(instance, **{field: getattr(instance, field) * factor})
    assert refused(easier, data) or solve(easier, "convex", rel_gap=1e-9).objective >= data["lower_bound"]
