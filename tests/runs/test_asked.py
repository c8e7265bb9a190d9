"""Whatever is asked of a run that is no number, no plan, or out of all range: one clear error, no long search."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from edgealloc import InputError, LearningSpec, RunPlan, Status, plan_run, replan
from edgealloc.runs import NeededRounds, RunBudget, TrainingRun, plot_rounds, plot_run_front
from edgealloc.solvers.base import Options
from edgealloc.solvers.fdma.alone import least_value
from tests.conftest import small_instance

CURVE = LearningSpec(pace=0.6, exponent=1.5, order=2.0, overfit=4e-3, growth=1.6, protection=20.0)


class Hostile:
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        raise RuntimeError

    __iter__ = __float__ = __array__ = __len__ = __repr__


WRONG: dict[str, Any] = {
    "nan": math.nan,
    "too large": 1e300,
    "a huge integer": 10**5000,
    "text": "5",
    "a truth": True,
    "complex": 1 + 2j,
    "many": [5.0, 6.0, 7.0],
    "an array": np.array([3.0]),
    "a stranger": Hostile(),
}


@cache
def planned() -> RunPlan:
    return plan_run(small_instance("fdma", 2), time_s=60.0, energy_j=10.0, rounds=(1, 2), curve=CURVE, rel_gap=0.1)


def asked(**options: Any) -> Callable[[], object]:
    common: dict[str, Any] = {"rounds": (1, 2), "curve": CURVE, "rel_gap": 0.1}
    return lambda: plan_run(small_instance("fdma", 2), **common | options)


def calls(wrong: Any) -> dict[str, Callable[[], object]]:
    """Every option of every entry with a value that none of them takes, by the field that the error names."""
    target: dict[str, Any] = {"target": 0.6, "minimise": "time"}
    both: dict[str, Any] = {"target": 0.6, "minimise": "weighted", "energy_j": 10.0}
    found: dict[str, Callable[[], object]] = {
        "time_s": asked(time_s=wrong),
        "energy_j": asked(energy_j=wrong),
        "curve: learning": asked(curve=wrong),
        "rounds": asked(rounds=wrong),
        "rounds ": asked(rounds=(1, wrong)),
        "minimise": asked(target=0.6, minimise=wrong),
        "weights": asked(**both, weights=wrong),
        "method": asked(method=wrong),
        "callback": asked(callback=wrong),
        "constraints: type": asked(constraints=wrong),
        "curve: fixed": asked(curve=NeededRounds(wrong, 1.0), minimise="time"),
        "curve: per_keep": asked(curve=NeededRounds(1.0, wrong), minimise="time"),
        "plan": lambda: replan(wrong),
        "done": lambda: replan(planned(), done=wrong),
        "options: time_s": lambda: replan(planned(), time_s=wrong),
        "energy_j ": lambda: replan(planned(), energy_j=wrong),
        "loss": lambda: replan(planned(), loss=wrong),
        "rounds  ": lambda: replan(planned(), rounds=wrong),
        "run: rounds": lambda: RunBudget(wrong),
        "run: time_s": lambda: RunBudget(3, wrong),
        "a: energy_j": lambda: RunBudget(3, energy_j={"a": wrong}),
        "run: energy_j": lambda: RunBudget(3, energy_j=wrong),
        "curve: learning ": lambda: RunBudget(3, curve=wrong),
        "run: run": lambda: RunBudget.of(3, wrong),
        "memory: run": lambda: RunBudget(3).recall(wrong),
        "options: like": lambda: Options(like=wrong),
        "arguments: plan": lambda: plot_rounds(wrong),
        "arguments: plans": lambda: plot_run_front(wrong),
    }
    if not isinstance(wrong, int) or wrong is True:
        found |= {"seed": asked(seed=wrong), "seed ": lambda: replan(planned(), seed=wrong)}
    if not isinstance(wrong, float):
        found["target"] = asked(**target | {"target": wrong})
    if wrong is not True:
        found["caps"] = asked(caps=wrong)
    if not (isinstance(wrong, float) and wrong > 0):
        found |= {"rel_gap": asked(rel_gap=wrong), "time_limit": asked(time_limit=wrong)}
        found["time_limit "] = lambda: planned().certified(wrong)
        found["weights "] = asked(**both, weights=(1.0, wrong))
    if not isinstance(wrong, str):
        found["path"] = lambda: planned().save(wrong)
    return found


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_number_is_refused_by_name(kind: str) -> None:
    wrong = WRONG[kind]
    for field, call in calls(wrong).items():
        try:
            call()
        except InputError as error:
            told = str(error)
        else:
            told = "taken"
        assert field.strip() in told, f"{kind}: {field}: {told}"
        assert "allowed: " in told


def test_totals_that_no_run_has_are_refused_and_not_searched() -> None:
    """In rounds of 1e299 s powers leave what doubles hold; what was said of them, after minutes, was wrong."""
    for value in (1e300, 5e-324, 1e13, 1e-13):
        for options in ({"time_s": value}, {"energy_j": value}, {"time_s": value, "caps": False}):
            with pytest.raises(InputError, match="a number from 1e-12 to 1e\\+12"):
                asked(**options)()
        with pytest.raises(InputError, match="a number from 1e-12 to 1e\\+12"):
            RunBudget(3, time_s=value)
    with pytest.raises(InputError, match="a whole number from 1 to 1000000"):
        RunBudget(1e300)  # type: ignore[arg-type]
    wide = plan_run(
        small_instance("fdma", 2), rounds=(1, 2), curve=CURVE, time_s=1e12, energy_j=1e12, caps=False, rel_gap=0.1
    )
    assert wide.status is Status.OPTIMAL


def test_next_to_nothing_left_says_stop() -> None:
    assert replan(planned(), time_s=5e-324).message == "stop: the time is spent"
    assert "is spent" in replan(planned(), energy_j=1e-300).message


def test_a_budget_that_no_double_raises_is_the_rescue_of_none() -> None:
    assert least_value(lambda _: False, lambda _: True, "latency_s", 1e300) == math.inf


def test_a_curve_that_is_false_is_not_taken_for_none() -> None:
    nothing: Any
    for nothing in (0, False, [], ""):
        with pytest.raises(InputError, match="LearningSpec"):
            asked(curve=nothing)()


def test_names_and_shapes_of_energy_totals() -> None:
    name = small_instance("fdma", 2).device_names[0]
    told: dict[str, Any] = {
        "shape (2, 2)": np.ones((2, 2)),
        f"{name}: energy_j = '3'": {name: "3"},
        "the name of a device": {3: 1.0},
        f"{name}: energy_j": ["1", "2"],
        "energy_j = {": {1.0, 2.0},
    }
    for words, given in told.items():
        with pytest.raises(InputError) as caught:
            asked(energy_j=given)()
        assert words in str(caught.value)
    with pytest.raises(InputError, match="as text"):  # or it would be a budget of nobody
        RunBudget(3, energy_j={3: 1.0})  # type: ignore[dict-item]


def test_memories_of_a_run_are_read_with_care() -> None:
    run = RunBudget(3)
    memory = run.memory()
    run.recall(memory)
    past = memory["past"]
    for wrong in ({}, memory | {"past": past | {"rounds": -3}}, memory | {"past": past | {"kept": math.nan}}):
        with pytest.raises(InputError, match="what memory"):
            run.recall(wrong)
    needed = plan_run(
        small_instance("fdma", 2), curve=NeededRounds(1.0, 1.0), minimise="time", rounds=(1, 9), rel_gap=0.5
    )
    with pytest.raises(InputError, match="with a learning curve"):
        RunBudget.of(needed.rounds, needed.run)
    assert isinstance(needed.run, TrainingRun)
