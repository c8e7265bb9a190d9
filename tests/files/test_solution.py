"""Solution files: exact round trips, devices by name, faults by name."""

from __future__ import annotations

import json

import jsonschema
import numpy as np
import pytest

from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.errors import InputError
from edgealloc.files.schema import json_schema
from edgealloc.files.solution import dict_from_solution, load_solution, solution_from_dict
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from tests.files.test_instance import Data


@pytest.mark.parametrize("access", ["fdma", "rb", "ofdma"])
def test_solution_round_trip_is_exact(make_instance, by_hand, menu, tmp_path, access):
    instance = make_instance(access, adapter_options=(menu, None, menu, None), exclusion_penalty=4.0)
    selected = np.array([True, True, True, False])
    owner = {"owner": np.array([0, 1, 2, -1, 0, 1, 2, 2])} if access == "ofdma" else {}
    result = by_hand(instance, selected=selected, **owner)
    solution = load_solution(result.save(tmp_path / "solution.json"))
    assert dict_from_solution(solution) == dict_from_solution(result.solution())
    assert (solution.objective, solution.status) == (result.objective, Status.FEASIBLE)
    allocation, original = solution.for_instance(instance), result.allocation
    on = original.selected
    assert np.array_equal(allocation.selected, on)
    assert np.array_equal(allocation.keep[on], original.keep[on])
    assert np.array_equal(allocation.freq_hz[on], original.freq_hz[on])
    assert np.array_equal(allocation.option[on], original.option[on])
    if access == "ofdma":
        assert np.array_equal(allocation.owner, original.owner)
        used = original.owner >= 0
        assert np.array_equal(allocation.power_w[used], original.power_w[used])
    else:
        assert np.array_equal(allocation.bandwidth_hz[on], original.bandwidth_hz[on])
        assert np.array_equal(allocation.power_w[on], original.power_w[on])
    assert Problem(instance).evaluate(allocation).objective == result.objective


def test_a_device_left_out_is_written_as_nothing(make_instance, by_hand):
    instance = make_instance(exclusion_penalty=4.0)
    result = by_hand(instance, selected=np.array([True, False, True, True]))
    row = dict_from_solution(result.solution())["devices"][1]
    assert (row["keep"], row["dropout"], row["selected"]) == (0.0, 1.0, False)
    assert (row["bandwidth_hz"], row["power_w"], row["rate_bps"], row["freq_hz"]) == (0.0, 0.0, 0.0, 0.0)


def test_devices_are_matched_by_name(make_instance, by_hand):
    instance = make_instance()
    result = by_hand(instance, keep=0.3, freq_hz=np.array([1.0e9, 1.1e9, 1.2e9, 1.3e9]))
    order = np.array([2, 0, 3, 1])
    allocation = result.solution().for_instance(instance.take(order))
    assert np.array_equal(allocation.freq_hz, result.allocation.freq_hz[order])


def test_a_solution_of_another_instance_is_refused(make_instance, by_hand):
    solution = by_hand(make_instance()).solution()
    with pytest.raises(InputError) as caught:
        solution.for_instance(make_instance(devices=5))
    assert [(f.where, f.field) for f in caught.value.faults] == [("dev-0004", "name")]
    with pytest.raises(InputError, match="two lists of one length"):
        solution.for_instance(make_instance("ofdma"))


def test_a_subcarrier_given_twice_is_refused(make_instance, by_hand):
    instance = make_instance("ofdma")
    data: Data = json.loads(json.dumps(dict_from_solution(by_hand(instance).solution())))
    data["devices"][2]["subcarriers"] = [2, 5]  # 5 is the second device's
    with pytest.raises(InputError) as caught:
        solution_from_dict(data).for_instance(instance)
    assert [(f.where, f.field, f.value) for f in caught.value.faults] == [("dev-0002", "subcarriers", "5")]


def test_infeasible_is_written_with_its_diagnosis(make_instance, tmp_path):
    problem = Problem(make_instance())
    finding = Diagnosis("dev-0001", "latency_s", 15.0, float("inf"), "no deadline would do")
    none = Result(
        problem, "by-hand", Status.INFEASIBLE, np.inf, np.inf, problem.free_objective, None, 0.1,
        diagnosis=(finding,), message="infeasible",
    )  # fmt: skip
    solution = load_solution(none.save(tmp_path / "none.json"))
    assert solution.diagnosis == (finding,)
    assert (solution.objective, solution.lower_bound, solution.rel_gap) == (None, None, None)
    assert (solution.message, solution.device_names) == ("infeasible", ())
    with pytest.raises(InputError):
        solution.for_instance(problem.instance)


def test_solution_file_structure_is_checked(make_instance, by_hand):
    data: Data = json.loads(json.dumps(dict_from_solution(by_hand(make_instance()).solution())))
    jsonschema.Draft202012Validator(json_schema("solution")).validate(data)
    data["devices"][1]["keeep"] = data["devices"][1].pop("keep")
    data["status"] = "solved"
    with pytest.raises(InputError) as caught:
        solution_from_dict(data)
    assert {(f.where, f.field) for f in caught.value.faults} == {
        ("solution", "status"), ("dev-0001", "keep"), ("dev-0001", "keeep")
    }  # fmt: skip


def test_frame_has_a_row_per_device_with_slack_and_binding(make_instance, by_hand):
    instance = make_instance(energy_static_j=1.9)
    result = by_hand(instance)
    frame = result.to_frame()
    assert list(frame.index) == list(instance.device_names)
    assert np.array_equal(frame["latency_s"], 15.0 - frame["latency_slack_s"])
    assert (frame["energy_slack_j"] > 0).all()
    tight = by_hand(instance, keep=0.05)
    assert all("keep_min" in names for names in tight.to_frame()["binding"])
