"""The checker accepts what is true, and rejects each of many corruptions by device and field."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.data.spec import BoundSpec, UnderfitCurve, UnderfitLogistic
from edgealloc.errors import InputError
from edgealloc.files.instance import save_instance
from edgealloc.files.solution import dict_from_solution, load_solution, save_solution, solution_from_dict
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.verify.bound import bound_value, free_bracket
from edgealloc.verify.budgets import check_budgets, demand_of
from edgealloc.verify.report import Report
from edgealloc.verify.solution import verify, verify_files
from tests.verify.test_diagnosis import claim_infeasible, least_deadline

Data = dict[str, Any]
CURVE = UnderfitCurve(np.array([0.05, 0.4, 1.0]), np.array([3.0, 0.7, 0.0]))


def _data(result: Result) -> Data:
    return json.loads(json.dumps(dict_from_solution(result.solution())))


def _judge(instance, data: Data) -> Report:
    """The verdict on a parsed solution file, with structural faults as findings, as verify_files does it."""
    try:
        return verify(instance, solution_from_dict(data))
    except InputError as error:
        return Report("?", "?", "?", error.faults)


# ---- accepted ----


@pytest.mark.parametrize("access", ["fdma", "rb", "ofdma"])
@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize("underfit", ["inverse-keep", "perturbation", "curve", "logistic"])
def test_true_solutions_are_accepted_from_files(make_instance, by_hand, tmp_path, access, pooling, underfit):
    bound = BoundSpec(
        underfit=underfit, pooling=pooling, underfit_curve=CURVE if underfit == "curve" else None,
        underfit_logistic=UnderfitLogistic(0.3, 2.5) if underfit == "logistic" else None,
    )  # fmt: skip
    instance = make_instance(access, bound=bound)
    result = by_hand(instance)
    case = save_instance(instance, tmp_path / "case.json")
    report = verify_files(case, result.save(tmp_path / "solution.json"))
    assert report.ok, str(report)
    assert report.objective == pytest.approx(result.objective, rel=1e-13)
    assert "not proved" in str(report)


def test_all_variants_together_are_accepted(make_instance, by_hand, menu):
    levels = (np.array([0.1, 0.3]), None, None, np.array([0.3, 1.0]))
    for access in ("fdma", "ofdma"):
        instance = make_instance(
            access, keep_levels=levels, adapter_options=(menu, None, menu, None), exclusion_penalty=4.0
        )
        owner = {"owner": np.array([0, 1, 1, -1, 0, 1, 3, 3])} if access == "ofdma" else {}
        report = verify(instance, by_hand(instance, selected=np.array([1, 1, 0, 1], bool), **owner).solution())
        assert report.ok, str(report)
    common = make_instance(common_keep=True)
    assert verify(common, by_hand(common).solution()).ok


def test_the_checker_shares_no_code_with_solvers_or_model():
    code = (
        "import sys, edgealloc.verify.solution\n"
        "names = ('formulation', 'scenario', 'api', 'solvers', 'models')\n"
        "print([n for n in names if f'edgealloc.{n}' in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["inverse-keep", "perturbation", "curve", "logistic"]),
    st.sampled_from(["global", "device"]),
    st.booleans(),
)
def test_objective_and_free_minimum_agree_with_the_model(make_instance, seed, underfit, pooling, select):
    """Two programs written apart from the same page: the model and the checker."""
    rng = np.random.default_rng(seed)
    curve = CURVE if underfit == "curve" else None
    logistic = UnderfitLogistic(10.0 ** (seed % 7 - 5), 10.0 ** (seed % 5 - 2)) if underfit == "logistic" else None
    bound = BoundSpec(
        underfit, rng.uniform(0, 1), pooling, *rng.uniform(0.1, 2, 4), rng.uniform(0.01, 0.9),
        underfit_curve=curve, underfit_logistic=logistic,
    )  # fmt: skip
    instance = make_instance(
        devices=5, bound=bound, samples=rng.uniform(10, 1e4, 5), exclusion_penalty=4.0 if select else None
    )
    problem, keep = Problem(instance), rng.uniform(0.05, 1, 5)
    on = rng.uniform(size=5) < (0.7 if select else 2)
    assert bound_value(instance, keep, on, np.ones(5)) == pytest.approx(problem.objective(keep, on), rel=1e-12)
    low, high, accuracy = free_bracket(instance)
    slack = accuracy * abs(low)
    assert low - slack <= problem.free_objective <= high + slack


# ---- rejected ----


def _set(device: int, **fields: Any) -> Callable[[Data], object]:
    return lambda data: data["devices"][device].update(fields)


def _scale(device: int, key: str, factor: float) -> Callable[[Data], object]:
    return lambda data: data["devices"][device].update({key: data["devices"][device][key] * factor})


def _top(**fields: Any) -> Callable[[Data], object]:
    return lambda data: data.update(fields)


def _swap_names(data: Data) -> None:
    first, second = data["devices"][:2]
    first["name"], second["name"] = second["name"], first["name"]


def _all_bandwidths_up(data: Data) -> None:
    data["devices"][3]["bandwidth_hz"] = float(np.nextafter(250_000.0, 1e9))


CORRUPTED: list[tuple[str, str, str, Callable[[Data], object]]] = [
    # access, device (or block), field, what is done to the solution
    ("fdma", "solution", "instance", _top(instance="another")),
    ("fdma", "solution", "status", _top(status="solved")),
    ("fdma", "solution", "status", _top(status="optimal")),
    ("fdma", "solution", "devices", _top(status="no_solution")),
    ("fdma", "solution", "devices", _top(status="infeasible")),
    ("fdma", "solution", "objective", lambda d: d.update(objective=d["objective"] * (1 - 1e-8))),
    ("fdma", "solution", "objective", _top(objective=None)),
    ("fdma", "solution", "lower_bound", lambda d: d.update(lower_bound=d["objective"] * (1 + 1e-9))),
    ("fdma", "solution", "free_objective", lambda d: d.update(free_objective=d["free_objective"] * (1 - 1e-7))),
    ("fdma", "solution", "free_objective", lambda d: d.update(free_objective=d["objective"] * 1.01)),
    ("fdma", "solution", "free_objective", _top(free_objective=None)),
    ("fdma", "solution", "rel_gap", lambda d: d.update(rel_gap=d["rel_gap"] / 2)),
    ("fdma", "solution", "excess_gap", lambda d: d.update(excess_gap=d["excess_gap"] / 2)),
    ("fdma", "solution", "rel_gap", _top(lower_bound=None)),
    ("fdma", "solution", "keeep", _top(keeep=1)),
    ("fdma", "dev-0003", "name", lambda d: d["devices"].pop()),
    ("fdma", "dev-0000", "name", lambda d: d["devices"].append(dict(d["devices"][0]))),
    ("fdma", "stranger", "name", lambda d: d["devices"].append(d["devices"][0] | {"name": "stranger"})),
    ("fdma", "dev-0001", "name", lambda d: d["devices"].reverse() or d["devices"].insert(0, d["devices"].pop(2))),
    ("fdma", "dev-0001", "name", _swap_names),
    ("fdma", "dev-0002", "keep", lambda d: d["devices"][2].pop("keep")),
    ("fdma", "dev-0002", "keep", _set(2, keep=0.01, dropout=0.99)),
    ("fdma", "dev-0002", "keep", _set(2, keep=0.95, dropout=0.05)),
    ("fdma", "dev-0001", "dropout", _set(1, dropout=0.70001)),
    ("fdma", "dev-0001", "rate_bps", _scale(1, "rate_bps", 1 + 1e-8)),
    ("fdma", "dev-0001", "latency_s", _scale(1, "latency_s", 1 - 1e-8)),
    ("fdma", "dev-0001", "energy_j", _scale(1, "energy_j", 1 - 1e-8)),
    ("fdma", "dev-0003", "power_w", _set(3, power_w=float(np.nextafter(0.1, 1)))),
    ("fdma", "dev-0003", "power_w", _set(3, power_w=-0.1)),
    ("fdma", "dev-0003", "power_w", _set(3, power_w=[0.05])),
    ("fdma", "dev-0000", "freq_hz", _set(0, freq_hz=2.1e9)),
    ("fdma", "dev-0000", "freq_hz", _set(0, freq_hz=2.9e8)),
    ("fdma", "dev-0000", "energy_j", _set(0, freq_hz=1.8e9)),
    ("fdma", "dev-0000", "latency_s", _set(0, freq_hz=6e8)),
    ("fdma", "dev-0000", "latency_s", _set(0, bandwidth_hz=1.0)),
    ("fdma", "dev-0000", "latency_s", _set(0, bandwidth_hz=0.0)),
    ("fdma", "dev-0000", "latency_s", _set(0, power_w=0.0)),
    ("fdma", "uplink", "bandwidth_hz", _all_bandwidths_up),
    ("fdma", "dev-0002", "bandwidth_hz", _set(2, bandwidth_hz=None)),
    ("fdma", "dev-0002", "bandwidth_hz", _set(2, bandwidth_hz=-1.0)),
    ("fdma", "dev-0002", "subcarriers", _set(2, subcarriers=[1])),
    ("fdma", "dev-0002", "adapter_option", _set(2, adapter_option="r=8")),
    ("fdma", "dev-0002", "selected", _set(2, selected=False)),
    ("fdma", "dev-0002", "selected", _set(2, selected="yes")),
    ("fdma", "solution", "diagnosis", _top(diagnosis=[
        {"device": None, "budget": "latency_s", "available": 1.0, "required": 2.0, "message": ""}])),
    ("rb", "dev-0001", "bandwidth_hz", _set(1, bandwidth_hz=2e5)),
    ("rb", "uplink", "bandwidth_hz", _set(1, bandwidth_hz=1.08e6)),
    ("ofdma", "dev-0001", "subcarriers", _set(1, subcarriers=[1, 0])),
    ("ofdma", "dev-0001", "subcarriers", _set(1, subcarriers=[1, 1])),
    ("ofdma", "dev-0001", "subcarriers", _set(1, subcarriers=[1, 8])),
    ("ofdma", "dev-0001", "subcarriers[1]", _set(1, subcarriers=[1, 1.5])),
    ("ofdma", "dev-0001", "subcarriers", _set(1, subcarriers=None)),
    ("ofdma", "dev-0001", "power_w", _set(1, power_w=[0.01])),
    ("ofdma", "dev-0001", "power_w", _set(1, power_w=0.02)),
    ("ofdma", "dev-0001", "power_w", _set(1, power_w=[0.05, float(np.nextafter(0.05, 1))])),
    ("ofdma", "dev-0001", "bandwidth_hz", _set(1, bandwidth_hz=2e5)),
    ("ofdma", "dev-0001", "latency_s", _set(1, subcarriers=[], power_w=[])),
    ("ofdma", "dev-0001", "rate_bps", _set(1, power_w=[0.01, 0.02])),
]  # fmt: skip


@pytest.mark.parametrize(
    ("access", "where", "field", "corrupt"),
    CORRUPTED,
    ids=[f"{i}-{row[0]}-{row[1]}-{row[2]}" for i, row in enumerate(CORRUPTED)],
)
def test_a_corrupted_solution_is_rejected_by_name(make_instance, by_hand, access, where, field, corrupt):
    instance = make_instance(access, keep_max=0.9)
    data = _data(by_hand(instance))
    assert _judge(instance, data).ok
    corrupt(data)
    report = _judge(instance, data)
    assert (where, field) in {(fault.where, fault.field) for fault in report.faults}, str(report)
    assert not report.ok
    assert f"{where}: {field}" in str(report)


VARIANT_FAULTS: list[tuple[str, dict[str, Any], Callable[[Data], object]]] = [
    ("keep", {"keep_levels": (np.array([0.1, 0.3]),) * 4}, _set(2, keep=0.2, dropout=0.8)),
    ("keep", {"common_keep": True}, _set(2, keep=0.2, dropout=0.8)),
    ("adapter_option", {"menu": True}, _set(2, adapter_option=None)),
    ("adapter_option", {"menu": True}, _set(2, adapter_option="r=16")),
    ("rate_bps", {"exclusion_penalty": 4.0}, _set(2, selected=False)),
    ("keep", {"exclusion_penalty": 4.0}, _set(2, selected=False)),
    ("bandwidth_hz", {"exclusion_penalty": 4.0}, _set(2, selected=False)),
    ("power_w", {"exclusion_penalty": 4.0}, _set(2, selected=False)),
    ("freq_hz", {"exclusion_penalty": 4.0}, _set(2, selected=False)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "changes", "corrupt"), VARIANT_FAULTS, ids=lambda v: None if callable(v) else str(v)[:20]
)
def test_a_broken_variant_is_rejected_by_name(make_instance, by_hand, menu, field, changes, corrupt):
    changes = dict(changes)
    if changes.pop("menu", False):
        changes["adapter_options"] = (menu,) * 4
    instance = make_instance(**changes)
    data = _data(by_hand(instance))
    assert _judge(instance, data).ok
    corrupt(data)
    assert ("dev-0002", field) in {(fault.where, fault.field) for fault in _judge(instance, data).faults}


def test_a_wrong_menu_row_changes_objective_and_use(make_instance, by_hand, menu):
    instance = make_instance(adapter_options=(menu,) * 4)
    data = _data(by_hand(instance))
    data["devices"][2]["adapter_option"] = "r=8"
    found = {(fault.where, fault.field) for fault in _judge(instance, data).faults}
    assert {("dev-0002", "latency_s"), ("dev-0002", "energy_j"), ("solution", "objective")} <= found


# ---- budgets, with certainty ----


def _exact_use(instance, solution, k: int) -> dict[str, arb]:
    """Latency and energy of a device in balls of 400 bits, written once more for this test."""

    def ball(values) -> arb:
        return arb(float(values[k]))

    with ctx.workprec(400):
        n0 = arb(10) ** ((arb(instance.noise_psd_dbm_per_hz) - 30) / 10)
        if instance.access == "ofdma":
            width = arb(instance.bandwidth_hz) / instance.num_subcarriers
            pairs = zip(solution.power_w[k], solution.subcarriers[k], strict=True)
            links = [(width, arb(p), arb(float(instance.gain[k, m]))) for p, m in pairs]
        else:
            links = [(ball(solution.bandwidth_hz), arb(solution.power_w[k]), ball(instance.gain))]
        rate = sum((b * (1 + p * g / (n0 * b)).log() / arb(2).log() for b, p, g in links), arb(0))
        power = sum((p for _, p, _ in links), arb(0))
        bits = ball(instance.payload_fixed_bits) + ball(instance.payload_lora_bits) * ball(solution.keep)
        work = ball(instance.cycles_fixed) + ball(instance.cycles_lora) * ball(solution.keep)
        freq, down = ball(solution.freq_hz), arb(0)
        if np.isfinite(instance.downlink_bps[k]):
            down = bits / ball(instance.downlink_bps)
        energy = ball(instance.capacitance) * freq**2 * work + power * bits / rate + ball(instance.energy_static_j)
        return {"latency_s": down + work / freq + bits / rate, "energy_j": energy}


@pytest.mark.parametrize("access", ["fdma", "ofdma"])
@pytest.mark.parametrize("budget", ["latency_s", "energy_j"])
@pytest.mark.parametrize("k", range(4))
def test_a_budget_missed_by_less_than_an_ulp_is_rejected(make_instance, by_hand, access, budget, k):
    """The budget is put on the two doubles around the exact use: the upper one holds, the lower one does not."""
    instance = make_instance(access)
    solution = by_hand(instance).solution()
    exact = _exact_use(instance, solution, k)[budget]
    above = below = float(exact.mid())
    while not exact <= above:
        above = math.nextafter(above, math.inf)
    while not exact > below:
        below = math.nextafter(below, -math.inf)
    assert above == math.nextafter(below, math.inf)
    for limit, fine in ((above, True), (below, False)):
        energies = instance.energy_j.copy()
        energies[k] = limit
        tight = instance.with_changes(**{budget: limit if budget == "latency_s" else energies})
        check = check_budgets(tight, solution, demand_of(tight, solution))
        missed = {(fault.where, fault.field) for fault in check.faults}
        assert ((instance.device_names[k], budget) not in missed) is fine
        assert check.in_balls >= 1


def test_a_tie_that_no_precision_decides_is_rejected(make_instance, by_hand):
    """Without noise uncertainty (N0 = 1 W/Hz) and with 1 + snr = 2 the latency equals the deadline exactly."""
    instance = make_instance(
        devices=1, noise_psd_dbm_per_hz=30.0, gain=np.array([1e6]), power_max_w=1.0, payload_fixed_bits=0.0,
        payload_lora_bits=1e6, cycles_fixed=0.0, cycles_lora=0.0, downlink_bps=np.inf, latency_s=0.5,
        keep_max=0.5,
    )  # fmt: skip
    solution = by_hand(instance, keep=0.5, power_w=np.array([1.0]), bandwidth_hz=np.array([1e6])).solution()
    check = check_budgets(instance, solution, demand_of(instance, solution))
    assert [(fault.where, fault.field) for fault in check.faults] == [("dev-0000", "latency_s")]
    assert "1024 bits" in check.faults[0].value
    relaxed = instance.with_changes(latency_s=math.nextafter(0.5, 1))
    assert not check_budgets(relaxed, solution, demand_of(relaxed, solution)).faults


def test_spectrum_is_summed_exactly(make_instance, by_hand):
    """An excess far below one ulp of the sum, which no sum in doubles shows, is still an excess."""
    instance = make_instance(devices=3)
    for last, fine in ((1e-30, False), (0.0, True)):
        band = np.array([3e5, 7e5, last])
        assert band.sum() == instance.bandwidth_hz
        assert (sum(map(Fraction, band.tolist())) <= Fraction(instance.bandwidth_hz)) is fine
        solution = replace(by_hand(instance).solution(), bandwidth_hz=band)
        found = {(fault.where, fault.field) for fault in verify(instance, solution).faults}
        assert (("uplink", "bandwidth_hz") not in found) is fine


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["fdma", "ofdma"]))
def test_doubles_and_balls_agree_within_the_stated_margin(make_instance, by_hand, seed, access):
    """Random allocations judged with the deadline just at what doubles say: a verdict of 'surely within' in
    doubles must never meet a ball that says otherwise."""
    rng = np.random.default_rng(seed)
    instance = make_instance(access, devices=3, noise_psd_dbm_per_hz=rng.uniform(-180, -150))
    result = by_hand(instance, keep=rng.uniform(0.05, 0.3), freq_hz=rng.uniform(0.8e9, 1.2e9, 3))
    solution = result.solution()
    k = int(rng.integers(3))
    factor = 1.0 + rng.uniform(-1, 1) * 10.0 ** rng.uniform(-16, -12)
    tight = instance.with_changes(latency_s=float(solution.latency_s[k] * factor))
    check = check_budgets(tight, solution, demand_of(tight, solution))
    missed = instance.device_names[k] in {f.where for f in check.faults if f.field == "latency_s"}
    if abs(factor - 1) > 1e-14:
        assert missed is (factor < 1)


def test_numbers_near_underflow_are_not_left_to_doubles(make_instance, by_hand):
    instance = make_instance(capacitance=1e-300)
    solution = by_hand(instance).solution()
    check = check_budgets(instance, solution, demand_of(instance, solution))
    assert (check.in_balls, check.faults) == (4, ())
    assert verify(make_instance(), by_hand(make_instance()).solution()).in_balls == 0


# ---- results without an allocation ----


def test_without_an_allocation_nothing_is_claimed(make_instance):
    instance = make_instance(latency_s=4.0)
    finding = Diagnosis("dev-0001", "latency_s", 4.0, least_deadline(instance, 1), "")
    sound = claim_infeasible(instance, finding)
    for key in ("objective", "lower_bound", "rel_gap", "excess_gap"):
        report = verify(instance, replace(sound, **{key: 0.5}))
        assert [(fault.where, fault.field) for fault in report.faults] == [("solution", key)]
    stopped = replace(sound, status=Status.NO_SOLUTION, diagnosis=(), lower_bound=0.3)
    assert verify(instance, stopped).ok
    assert not verify(instance, replace(stopped, objective=0.5)).ok


# ---- the public cases ----


def test_solved_public_cases_are_accepted(cases, tmp_path):
    api = pytest.importorskip("edgealloc.api")
    from edgealloc.files.instance import load_instance

    for name in ("fdma-2-s1", "fdma-10-ample-s1", "fdma-20-head-downlink-s2", "fdma-10-infeasible-deadline-s1"):
        path = cases / f"{name}.json"
        solution = api.solve(load_instance(path)).save(tmp_path / f"{name}.json")
        report = verify_files(path, solution)
        assert report.ok, str(report)
        again = save_solution(load_solution(solution), tmp_path / "again.json")
        assert again.read_text() == solution.read_text()
