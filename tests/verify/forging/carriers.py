"""Forgers' tricks with certificates of sub-carriers; see :mod:`tests.verify.forging.bands`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edgealloc.certificate.form import OUT
from edgealloc.verify.proof.cover import options_of
from tests.verify.forging.honest import CARRIERS, Data, Honest
from tests.verify.forging.trick import Forge, Trick, nothing

__all__ = ["CARRIER_TRICKS"]

LEAF = "edgealloc.verify.subcarriers.leaf."
COVER = "edgealloc.verify.subcarriers.cover."
TREE_OFF = ((COVER + "_not_covered", nothing),)
NUMBERS_OFF = ((COVER + "_check_numbers", nothing),)
SETS_OFF = ((LEAF + "excluded", lambda _model, claims, *_: [np.zeros((0, 0), bool)] * len(claims)),)
EVERY = tuple(CARRIERS)
UNSELECTED = ("two by four", "three by six", "curve on carriers")
WHOLE: Data = {"options": None, "low": 0.0, "high": 1.0}


def leaves(data: Data) -> list[Data]:
    """Nodes with prices."""
    return [node for node in data["nodes"] if "prices" in node]


def bare_leaf(proof: Honest, least: float = 1e3) -> Data:
    """A leaf that says nothing true of the first device, and next to nothing of the others."""
    instance = proof.instance
    parts = [
        {"device": k, "option": option, "keep": keeps, "level_w": [], "slope": [], "exclude_w": []}
        for k in range(1, instance.num_devices)
        for option in options_of(instance, k)
        if option != OUT
        for keeps in [np.unique([instance.keep_min[k], instance.keep_max[k]]).tolist()]
    ]
    costs = [least] + [-9.0] * (instance.num_devices - 1)
    return {"prices": [0.0] * instance.gain.shape[1], "kept_share": 0.5, "least": costs, "parts": parts}


def tree(*cuts: Data) -> Forge:
    """A bound beyond all reason, by children that leave everything out."""

    def forge(proof: Honest) -> Data:
        def change(data: Data) -> None:
            data["nodes"] = [{"parent": -1}, *({"parent": 0, "cut": cut, **bare_leaf(proof)} for cut in cuts)]

        return proof.forged(proof.above, change)

    return forge


def every_leaf(proof: Honest, change: Callable[[Data], Any], bound: float | None = math.nan) -> Data:
    """A change of all leaves, under a claim above the optimum unless another is given."""

    def every(data: Data) -> None:
        for leaf in leaves(data):
            change(leaf)

    return proof.forged(proof.above if bound is not None and math.isnan(bound) else bound, every)


def raised(proof: Honest, leaf: Data) -> None:
    """What the first device costs, raised to what the claim needs."""
    leaf["least"][0] += 2.0 * (proof.above - proof.objective) + 1e-3 * abs(proof.objective)


# -- covers -----------------------------------------------------------------------------------------------------


def only_rates_that_nobody_may_take(proof: Honest) -> Data:
    """One child, below every least keep rate: of an empty region everything is true."""
    return tree(WHOLE | {"device": 0, "options": [0], "high": 1e-3})(proof)


def a_hole_between_two_children(proof: Honest) -> Data:
    """Below the least rate and above the greatest one; what lies between is in neither."""
    cut = WHOLE | {"device": 0, "options": [0]}
    return tree(cut | {"high": 1e-3}, cut | {"low": 1.5, "high": 2.0})(proof)


def options_that_nobody_has(proof: Honest) -> Data:
    return tree(WHOLE | {"device": 0, "options": [7]}, WHOLE | {"device": 0, "options": []})(proof)


def one_interval_for_all(proof: Honest) -> Data:
    """Everybody low, or everybody high."""
    return tree(WHOLE | {"device": None, "high": 1e-3}, WHOLE | {"device": None, "low": 1.5, "high": 2.0})(proof)


def children_of_two_kinds(proof: Honest) -> Data:
    """A sub-carrier that the first device owns, or a keep rate that it may not take."""
    owned = {"device": 1, "subcarrier": 0, "owned": True}
    cut = WHOLE | {"device": 0, "options": [0], "high": 1e-3}

    def change(data: Data) -> None:
        data["nodes"] = [
            {"parent": -1}, {"parent": 0, "cut": owned}, {"parent": 0, "cut": cut, **bare_leaf(proof)},
            {"parent": 1, "cut": cut, **bare_leaf(proof)},
        ]  # fmt: skip

    return proof.forged(proof.above, change)


def owned_by_all(proof: Honest) -> Data:
    """One sub-carrier, owned by one child and by the other: who owns it not is in neither."""

    def change(data: Data) -> None:
        cut = WHOLE | {"device": 0, "options": [0], "high": 1e-3}
        owners = [{"device": 0, "subcarrier": 0, "owned": True}] * 2
        data["nodes"] = [
            {"parent": -1}, *({"parent": 0, "cut": owner} for owner in owners),
            *({"parent": i, "cut": cut, **bare_leaf(proof)} for i in (1, 2)),
        ]  # fmt: skip

    return proof.forged(proof.above, change)


def owned_or_another_not_owned(proof: Honest) -> Data:
    """Two sub-carriers: one is owned, or the other is not."""

    def change(data: Data) -> None:
        cut = WHOLE | {"device": 0, "options": [0], "high": 1e-3}
        owners = [{"device": 0, "subcarrier": m, "owned": m == 0} for m in (0, 1)]
        data["nodes"] = [
            {"parent": -1}, *({"parent": 0, "cut": owner} for owner in owners),
            *({"parent": i, "cut": cut, **bare_leaf(proof)} for i in (1, 2)),
        ]  # fmt: skip

    return proof.forged(proof.above, change)


def a_subcarrier_that_is_none(proof: Honest) -> Data:
    def change(data: Data) -> None:
        owner = {"device": 0, "subcarrier": proof.instance.gain.shape[1], "owned": True}
        data["nodes"] = [{"parent": -1}, {"parent": 0, "cut": owner, **bare_leaf(proof)}]

    return proof.forged(proof.above, change)


def prices_above_children(proof: Honest) -> Data:
    def change(data: Data) -> None:
        cut = WHOLE | {"device": 0, "options": [0], "high": 1e-3}
        data["nodes"] = [{"parent": -1, **bare_leaf(proof)}, {"parent": 0, "cut": cut, **bare_leaf(proof)}]

    return proof.forged(proof.above, change)


def a_leaf_without_a_proof(proof: Honest) -> Data:
    """Neither prices nor children."""
    return proof.forged(proof.above, lambda data: data.update(nodes=[{"parent": -1}]))


# -- parts ------------------------------------------------------------------------------------------------------


def a_device_without_parts(proof: Honest) -> Data:
    """What it costs is stated, and nowhere shown."""

    def change(leaf: Data) -> None:
        leaf["parts"] = [part for part in leaf["parts"] if part["device"] != 0]
        leaf["least"][0] += 1e3

    return every_leaf(proof, change)


def shortened(keep: Iterable[float]) -> list[float]:
    """Edges whose last one is a hair lower, or whose only one is."""
    *rest, last = keep
    return [*rest, math.nextafter(last, 0.0)] if not rest or rest[-1] < math.nextafter(last, 0.0) else rest


def a_rate_that_no_part_holds(proof: Honest) -> Data:
    """Every part ends one double earlier."""

    def change(leaf: Data) -> None:
        for part in leaf["parts"]:
            part["keep"] = shortened(part["keep"])

    return every_leaf(proof, change)


def a_part_of_another_option(proof: Honest) -> Data:
    def change(leaf: Data) -> None:
        for part in leaf["parts"]:
            part["option"] += 7

    return every_leaf(proof, change)


def edges_that_fall(proof: Honest) -> Data:
    """Cells from right to left."""

    def change(leaf: Data) -> None:
        for part in leaf["parts"]:
            part["keep"] = [1.0, *part["keep"]]

    return every_leaf(proof, change)


# -- numbers ----------------------------------------------------------------------------------------------------


def a_price_below_zero(proof: Honest) -> Data:
    """What nobody buys is a gift to the bound."""

    def change(leaf: Data) -> None:
        leaf["prices"][0] = -1e3

    return every_leaf(proof, change)


def a_price_too_few(proof: Honest) -> Data:
    """The last sub-carrier is not paid for."""
    return every_leaf(proof, lambda leaf: leaf["prices"].pop())


def a_cost_too_many(proof: Honest) -> Data:
    """Of a device that there is not."""
    return every_leaf(proof, lambda leaf: leaf["least"].append(1e3))


def a_share_below_zero(proof: Honest) -> Data:
    return every_leaf(proof, lambda leaf: leaf.update(kept_share=-0.5))


def a_negative_slope(proof: Honest) -> Data:
    """A set that earns more than it needs would be closed for it."""

    def change(leaf: Data) -> None:
        raised(proof, leaf)
        for part in leaf["parts"]:
            part["level_w"], part["slope"] = [*part["level_w"], 1e-3], [*part["slope"], -1e3]

    return every_leaf(proof, change)


def a_water_level_of_zero(proof: Honest) -> Data:
    """A watt would be worth more than any number."""

    def change(leaf: Data) -> None:
        raised(proof, leaf)
        for part in leaf["parts"]:
            part["level_w"], part["slope"] = [*part["level_w"], 0.0], [*part["slope"], 1.0]

    return every_leaf(proof, change)


# -- values -----------------------------------------------------------------------------------------------------


def a_device_that_costs_more(proof: Honest) -> Data:
    """The least cost raised, the cuts as they were."""
    return every_leaf(proof, lambda leaf: raised(proof, leaf))


def cuts_of_every_size(proof: Honest) -> Data:
    """Slopes and levels at the ends of the range of doubles beside the honest ones: digits are to be lost."""

    def change(leaf: Data) -> None:
        raised(proof, leaf)
        for part in leaf["parts"]:
            for level in (1e-300, 1e-3, 1e300):
                for slope in (1e-300, 1e60, 1e300):
                    part["level_w"], part["slope"] = [*part["level_w"], level], [*part["slope"], slope]
            part["exclude_w"] = [*part["exclude_w"], 1e-300, 1e-3, 1.0, 1e300]

    return every_leaf(proof, change)


def leaving_out_for_less(proof: Honest) -> Data:
    """Leaving the device out costs what the instance says, whatever the leaf says."""

    def change(leaf: Data) -> None:
        leaf["least"][0] = 1e3

    return every_leaf(proof, change)


def all_counted_as_left_out(proof: Honest) -> Data:
    """The honest parts, turned into a claim that one device cannot be served."""

    def change(leaf: Data) -> None:
        leaf["prices"], leaf["least"] = [0.0] * len(leaf["prices"]), [0.5] * len(leaf["least"])

    return every_leaf(proof, change, None)


def a_hair_counted_as_left_out(proof: Honest) -> Data:
    """Costs so near 0 that only rounding could part them from it."""

    def change(leaf: Data) -> None:
        leaf["prices"] = [0.0] * len(leaf["prices"])
        leaf["least"] = [1e-12] + [-1e-13] * (len(leaf["least"]) - 1)

    return every_leaf(proof, change, None)


def infeasible_where_all_may_be_left_out(proof: Honest) -> Data:
    return proof.forged(None, nothing)


def a_claim_above_the_optimum(proof: Honest) -> Data:
    """The whole proof is honest but for its first line."""
    return proof.forged(proof.objective + 1e-7 * abs(proof.objective), nothing)


CARRIER_TRICKS: tuple[Trick, ...] = (
    Trick(only_rates_that_nobody_may_take, EVERY, "nodes[0]", "keep rates (", TREE_OFF),
    Trick(a_hole_between_two_children, EVERY, "nodes[0]", "keep rates (", TREE_OFF),
    Trick(options_that_nobody_has, EVERY, "nodes[0]", "option 0: keep rates (", TREE_OFF),
    Trick(one_interval_for_all, UNSELECTED, "nodes[0]", "where each has a keep rate of its own", TREE_OFF),
    Trick(children_of_two_kinds, EVERY, "nodes[0]", "other than one sub-carrier owned and not owned", TREE_OFF),
    Trick(owned_by_all, EVERY, "nodes[0]", "other than one sub-carrier owned and not owned", TREE_OFF),
    Trick(
        owned_or_another_not_owned, EVERY, "nodes[0]", "other than one sub-carrier owned and not owned", TREE_OFF
    ),
    Trick(a_subcarrier_that_is_none, UNSELECTED, "nodes[1].cut", "that exist"),
    Trick(prices_above_children, UNSELECTED, "nodes[0]", "none: it has children"),
    Trick(a_leaf_without_a_proof, UNSELECTED, "nodes[0]", "neither prices nor children"),
    Trick(a_device_without_parts, UNSELECTED, "nodes[", "is in no part", ((LEAF + "check_parts", nothing),)),
    Trick(a_rate_that_no_part_holds, EVERY, "nodes[", "is in no part"),
    Trick(a_part_of_another_option, UNSELECTED, "nodes[", "an option that exist"),
    Trick(edges_that_fall, UNSELECTED, "nodes[", "increasing keep rates"),
    Trick(a_price_below_zero, UNSELECTED, "nodes[", "numbers >= 0"),
    Trick(a_price_too_few, UNSELECTED, "nodes[", "numbers >= 0"),
    Trick(a_cost_too_many, EVERY, "nodes[", " numbers", NUMBERS_OFF),
    Trick(a_share_below_zero, UNSELECTED, "nodes[", "kept_share in [0, 1]"),
    Trick(a_negative_slope, UNSELECTED, "nodes[", "slopes >= 0"),
    Trick(a_water_level_of_zero, UNSELECTED, "nodes[", "levels > 0"),
    Trick(a_device_that_costs_more, EVERY, "nodes[", "sets that nothing excludes", SETS_OFF),
    Trick(cuts_of_every_size, EVERY, "nodes[", "sets that nothing excludes", SETS_OFF),
    Trick(leaving_out_for_less, ("selection",), "nodes[", "but left out it costs"),
    Trick(all_counted_as_left_out, UNSELECTED, "nodes[", "sets that nothing excludes", SETS_OFF),
    Trick(a_hair_counted_as_left_out, UNSELECTED, "nodes[", "devices left out"),
    Trick(infeasible_where_all_may_be_left_out, ("selection",), "lower_bound", "every device can be left out"),
    Trick(a_claim_above_the_optimum, EVERY, "nodes[", "proves"),
)
