"""P-SCA: feasible, monotone at a fixed penalty, close to the optimum, and the same on both routes."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest

from edgealloc.api import solve
from edgealloc.bench.suites import SUITES
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status, excess_gap
from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.psca.model import Model
from edgealloc.solvers.psca.plan import best_plan
from edgealloc.solvers.psca.rounding.deal import caps_of_owner, deal
from edgealloc.solvers.psca.solve import PscaSettings, solve_psca
from edgealloc.solvers.psca.subproblem.reference import Reference
from edgealloc.solvers.psca.subproblem.route import Native, Route, RouteError, Step, SubProblem
from edgealloc.verify.solution import verify
from tests.places import CASES

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the public cases are not beside this checkout")
LEVELS = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0])


def cell(seed: int, access: str = "ofdma", devices: int = 3, subcarriers: int = 8, **options: object) -> Instance:
    drawn = CellOptions(
        devices=devices,
        access=access,  # type: ignore[arg-type]
        subcarriers=subcarriers if access == "ofdma" else None,
        **options,  # type: ignore[arg-type]
    )
    return make_cell(drawn, np.random.default_rng(seed)).instance


def check(result: Result) -> None:
    """What every allocation of a local method must satisfy."""
    assert result.status is Status.LOCALLY_SOLVED, result.message
    assert result.allocation is not None
    report = verify(result.problem.instance, result.solution())
    assert report.ok, report.faults
    assert result.objective >= result.problem.free_objective * (1.0 - 1e-9)
    assert "residual" in result.message


def assert_monotone(result: Result) -> None:
    """The penalised objective does not rise while devices, penalty and the price of unsent payload stay."""
    runs = itertools.groupby(
        result.trace, lambda s: (s.note.split(", ")[:3], s.note.split(" at ")[1].split(",")[0])
    )
    for _key, steps in runs:
        values = [s.objective for s in steps]
        assert all(b <= a * (1.0 + 1e-12) for a, b in itertools.pairwise(values))


def _enumerated(problem: Problem) -> float:
    """The optimum by trying every owner of every sub-carrier."""
    model = Model.of(problem)
    k, m = model.inverse_w.shape
    best = math.inf
    for owner in itertools.product(range(k), repeat=m):
        if len(set(owner)) == k:
            plan = best_plan(problem, caps_of_owner(model, np.array(owner))[:, :, 0], model.has_row)
            if plan is not None:
                best = min(best, plan.value)
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pooling", ["global", "device"])
def test_small_ofdma_is_near_the_enumerated_optimum(seed: int, pooling: str) -> None:
    problem = Problem(cell(seed, devices=2, subcarriers=6, pooling=pooling))
    best = _enumerated(problem)
    plain, more = solve(problem, "psca"), solve(problem, "psca+")
    for result in (plain, more):
        check(result)
        assert_monotone(result)
        assert result.objective >= best * (1.0 - 1e-9)
    assert excess_gap(plain.objective, best, problem.free_objective) <= 0.10
    assert excess_gap(more.objective, best, problem.free_objective) <= 0.01


@needs_cases
@pytest.mark.parametrize(
    "case",
    ["fdma-2-s1", "fdma-10-s1", "fdma-20-s2", "fdma-20-device-s1", "fdma-20-head-downlink-s1", "fdma-100-s1"],
)
def test_continuous_fdma_reaches_the_optimum(case: str) -> None:
    result = solve(CASES / f"{case}.json", "psca:bound")
    exact = solve(result.problem, "convex", rel_gap=1e-9)
    check(result)
    assert_monotone(result)
    assert result.objective == pytest.approx(exact.objective, rel=1e-6)
    assert result.lower_bound <= exact.objective * (1.0 + 1e-12)
    assert result.rel_gap < 1e-6


@needs_cases
@pytest.mark.parametrize(
    ("case", "optimum"), [("ofdma-3x12-s1", 0.3946168340455137), ("ofdma-4x16-device-s1", 0.5548356791748481)]
)
def test_ofdma_against_published_optima(case: str, optimum: float) -> None:
    result = solve(CASES / f"{case}.json", "psca")
    check(result)
    assert excess_gap(result.objective, optimum, result.free_objective) <= 0.01
    assert result.objective >= optimum * (1.0 - 1e-9)


def test_root_bound_brackets_the_optimum() -> None:
    for access in ("ofdma", "rb"):
        problem = Problem(cell(9, access, devices=2, subcarriers=6))
        solve(problem, "bnb", rel_gap=1e-3)  # compiling counts against the time of the root node
        result = solve(problem, "psca:bound")
        check(result)
        best = _enumerated(problem) if access == "ofdma" else solve(problem, "bnb", rel_gap=1e-6).objective
        assert result.lower_bound <= best * (1.0 + 1e-9)
        assert result.excess_gap <= 0.2


def _menu(inst: Instance) -> tuple[tuple[AdapterOption, ...] | None, ...]:
    rows = [
        tuple(
            AdapterOption(f"r={r}", float(bits * r / 8), float(work * r / 8), (8 / r) ** 0.5) for r in (4, 8, 16)
        )
        for bits, work in zip(inst.payload_lora_bits, inst.cycles_lora, strict=True)
    ]
    return (None, *rows[1:])


VARIANTS = {
    "levels": lambda inst: {"keep_levels": (LEVELS,) * inst.num_devices},
    "menu": lambda inst: {"adapter_options": _menu(inst)},
    "selection": lambda inst: {"exclusion_penalty": 4.0},
    "common": lambda inst: {"common_keep": True},
    "common selection": lambda inst: {"common_keep": True, "exclusion_penalty": 4.0},
    "perturbation": lambda inst: {"bound": replace(inst.bound, underfit="perturbation", underfit_weight=0.3)},
    "curve": lambda inst: {"bound": _curve(inst.bound)},
    "levels menu selection": lambda inst: {
        "keep_levels": (LEVELS,) * inst.num_devices,
        "adapter_options": _menu(inst),
        "exclusion_penalty": 4.0,
    },
    "scarce selection": lambda inst: {"exclusion_penalty": 8.0, "bandwidth_hz": 0.4 * inst.bandwidth_hz},
    "ample": lambda inst: {"bandwidth_hz": 50.0 * inst.bandwidth_hz},
}


def _curve(bound: BoundSpec) -> BoundSpec:
    curve = UnderfitCurve(keep=np.array([0.02, 0.1, 0.3, 0.6, 1.0]), value=np.array([3.0, 2.8, 1.0, 0.9, 0.0]))
    return replace(bound, underfit="curve", underfit_curve=curve)


@pytest.mark.parametrize("access", ["fdma", "rb", "ofdma"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_feasible_and_monotone(access: str, variant: str) -> None:
    inst = cell(11, access, devices=4, subcarriers=12)
    problem = Problem(inst.with_changes(**VARIANTS[variant](inst)))
    for method in ("psca", "psca+"):
        result = solve(problem, method)
        check(result)
        assert_monotone(result)
    if access != "ofdma" and variant != "curve":
        exact = solve(problem, "bnb", rel_gap=1e-3, time_limit=10.0)
        assert result.objective >= exact.lower_bound * (1.0 - 1e-9)
        assert excess_gap(result.objective, exact.objective, result.free_objective) <= 0.10


class _Both:
    """Solves every sub-problem on both routes; the native answer is the one that counts."""

    def __init__(self) -> None:
        self.native, self.reference = Native(), Reference()
        self.pairs: list[tuple[Step, Step]] = []

    def __call__(self, sub: SubProblem) -> Step:
        self.pairs.append((self.native(replace(sub, table=sub.table.copy())), self.reference(sub)))
        return self.pairs[-1][0]


@pytest.mark.parametrize(
    ("access", "variant"),
    [
        ("ofdma", ""),
        ("ofdma", "perturbation"),
        ("ofdma", "common"),
        ("fdma", ""),
        ("fdma", "levels"),
        ("fdma", "common"),
        ("rb", ""),
    ],
)
def test_both_routes_solve_the_same_sub_problems(access: str, variant: str) -> None:
    pytest.importorskip("cvxpy")
    inst = cell(3, access, devices=3, subcarriers=6)
    problem = Problem(inst.with_changes(**VARIANTS[variant](inst)) if variant else inst)
    both = _Both()
    check(solve_psca(problem, settings=PscaSettings(max_penalties=2, relax_steps=4), route=both))
    assert len(both.pairs) >= 3 or access == "fdma"
    for ours, theirs in both.pairs:
        assert ours.objective == pytest.approx(theirs.objective, rel=1e-6)
        # prices are unique up to degeneracy; the total that all columns are worth is the objective's slope
        assert ours.prices.sum() == pytest.approx(theirs.prices.sum(), rel=0.02, abs=1e-5)


@pytest.mark.slow
def test_native_route_is_twenty_times_faster_and_takes_the_same_path() -> None:
    """Seconds of this process; measured 26 times at (4, 16), 80 at (8, 64), stating the problem once included."""
    pytest.importorskip("cvxpy")

    class Timed:
        def __init__(self, route: Route) -> None:
            self.route, self.seconds = route, 0.0

        def __call__(self, sub: SubProblem) -> Step:
            begun = time.process_time()
            found = self.route(sub)
            self.seconds += time.process_time() - begun
            return found

    for devices, subcarriers in ((4, 16), (8, 64)):
        problem = Problem(cell(600, devices=devices, subcarriers=subcarriers))
        solve_psca(problem)
        runs = [(Timed(Native()), Timed(Reference())) for _ in range(2)]
        native, reference = ([solve_psca(problem, route=pair[i]) for pair in runs] for i in range(2))
        fast, slow = (min(pair[i].seconds for pair in runs) for i in range(2))
        assert slow >= 20.0 * fast
        ours, theirs = native[0], reference[0]
        np.testing.assert_allclose(
            [s.objective for s in ours.trace], [s.objective for s in theirs.trace], rtol=1e-4
        )
        assert ours.allocation is not None
        assert theirs.allocation is not None
        np.testing.assert_array_equal(ours.allocation.owner, theirs.allocation.owner)


def test_a_route_that_fails_is_said_and_branch_and_bound_steps_in() -> None:
    class Fails:
        def __call__(self, sub: SubProblem) -> Step:
            raise RouteError("no such luck")

    result = solve_psca(Problem(cell(3)), route=Fails())
    assert result.status is Status.LOCALLY_SOLVED
    assert "no such luck" in result.message
    assert "branch and bound" in result.message
    assert verify(result.problem.instance, result.solution()).ok
    pytest.importorskip("cvxpy")
    strange = solve_psca(Problem(cell(3)), route=Reference(solver="NONESUCH"))
    assert strange.status is Status.LOCALLY_SOLVED
    assert "NONESUCH" in strange.message


class _Watched(Native):
    """The native route, with what each sub-problem ended with."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []

    def __call__(self, sub: SubProblem) -> Step:
        found = super().__call__(sub)
        self.ends.append((found.gap / sub.tol, found.residual))
        return found


