"""Forgers' tricks with a stability term per cluster: another partition, and prices that are not a cluster's own.

Why each would work, were the step not checked, is in its docstring; see :mod:`tests.verify.forging.trick`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tests.verify.forging.bands import (
    EVERY,
    PIECES_OFF,
    a_claim_above_the_optimum,
    a_device_without_pieces,
    a_mix_beyond_one,
    a_negative_multiplier,
    a_piece_of_the_last_device,
    a_piece_that_ends_before_it_begins,
    high_rates_only,
    mine,
)
from tests.verify.forging.carriers import LEAF, a_device_without_parts
from tests.verify.forging.honest import CLUSTERED, CLUSTERED_CARRIERS, Data, Honest
from tests.verify.forging.trick import Trick, nothing

__all__ = ["CLUSTER_TRICKS"]

OF = tuple(CLUSTERED)
ON = tuple(CLUSTERED_CARRIERS)
BOTH = OF + ON


def _as_if(clusters: list[int]) -> Callable[[Any], Any]:
    """A checker that takes the partition from elsewhere than the instance."""
    return lambda _: (sorted(set(clusters)), np.unique(clusters, return_inverse=True)[1])


def partition(clusters: list[int]) -> tuple[tuple[str, Any], ...]:
    """What switches off that the instance says who is in which cluster."""
    return (("edgealloc.verify.proof.pools._clusters", _as_if(clusters)),)


def shares(data: Data, change: Callable[[list[float]], Any]) -> None:
    """Another Q0 at every leaf and in every round."""
    for entry in (*data["nodes"], *data.get("rounds", ())):
        if "kept_share" in entry:
            entry["kept_share"] = change(copy.copy(entry["kept_share"]))


def of_other(proof: Honest, name: str) -> Data:
    """An honest proof of the instance with other clusters, under the name of this one."""
    return replace(proof, data=proof.others[name]).forged(proof.others[name]["lower_bound"], nothing)


def each_device_its_own_cluster(proof: Honest) -> Data:
    """Terms of fewer samples are larger: what is proved of device pooling is more than clusters cost."""
    return of_other(proof, "devices")


def another_partition(proof: Honest) -> Data:
    """Whoever puts other devices together pays another price; as many clusters, so that the lists fit."""
    return of_other(proof, "partition")


def the_rule_of_one_pool(proof: Honest) -> Data:
    """One Q0 for all, as under global pooling, where each cluster has its own."""
    return proof.forged(proof.above, lambda data: shares(data, lambda q: q[0]))


def a_list_where_all_are_pooled(proof: Honest) -> Data:
    """A Q0 of each device, where there is one term: its constant would count as often."""
    count = proof.instance.num_devices
    return proof.forged(proof.above, lambda data: shares(data, lambda q: [q] * count))


def a_cluster_left_out(proof: Honest) -> Data:
    """The devices of a cluster without a price pay nothing for what they keep."""
    return proof.forged(proof.above, lambda data: shares(data, lambda q: q[:-1]))


def a_cluster_counted_twice(proof: Honest) -> Data:
    """Its constant, which is not negative, would be added again."""
    return proof.forged(proof.above, lambda data: shares(data, lambda q: [*q, q[-1]]))


def the_price_of_another_cluster(proof: Honest) -> Data:
    """Each cluster touched where the other should be, so that one of them pays too much."""
    return proof.forged(proof.above, lambda data: shares(data, lambda q: q[::-1]))


def shares_beyond_one(proof: Honest) -> Data:
    """Where the stability terms have no value, nor have their tangents one."""
    return proof.forged(proof.above, lambda data: shares(data, lambda q: [1.06] * len(q)))


def a_round_with_one_share(proof: Honest) -> Data:
    """Leaves as they should be, but pieces are dropped by the rule of one pool."""

    def change(data: Data) -> None:
        data["rounds"] = [{"price_per_hz": 0.0, "kept_share": 0.5, "pieces": mine(data)}]

    return proof.forged(None, change)


def a_partition_that_comes_along(proof: Honest) -> Data:
    """The certificate says itself who is in which cluster."""

    def change(data: Data) -> None:
        data["clusters"] = list(range(proof.instance.num_devices))

    return replace(proof, data=proof.others["devices"]).forged(proof.others["devices"]["lower_bound"], change)


CLUSTER_TRICKS: tuple[Trick, ...] = (
    Trick(each_device_its_own_cluster, OF, "", "a list of 2 numbers", partition([0, 1, 2, 3])),
    Trick(each_device_its_own_cluster, ON, "nodes[", "a list of 2 numbers", partition([0, 1, 2])),
    Trick(another_partition, OF, "", "proves", partition([0, 0, 1, 1])),
    Trick(another_partition, ON, "nodes[", "", partition([0, 1, 0])),
    Trick(the_rule_of_one_pool, BOTH, "", "a list of 2 numbers"),
    Trick(a_list_where_all_are_pooled, (*EVERY[:2], "two by four"), "nodes[", "kept_share in [0, 1]"),
    Trick(a_cluster_left_out, BOTH, "", "a list of 2 numbers"),
    Trick(a_cluster_counted_twice, BOTH, "", "a list of 2 numbers"),
    Trick(the_price_of_another_cluster, BOTH, "", "proves"),
    Trick(shares_beyond_one, BOTH, "", "in [0, 1]"),
    Trick(a_round_with_one_share, OF, "rounds[0]", "a list of 2 numbers"),
    Trick(a_partition_that_comes_along, BOTH, "clusters", "no such key"),
    Trick(a_device_without_pieces, OF, "pieces", "a cover of its keep rates", PIECES_OFF),
    Trick(a_piece_of_the_last_device, OF, "pieces.device", "devices 0..3", PIECES_OFF),
    Trick(a_piece_that_ends_before_it_begins, OF, "pieces[", "0 < left <= right <= 1", PIECES_OFF),
    Trick(high_rates_only, OF, "pieces", "a cover of its keep rates", PIECES_OFF),
    Trick(a_negative_multiplier, OF, "", "proves"),
    Trick(a_mix_beyond_one, OF, "", "proves"),
    Trick(a_claim_above_the_optimum, BOTH, "", "at "),
    Trick(a_device_without_parts, ON, "nodes[", "is in no part", ((LEAF + "check_parts", nothing),)),
)
