"""No check that cannot fail: methods and checkers that lie in each way, and whether fuzzing notices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edgealloc import solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import AdapterOption, BoundSpec
from edgealloc.errors import EdgeallocError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from tests.fuzz import checks, covers, relations

Lie = Callable[[Result], Result]


def greedy(result: Result) -> Result:
    """Keeps a millionth more than there is room for."""
    assert result.allocation is not None
    return replace(result, allocation=replace(result.allocation, keep=result.allocation.keep * (1.0 + 1e-6)))


def worse(result: Result) -> Result:
    """Calls something optimal that is a thousandth off, with a bound to match."""
    assert result.allocation is not None
    allocation = replace(result.allocation, keep=0.99 * result.allocation.keep)
    objective = result.problem.evaluate(allocation).objective
    return replace(result, allocation=allocation, objective=objective, lower_bound=objective * (1.0 - 1e-5))


LIES: dict[str, tuple[str, Lie]] = {
    "a bound a billionth too high": ("wrong bound", lambda r: replace(r, lower_bound=r.objective * (1 + 1e-9))),
    "an objective a millionth off": ("wrong answer", lambda r: replace(r, objective=r.objective * (1 - 1e-6))),
    "a budget broken": ("wrong answer", greedy),
    "something worse called optimal": ("wrong answer", worse),
    "infeasible": ("wrong answer", lambda r: replace(r, status=Status.INFEASIBLE, allocation=None)),
    "nothing": ("empty", lambda r: replace(r, status=Status.NO_SOLUTION, allocation=None, lower_bound=0.0)),
    "an error": ("raised", lambda r: replace(r, status=Status.ERROR, allocation=None)),
    "gaps that do not follow": ("rejected", lambda r: replace(r, free_objective=2.0 * r.free_objective)),
}


def kinds(instance: Instance) -> set[str]:
    return {finding.kind for finding in checks.examine(instance, 0)[0]}


@pytest.fixture
def scarce(make_instance: Any) -> Instance:
    """Two devices that would keep more if they could."""
    instance: Instance = make_instance("fdma", 2, payload_lora_bits=2e8, keep_min=0.02)
    result = solve(instance, rel_gap=1e-6)
    assert result.objective > 1.01 * result.free_objective
    return instance


@pytest.mark.parametrize("name", LIES)
def test_lies_of_a_method(scarce: Instance, monkeypatch: Any, name: str) -> None:
    kind, lie = LIES[name]
    assert kinds(scarce) == set()
    monkeypatch.setattr(checks, "solve", lambda *args, **more: lie(solve(*args, **more)))
    assert kind in kinds(scarce)


@pytest.mark.parametrize("name", ["clusters", "download_bits", "cycles_fixed", "gain"])
def test_methods_that_forget_a_variant(scarce: Instance, monkeypatch: Any, name: str) -> None:
    """The answer to the cell without it is no answer to the cell: the oracle has its own word on each."""
    row = AdapterOption("m=2", 2e8, 2e8, 1.0, 5e6, 1e9, 0.3 * float(scarce.gain.min()))
    cell = scarce.with_changes(
        adapter_options=((row,), (row,)), downlink_bps=1e7, clusters=(4, 1), bound=BoundSpec(pooling="cluster")
    )

    def forgetting(instance: Instance, *args: Any, **more: Any) -> Result:
        none = {"download_bits": 0.0, "cycles_fixed": 0.0, "gain": None}
        if name == "clusters":
            other = instance.with_changes(bound=BoundSpec())
        else:
            other = instance.with_changes(adapter_options=((replace(row, **{name: none[name]}),),) * 2)
        result = solve(other, *args, **more)
        assert result.status is Status.OPTIMAL
        return replace(result, problem=Problem(instance))

    assert kinds(cell) == set()
    monkeypatch.setattr(checks, "solve", forgetting)
    assert "wrong answer" in kinds(cell)


def test_errors_and_slowness(scarce: Instance, monkeypatch: Any) -> None:
    def broken(*_args: Any, **_more: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(checks, "solve", broken)
        assert kinds(scarce) == {"raised"}
    monkeypatch.setattr(checks, "LATE_S", -checks.LIMIT_S)
    assert kinds(scarce) == {"late"}


def test_missing_and_false_proofs(scarce: Instance, monkeypatch: Any) -> None:
    def none(*_args: Any) -> Any:
        raise EdgeallocError("there is none")

    with monkeypatch.context() as patch:
        patch.setattr(checks, "certified", none)
        assert kinds(scarce) == {"no certificate"}
    monkeypatch.setattr(checks, "refused", lambda *_args: False)
    assert {finding.kind for finding in checks.examine(scarce, 2)[0]} == {"false proof"}


@pytest.mark.parametrize(("factor", "seen"), [(1.0, set()), (1.1, {"less"}), (0.999, {"rescue"})])
def test_a_diagnosis_that_misses(scarce: Instance, monkeypatch: Any, factor: float, seen: set[str]) -> None:
    hopeless = scarce.with_changes(latency_s=5.5)

    def lying(*args: Any, **more: Any) -> Result:
        result = solve(*args, **more)
        finding = result.diagnosis[0]
        assert math.isfinite(finding.required)
        return replace(result, diagnosis=(replace(finding, required=finding.required * factor),))

    monkeypatch.setattr(checks, "solve", lying)
    found = checks.examine(hopeless, 11)[0]  # of which only `auto` is asked
    assert {finding.kind for finding in found} == ({"diagnosis"} if seen else set())
    assert all(any(word in finding.text for word in seen) for finding in found)


def test_relations_that_do_not_hold(monkeypatch: Any) -> None:
    tight = [0]

    def lying(*args: Any, **more: Any) -> Result:
        tight[0] += 1
        result = solve(*args, **more)
        return replace(result, lower_bound=2.0 * result.objective) if tight[0] == 2 else result

    assert relations.related(12)[0] == []
    monkeypatch.setattr(relations, "solve", lying)
    assert [finding.kind for finding in relations.related(12)[0]] == ["relation"]


def test_covers_that_are_not_checked(monkeypatch: Any) -> None:
    from edgealloc.verify.proof import cover

    monkeypatch.setattr(cover, "cuts_not_covered", lambda *_args: None)
    found = [finding for seed in range(30) for finding in covers.forged(seed)[0]]
    assert "false proof" in {finding.kind for finding in found}