def test_sub_problems_are_solved_at_any_size() -> None:
    """Where one device owns a column its equation cancels; and steps must not stop at curved constraints."""
    watched = _Watched()
    check(solve_psca(Problem(cell(600, devices=16, subcarriers=128)), route=watched))
    gaps, residuals = zip(*watched.ends, strict=True)
    assert max(gaps) <= 1.0
    assert max(residuals) <= 1e-5


def test_polish_leaves_no_move_and_no_swap() -> None:
    """Under device pooling costs add up, so any single exchange can be judged on its own."""
    for seed in range(3):
        problem = Problem(cell(seed, devices=3, subcarriers=9, pooling="device"))
        model = Model.of(problem)
        with Control(Options()) as control:
            owner, plan = deal(model, np.arange(9) % 3, control)
        assert plan is not None
        others = []
        for m in range(9):
            for k in range(3):
                others.append(np.where(np.arange(9) == m, k, owner))
            for m2 in range(m):
                swapped = owner.copy()
                swapped[[m, m2]] = owner[[m2, m]]
                others.append(swapped)
        for other in others:
            trial = best_plan(problem, caps_of_owner(model, other)[:, :, 0], model.has_row)
            assert trial is None or trial.value >= plan.value * (1.0 - 1e-6)


@pytest.mark.parametrize(("case", "limit"), [("3x12-keep0.5-global-s1", 1e-3), ("4x16-keep0.5-global-s0", 0.05)])
def test_cycles_of_devices_mend_what_swaps_leave(case: str, limit: float) -> None:
    """Cells with spectrum nearly to spare, where moves and swaps alone ended 7 % and 34 % from the optimum."""
    instance = next(c for c in SUITES["gap"]().cases if c.name == f"ofdma-{case}").instance()
    exact = solve(instance, "bnb", rel_gap=1e-6)
    result = solve(instance, "psca")
    assert excess_gap(result.objective, exact.lower_bound, result.free_objective) <= limit


