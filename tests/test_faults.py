"""Every input that failed once is answered rightly: which test holds which file, and what no other test holds."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc import BoundSpec, InputError, SpectrumCap
from edgealloc.api import solve
from edgealloc.certificate.file import certificate_from_dict
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.files.instance import load_instance
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.solution import verify, verify_files
from tests.places import CASES, FAULTS, ROOT

SECONDS = 60.0  # for what takes a second
VALID = "solvers/test_valid_instances.py"
WRITING = "verify/test_writing.py"
DIAGNOSED = "solvers/fdma/test_diagnose.py"
BLOCKS = "solvers/separable/test_blocks.py"
FREE = "verify/test_free_minimum.py"
PUBLISHED = "models/training/test_published.py"
HERE = Path(__file__).name

# By file without its ending: the test file that names it, or the test that stands for it.
HELD = {
    "instances": {
        **dict.fromkeys(("seed22", "seed1048", "seed522", "seed386", "seed25", "seed3", "seed111"), VALID),
        **dict.fromkeys(("seed237", "seed774", "seed837", "seed367", "highs_zero_free"), VALID),
        **dict.fromkeys(("psca_plus_all_left_out", "psca_plus_one_subcarrier", "references"), VALID),
        **dict.fromkeys(("seed306", "seed998", "seed684", "seed864", "seed1301"), WRITING),
        **dict.fromkeys(("seed141", "seed705", "seed301", "seed190", "nine_on_six"), DIAGNOSED),
        **dict.fromkeys(("rb_block_ulp", "seed949", "seed59"), BLOCKS),
        **dict.fromkeys(("seed344", "seed1022"), FREE),
        **dict.fromkeys(("seed840", "psca_plus_ignores_limit_fdma200_levels", "fedcom", "yang"), HERE),
    },
    "proofs": dict.fromkeys(("fdma-2-s1-disjoint", "fdma-5-s1", "ofdma-2x8-s1", "wide", "crash-"), HERE),
    "scripts": {
        "d1_flower": "flower/test_answers.py: test_numbers_of_any_make_are_taken",
        "e1_levels": f"{HERE}: test_values_of_a_wrong_form_are_one_error",
        "e3_noise_unit": f"{HERE}: test_what_lacks_together_is_named_together",
        "p1_from_state_live": f"{PUBLISHED}: test_what_is_counted_is_what_peft_trains_and_saves",
        "p2_bias_payload": f"{PUBLISHED}: test_a_live_state_dict_hides_whether_biases_train",
        "p3_names": f"{PUBLISHED}: test_an_adapter_of_any_name",
        "peft_matrix": f"{PUBLISHED}: test_adapters_of_other_kinds_are_refused_by_name",
        "w2_slice": f"{HERE}: test_a_slice_of_next_to_nothing",
        "x1_complex": f"{HERE}: test_values_of_a_wrong_form_are_one_error",
        "x2_int_names": f"{HERE}: test_numbers_as_names_are_text_in_every_file",
        "x3_scalars": f"{HERE}: test_values_of_a_wrong_form_are_one_error",
    },
}


def of(*path: str) -> Path:
    """A file that failed once."""
    found = FAULTS.joinpath(*path)
    if not found.exists():
        pytest.skip(f"no {found}; set EDGEALLOC_FAULTS to the folder of inputs that failed once")
    return found


@pytest.mark.parametrize("room", HELD)
def test_every_file_is_held_by_a_test(room: str) -> None:
    for path in of(room).iterdir():
        if path.name.startswith(("__", ".")):
            continue
        held = [
            test for name, test in HELD[room].items() if re.match(rf"{re.escape(name)}($|[.]|(?<=-))", path.name)
        ]
        assert len(held) == 1, path.name
        file, _, name = held[0].partition(": ")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text if name else path.name.split(".")[0].removesuffix(".json") in text


def case(name: str) -> Instance:
    """A public case."""
    path = CASES / f"{name}.json"
    if not path.exists():
        pytest.skip(f"no {path}; set EDGEALLOC_CASES to the folder of the public cases")
    return load_instance(path)


@pytest.mark.parametrize(
    ("name", "instance"),
    [("fdma-5-s1.forged", None), ("ofdma-2x8-s1.forged", None), ("fdma-2-s1-disjoint", "fdma-2-s1-disjoint.json")],
)
def test_forged_proofs_are_refused(name: str, instance: str | None) -> None:
    if instance is None:
        case(name.removesuffix(".forged"))
    where = CASES / f"{name.removesuffix('.forged')}.json" if instance is None else of("proofs", instance)
    report = verify_files(where, of("proofs", f"{name}.sol.json"), of("proofs", f"{name}.cert.json"), rel_gap=1.0)
    assert not report.ok
    assert any(fault.where == "certificate" for fault in report.faults), str(report)


def test_what_they_deny_is_feasible() -> None:
    """The instances of false infeasibility proofs have allocations that the checker accepts."""
    case("ofdma-2x8-s1")
    assert verify_files(
        CASES / "ofdma-2x8-s1.json", of("proofs", "ofdma-2x8-s1.feasible.sol.json"), rel_gap=1.0
    ).ok
    assert verify_files(of("proofs", "wide.json"), of("proofs", "wide.sol.json"), rel_gap=1.0).ok
    disjoint = load_instance(of("proofs", "fdma-2-s1-disjoint.json"))
    assert solve(disjoint, time_limit=SECONDS).status is Status.OPTIMAL


def test_a_false_diagnosis_of_a_feasible_device_is_refused() -> None:
    report = verify_files(of("proofs", "wide.json"), of("proofs", "wide.infeasible.json"))
    assert not report.ok
    assert any(fault.field.startswith("diagnosis") for fault in report.faults), str(report)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "crash-0-1.ofdma-3x12-s1-common-global": ("ofdma-3x12-s1", {"common_keep": True}),
    "crash-0-2.ofdma-2x8-s1-pert-global": ("ofdma-2x8-s1", {"bound": BoundSpec("perturbation")}),
    "crash-1-1.ofdma-2x8-s1-selection-device": ("ofdma-2x8-s1", {"exclusion_penalty": 4.0}),
    "crash-1-2.fdma-5-s1-levels-global": ("fdma-5-s1", {"keep_levels": [[0.1, 0.2, 0.5, 1.0]] * 5}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_proofs_that_ended_in_a_traceback_are_refused(name: str) -> None:
    base, changes = VARIANTS[name]
    instance = case(base).with_changes(name=name.partition(".")[2], **changes)
    data = json.loads(of("proofs", f"{name}.json").read_text(encoding="utf-8"))
    try:
        faults = check_certificate(instance, certificate_from_dict(data)).faults
    except InputError as error:
        faults = error.faults
    assert faults
    assert all(str(fault) for fault in faults)


def test_two_devices_of_extreme_scales_end_in_time_with_a_proof() -> None:
    """Its certificate once took no end."""
    instance = load_instance(of("instances", "seed840.json"))
    started = time.process_time()
    result = solve(instance, time_limit=5.0)
    assert time.process_time() - started < 20.0
    assert result.status in (Status.OPTIMAL, Status.INFEASIBLE)
    result, certificate = certified(result, time_limit=SECONDS)
    assert result.status in (Status.OPTIMAL, Status.INFEASIBLE)
    assert not check_certificate(instance, certificate).faults
    assert verify(instance, result.solution()).ok


def test_200_devices_with_levels_keep_a_tenth_of_a_second() -> None:
    """It took 5.6 s; compiling is not counted, and a busy machine may take its time."""
    instance = load_instance(of("instances", "psca_plus_ignores_limit_fdma200_levels.json"))
    solve(instance.take(slice(0, 5)), "psca+", time_limit=SECONDS)
    started = time.process_time()
    result = solve(instance, "psca+", time_limit=0.1)
    assert time.process_time() - started < 2.0
    assert result.status is not Status.ERROR
    if result.allocation is not None:
        assert result.problem.evaluate(result.allocation).feasible


def test_values_of_a_wrong_form_are_one_error() -> None:
    instance = load_instance(of("instances", "fedcom.json"))
    few = load_instance(of("instances", "yang.json")).take(slice(0, 3))
    for changed, changes in (
        (few, {"keep_levels": [0.25, 0.5, 1.0]}),
        (instance, {"gain": np.sqrt(instance.gain) * np.exp(0.3j)}),
        *(
            (instance, change)
            for change in (
                {"bandwidth_hz": None},
                {"bandwidth_hz": "20e6"},
                {"noise_psd_dbm_per_hz": "-174"},
                {"exclusion_penalty": "4"},
                {"bound": None},
                {"gain": "x"},
                {"gain": [[1e-11], [1e-11, 1e-12]]},
                {"common_keep": "no"},
                {"energy_j": ["1.0"] * 10},
            )
        ),
    ):
        with pytest.raises(InputError) as caught:
            changed.with_changes(**changes)
        assert {fault.field for fault in caught.value.faults} == set(changes)


@pytest.mark.filterwarnings("ignore::edgealloc.PlausibilityWarning")
def test_what_lacks_together_is_named_together() -> None:
    """A device that lacks time and energy at such a noise: more energy alone is not said to be enough."""
    instance = load_instance(of("instances", "fedcom.json"))
    for noise in (4e-15, -114.0):
        loud = instance.with_changes(noise_psd_dbm_per_hz=noise)
        result = solve(loud)
        assert result.status is Status.INFEASIBLE
        assert verify(loud, result.solution()).ok
        for finding in result.diagnosis:
            if np.isfinite(finding.required):
                with_more = {finding.budget: finding.required}
                assert (
                    finding.device is None or solve(loud.with_changes(**with_more)).diagnosis != result.diagnosis
                )
        lacking = {finding.budget for finding in result.diagnosis if finding.device == instance.device_names[0]}
        assert lacking == ({"energy_j"} if noise > -100.0 else {"latency_s", "energy_j"})
        assert all(finding.required > finding.available for finding in result.diagnosis)


@pytest.mark.parametrize("cap", [5e4, 1e4, 1.0, 0.0, -1.0, np.nan])
def test_a_slice_of_next_to_nothing(cap: float) -> None:
    instance = load_instance(of("instances", "yang.json")).take(slice(0, 6)).with_changes(bandwidth_hz=1e5)
    if not cap >= 0.0:
        with pytest.raises(InputError, match="limit_hz"):
            solve(instance, constraints=[SpectrumCap(cap, devices=instance.device_names[:2])])
        return
    result = solve(instance, time_limit=SECONDS, constraints=[SpectrumCap(cap, devices=instance.device_names[:2])])
    if cap < 1e3:
        assert result.status is Status.INFEASIBLE
        assert "SpectrumCap" in result.message
    else:
        assert result.status is Status.OPTIMAL
        assert result.allocation is not None
        assert result.allocation.bandwidth_hz is not None
        assert result.allocation.bandwidth_hz[:2].sum() <= cap


def test_numbers_as_names_are_text_in_every_file(tmp_path: Path) -> None:
    from edgealloc import save_instance

    instance = load_instance(of("instances", "fedcom.json")).take(slice(0, 3)).with_changes(device_names=(1, 2, 3))
    assert instance.device_names == ("1", "2", "3")
    save_instance(instance, tmp_path / "cell.json")
    solve(instance).save(tmp_path / "solution.json")
    assert verify_files(tmp_path / "cell.json", tmp_path / "solution.json").ok
