"""Forgers' tricks with certificates by pieces and prices: each a lie at one step, the rest of the proof honest.

A trick returns the claim and the change of an honest certificate; its docstring says why it would work, were the
step not checked. ``Trick.off`` is what switches the step off: then the forgery must be accepted, for it was aimed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from edgealloc.verify.proof.cover import check_tree
from tests.verify.forging.honest import BANDS, COMMON, Data, Honest
from tests.verify.forging.trick import Forge, Trick, nothing

__all__ = ["BAND_TRICKS", "a_cap_that_fits", "a_leaf_that_says_nothing_fits"]


def _tree_believed(instance: Any, certificate: Any, _report: Any) -> Any:
    return check_tree(instance, certificate, nothing)


CHECKER = "edgealloc.verify.certificate."
PIECES_OFF = ((CHECKER + "check_cover", nothing),)
TREE_OFF = ((CHECKER + "check_tree", _tree_believed),)
EVERY = tuple(BANDS)
UNSELECTED = tuple(name for name, changes in BANDS.items() if "exclusion_penalty" not in changes)


def leaves(data: Data) -> list[Data]:
    """Nodes with prices."""
    return [node for node in data["nodes"] if "price_per_hz" in node]


def mine(data: Data, device: int = 0) -> list[int]:
    """Numbers of the pieces of a device."""
    return [i for i, k in enumerate(data["pieces"]["device"]) if k == device]


def keep_pieces(data: Data, some: Iterable[int]) -> None:
    """Lose all other pieces."""
    pieces, chosen = data["pieces"], list(some)
    for table in (pieces, pieces["line"], pieces["start"] or {}):
        for key, column in table.items():
            if isinstance(column, list):
                table[key] = [column[i] for i in chosen]
    data["rounds"] = []


def planes(data: Data, **values: float) -> None:
    """The same numbers for the planes of all pieces."""
    for table in (data["pieces"]["line"], data["pieces"]["start"]):
        if table is not None:
            for key, value in values.items():
                table[key] = [value] * len(table[key])


# -- pieces -----------------------------------------------------------------------------------------------------


def a_device_without_pieces(proof: Honest) -> Data:
    """Nothing is left for the device to do, so that nothing is feasible."""
    return proof.forged(
        None, lambda data: keep_pieces(data, set(range(len(data["pieces"]["left"]))) - {*mine(data)})
    )


def a_piece_of_the_last_device(proof: Honest) -> Data:
    """Device -1 is the last one for numpy: the first loses all it may do."""

    def change(data: Data) -> None:
        for i in mine(data):
            data["pieces"]["device"][i] = -1
        data["rounds"] = []

    return proof.forged(None, change)


def a_piece_that_ends_before_it_begins(proof: Honest) -> Data:
    """No box holds such a piece."""

    def change(data: Data) -> None:
        pieces = data["pieces"]
        for i in mine(data):
            pieces["left"][i], pieces["right"][i] = pieces["right"][i] or 1.0, 0.5 * pieces["left"][i]
        data["rounds"] = []

    return proof.forged(None, change)


def high_rates_only(proof: Honest) -> Data:
    """The true proof that all devices at their greatest rate need more than there is; they may take less."""
    assert proof.greedy is not None
    return replace(proof, data=proof.greedy).forged(None, nothing)


def nobody_may_be_left_out(proof: Honest) -> Data:
    """Without the pieces of leaving out, whoever has to serve all needs more than there is."""
    return proof.forged(
        proof.above,
        lambda data: keep_pieces(data, [i for i, o in enumerate(data["pieces"]["option"]) if o >= 0]),
    )


def a_plane_that_touches_at_no_rate(proof: Honest) -> Data:
    """A logarithm of a negative keep rate."""
    return proof.forged(proof.above, lambda data: planes(data, touch=-0.5))


def a_negative_efficiency(proof: Honest) -> Data:
    return proof.forged(proof.above, lambda data: planes(data, efficiency=-2.0))


def a_negative_multiplier(proof: Honest) -> Data:
    """A constraint that holds with <= adds to the bandwidth when its multiplier is negative."""
    return proof.forged(proof.above, lambda data: planes(data, limit=1, multiplier=-1e12))


def a_mix_beyond_one(proof: Honest) -> Data:
    """Outside [0, 1] a geometric mean of two times is no longer an upper bound of the least of them."""
    return proof.forged(proof.above, lambda data: planes(data, mix=1.5))


def a_constraint_that_is_none(proof: Honest) -> Data:
    return proof.forged(proof.above, lambda data: planes(data, limit=7, multiplier=1e12))


def blocks_without_their_start(proof: Honest) -> Data:
    """Rounding up to blocks is not asked for where no start is given."""

    def change(data: Data) -> None:
        pieces = data["pieces"]
        pieces["start"] = None if pieces["start"] is not None else dict(pieces["line"])

    return proof.forged(proof.above, change)


# -- tree -------------------------------------------------------------------------------------------------------


def emptied(data: Data, node: Data) -> Data:
    """What a forger puts into a box that holds nothing of one device: any prices."""
    return node | {"price_per_hz": 0.0, "kept_share": 0.5}


def missing_children(data: Data, cuts: list[Data]) -> None:
    """A tree of a root and children with these cuts, all of them empty boxes."""
    whole: Data = {"options": None, "low": 0.0, "high": 1.0}
    data["nodes"] = [{"parent": -1}, *(emptied(data, {"parent": 0, "cut": whole | cut}) for cut in cuts)]
    data["rounds"] = []


def tree(*cuts: Data) -> Forge:
    """The claim that nothing is feasible, by children that leave everything out."""
    return lambda proof: proof.forged(None, lambda data: missing_children(data, list(cuts)))


def only_rates_that_nobody_may_take(proof: Honest) -> Data:
    """One child, below every least keep rate: an empty box proves anything."""
    return tree({"device": 0, "options": [0], "high": 1e-3})(proof)


def a_hole_between_two_children(proof: Honest) -> Data:
    """Below the least rate and above the greatest one; what lies between is in neither."""
    return tree(
        {"device": 0, "options": [0], "high": 1e-3}, {"device": 0, "options": [0], "low": 1.5, "high": 2.0}
    )(proof)


def options_that_nobody_has(proof: Honest) -> Data:
    """Children for rows of the menu that do not exist, and none for those that do."""
    return tree({"device": 0, "options": [7]}, {"device": 0, "options": []})(proof)


def children_at_different_devices(proof: Honest) -> Data:
    """One child restricts the first device, the other the second: most of the box is in neither."""
    return tree({"device": 0, "options": [0], "high": 1e-3}, {"device": 1, "options": [0], "high": 1e-3})(proof)


def one_interval_for_all(proof: Honest) -> Data:
    """Everybody low, or everybody high: whoever has one device on each side is in neither child."""
    return tree({"device": None, "high": 1e-3}, {"device": None, "low": 1.5, "high": 2.0})(proof)


def a_root_that_is_cut(proof: Honest) -> Data:
    """What the root leaves out is nowhere."""

    def change(data: Data) -> None:
        cut = {"device": 0, "options": [0], "low": 0.0, "high": 1e-3}
        data["nodes"] = [emptied(data, {"parent": -1, "cut": cut})]
        data["rounds"] = []

    return proof.forged(None, change)


def a_node_that_is_its_own_parent(proof: Honest) -> Data:
    """A circle beside the root: its boxes would cover each other."""

    def change(data: Data) -> None:
        missing_children(data, [{"device": 0, "high": 1e-3}])
        data["nodes"][1]["parent"] = 1

    return proof.forged(None, change)


def prices_above_children(proof: Honest) -> Data:
    """The node is judged as a leaf or as a parent, whichever suits the forger."""

    def change(data: Data) -> None:
        missing_children(data, [{"device": 0, "low": 0.0, "high": 1.0}])
        data["nodes"][0] = emptied(data, data["nodes"][0])

    return proof.forged(proof.above, change)


# -- values -----------------------------------------------------------------------------------------------------


def a_price_below_zero(proof: Honest) -> Data:
    """``-mu B`` becomes a gift; without planes nobody pays for it."""

    def change(data: Data) -> None:
        planes(data, efficiency=0.0)
        price = -3.0 * (abs(proof.objective) + 1.0) / proof.instance.bandwidth_hz
        data["nodes"], data["rounds"] = [{"parent": -1, "price_per_hz": price, "kept_share": 0.5}], []

    return proof.forged(proof.above, change)


def a_share_beyond_one(proof: Honest) -> Data:
    """Where the stability term has no value, nor has its tangent one."""

    def change(data: Data) -> None:
        for node in leaves(data):
            node["kept_share"] = 1.06

    return proof.forged(proof.above, change)


def pieces_dropped_for_nothing(proof: Honest) -> Data:
    """A round that drops all that a device may do, at prices that prove nothing about it."""

    def change(data: Data) -> None:
        data["rounds"] = [{"price_per_hz": 0.0, "kept_share": 0.5, "pieces": mine(data)}]

    return proof.forged(None, change)


def a_round_of_negative_pieces(proof: Honest) -> Data:
    """Piece -1 is the last one for numpy."""

    def change(data: Data) -> None:
        data["rounds"] = [{"price_per_hz": 0.0, "kept_share": 0.5, "pieces": [-1]}]

    return proof.forged(proof.above, change)


def a_leaf_that_says_nothing_fits(proof: Honest) -> Data:
    """Without prices: the least bandwidths are to be more than there is, and are not."""

    def change(data: Data) -> None:
        data["nodes"], data["rounds"] = [{"parent": -1}], []

    return proof.forged(None, change)


def a_claim_above_the_optimum(proof: Honest) -> Data:
    """The whole proof is honest but for its first line."""
    return proof.forged(proof.objective * (1.0 + 1e-7), nothing)


# -- one common rate --------------------------------------------------------------------------------------------


def capped(factor: float) -> Callable[[Data], None]:
    """The cap lowered, with all that belongs to it."""

    def change(data: Data) -> None:
        data["cap"] *= factor
        data["touch"] = min(data["touch"], data["cap"])
        data["pieces"]["left"] = [data["cap"]] * len(data["pieces"]["left"])

    return change


def a_cap_that_fits(proof: Honest) -> Data:
    """A lower cap proves more: G falls up to it."""
    return proof.forged(proof.above, capped(0.9))


def pieces_that_begin_beyond_the_cap(proof: Honest) -> Data:
    """At a higher rate the spectrum is too small, but that says nothing of the cap."""

    def change(data: Data) -> None:
        left = [1.0] * len(data["pieces"]["left"])
        capped(0.9)(data)
        data["pieces"]["left"] = left

    return proof.forged(proof.above, change)


def one_device_for_all(proof: Honest) -> Data:
    """The greediest device counted as often as there are devices."""

    def change(data: Data) -> None:
        capped(0.9)(data)
        data["pieces"]["device"] = [0] * len(data["pieces"]["device"])

    return proof.forged(proof.above, change)


def a_tangent_outside_of_what_is_allowed(proof: Honest) -> Data:
    def change(data: Data) -> None:
        data["touch"] = 1.5

    return proof.forged(proof.above, change)


def a_cap_below_every_rate(proof: Honest) -> Data:
    """Nothing lies between the least rate and the cap, so nothing is bounded."""

    def change(data: Data) -> None:
        capped(1e-3)(data)
        data["touch"] = float(proof.instance.keep_min.max())

    return proof.forged(proof.above, change)


BAND_TRICKS: tuple[Trick, ...] = (
    Trick(a_device_without_pieces, EVERY, "pieces", "a cover of its keep rates", PIECES_OFF),
    Trick(a_piece_of_the_last_device, EVERY, "pieces.device", "devices 0..3", PIECES_OFF),
    Trick(a_piece_that_ends_before_it_begins, EVERY, "pieces[", "0 < left <= right <= 1", PIECES_OFF),
    Trick(high_rates_only, UNSELECTED, "pieces", "a cover of its keep rates", PIECES_OFF),
    Trick(nobody_may_be_left_out, ("levels and selection",), "pieces", "nothing for leaving it out"),
    Trick(a_plane_that_touches_at_no_rate, EVERY[:3], "pieces.line[", "positive"),
    Trick(a_negative_efficiency, EVERY[:3], "pieces.line[", "positive"),
    Trick(a_negative_multiplier, EVERY, "", "proves"),
    Trick(a_mix_beyond_one, EVERY, "", "proves"),
    Trick(a_constraint_that_is_none, EVERY, "", "proves"),
    Trick(blocks_without_their_start, EVERY, "pieces.start", "other for access"),
    Trick(only_rates_that_nobody_may_take, EVERY, "nodes[0]", "keep rates (", TREE_OFF),
    Trick(a_hole_between_two_children, EVERY, "nodes[0]", "keep rates (", TREE_OFF),
    Trick(options_that_nobody_has, EVERY, "nodes[0]", "option 0: keep rates (", TREE_OFF),
    Trick(children_at_different_devices, EVERY, "nodes[0]", "children cut at different devices", TREE_OFF),
    Trick(one_interval_for_all, UNSELECTED, "nodes[0]", "where each has a keep rate of its own", TREE_OFF),
    Trick(a_root_that_is_cut, EVERY[:3], "nodes", "node 0 with parent -1 and no cut"),
    Trick(a_node_that_is_its_own_parent, EVERY[:3], "nodes[1]", "an earlier node, and a cut"),
    Trick(prices_above_children, EVERY[:3], "nodes[0]", "none: it has children"),
    Trick(a_price_below_zero, EVERY, "nodes[0]", "price_per_hz >= 0", TREE_OFF),
    Trick(a_share_beyond_one, ("convex", "menus"), "nodes[", "kept_share in [0, 1]"),
    Trick(
        pieces_dropped_for_nothing, EVERY, "rounds[0]", "only", ((CHECKER + "Model.forced", lambda *_: math.inf),)
    ),
    Trick(a_round_of_negative_pieces, EVERY[:3], "rounds[0].pieces", "pieces 0.."),
    Trick(
        a_leaf_that_says_nothing_fits,
        EVERY,
        "nodes[0]",
        "no prices, and bandwidths that may fit",
        ((CHECKER + "Model.crowded", lambda *_: True),),
    ),
    Trick(a_claim_above_the_optimum, (*EVERY, *COMMON), "", "at "),
    Trick(
        a_cap_that_fits,
        tuple(COMMON),
        "cap",
        "a keep rate that needs more",
        ((CHECKER + "sum_below", lambda _: math.inf),),
    ),
    Trick(pieces_that_begin_beyond_the_cap, tuple(COMMON), "pieces", "that begins at the cap or before"),
    Trick(one_device_for_all, tuple(COMMON), "pieces", "one piece per device"),
    Trick(a_tangent_outside_of_what_is_allowed, tuple(COMMON), "touch, cap", "rates within"),
    Trick(a_cap_below_every_rate, tuple(COMMON), "touch, cap", "rates within"),
)
