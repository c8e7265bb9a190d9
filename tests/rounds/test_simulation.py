"""Energy over a horizon and rounds under fading: the guarantee, the worth of policies, frame, figure, command."""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgealloc.cli.app import main
from edgealloc.data.instance import Instance
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.rounds.policies import POLICIES, RoundView, VirtualQueue, make_policy
from edgealloc.rounds.simulation import SimulateOptions, draw_rounds, simulate, summary
from edgealloc.rounds.solver import RoundSolver
from edgealloc.runs.begun.ledger import EnergyLedger
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.fading import lag_correlation
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.psca.rounds import energy_worth, on_spectrum
from edgealloc.units import FloatArray
from tests.conftest import MakeInstance

pd = pytest.importorskip("pandas")


def _cell(seed: int, devices: int = 3, **changes: object):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    return make_cell(CellOptions(devices=devices, **changes), rng), rng  # type: ignore[arg-type]


@pytest.mark.parametrize("rounds", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_no_policy_exceeds_a_horizon_budget(rounds: int) -> None:
    """In exact arithmetic, also with devices that come and go."""
    options = SimulateOptions(rounds=rounds, energy_share=0.4, leave=0.05)
    cell, rng = _cell(2)
    trace = draw_rounds(options, cell, rng)
    names = trace.base.device_names
    budget = options.energy_share * options.rounds * trace.base.energy_j
    for name in POLICIES:
        policy, solver = make_policy(name), RoundSolver()
        ledger = EnergyLedger(dict(zip(names, budget.tolist(), strict=True)), options.rounds)
        spent = dict.fromkeys(names, Fraction(0))
        for number in range(options.rounds):
            shown = trace.instance(number, ledger.left_j(names))
            at = np.array([names.index(n) for n in shown.device_names])

            def probe(caps: FloatArray, shown: Instance = shown, solver: RoundSolver = solver) -> Result:
                return solver.solve(shown.with_changes(energy_j=caps))

            view = RoundView(shown, ledger.left_j(shown.device_names), budget[at], number, options.rounds, probe)
            result = probe(np.minimum(policy.caps_j(view), view.left_j))
            if result.allocation is None:
                continue
            energy = result.problem.evaluate(result.allocation).energy_j
            ledger.spend(shown.device_names, energy)
            for device, joules in zip(shown.device_names, energy.tolist(), strict=True):
                spent[device] += Fraction(joules)
        for device, total in zip(names, budget.tolist(), strict=True):
            assert spent[device] <= Fraction(total)
            assert spent[device] > Fraction(total) / 2  # and the budget is used


def test_a_greedy_policy_is_held_back_by_the_ledger() -> None:
    ledger = EnergyLedger({"a": 1.0}, 3)
    for _ in range(3):
        grant = np.minimum(np.array([0.4]), ledger.left_j(("a",)))
        ledger.spend(("a",), grant)
    assert ledger.left_j(("a",))[0] == 0.0
    tiny = EnergyLedger({"a": 1.0}, 10)
    total = Fraction(0)
    while tiny.left_j(("a",))[0] > 0.05:
        ledger_share = tiny.left_j(("a",)) * 0.1
        tiny.spend(("a",), ledger_share)
        total += Fraction(float(ledger_share[0]))
    assert total + Fraction(float(tiny.left_j(("a",))[0])) <= 1


def test_the_worth_of_a_joule_is_the_slope_of_the_optimal_bound(make_instance: MakeInstance) -> None:
    """Envelope theorem, against a difference quotient of two exact solves per device."""
    cell, _ = _cell(4, 4)
    instance = cell.instance.with_changes(energy_j=0.5 * cell.instance.energy_j)
    best = RoundSolver("convex", rel_gap=1e-12)
    result = best.solve(instance)
    assert result.allocation is not None
    worth = energy_worth(result.problem, result.allocation)
    assert np.all(worth > 0.0)
    for k in range(4):
        step = np.zeros(4)
        step[k] = 1e-3 * instance.energy_j[k]
        low = best.solve(instance.with_changes(energy_j=instance.energy_j - step)).objective
        high = best.solve(instance.with_changes(energy_j=instance.energy_j + step)).objective
        assert worth[k] == pytest.approx((low - high) / (2 * step[k]), rel=1e-3)
    ample = make_instance("fdma", 3, energy_j=1e6)
    free = best.solve(ample)
    assert free.allocation is not None
    np.testing.assert_array_equal(energy_worth(free.problem, free.allocation), 0.0)


@pytest.mark.parametrize(("access", "more"), [("ofdma", {"subcarriers": 24}), ("rb", {"block_hz": 200.0})])
def test_the_worth_of_a_joule_on_a_given_spectrum(access: str, more: dict[str, float]) -> None:
    """Against the best allocations on the same spectrum with a little less and a little more energy."""
    cell, _ = _cell(1, 3, access=access, **more)
    instance = cell.instance.with_changes(energy_j=0.7 * cell.instance.energy_j)
    result = RoundSolver("psca").solve(instance)
    assert result.allocation is not None
    best = on_spectrum(result.problem, result.allocation)
    assert best is not None
    worth = energy_worth(result.problem, best)
    assert worth.max() > 0.0

    def value(energy_j: FloatArray) -> float:
        problem = Problem(instance.with_changes(energy_j=energy_j))
        allocation = on_spectrum(problem, best)
        assert allocation is not None
        return problem.evaluate(allocation).objective

    for k in range(3):
        step = np.zeros(3)
        step[k] = 1e-3 * instance.energy_j[k]
        slope = (value(instance.energy_j - step) - value(instance.energy_j + step)) / (2 * step[k])
        assert worth[k] == pytest.approx(slope, rel=0.02, abs=1e-9)


def test_the_virtual_queue_spends_less_on_bad_channels_and_gains_by_it() -> None:
    options = SimulateOptions(rounds=80, correlation=0.5, policies=("equal-split", "virtual-queue"))
    excess = []
    for seed in (1, 2):
        cell, rng = _cell(seed)
        table = summary(simulate(options, cell, rng)).set_index("policy")
        excess.append(table.loc["virtual-queue", "excess"] / table.loc["equal-split", "excess"])
        assert table.loc["virtual-queue", "most_used"] <= 1.0
    assert max(excess) < 1.0
    assert np.mean(excess) < 0.97


def test_policies_against_the_clairvoyant_optimum() -> None:
    """One convex program over the horizon: no policy beats it, and it is what its caps achieve."""
    pytest.importorskip("cvxpy")
    from edgealloc.rounds.clairvoyant import clairvoyant

    options = SimulateOptions(rounds=4, correlation=0.5, energy_share=0.5)
    cell, rng = _cell(2)
    trace = draw_rounds(options, cell, rng)
    budget = options.energy_share * options.rounds * trace.base.energy_j
    rounds = [trace.instance(t, budget) for t in range(4)]
    best = clairvoyant(rounds, budget)
    assert best is not None
    assert np.all(best.energy_j.sum(axis=0) <= budget)
    free = np.mean([Problem(one).free_objective for one in rounds])
    assert best.objective.mean() - free == pytest.approx(best.claimed - free, rel=1e-4)
    frame = simulate(options, cell, np.random.default_rng(0))  # other rounds: must not be compared
    cell, rng = _cell(2)
    frame = simulate(options, cell, rng)
    means = frame.groupby("policy")["objective"].mean()
    assert set(means.index) == set(POLICIES)
    for value in means:
        assert value >= best.claimed - 1e-7 * abs(best.claimed)
        assert value - free <= 1.5 * (best.claimed - free)
    tighter = clairvoyant(rounds, 0.8 * budget)
    assert tighter is None or tighter.claimed > best.claimed


def test_rounds_are_the_same_for_all_and_for_a_seed() -> None:
    options = SimulateOptions(rounds=30, leave=0.3, come_back=0.4)
    one, two = (draw_rounds(options, *_cell(5, 4)) for _ in range(2))
    np.testing.assert_array_equal(one.gain, two.gain)
    np.testing.assert_array_equal(one.present, two.present)
    assert np.all(one.present.any(axis=1))
    assert not one.present.all()


def test_fading_is_correlated_in_time() -> None:
    """Amplitudes correlate as asked, so powers do by its square; rounds further apart correlate less."""
    rho = float(lag_correlation(5.0, 0.02))
    options = SimulateOptions(rounds=1500, correlation=rho)
    cell, rng = _cell(6, 6)
    gain = draw_rounds(options, cell, rng).gain
    centred = gain / gain.mean(axis=0) - 1.0

    def at_lag(lag: int) -> float:
        return float(np.mean(centred[lag:] * centred[:-lag]) / np.mean(centred**2))

    assert at_lag(1) == pytest.approx(rho**2, abs=0.08)
    assert at_lag(5) < at_lag(1)


def test_who_leaves_is_not_planned_and_comes_back() -> None:
    options = SimulateOptions(rounds=40, leave=0.3, come_back=0.5, policies=("rollover",))
    cell, rng = _cell(7, 4)
    frame = simulate(options, cell, rng)
    assert frame["present"].min() < 4
    assert frame["present"].max() == 4
    assert np.all(frame["selected"] <= frame["present"])
    assert frame["most_used"].is_monotonic_increasing
    served = frame[frame["objective"].notna()]
    assert np.all(served["lower_bound"] <= served["objective"])
    assert np.all(served["excess"] >= -1e-12)


def test_methods_are_compared_on_the_same_rounds() -> None:
    options = SimulateOptions(
        rounds=6, policies=("rollover",), methods=("auto", "psca", "baseline:equal"), spectrum_factor=3.0
    )
    cell, rng = _cell(8, 3, access="ofdma", subcarriers=12)
    frame = simulate(options, cell, rng)
    assert len(frame) == 18
    table = summary(frame).set_index("method")
    assert set(table.index) == set(options.methods)
    assert table["rounds"].nunique() == 1
    if table["rounds"].iloc[0] > 0:
        assert table.loc["auto", "objective"] <= table.loc["baseline:equal", "objective"] + 1e-4


def test_ctrl_c_ends_a_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = RoundSolver.solve

    def pressed(self: RoundSolver, instance: Instance, within_s: float | None = None) -> Result:
        with Control(Options()) as control:
            signal.raise_signal(signal.SIGINT)
            assert control.stopped()
        return honest(self, instance, within_s)

    monkeypatch.setattr(RoundSolver, "solve", pressed)
    rng = np.random.default_rng(0)
    with pytest.raises(KeyboardInterrupt):
        simulate(SimulateOptions(rounds=2), make_cell(CellOptions(devices=2), rng), rng)


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 0},
        {"policies": ("wait-and-see",)},
        {"correlation": 1.5},
        {"energy_share": 0.0},
        {"leave": 1.0},
        {"methods": ()},
    ],
)
def test_bad_options_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        SimulateOptions(**changes)  # type: ignore[arg-type]
    assert [fault.field for fault in caught.value.faults] == list(changes)


