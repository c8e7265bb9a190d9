"""Solutions as objects, which hold what no file can: refused by the field, and never a traceback."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgealloc import solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.solution import Solution
from edgealloc.verify.bound import bound_value
from edgealloc.verify.budgets import check_budgets, demand_of
from edgealloc.verify.solution import verify
from tests.conftest import small_instance


def coherent(instance: Instance, solution: Solution) -> Solution:
    """The same with what it uses and is worth as the checker recomputes it, and no bound."""
    demand = demand_of(instance, solution)
    use = check_budgets(instance, solution, demand)
    value = bound_value(instance, solution.keep, solution.selected, demand.underfit_factor)
    return replace(
        solution, status=Status.FEASIBLE, objective=value, lower_bound=None, rel_gap=None, excess_gap=None,
        rate_bps=use.rate_bps, latency_s=use.latency_s, energy_j=use.energy_j,
    )  # fmt: skip


def frugal(instance: Instance) -> Solution:
    """A feasible solution at the least keep rates, where there is room for tricks."""
    found = solve(instance, "bnb").solution()
    return coherent(instance, replace(found, keep=instance.keep_min.copy(), dropout=1.0 - instance.keep_min))


def less_than_no_power(instance: Instance, solution: Solution) -> Solution:
    """Half as much again as a device may send with, which a sub-carrier that it owns beside pays for."""
    k = next(k for k, mine in enumerate(solution.subcarriers) if len(mine or ()) == 2)
    watts, most = list(solution.power_w), float(instance.power_max_w[k])
    watts[k] = (1.5 * most, -0.6 * most)
    return replace(solution, power_w=tuple(watts))


def the_last_but_one_counted_from_the_end(instance: Instance, solution: Solution) -> Solution:
    """Two devices on one sub-carrier, which has two names."""
    count, owned = instance.num_subcarriers or 0, list(solution.subcarriers)
    giver = next(k for k, mine in enumerate(owned) if len(mine or ()) == 2)
    taker, watts = (giver + 1) % len(owned), list(solution.power_w)
    owned[taker], watts[taker] = ((owned[giver] or ())[0] - count,), (float(instance.power_max_w[taker]),)
    return replace(solution, subcarriers=tuple(owned), power_w=tuple(watts))


@pytest.mark.parametrize(
    ("trick", "field"),
    [(less_than_no_power, "power_w"), (the_last_but_one_counted_from_the_end, "subcarriers")],
)
def test_a_coherent_liar_is_refused(monkeypatch: pytest.MonkeyPatch, trick: Any, field: str) -> None:
    """All else is as recomputed: without the look at the numbers themselves it would be accepted."""
    instance = small_instance("ofdma", 3, 6)
    honest = frugal(instance)
    assert verify(instance, honest).ok
    lied = coherent(instance, trick(instance, honest))
    assert [fault.field for fault in verify(instance, lied).faults] == [field]
    monkeypatch.setattr("edgealloc.verify.solution.check_numbers", lambda *_: None)
    assert verify(instance, lied).ok


@pytest.mark.parametrize("access", ["fdma", "rb", "ofdma"])
def test_numbers_that_are_none_are_refused_by_their_field(access: Any) -> None:
    instance = small_instance(access, 3, 6)
    solution = solve(instance, "bnb").solution()
    assert verify(instance, solution).ok

    def named(**lies: Any) -> set[str]:
        return {fault.field for fault in verify(instance, replace(solution, **lies)).faults}

    for key in ("objective", "free_objective", "lower_bound", "rel_gap", "excess_gap"):
        for value in (math.nan, math.inf, -math.inf):
            assert key in named(**{key: value}), (key, value)
    for key in ("keep", "dropout", "freq_hz", "rate_bps", "latency_s", "energy_j"):
        for value in (math.nan, math.inf, -1.0):
            column = getattr(solution, key).copy()
            column[1] = value
            assert key in named(**{key: column}), (key, value)
        assert named(**{key: getattr(solution, key)[:2]}) == {key}
    for key in ("subcarriers", "power_w", "adapter_option"):
        assert named(**{key: getattr(solution, key)[:2]}) == {key}
    assert named(selected=np.ones((3, 1), bool)) == {"selected"}
    for carrier in (0.5, True, -1, "1"):
        if access == "ofdma":
            own = (carrier, *(solution.subcarriers[0] or ())[1:])
            assert named(subcarriers=(own, *solution.subcarriers[1:])) == {"subcarriers"}
    for watt in (math.nan, math.inf, -1e-3):
        own = (watt, *solution.power_w[0][1:]) if isinstance(solution.power_w[0], tuple) else watt
        assert named(power_w=(own, *solution.power_w[1:])) == {"power_w"}
