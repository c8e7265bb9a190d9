"""Files: exact round trips, every fault at once, strict JSON, atomic writes, published schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgealloc
from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec, UnderfitCurve, UnderfitLogistic, device_fields
from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import read_json
from edgealloc.files.instance import (
    dict_from_instance,
    instance_from_dict,
    instance_hash,
    load_instance,
    save_instance,
)
from edgealloc.files.schema import json_schema

PACKAGE = Path(edgealloc.__file__).parent
NAMES = st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))
Data = dict[str, Any]


def _file(instance: Instance) -> Data:
    """The instance as parsed JSON, free to be spoiled."""
    return json.loads(json.dumps(dict_from_instance(instance)))


def _faults(data: Data) -> tuple[Fault, ...]:
    with pytest.raises(InputError) as caught:
        instance_from_dict(data)
    return caught.value.faults


def _variants(make_instance, menu) -> list[Instance]:
    curve = UnderfitCurve(np.array([0.05, 0.4, 1.0]), np.array([3.0, 0.7, 0.0]))
    levels = (np.array([0.1, 0.3]), None, np.array([0.5]), np.array([0.05, 1.0]))
    return [
        make_instance("fdma"),
        make_instance("rb"),
        make_instance("ofdma"),
        make_instance("fdma", keep_levels=levels, common_keep=True),
        make_instance("ofdma", adapter_options=(menu, None, menu, None), exclusion_penalty=4.0),
        make_instance("fdma", bound=BoundSpec(underfit="curve", underfit_curve=curve, pooling="device")),
        make_instance("fdma", bound=BoundSpec(underfit="logistic", underfit_logistic=UnderfitLogistic(0.3, 2.5))),
    ]


# ---- round trips ----


def test_round_trip_is_exact(make_instance, menu, tmp_path):
    for number, instance in enumerate(_variants(make_instance, menu)):
        path = save_instance(instance, tmp_path / f"{number}.json")
        again = load_instance(path)
        assert again == instance
        assert instance_hash(again) == instance_hash(instance)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.floats(min_value=5e-324, max_value=1.7e308),
            st.floats(min_value=0.0, max_value=1e270),
            st.text(NAMES, min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda row: row[2],
    )
)
def test_any_double_and_any_name_survive(rows):
    count = len(rows)
    instance = Instance(
        name="drawn", access="fdma", bandwidth_hz=rows[0][0], noise_psd_dbm_per_hz=-173.97521,
        latency_s=rows[-1][0], bound=BoundSpec(), samples=np.arange(1.0, count + 1), energy_static_j=0.0,
        gain=np.array([row[1] for row in rows]), power_max_w=1.0, energy_j=np.array([row[0] for row in rows]),
        payload_fixed_bits=0.0, payload_lora_bits=1.0, cycles_fixed=0.0, cycles_lora=0.0, freq_min_hz=1.0,
        freq_max_hz=1.0, capacitance=0.0, downlink_bps=np.inf, keep_min=1.0, keep_max=1.0,
        device_names=tuple(row[2] for row in rows),
    )  # fmt: skip
    again = instance_from_dict(_file(instance))
    assert again == instance
    assert again.gain.tobytes() == instance.gain.tobytes()
    assert again.energy_j.tobytes() == instance.energy_j.tobytes()


def test_hash_differs_when_the_last_bit_of_a_number_does(make_instance):
    instance = make_instance()
    nudged = instance.with_changes(latency_s=float(np.nextafter(instance.latency_s, 99)))
    assert instance_hash(instance) != instance_hash(nudged)


def test_keys_that_may_be_null_may_be_absent(make_instance):
    instance = make_instance(downlink_bps=np.inf)
    data = _file(instance)
    del data["common_keep"], data["selection"]
    for device in data["devices"]:
        del device["keep_levels"], device["downlink_bps"]
    assert instance_from_dict(data) == instance


def test_public_cases_load_and_validate(cases):
    validator = jsonschema.Draft202012Validator(json_schema("instance"))
    paths = sorted(path for path in cases.glob("*.json") if path.name != "references.json")
    assert paths
    for path in paths:
        instance = load_instance(path)
        validator.validate(json.loads(path.read_text()))
        assert instance.name == path.stem
        assert instance_from_dict(_file(instance)) == instance


# ---- faults ----


SPOILED: list[tuple[str, str, str, Callable[[Data], object]]] = [
    ("dev-0001", "sampels", "did you mean 'samples'", lambda d: d["devices"][1].update(sampels=3)),
    ("bound", "lipshitz", "did you mean 'lipschitz'", lambda d: d["bound"].update(lipshitz=1.0)),
    ("instance", "latency", "did you mean 'latency_s'", lambda d: d.update(latency=1.0)),
    ("uplink", "zzz", "known here: bandwidth_hz", lambda d: d["uplink"].update(zzz=1)),
    ("selection", "penalty", "did you mean", lambda d: d.update(selection={"penalty": 1.0})),
    ("dev-0002", "energy_j", "required", lambda d: d["devices"][2].pop("energy_j")),
    ("dev-0000", "samples", "a finite number > 0", lambda d: d["devices"][0].update(samples=-3)),
    ("dev-0000", "samples", "a finite number > 0", lambda d: d["devices"][0].update(samples="300")),
    ("dev-0000", "samples", "a finite number > 0", lambda d: d["devices"][0].update(samples=True)),
    ("dev-0000", "samples", "a finite number > 0", lambda d: d["devices"][0].update(samples=10**400)),
    ("dev-0003", "gain", "one number", lambda d: d["devices"][3].update(gain=[1e-10])),
    ("dev-0003", "gain[1]", "finite", lambda d: d["devices"][3].update(gain=[1e-10, None])),
    ("dev-0001", "keep_max", "(0, 1]", lambda d: d["devices"][1].update(keep_max=1.5)),
    ("dev-0001", "freq_min_hz", "at most freq_max_hz", lambda d: d["devices"][1].update(freq_min_hz=3e9)),
    ("dev-0001", "keep_levels", "[keep_min, keep_max]", lambda d: d["devices"][1].update(keep_levels=[0.01])),
    ("device 1", "name", "different", lambda d: d["devices"][1].update(name="dev-0000")),
    ("device 2", "entry", "JSON object", lambda d: d["devices"].__setitem__(2, 7)),
    ("device 2", "name", "at least 1 character", lambda d: d["devices"][2].update(name="")),
    ("uplink", "bandwidth_hz", "greater than 0", lambda d: d["uplink"].update(bandwidth_hz=0)),
    ("uplink", "block_hz", "absent", lambda d: d["uplink"].update(block_hz=1e5)),
    ("uplink", "subcarriers", "absent", lambda d: d["uplink"].update(subcarriers=8)),
    ("instance", "access", "'fdma', 'ofdma' or 'rb'", lambda d: d.update(access="tdma")),
    ("instance", "devices", "at least 1", lambda d: d.update(devices=[])),
    ("bound", "confidence_delta", "less than 1", lambda d: d["bound"].update(confidence_delta=1.0)),
    ("bound", "underfit_curve", "null unless", lambda d: d["bound"].update(
        underfit_curve={"keep": [0.05, 1.0], "value": [1.0, 0.0]})),
    ("bound", "underfit_logistic", "half and steepness", lambda d: d["bound"].update(underfit="logistic")),
    ("bound", "underfit_logistic", "null unless", lambda d: d["bound"].update(
        underfit_logistic={"half": 0.3, "steepness": 2.5})),
    ("bound", "underfit_logistic.half", "greater than 0", lambda d: d["bound"].update(
        underfit="logistic", underfit_logistic={"half": 0.0, "steepness": 2.5})),
    ("bound", "underfit_logistic.half", "[1e-100, 1e100]", lambda d: d["bound"].update(
        underfit="logistic", underfit_logistic={"half": 1e200, "steepness": 2.5})),
    ("bound", "underfit_logistic.steepness", "required", lambda d: d["bound"].update(
        underfit="logistic", underfit_logistic={"half": 0.3})),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "field", "allowed", "change"), SPOILED, ids=lambda v: None if callable(v) else str(v)[:30]
)
def test_each_fault_names_device_field_and_remedy(make_instance, where, field, allowed, change):
    data = _file(make_instance())
    change(data)
    faults = _faults(data)
    found = [fault for fault in faults if fault.where == where and fault.field == field]
    assert found, faults
    assert allowed in found[0].allowed


def test_ofdma_needs_as_many_gains_as_subcarriers(make_instance):
    data = _file(make_instance("ofdma"))
    data["devices"][2]["gain"].pop()
    data["devices"][3]["gain"] = 1e-10
    assert [(f.where, f.field) for f in _faults(data)] == [("dev-0002", "gain"), ("dev-0003", "gain")]
    del data["uplink"]["subcarriers"]
    assert _faults(data)[0].field == "subcarriers"


def test_structure_and_relations_are_reported_together(make_instance):
    data = _file(make_instance())
    data["devices"][0]["sampels"] = data["devices"][0].pop("samples")
    data["devices"][1]["gain"] = -1.0
    data["devices"][2]["freq_min_hz"] = 9e9
    data["devices"][3]["keep_min"], data["devices"][3]["keep_max"] = 0.9, 0.2
    data["uplink"]["bandwidth_hz"] = "1 MHz"
    found = {(fault.where, fault.field) for fault in _faults(data)}
    assert found == {
        ("dev-0000", "samples"), ("dev-0000", "sampels"), ("dev-0001", "gain"), ("dev-0002", "freq_min_hz"),
        ("dev-0003", "keep_min"), ("uplink", "bandwidth_hz"),
    }  # fmt: skip


def test_devices_keep_their_place_beside_broken_ones(make_instance):
    data = _file(make_instance())
    data["devices"][0]["samples"] = None
    data["devices"][3]["name"] = "dev-0002"
    assert ("device 3", "name") in {(fault.where, fault.field) for fault in _faults(data)}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Expecting"),
        ("[1]", "a JSON list"),
        ('{"latency_s": NaN}', "NaN"),
        ('{"latency_s": -Infinity}', "-Infinity"),
        ('{"latency_s": 15, "latency_s": 10}', "repeated keys latency_s"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "digits"),
        ("\xff", "decode"),
        ('{"name": "no tag"}', "(missing)"),
        ('{"format": "edgealloc-instance/2"}', "edgealloc-instance/2"),
        ('{"format": "edgealloc-solution/1"}', "edgealloc-solution/1"),
    ],
)
def test_what_is_no_instance_file_is_one_clear_fault(tmp_path, text, says):
    path = tmp_path / "case.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"case\.json has 1 fault") as caught:
        load_instance(path)
    assert says in caught.value.faults[0].value


def test_a_number_beyond_double_range_is_refused(make_instance):
    text = json.dumps(_file(make_instance())).replace('"latency_s": 15.0', '"latency_s": 1e999')
    assert [(f.where, f.field) for f in _faults(json.loads(text))] == [("instance", "latency_s")]


# ---- writing ----


# ---- solutions ----


# ---- schemas ----


@pytest.mark.parametrize("kind", ["instance", "solution", "plan"])
def test_published_schema_is_up_to_date(kind):
    """Regenerate with: python -m edgealloc.files.schema"""
    assert read_json(PACKAGE / "files" / f"{kind}.schema.json") == json_schema(kind)


def test_schema_and_instance_agree_on_ranges(make_instance):
    """A boundary value is refused by the schema exactly where it is refused by the instance itself."""
    validator = jsonschema.Draft202012Validator(json_schema("instance"))
    wide = {"freq_min_hz": 0.25, "keep_min": 0.01}
    for key in device_fields():
        for value in (-1.0, 0.0, 0.5, 1.0, 1.5):
            data = _file(make_instance(devices=1, **wide))
            data["devices"][0][key] = value
            allowed = validator.is_valid(data)
            try:
                make_instance(devices=1, **(wide | {key: np.array([value])}))
                accepted = True
            except InputError as error:
                accepted = all("at most" in fault.allowed for fault in error.faults)  # relations, not ranges
            assert allowed == accepted, (key, value)


def test_schema_knows_what_each_access_scheme_needs(make_instance):
    validator = jsonschema.Draft202012Validator(json_schema("instance"))
    for access in ("fdma", "rb", "ofdma"):
        data = _file(make_instance(access))
        assert validator.is_valid(data)
        for other in {"fdma", "rb", "ofdma"} - {access}:
            assert not validator.is_valid(data | {"access": other})


def test_importing_the_files_module_is_light():
    heavy = ("pydantic", "pandas", "scipy")
    code = "import sys, edgealloc.files.instance, edgealloc.files.solution, edgealloc.formulation.result; "
    code += f"print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
