"""Neighbour choice as menu rows with a gain of their own: the menus, and who takes them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgealloc import METHODS, Instance, solve
from edgealloc.certificate.file import save_certificate
from edgealloc.data.outcome import Status
from edgealloc.errors import InputError, RefusedError
from edgealloc.files.instance import load_instance, save_instance
from edgealloc.files.solution import dict_from_solution
from edgealloc.formulation.problem import Problem
from edgealloc.rounds.system import System
from edgealloc.scenario.neighbours import nearest, neighbour_menus
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.solution import verify_data, verify_files

PHI = np.array([1.6, 1.2, 1.0])


def between(seed: int = 0, count: int = 4) -> np.ndarray:
    return 1e-11 * np.random.default_rng(seed).exponential(size=(count, count))


def network(make_instance, seed: int = 0, access: str = "fdma", **changes) -> Instance:
    menus = neighbour_menus(between(seed), PHI, 1e6, 2e8)
    fields = {"access": access, "devices": 4, "adapter_options": menus, "bandwidth_hz": 8e4} | changes
    if access == "rb":
        fields |= {"block_hz": 2e3}
    return make_instance(**fields)


def test_useful_sets_are_nested_by_gain_and_no_other_set_is_better() -> None:
    gain = between()
    menus, order = neighbour_menus(gain, PHI, 1e6, 2e8), nearest(gain)
    for k, menu in enumerate(menus):
        assert [row.label for row in menu] == ["m=1", "m=2", "m=3"]
        assert k not in order[k]
        for size in range(1, 4):
            for chosen in itertools.combinations([j for j in range(4) if j != k], size):
                worst = min(gain[k, list(chosen)])
                assert any(row.gain >= worst and row.underfit_factor <= PHI[size - 1] for row in menu)
        for row in menu:
            m = int(row.label[2:])
            assert row.gain == min(gain[k, order[k][:m]])
            assert row.underfit_factor == PHI[m - 1]


def test_rows_that_another_beats_are_left_out() -> None:
    gain = np.array([[0.0, 3e-10, 3e-10, 1e-10], [1e-10, 0.0, 0.0, 0.0], *np.full((2, 4), 2e-10)])
    labels = [[row.label for row in menu] for menu in neighbour_menus(gain, PHI, 1e6, 2e8)]
    assert labels == [["m=2", "m=3"], ["m=1"], ["m=3"], ["m=3"]]
    useless = neighbour_menus(gain, [1.0, 1.0, 1.5], 1e6, 2e8)
    assert [row.label for row in useless[0]] == ["m=1"]


def test_what_is_wrong_with_a_network_is_named() -> None:
    gain = between()
    gain[2] = 0.0
    with pytest.raises(InputError, match="device 2: gain = 0 to all others"):
        neighbour_menus(gain, PHI, 1e6, 2e8)
    with pytest.raises(InputError, match=r"shape \[K, K\]"):
        neighbour_menus(np.ones(3), PHI, 1e6, 2e8)
    with pytest.raises(InputError, match=r"underfit_factor = shape \(2,\)"):
        neighbour_menus(between(), PHI[:2], 1e6, 2e8)
    with pytest.raises(InputError, match=">= 0"):
        neighbour_menus(-between(), PHI, 1e6, 2e8)
    for wrong in (np.nan, np.inf, -1.0):  # of which no row would be left, or the wrong one
        with pytest.raises(InputError, match="underfit_factor = not all of them finite"):
            neighbour_menus(between(), [wrong, 1.0, 1.0], 1e6, 2e8)
    for given in ({"gain": [[0, 1], [1]]}, {"underfit_factor": ["a"] * 3}, {"cycles_lora": "many"}):
        fields = {"gain": between(), "underfit_factor": PHI, "payload_lora_bits": 1e6, "cycles_lora": 2e8} | given
        with pytest.raises(InputError, match=next(iter(given))):
            neighbour_menus(**fields)
    with pytest.raises(InputError, match=r"payload_lora_bits = shape \(2,\); allowed: a number or \[4\]"):
        neighbour_menus(between(), PHI, [1e6, 1e6], 2e8)
    for wrong_gain in ([1, 2, 3], np.ones((3, 2)), [[np.nan] * 2] * 2):
        with pytest.raises(InputError, match="gain"):
            nearest(wrong_gain)


@pytest.mark.parametrize("access", ["fdma", "rb"])
def test_the_optimum_is_the_best_of_all_choices_of_rows(make_instance, access: str) -> None:
    """Every combination of rows is a problem without menus, whose devices have the rows' gains."""
    instance = network(make_instance, access=access).take([0, 1])
    best = np.inf
    for rows in itertools.product(*instance.adapter_options):
        one = tuple((replace(row, gain=None),) for row in rows)
        fixed = instance.with_changes(gain=np.array([row.gain for row in rows]), adapter_options=one)
        found = solve(fixed, "bnb", rel_gap=1e-6)
        best = min(best, found.objective if found.allocation is not None else np.inf)
    result = solve(instance, "bnb", rel_gap=1e-6)
    assert result.objective == pytest.approx(best, rel=3e-6)
    assert result.lower_bound <= best


