"""Exact FDMA: public references, brute force, weak duality, scaling laws, limits, diagnoses."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest

import edgealloc
from edgealloc import Instance, Problem, Result, Status
from edgealloc.data.outcome import Snapshot
from edgealloc.data.spec import device_fields
from edgealloc.errors import EdgeallocError, InputError
from edgealloc.files.instance import load_instance
from edgealloc.solvers.fdma import response
from edgealloc.solvers.fdma.cell import Cell
from edgealloc.verify.solution import verify
from tests.places import ROOT
from tests.solvers.fdma.random_instances import random_fdma

FDMA_OPTIMA = [
    *(f"fdma-{k}-s{seed}" for k in (2, 5, 10, 20, 100) for seed in (1, 2)),
    *(f"fdma-20-{kind}-s{seed}" for kind in ("device", "head-downlink") for seed in (1, 2)),
    "fdma-10-ample-s1",
]


def accepted(result: Result) -> bool:
    """Whether the independent checker accepts the solution as its file would state it."""
    report = verify(result.problem.instance, result.solution())
    assert report.ok, str(report)
    return report.ok


def feasible_random(seed: int, **changes: object) -> Instance:
    """The first random instance from ``seed`` on that has an allocation."""
    for attempt in range(1000):
        instance = random_fdma(np.random.default_rng((seed, attempt)), **changes)
        if edgealloc.solve(instance, rel_gap=1e-3).status is not Status.INFEASIBLE:
            return instance
    raise AssertionError("no feasible instance in a thousand")


@pytest.mark.parametrize("name", FDMA_OPTIMA)
def test_public_references(cases: Path, name: str) -> None:
    reference = json.loads((cases / "references.json").read_text())[name]
    assert reference["kind"] == "optimum"
    result = edgealloc.solve(cases / f"{name}.json", "convex", rel_gap=1e-6)
    value, accuracy = reference["value"], reference["accuracy"]
    assert result.status is Status.OPTIMAL
    assert result.objective == pytest.approx(value, rel=1e-6)
    # the references are points of a local solver, feasible to about 1e-8: up to `accuracy` they may lie too low
    assert result.lower_bound <= value * (1 + accuracy)
    assert result.free_objective == pytest.approx(reference["free"], rel=1e-7)
    accepted(result)


def test_ample_resources_give_the_free_minimum(cases: Path) -> None:
    result = edgealloc.solve(cases / "fdma-10-ample-s1.json")
    assert result.objective == pytest.approx(result.free_objective, rel=1e-10)
    assert result.excess_gap == 0.0


def test_infeasible_deadline_is_diagnosed(cases: Path) -> None:
    result = edgealloc.solve(cases / "fdma-10-infeasible-deadline-s1.json")
    assert result.status is Status.INFEASIBLE
    assert result.allocation is None
    assert [d.device for d in result.diagnosis] == ["dev-0003"]
    assert "dev-0003 cannot finish computing before the deadline" in result.message
    assert "has 15 s" in result.message
    accepted(result)
    with pytest.raises(edgealloc.StatusError, match="dev-0003"):
        result.raise_for_status()


def check_random(seed: int) -> str:
    instance = random_fdma(np.random.default_rng(seed), common_keep=seed % 5 == 4)
    result = edgealloc.solve(instance, "convex", rel_gap=1e-6)
    assert result.status in (Status.OPTIMAL, Status.INFEASIBLE, Status.FEASIBLE), (seed, result.message)
    if result.allocation is not None:
        assert result.lower_bound <= result.objective * (1 + 1e-15)
        assert not result.problem.evaluate(result.allocation).violations
        if instance.common_keep:
            assert np.ptp(result.allocation.keep) == 0.0
    if seed % 10 == 0:
        accepted(result)
    return result.status.value


@pytest.mark.parametrize("count", [64, pytest.param(200, marks=pytest.mark.slow)])
def test_random_instances_are_closed_or_say_why(count: int) -> None:
    outcomes = [check_random(seed) for seed in range(count)]
    assert outcomes.count("optimal") >= count // 8
    assert outcomes.count("infeasible") >= count // 2
    assert outcomes.count("feasible") <= 2  # gap short of 1e-6 for lack of digits


@pytest.mark.slow
def test_many_random_instances_are_closed_or_say_why() -> None:
    outcomes = [check_random(seed) for seed in range(1000, 21000)]
    assert outcomes.count("feasible") <= 0.003 * outcomes.count("optimal")


@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize("seed", range(6))
def test_two_devices_against_a_dense_grid(seed: int, pooling: str) -> None:
    instance = feasible_random(seed, devices=2)
    bound = instance.bound
    instance = instance.with_changes(bound=type(bound)(**{**_spec(bound), "pooling": pooling}))
    problem = Problem(instance)
    result = edgealloc.solve(problem, rel_gap=1e-8)
    cell = Cell.of(problem)
    steps = 1200
    x = np.linspace(cell.low, cell.high, steps + 1)  # [S, 2]
    band = np.stack([cell.bandwidth_at(row, np.zeros(2))[response.BANDWIDTH] for row in x])
    fits = band[:, None, 0] + band[None, :, 1] <= instance.bandwidth_hz
    keep = np.exp(x)
    under = bound.underfit_weight * instance.weights * (1 / keep - 1)
    square = instance.weights * keep**2
    if pooling == "global":
        gap = problem.stability.value(square[:, None, 0] + square[None, :, 1])
    else:
        each = np.stack(
            [instance.weights[k] * problem.stability.value(keep[:, k, None] ** 2)[:, k] for k in (0, 1)]
        )
        gap = each[0][:, None] + each[1][None, :]
    value = np.where(fits, under[:, None, 0] + under[None, :, 1] + gap, np.inf)
    best = float(value.min())
    assert result.lower_bound <= best * (1 + 1e-13)
    # Resources cap keep rates from above only, so the grid has a feasible point one step below the optimum in x.
    step = np.exp(-(x[1] - x[0]))
    below = np.maximum(result.allocation.keep * step, instance.keep_min)
    assert best <= problem.objective(below) + 0.02 * abs(problem.objective(below) - result.objective)


def _spec(bound: object) -> dict[str, object]:
    return {name: getattr(bound, name) for name in bound.__dataclass_fields__}  # type: ignore[attr-defined]


def test_weak_duality_at_random_prices_and_random_answers() -> None:
    """The bound must hold for prices and answers that no search would ever visit."""
    tightest = -math.inf
    for seed in range(12):
        problem = Problem(feasible_random(100 + seed))
        optimum = edgealloc.solve(problem, rel_gap=1e-7).objective
        cell, rng = Cell.of(problem), np.random.default_rng(seed)
        scale = optimum / cell.bandwidth_hz
        for _ in range(60):
            mu, q = scale * 10 ** rng.uniform(-4, 1), rng.uniform(0.001, 1.0)
            table = response.new_table(len(cell.low))
            cell.answer(mu, q, table)
            honest = cell.lower_bound(mu, q, table)
            assert honest <= optimum
            table[response.X] = rng.uniform(cell.low, np.maximum(table[response.X], cell.low))
            table[response.V] *= rng.uniform(0.5, 1.5, len(cell.low))
            assert cell.lower_bound(mu, q, table) <= honest + 1e-9 * optimum
            tightest = max(tightest, honest / optimum)
    assert tightest > 0.9  # the test would pass with a useless bound otherwise


def test_floors_lie_below_the_function_they_bound() -> None:
    """Pointwise: the floor of a device against its F over the feasible (x, v), evaluated afresh."""
    checked = 0
    for seed in range(12):
        problem = Problem(feasible_random(200 + seed))
        cell, rng = Cell.of(problem), np.random.default_rng(seed)
        table = response.new_table(len(cell.low))
        mu, q = 0.3 * problem.free_objective / cell.bandwidth_hz, 0.3
        cell.answer(mu, q, table)
        floors = np.empty(len(cell.low))
        nu = cell.price_of_kept(q)
        args = (cell.rows, cell.under, cell.weight, cell.scale, cell.pool, mu, nu, cell.low, cell.high)
        response.floor_of_answers(*args, table, floors)
        for k in range(len(floors)):
            near = table[response.X, k] + rng.normal(0, 1e-4, 40)
            for x in np.clip(np.r_[near, rng.uniform(cell.low[k], cell.high[k], 40)], cell.low[k], cell.high[k]):
                band = cell.bandwidth_at(np.full(len(floors), x), table[response.V])[response.BANDWIDTH, k]
                share = response.share(x, cell.under[k], cell.weight[k], nu, cell.pool, cell.scale[k])[0]
                assert floors[k] <= share + mu * band
                checked += 1
    assert checked > 1000


@pytest.mark.parametrize("budget", ["bandwidth_hz", "latency_s", "energy_j", "power_max_w", "freq_max_hz"])
@pytest.mark.parametrize(("count", "least"), [(5, 1), pytest.param(15, 4, marks=pytest.mark.slow)])
def test_more_of_a_budget_never_raises_the_optimum(budget: str, count: int, least: int) -> None:
    fell = 0
    for seed in range(count):
        instance = feasible_random(300 + seed)
        before = edgealloc.solve(instance, rel_gap=1e-8)
        after = edgealloc.solve(instance.with_changes(**{budget: 1.3 * getattr(instance, budget)}), rel_gap=1e-8)
        assert after.lower_bound <= before.objective
        fell += after.objective < before.objective * (1 - 1e-6)
    assert fell >= least


def test_the_order_of_devices_does_not_matter() -> None:
    instance = feasible_random(7, devices=9)
    order = np.random.default_rng(0).permutation(9)
    plain, mixed = edgealloc.solve(instance, rel_gap=1e-9), edgealloc.solve(instance.take(order), rel_gap=1e-9)
    assert mixed.objective == pytest.approx(plain.objective, rel=1e-8)
    assert mixed.allocation.keep == pytest.approx(plain.allocation.keep[order], rel=1e-3)


def test_units_do_not_matter() -> None:
    """Kilobits over kilohertz, and milliseconds with kilocycles: the optimum is the same number."""
    instance = feasible_random(11)
    base = edgealloc.solve(instance, rel_gap=1e-8).objective
    bits = instance.with_changes(
        bandwidth_hz=1e3 * instance.bandwidth_hz,
        gain=1e3 * instance.gain,
        payload_fixed_bits=1e3 * instance.payload_fixed_bits,
        payload_lora_bits=1e3 * instance.payload_lora_bits,
        downlink_bps=1e3 * instance.downlink_bps,
    )
    assert edgealloc.solve(bits, rel_gap=1e-8).objective == pytest.approx(base, rel=2e-8)
    time = instance.with_changes(
        latency_s=1e3 * instance.latency_s,
        bandwidth_hz=instance.bandwidth_hz / 1e3,
        downlink_bps=instance.downlink_bps / 1e3,
        freq_min_hz=instance.freq_min_hz / 1e3,
        freq_max_hz=instance.freq_max_hz / 1e3,
        capacitance=1e6 * instance.capacitance,
        power_max_w=instance.power_max_w / 1e3,
    )
    assert edgealloc.solve(time, rel_gap=1e-8).objective == pytest.approx(base, rel=2e-8)


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 8), marks=pytest.mark.slow)], ids=str)
def test_common_rate_against_a_scan(seeds: range) -> None:
    for seed in seeds:
        instance = feasible_random(400 + seed, common_keep=True)
        result = edgealloc.solve(instance, rel_gap=1e-7)
        cell = Cell.of(result.problem)
        x = np.linspace(cell.low[0], cell.high[0], 4001)
        total = np.array(
            [
                cell.bandwidth_at(np.full(len(cell.low), s), np.zeros(len(cell.low)))[response.BANDWIDTH].sum()
                for s in x
            ]
        )
        fits = total <= instance.bandwidth_hz
        value = np.array([result.problem.objective(np.full(len(cell.low), math.exp(s))) for s in x[fits]])
        assert result.lower_bound <= value.min() * (1 + 1e-13)
        assert value.min() <= result.objective * (1 + 5e-3)
        relaxed = edgealloc.solve(instance.with_changes(common_keep=False), rel_gap=1e-7)
        assert relaxed.lower_bound <= result.objective


@pytest.mark.parametrize("count", [50, pytest.param(150, marks=pytest.mark.slow)])
def test_remedies_work_as_printed(count: int) -> None:
    """Raising the named budget to the named value makes the named device feasible."""
    tried = 0
    for seed in range(count):
        instance = random_fdma(np.random.default_rng(seed))
        result = edgealloc.solve(instance)
        finding = result.diagnosis[0] if result.diagnosis else None
        if finding is None or not math.isfinite(finding.required):
            continue
        one = instance
        if finding.device is not None:
            one = instance.take([instance.device_names.index(finding.device)])
        raised = one.with_changes(**{finding.budget: finding.required * (1 + 1e-9)})
        assert edgealloc.solve(raised).status is not Status.INFEASIBLE, finding.message
        lower = one.with_changes(**{finding.budget: finding.required * (1 - 1e-6)})
        assert edgealloc.solve(lower).status is Status.INFEASIBLE, finding.message
        tried += 1
    assert tried > count // 4


def test_a_time_limit_returns_an_allocation_and_its_bound() -> None:
    instance = feasible_random(21, devices=12)
    result = edgealloc.solve(instance, rel_gap=1e-12, time_limit=1e-6)
    assert result.status in (Status.FEASIBLE, Status.OPTIMAL)
    assert result.lower_bound <= result.objective
    assert not result.problem.evaluate(result.allocation).violations
    if result.status is Status.FEASIBLE:
        assert "time limit" in result.message


def test_a_callback_and_ctrl_c_stop_with_the_incumbent() -> None:
    instance = feasible_random(22, devices=12)
    seen: list[Snapshot] = []

    def stop(snapshot: Snapshot) -> bool:
        seen.append(snapshot)
        return True

    stopped = edgealloc.solve(instance, rel_gap=1e-12, callback=stop)
    assert len(seen) == 2  # the one that asks to stop, and the state it stopped in
    assert stopped.allocation is not None
    handler = signal.getsignal(signal.SIGINT)
    pressed: list[Snapshot] = []

    def press_once(snapshot: Snapshot) -> None:
        if not pressed:
            signal.raise_signal(signal.SIGINT)
        pressed.append(snapshot)

    interrupted = edgealloc.solve(instance, rel_gap=1e-12, callback=press_once)
    assert interrupted.iterations == 1
    assert interrupted.allocation is not None
    assert interrupted.lower_bound <= interrupted.objective
    assert signal.getsignal(signal.SIGINT) is handler


def test_log_and_repetition_change_nothing() -> None:
    instance = feasible_random(23, devices=12)
    quiet, again = (edgealloc.solve(instance, rel_gap=1e-9) for _ in range(2))
    assert quiet.allocation.keep.tobytes() == again.allocation.keep.tobytes()
    assert quiet.lower_bound == again.lower_bound
    logged = edgealloc.solve(instance, rel_gap=1e-9, log=True)
    assert logged.allocation.keep.tobytes() == quiet.allocation.keep.tobytes()
    assert logged.iterations == quiet.iterations


def test_warm_start_reaches_the_same_optimum() -> None:
    instance = feasible_random(24, devices=10)
    cold = edgealloc.solve(instance, rel_gap=1e-8)
    changed = instance.with_changes(gain=1.05 * instance.gain)
    warm = edgealloc.solve(changed, rel_gap=1e-8, warm_start=cold.allocation)
    assert warm.objective == pytest.approx(edgealloc.solve(changed, rel_gap=1e-8).objective, rel=1e-7)


def test_threads_change_nothing() -> None:
    """Above the threshold the kernels run in parallel; every device is still computed by itself."""
    small = feasible_random(25, devices=12)
    copies = -(-response._PARALLEL_FROM // 12)
    index = np.tile(np.arange(12), copies)
    names = tuple(f"copy-{i}" for i in range(len(index)))
    columns = {key: getattr(small, key)[index] for key in device_fields()}
    big = Cell.of(Problem(small.with_changes(device_names=names, **columns)))
    one = Cell.of(Problem(small))
    tables = [response.new_table(12), response.new_table(len(index))]
    for cell, table in zip((one, big), tables, strict=True):
        # one shared set of weights, for aggregation weights depend on how many devices there are
        nu, mu = 0.01, 1e-7
        response.answers(
            cell.safe_rows,
            np.resize(one.under, len(cell.low)),
            np.resize(one.weight, len(cell.low)),
            np.resize(one.scale, len(cell.low)),
            one.pool,
            mu,
            nu,
            cell.low,
            cell.high,
            1e-8,
            table,
        )
    assert np.array_equal(tables[1][:, :12], tables[0])
    assert np.array_equal(tables[1][:, -12:], tables[0])


def test_what_convex_does_not_take_is_refused_with_a_reason(cases: Path) -> None:
    with pytest.raises(EdgeallocError, match="keep levels are discrete"):
        edgealloc.solve(cases / "fdma-20-levels-s1.json", "convex")
    with pytest.raises(EdgeallocError, match="concave in x"):
        edgealloc.solve(cases / "fdma-20-perturbation-s1.json", "convex")
    with pytest.raises(InputError, match="allowed: auto, convex"):
        edgealloc.solve(cases / "fdma-2-s1.json", "convexx")
    with pytest.raises(InputError, match="rel_gap = -1"):
        edgealloc.solve(cases / "fdma-2-s1.json", rel_gap=-1)


def test_answers_that_exceed_the_band_by_a_digit_are_cut_back_by_a_few() -> None:
    """They were cut back to the least keep rates, 23 times the optimum."""
    instance = load_instance(ROOT / "tests" / "fuzz" / "kept" / "answers_too_wide_by_a_digit.json")
    result = edgealloc.solve(instance, "convex")
    assert result.status is Status.OPTIMAL
    assert accepted(result)
    assert result.objective == pytest.approx(edgealloc.solve(instance, "bnb", rel_gap=1e-6).objective, rel=1e-6)
