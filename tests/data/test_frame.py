"""Instances from one's own tables: units by name, gains in the right order, typical values, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

import edgealloc
from edgealloc.data.frame import TYPICAL
from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec, device_fields
from edgealloc.errors import InputError
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.tables.suffixes import NAMES

FRAME = {
    "name": ["a", "b", "c"],
    "samples": [500, 300, 400],
    "power_dbm": [20.0, 23.0, 20.0],
    "energy_mj": [3000.0, 2500.0, 4000.0],
    "frequency_ghz": [2.0, 2.4, 1.5],
}
GAIN = 1e-11 * np.random.default_rng(5).exponential(size=(3, 8))


def _words(frame: Any = FRAME, **given: Any) -> str:
    with pytest.raises(InputError) as caught:
        Instance.from_frame(frame, **({"gain": GAIN, "bandwidth_hz": 1e5} | given))
    return str(caught.value)


def test_units_are_converted_by_name() -> None:
    instance = Instance.from_frame(FRAME, gain=GAIN, bandwidth_mhz=0.1, deadline_ms=20000, noise_w_per_hz=1e-20)
    assert instance.access == "ofdma"
    assert instance.device_names == ("a", "b", "c")
    assert instance.power_max_w == pytest.approx([0.1, 0.19952623, 0.1])
    assert instance.energy_j.tolist() == [3.0, 2.5, 4.0]
    assert instance.freq_max_hz.tolist() == [2e9, 2.4e9, 1.5e9]
    assert (instance.bandwidth_hz, instance.latency_s) == (1e5, 20.0)
    assert instance.noise_psd_dbm_per_hz == pytest.approx(-170.0)


def test_every_name_with_a_unit_is_a_field_and_says_the_same_in_si() -> None:
    """One quantity in all its units: each reads back to the number in the unit of the field."""
    same = {  # of the field's own unit: how many of the named unit
        "w": 1.0, "mw": 1e3, "dbm": 30.0, "dbw": 0.0, "j": 1.0, "mj": 1e3, "kj": 1e-3, "wh": 1 / 3600,
        "mwh": 1 / 3.6, "s": 1.0, "ms": 1e3, "min": 1 / 60, "hz": 1.0, "khz": 1e-3, "mhz": 1e-6, "ghz": 1e-9,
        "bps": 1.0, "kbps": 1e-3, "mbps": 1e-6, "gbps": 1e-9, "bits": 1.0, "bit": 1.0, "kbit": 1e-3, "mbit": 1e-6,
        "bytes": 1 / 8, "kib": 1 / 8192, "mib": 1 / 8388608, "dbm_per_hz": 1.0, "w_per_hz": 10**-2.9, "db": 0.0,
    }  # fmt: skip
    fields = {*device_fields(), "bandwidth_hz", "noise_psd_dbm_per_hz", "latency_s", "block_hz"}
    for name, (field, convert) in NAMES.items():
        unit = max((unit for unit in same if name.endswith(f"_{unit}")), key=len)
        assert field in fields, name
        assert float(convert(np.array(same[unit]))) == pytest.approx(1.0), name


def test_gains_from_files_and_in_decibels(tmp_path: Path) -> None:
    np.save(tmp_path / "g.npy", GAIN)
    savemat(tmp_path / "g.mat", {"h2": GAIN, "one": GAIN[:, :1]})
    wanted = Instance.from_frame(FRAME, gain=GAIN, bandwidth_hz=1e5)
    assert Instance.from_frame(FRAME, gain=tmp_path / "g.npy", bandwidth_hz=1e5) == wanted
    assert Instance.from_frame(FRAME, gain=f"{tmp_path / 'g.mat'}:h2", bandwidth_hz=1e5) == wanted
    in_db = Instance.from_frame(FRAME, gain_db=10.0 * np.log10(GAIN), bandwidth_hz=1e5)
    assert in_db.gain == pytest.approx(GAIN)
    loss = Instance.from_frame(FRAME | {"path_loss_db": -10.0 * np.log10(GAIN[:, 0])}, bandwidth_hz=1e5)
    assert loss.access == "fdma"
    assert loss.gain == pytest.approx(GAIN[:, 0])
    column = Instance.from_frame(FRAME, gain=f"{tmp_path / 'g.mat'}:one", bandwidth_hz=1e5)  # MATLAB: [K, 1]
    assert column.gain.tolist() == GAIN[:, 0].tolist()


def test_rows_with_names_are_put_in_the_order_of_the_devices(tmp_path: Path) -> None:
    frame = pd.DataFrame(GAIN, index=["c", "a", "b"])
    frame.to_csv(tmp_path / "g.csv")
    frame.to_csv(tmp_path / "devices.csv")
    for gain in (frame, tmp_path / "g.csv"):
        instance = Instance.from_frame(FRAME, gain=gain, bandwidth_hz=1e5)
        assert np.array_equal(instance.gain, GAIN[[1, 2, 0]])
    assert "in one of the two only: c, d" in _words(gain=pd.DataFrame(GAIN, index=["d", "a", "b"]))
    assert "(a name twice)" in _words(
        FRAME | {"name": ["a", "a", "b"]}, gain=pd.DataFrame(GAIN, index=["b", "a", "a"])
    )


def test_typical_values_are_named_and_forgotten_when_given() -> None:
    instance = Instance.from_frame(FRAME, gain=GAIN, bandwidth_hz=1e5)
    assert set(instance.assumed) == {*TYPICAL, "bound"} - {"samples", "power_max_w", "energy_j", "freq_max_hz"}
    result = edgealloc.solve(instance)
    assert "assumed (not given): noise_psd_dbm_per_hz -174, latency_s 30" in repr(result)
    changed = instance.with_changes(latency_s=20.0, bound=BoundSpec(underfit_weight=0.1))
    assert set(instance.assumed) - set(changed.assumed) == {"latency_s", "bound"}
    assert instance.take([0, 1]).assumed == instance.assumed
    bare = instance.with_changes(assumed=())
    assert bare == instance
    assert "assumed" not in repr(edgealloc.solve(bare))


def test_typical_values_are_those_of_a_phone_of_the_random_cells() -> None:
    drawn = make_cell(CellOptions(devices=3, classes=(("phone", 1.0),)), np.random.default_rng(0)).instance
    for field in ("payload_lora_bits", "cycles_fixed", "cycles_lora", "freq_min_hz", "freq_max_hz", "capacitance"):
        assert getattr(drawn, field) == pytest.approx(TYPICAL[field], rel=2e-3), field
    assert drawn.energy_j.min() <= 8.0
    assert 2.0 <= TYPICAL["energy_j"] <= 8.0
    assert drawn.latency_s == TYPICAL["latency_s"]


def test_access_schemes_and_the_constants_of_the_bound() -> None:
    flat: dict[str, Any] = {"gain": GAIN[:, 0], "bandwidth_khz": 100}
    assert Instance.from_frame(FRAME, **flat).access == "fdma"
    assert Instance.from_frame(FRAME, **flat, block_khz=10).access == "rb"
    own = Instance.from_frame(FRAME, **flat, underfit_weight=0.2, pooling="device", common_keep=True, name="mine")
    assert own.bound == BoundSpec(underfit_weight=0.2, pooling="device")
    assert (own.name, own.common_keep) == ("mine", True)
    assert "bound" not in own.assumed
    assert "either a BoundSpec or its fields" in _words(bound=BoundSpec(), underfit_weight=0.2)
    levels = Instance.from_frame(FRAME, **flat, keep_levels=[[0.25, 1.0]] * 3)
    assert levels.keep_levels is not None


def test_a_column_that_says_the_same_everywhere_is_one_value() -> None:
    frame = FRAME | {"bandwidth_mhz": [0.1, 0.1, 0.1]}
    assert Instance.from_frame(frame, gain=GAIN).bandwidth_hz == 1e5
    with pytest.raises(InputError, match="3 different values; allowed: one value for all devices"):
        Instance.from_frame(FRAME | {"bandwidth_mhz": [0.1, 0.2, 0.1]}, gain=GAIN)


def test_names_that_are_no_field_are_refused_with_the_nearest() -> None:
    assert "did you mean 'power_dbm'?" in _words(FRAME | {"powr_dbm": [1, 2, 3]})
    assert "To leave it out: ignore=['city']" in _words(FRAME | {"city": ["x", "y", "z"]})
    frame = FRAME | {"city": ["x", "y", "z"], "zone": [1, 2, 3]}
    assert Instance.from_frame(frame, gain=GAIN, bandwidth_hz=1e5, ignore=["city", "zone"]).num_devices == 3


def test_what_is_given_twice_or_not_at_all_is_refused() -> None:
    assert "power_w = given; allowed: once: power_dbm is power_max_w too" in _words(power_w=0.1)
    assert "gain_db" in _words(gain_db=GAIN)
    said = _words(gain=None, bandwidth_hz=None)
    assert "gain = (missing)" in said
    assert "bandwidth_hz = None" in said
    with pytest.raises(InputError, match=r"bandwidth_hz = \(missing\)"):
        Instance.from_frame(FRAME, gain=GAIN)


def test_noise_in_dbm_is_taken_only_where_it_can_be_a_density() -> None:
    assert Instance.from_frame(FRAME, gain=GAIN, bandwidth_hz=1e5, noise_dbm=-174).noise_psd_dbm_per_hz == -174.0
    for total in (-104.0, -134.0, [-174.0] * 3):  # of 10 MHz, of 10 kHz, not one number
        assert "noise_dbm_per_hz=; of a power in dBm in the whole band" in _words(noise_dbm=total)


def test_columns_twice_and_names_twice_are_refused() -> None:
    twice = pd.DataFrame([[1e-11, 2e-11]] * 2, columns=["gain", "gain"])
    with pytest.raises(InputError, match="gain = a column of this title twice"):
        Instance.from_frame(twice, bandwidth_hz=1e5)
    same = pd.DataFrame({"gain": [1e-11, 2e-11]}, index=["a", "a"])
    with pytest.raises(InputError, match="different for each device"):
        Instance.from_frame(same, bandwidth_hz=1e5)


def test_names_of_any_frame_are_text() -> None:
    table = pytest.importorskip("pyarrow").table({"device": ["a", "b"], "gain": [1e-11, 2e-11]})
    assert Instance.from_frame(table, bandwidth_hz=1e5).device_names == ("a", "b")


def test_wrong_shapes_and_types_name_device_and_column() -> None:
    assert "complex numbers" in _words(gain=GAIN + 0j)
    assert "it looks transposed: give gain.T" in _words(gain=GAIN.T)
    assert "b: energy_mj = 'n/a'; allowed: a number" in _words(FRAME | {"energy_mj": [1.0, "n/a", 3.0]})
    assert "b: energy_mj = '2,5'; allowed: a number, with a decimal point" in _words(
        FRAME | {"energy_mj": [1.0, "2,5", 3.0]}
    )
    assert "b: energy_mj = '2.5'; allowed: a number, not text" in _words(FRAME | {"energy_mj": [1.0, "2.5", 3.0]})
    assert _words(latency_s=object()).count("latency_s") == 1
    assert "b: energy_j = nan" in _words(FRAME | {"energy_mj": [1.0, float("nan"), 3.0]})
    assert "shape (2,); allowed: shape (3,)" in _words(FRAME | {"samples": [1, 2]})