def test_a_row_of_its_own_gain_is_a_device_of_that_gain(make_instance) -> None:
    plain = network(make_instance, adapter_options=None)
    row = neighbour_menus(between(), PHI, 1e6, 2e8)[0][1]
    own = plain.with_changes(adapter_options=[(replace(row, underfit_factor=1.0),)] * 4)
    same = plain.with_changes(
        adapter_options=[(replace(row, underfit_factor=1.0, gain=None),)] * 4, gain=np.full(4, row.gain)
    )
    one, other = (solve(instance, "bnb", rel_gap=1e-7) for instance in (own, same))
    assert one.objective == other.objective
    assert one.lower_bound == other.lower_bound


@pytest.mark.parametrize("access", ["fdma", "rb"])
def test_files_checker_and_certificate_take_it_and_notice_another_gain(
    make_instance, tmp_path: Path, access: str
) -> None:
    instance = network(make_instance, access=access)
    save_instance(instance, tmp_path / "case.json")
    assert load_instance(tmp_path / "case.json") == instance
    result = solve(instance, "bnb", rel_gap=1e-5)
    assert result.status is Status.OPTIMAL
    result, certificate = certified(result, 1e-5)
    result.save(tmp_path / "solution.json")
    save_certificate(certificate, tmp_path / "proof.json")
    report = verify_files(
        tmp_path / "case.json", tmp_path / "solution.json", tmp_path / "proof.json", rel_gap=1e-5
    )
    assert report.ok, str(report)

    solution = json.loads((tmp_path / "solution.json").read_text())
    proof = json.loads((tmp_path / "proof.json").read_text())

    def scaled(factor: float) -> Instance:
        menus = [[replace(row, gain=factor * row.gain) for row in menu] for menu in instance.adapter_options]
        return instance.with_changes(adapter_options=menus)

    assert not verify_data(scaled(0.5), solution, rel_gap=1e-5).ok, "less gain than the allocation needs"
    assert not verify_data(scaled(100.0), solution, proof, rel_gap=1e-5).ok, "a bound of a harder problem"


def test_what_is_infeasible_is_explained_by_the_rows_own_gains(make_instance) -> None:
    silent = network(make_instance, gain=np.zeros(4))
    assert solve(silent, "bnb", rel_gap=1e-4).status is Status.OPTIMAL
    far = [[replace(row, gain=1e-19 * (m + 1)) for m, row in enumerate(menu)] for menu in silent.adapter_options]
    lost = solve(silent.with_changes(adapter_options=far), "bnb")
    assert lost.status is Status.INFEASIBLE
    assert lost.diagnosis
    report = verify_data(silent.with_changes(adapter_options=far), dict_from_solution(lost.solution()))
    assert report.ok, str(report)


def test_every_other_method_refuses_by_name(make_instance) -> None:
    instance = network(make_instance)
    problem = Problem(instance)
    taking = {name for name, method in METHODS.items() if method.takes(problem) and not method.foreign}
    assert taking == {"bnb"}
    with pytest.raises(RefusedError, match="gains of"):
        solve(instance, "psca")


def test_where_a_row_cannot_have_a_gain(make_instance, menu) -> None:
    rows = [(replace(menu[0], gain=1e-10),)] * 4
    with pytest.raises(InputError, match="gain = 1e-10; allowed: None for access ofdma"):
        make_instance("ofdma", adapter_options=rows)
    for wrong in (0.0, -1.0, np.nan, np.inf, "far"):
        with pytest.raises(InputError, match="gain"):
            make_instance(adapter_options=[(replace(menu[0], gain=wrong),)] * 4)
    with pytest.raises(InputError, match="the states of a round have them"):
        System("fdma", 1e6, -174.0, 15.0, make_instance().bound, 1e4, 1e6, adapter_options=rows[0])