def test_reference_route_alone() -> None:
    pytest.importorskip("cvxpy")
    problem = Problem(cell(3, "fdma", devices=3))
    assert solve(problem, "psca:cvxpy").objective == pytest.approx(solve(problem, "psca").objective, rel=1e-6)


def test_nothing_possible_is_no_solution() -> None:
    inst = cell(5)
    hopeless = inst.with_changes(bandwidth_hz=1e-3 * inst.bandwidth_hz)
    result = solve(hopeless, "psca")
    assert result.status is Status.NO_SOLUTION
    assert result.allocation is None
    late = solve(inst.with_changes(latency_s=1e-3), "psca")
    assert late.status is Status.NO_SOLUTION
    assert "there is none, says an exact method: dev-0000" in late.message


def test_warm_start_limits_and_callback() -> None:
    problem = Problem(cell(6, devices=4, subcarriers=16))
    first = solve(problem, "psca")
    warm = solve(problem, "psca", warm_start=first.allocation)
    check(warm)
    stopped = solve(problem, "psca", callback=lambda s: s.iteration >= 1)
    assert stopped.iterations == 1
    check(stopped)  # the relaxed iterate is polished, so even one step gives an allocation
    assert "stopped" in stopped.message


def test_same_seed_same_bits() -> None:
    problem = Problem(cell(7, devices=3, subcarriers=12))
    a, b = (solve(problem, "psca+", seed=3) for _ in range(2))
    assert a.objective == b.objective
    assert [s.objective for s in a.trace] == [s.objective for s in b.trace]


def test_options_are_checked_and_auto_stays_exact() -> None:
    assert not METHODS["psca"].chosen
    assert not METHODS["psca+"].chosen
    with pytest.raises(InputError, match="penalty_factor"):
        PscaSettings(penalty_factor=1.0)
    with pytest.raises(InputError, match="psca:magic"):
        solve(cell(1), "psca:magic")
