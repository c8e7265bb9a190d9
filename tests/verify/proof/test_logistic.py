"""The logistic underfitting term: in the model, in certificates, and in what the checker accepts."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flint import ctx

from edgealloc import Problem, solve
from edgealloc.data.instance import Instance
from edgealloc.data.spec import UnderfitLogistic
from edgealloc.formulation.logistic import Logistic as Term
from edgealloc.formulation.logistic import deepest_rate
from edgealloc.units import FloatArray
from edgealloc.verify.curve_minimum import curve_minimum
from edgealloc.verify.proof.enclosures import Balls, Intervals
from edgealloc.verify.proof.logistic import Logistic
from tests.solvers.ofdma.oracle import random_logistic, random_ofdma
from tests.verify.proof.test_curve import proved
from tests.verify.spoiling import mutate, refused

EXTREMES = [(h, m) for h in (1e-6, 0.3, 1e6) for m in (1e-6, 0.9, 1.0, 1.5, 2.0, 2.5, 40.0, 1e6)]
EXTREMES += [(1e-100, 1e9), (1e100, 1e9), (1e-100, 1e-300), (1e100, 0.5)]


def rates(half: float, steepness: float, rng: np.random.Generator) -> FloatArray:
    """Keep rates all over the range and over the fall."""
    fall = np.exp(np.clip(np.log(half) + rng.uniform(-40, 40, 20) / steepness, -30, 0))
    return np.concatenate((10.0 ** rng.uniform(-6, 0, 20), fall, np.clip([half, half / 2], 1e-9, 1)))


def truth(half: float, steepness: float, keep: FloatArray) -> FloatArray:
    """The term in balls of 300 bits, rounded to doubles."""
    with ctx.workprec(300):
        return Logistic.of(UnderfitLogistic(half, steepness), Balls).value(keep).lower()


@pytest.mark.parametrize(("half", "steepness"), EXTREMES)
def test_values_are_right_and_enclosed(half: float, steepness: float) -> None:
    keep = rates(half, steepness, np.random.default_rng(1))
    exact, term = truth(half, steepness, keep), Term(half, steepness)
    assert np.all(np.abs(term(keep) - exact) <= 2.0**-50)
    known = Logistic.of(UnderfitLogistic(half, steepness), Intervals).value(keep)
    assert np.all((known.lower() <= exact) & (exact <= known.upper()))
    assert np.all((known.lower() >= -1e-300) & (known.upper() <= 1.0 + 1e-15))
    width = known.upper() - known.lower()
    assert np.all(width <= 1e-13 * (1.0 + steepness))
    near, step = keep[(keep > 1e-5) & (keep < 0.9)], 1e-7 / (1.0 + steepness)
    rise = (truth(half, steepness, near * (1 + step)) - truth(half, steepness, near * (1 - step))) / (
        2 * step * near
    )
    assert term.slope(near) == pytest.approx(rise, rel=1e-4, abs=1e-7 * (1.0 + steepness) / near.min())


@pytest.mark.parametrize(("half", "steepness"), EXTREMES)
def test_values_never_rise(half: float, steepness: float) -> None:
    term, rng = Term(half, steepness), np.random.default_rng(2)
    keep = np.unique(np.concatenate([rates(half, steepness, rng) for _ in range(50)]))
    assert np.all(np.diff(term(keep)) <= 0.0)
    for start in np.clip([half, half / 2, 0.9 * half], 1e-9, 0.999):  # from one double to the next
        close = start + np.arange(2000) * np.spacing(start)
        assert np.all(np.diff(term(close)) <= 2.0**-52)


def test_inflections_part_concave_from_convex() -> None:
    for half, steepness in ((0.3, 2.5), (0.4, 8.0), (0.2, 1.2), (0.6, 40.0)):
        term = Term(half, steepness)
        for power in (1.0, 2.0):
            bend = term.inflection(power)
            under, over = Logistic.of(UnderfitLogistic(half, steepness), Intervals).bends[int(power) - 1]
            assert under <= bend <= over
            assert over - under <= 1e-13 * max(bend, 1e-9)
            for low, high, sign in ((0.05, bend, -1.0), (bend, 1.0, 1.0)):
                if not low < high:
                    continue
                x = np.linspace(low**power, high**power, 400)
                assert np.all(sign * np.diff(term(x ** (1.0 / power)), 2) >= -1e-15)
    assert Term(0.3, 2.0).inflection(2.0) == Term(0.3, 0.9).inflection(1.0) == 0.0


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("half", "steepness"), EXTREMES)
def test_lines_lie_below(half: float, steepness: float, squared: bool) -> None:
    """Those of the checker and, in s^2, of the model: over short intervals and over the inflection."""
    rng, exact = np.random.default_rng(3), Logistic.of(UnderfitLogistic(half, steepness), Intervals)
    left = np.repeat(rates(half, steepness, rng), 4)
    right = np.minimum(
        np.where(rng.random(len(left)) < 0.5, left * (1 + 10.0 ** rng.uniform(-15, 0, len(left))), 1), 1
    )
    with np.errstate(all="ignore"):
        lines = [[end.lower() for end in exact.ends(left, right, squared)]]
    lines += [list(Term(half, steepness).square_line(left, right))] if squared else []
    for part in (0.0, 1e-3, 0.2, 0.5, 0.9, 1.0):
        keep = np.clip(left + part * (right - left), left, right)
        wide = (right - left) * (right + left if squared else 1.0)
        share = np.where(
            wide > 0, (keep - left) * (keep + left if squared else 1.0) / np.where(wide > 0, wide, 1), 0
        )
        for first, last in lines:
            assert np.all(first + share * (last - first) <= truth(half, steepness, keep) + 4e-15)
    near = right - left <= 1e-6 * left / (1.0 + steepness)
    for first, last in lines:  # and not far below, where the interval is short
        assert np.all((truth(half, steepness, right) - np.minimum(first, last))[near] <= 1e-5)


@pytest.mark.parametrize(
    ("half", "steepness"), [(0.3, 2.5), (0.4, 8.0), (0.5, 300.0), (0.3, 1e6), (0.05, 1.5), (2.0, 0.5)]
)
@pytest.mark.parametrize("count", [4, pytest.param(15, marks=pytest.mark.slow)])
def test_the_deepest_valley_is_found_by_both(half: float, steepness: float, count: int) -> None:
    """With a convex term of any strength, against a grid that sees all of the fall."""
    rng, term = np.random.default_rng(4), Term(half, steepness)
    for _ in range(count):
        price, power = 10.0 ** rng.uniform(-2, 1), rng.choice([1.0, 1.0, 2.0, 6.0])

        def spread(
            _k: Any, square: FloatArray, price: float = price, power: float = power
        ) -> tuple[FloatArray, FloatArray]:
            return price * square**power, price * power * square ** (power - 1.0)

        low, high = np.array([10.0 ** rng.uniform(-3, -1)]), np.array([rng.uniform(0.4, 1.0)])
        keep = deepest_rate(term, np.ones(1), low, high, spread)
        value = float((term(keep) + spread(0, keep**2)[0])[0])
        grid = np.unique(np.clip(np.concatenate((np.linspace(low[0], high[0], 4001), term.fall())), low, high))
        least = float(np.min(term(grid) + spread(0, grid**2)[0]))
        below, above, _ = curve_minimum(UnderfitLogistic(half, steepness), np.ones(1), low, high, spread)
        assert value <= least * (1.0 + 1e-12)
        assert below[0] <= value * (1.0 + 1e-12)
        assert above[0] <= value * (1.0 + 1e-9) + 1e-13
        assert above[0] - below[0] <= 1e-9 * (1.0 + steepness * 1e-6)


def learning(instance: Instance, half: float, steepness: float, **changes: Any) -> Instance:
    """The instance with a logistic term."""
    term = UnderfitLogistic(half, steepness)
    bound = replace(instance.bound, underfit="logistic", underfit_curve=None, underfit_logistic=term, **changes)
    return replace(instance, bound=bound)


@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize(("half", "steepness"), [(0.3, 2.5), (0.1, 8.0), (0.2, 1e6), (1e-6, 1e-6), (1e6, 1e6)])
def test_cells_are_proved(make_instance: Any, half: float, steepness: float, pooling: str) -> None:
    scarce = {"bandwidth_hz": 1e4, "energy_j": np.array([1.0, 1.1, 1.2, 3.0]), "latency_s": 16.0}
    for access in ({}, {"access": "rb", "block_hz": 500.0}):
        instance = make_instance(devices=4, **scarce, **access)
        proved(learning(instance, half, steepness, pooling=pooling, underfit_weight=0.3))


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("part", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_random_subcarrier_cells_are_proved(common: bool, part: int) -> None:
    count = 0
    for seed in range((2 if common else 8) // part):
        rng = np.random.default_rng([18, seed])
        bound = random_logistic(rng)
        instance = random_ofdma(rng, bound=bound, **({"common_keep": True} if common else {}))
        if solve(instance, "bnb", rel_gap=1e-6, time_limit=20.0).status.has_allocation:
            proved(instance)
            count += 1
    assert count >= (1 if common else 5) // part


@pytest.fixture(scope="module")
def honest(make_instance: Any) -> list[tuple[Instance, float, dict[str, Any]]]:
    """Accepted certificates: continuous spectrum, blocks, sub-carriers."""
    scarce = {"bandwidth_hz": 1e4, "energy_j": np.array([1.0, 1.1, 1.2, 3.0]), "latency_s": 16.0}
    instances = [
        learning(make_instance(devices=4, **scarce), 0.1, 3.0, underfit_weight=0.3),
        learning(make_instance(devices=4, access="rb", block_hz=500.0, **scarce), 0.1, 3.0, underfit_weight=0.3),
        learning(random_ofdma(np.random.default_rng(3)), 0.2, 2.5, underfit_weight=0.5),
    ]
    return [(instance, *proved(instance, 1e-7)) for instance in instances]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_term_that_falls_earlier_is_not_covered(honest: Any, which: int) -> None:
    """The certificate of one half is none of a smaller half, under which devices lose less."""
    instance, _objective, data = honest[which]
    term = instance.bound.underfit_logistic
    for factor in (0.5, 0.9, 0.999):
        other = learning(instance, factor * term.half, term.steepness)
        assert refused(other, data) or solve(other, "bnb", rel_gap=1e-7).objective >= data["lower_bound"]
    assert refused(learning(instance, 0.5 * term.half, term.steepness), data)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_no_mutant_proves_more_than_the_optimum(honest: Any, which: int) -> None:
    rng = np.random.default_rng(which)
    instance, objective, data = honest[which]
    untouched = copy.deepcopy(data)
    untouched["lower_bound"] = objective * (1 + 1e-9)
    for _ in range(40):
        bad = copy.deepcopy(untouched)
        mutate(bad, rng)
        assert refused(instance, bad)


@pytest.mark.parametrize("method", ["convex", "cvxpy", "pyomo", "scip"])
def test_methods_that_cannot_refuse_it_by_name(make_instance: Any, method: str) -> None:
    instance = learning(make_instance(), 0.3, 2.5)
    assert not Problem(instance).structure.log_convex
    with pytest.raises(Exception, match=f"(?s){method}.*(inverse-keep|log-convex)"):
        solve(instance, method)