def test_bad_horizons_are_named() -> None:
    with pytest.raises(InputError, match="b: budget_j"):
        EnergyLedger({"a": 1.0, "b": math.nan}, 5)
    with pytest.raises(InputError, match="rounds"):
        EnergyLedger({"a": 1.0}, 0)
    with pytest.raises(InputError, match="least"):
        VirtualQueue(least=0.0)
    with pytest.raises(InputError, match="equal-split, rollover, virtual-queue"):
        make_policy("greedy")


def test_command_writes_frame_and_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = ("--out", str(tmp_path / "rounds.csv"), "--plot", str(tmp_path / "rounds.png"))
    run = CliRunner().invoke(
        main,
        [
            "simulate",
            "--devices",
            "3",
            "--rounds",
            "8",
            "--seed",
            "3",
            "--policies",
            "equal-split,rollover",
            *files,
        ],
    )
    assert run.exit_code == 0, run.output
    frame = pd.read_csv(tmp_path / "rounds.csv")
    assert len(frame) == 16
    assert (tmp_path / "rounds.png").stat().st_size > 10_000
    assert "rollover" in run.output
    bad = CliRunner().invoke(main, ["simulate", "--policies", "none", "--rounds", "2"])
    assert bad.exit_code == 2
    assert "policies" in bad.output


def test_figure_tells_policies_apart() -> None:
    pytest.importorskip("matplotlib")
    from edgealloc.report.simulation_picture import plot_simulation

    options = SimulateOptions(rounds=4)
    cell, rng = _cell(9)
    figure = plot_simulation(simulate(options, cell, rng), "title")
    top, bottom = figure.axes
    styles = {(line.get_color(), line.get_linestyle()) for line in top.get_lines()}
    assert len(styles) == len(POLICIES) == len(top.get_legend().get_texts())
    assert top.get_ylabel()
    assert bottom.get_xlabel() == "round"


def test_a_device_without_energy_takes_no_part() -> None:
    options = SimulateOptions(rounds=3)
    cell, rng = _cell(3)
    trace = draw_rounds(replace(options, rounds=1), cell, rng)
    caps = trace.base.energy_j.copy()
    caps[1] = 0.0
    assert trace.instance(0, caps).device_names == (trace.base.device_names[0], trace.base.device_names[2])
