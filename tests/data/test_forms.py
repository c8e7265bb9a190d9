"""Values of a wrong type or shape: one error that names device and field, never numpy's and never a guess."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import edgealloc
from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve
from edgealloc.errors import InputError


def _words(act: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        act()
    return str(caught.value)


WRONG: list[tuple[str, Any, str]] = [  # field, value, what the message must hold
    ("gain", np.full(4, 1e-6 + 1e-6j), "complex numbers; allowed: real numbers; of a complex channel coefficient"),
    ("gain", "x", "gain = 'x'"),
    ("gain", None, "gain = None"),
    ("gain", [[1e-11], [1e-11, 1e-12], [1.0], [1.0]], "dev-0001: gain = a list of 2; allowed: a list of 1"),
    ("gain", [1e-11, [1e-11], 1.0, 1.0], "dev-0002: gain = one number"),
    ("gain", np.ma.masked_array([1.0] * 4, [0, 0, 1, 0]), "gain = an array with masked entries"),
    ("energy_j", ["1.0", 2.0, 3.0, 4.0], "dev-0000: energy_j = '1.0'; allowed: a number"),
    ("energy_j", np.array(["1.0"] * 4), "dev-0003: energy_j = '1.0'"),
    ("energy_j", [1.0, None, 3.0, 4.0], "dev-0001: energy_j = None"),
    ("energy_j", pd.array([1, 2, None, 4], dtype="Int64"), "dev-0002: energy_j = "),  # nan, or <NA> of old pandas
    ("energy_j", np.array([True] * 4), "dev-0000: energy_j = True"),
    ("energy_j", np.array(["2024-01-01"] * 4, dtype="datetime64[D]"), "dev-0000: energy_j = datetime.date"),
    ("energy_j", [10**400, 1, 1, 1], "dev-0000: energy_j = 1000"),
    ("energy_j", {"dev-0000": 1.0}, "energy_j = {'dev-0000': 1.0}"),
    ("energy_j", [[1.0] * 4], "energy_j = an array of shape (1, 4); allowed: shape (4,)"),
    ("bandwidth_hz", None, "bandwidth_hz = None; allowed: a finite number > 0"),
    ("bandwidth_hz", "20e6", "bandwidth_hz = '20e6'"),
    ("bandwidth_hz", [1e6, 1e6], "bandwidth_hz = [1000000.0, 1000000.0]"),
    ("bandwidth_hz", True, "bandwidth_hz = True"),
    ("noise_psd_dbm_per_hz", "-174", "noise_psd_dbm_per_hz = '-174'"),
    ("latency_s", 1j, "latency_s = 1j"),
    ("exclusion_penalty", "4", "exclusion_penalty = '4'"),
    ("bound", None, "bound = None; allowed: an edgealloc.BoundSpec"),
    ("bound", {"underfit": "curve"}, "allowed: an edgealloc.BoundSpec"),
    ("bound", BoundSpec(underfit_weight="x"), "underfit_weight = 'x'"),  # type: ignore[arg-type]
    ("bound", BoundSpec(underfit=3), "underfit = 3; allowed: inverse-keep"),  # type: ignore[arg-type]
    ("bound", BoundSpec(underfit_curve=[1, 2]), "allowed: an edgealloc.UnderfitCurve"),  # type: ignore[arg-type]
    ("common_keep", "no", "common_keep = 'no'; allowed: True or False"),
    ("common_keep", 1, "common_keep = 1"),
    ("access", None, "access = None; allowed: fdma, ofdma, rb"),
    ("name", 5, "name = 5; allowed: text"),
    ("device_names", "abcd", "device_names = 'abcd'; allowed: a sequence"),
    ("device_names", {"a", "b", "c", "d"}, "allowed: a sequence"),
    ("device_names", [1.5, "b", "c", "d"], "device 0: name = 1.5; allowed: text, or a whole number"),
    ("device_names", [1, "1", 2, 3], "device 1: name = '1'"),
    ("keep_levels", [0.25, 0.5, 0.75, 1.0], "a flat list of 4 numbers; allowed: one list per device"),
    ("keep_levels", [[0.25], ["x"], None, None], "keep_levels[1] = 'x'"),
    ("keep_levels", 0.5, "keep_levels = 0.5; allowed: a sequence"),
    ("adapter_options", (AdapterOption("a", 1e6, 1e8),) * 4, "the same menu everywhere: [menu] * K"),
    ("adapter_options", ([("a", 1e6, 1e8)], None, None, None), "dev-0000: adapter_options"),
    ("adapter_options", ([AdapterOption("a", "big", 1e8)], None, None, None), "payload_lora_bits = 'big'"),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "words"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_type_is_named(make_instance, field: str, value: Any, words: str) -> None:
    assert words in _words(lambda: make_instance(**{field: value}))


def test_all_wrong_types_are_listed_at_once(make_instance) -> None:
    said = _words(lambda: make_instance(bandwidth_hz=None, energy_j=["a", 1, 1, 1], common_keep="no", bound=None))
    assert "4 faults" in said


def test_gains_that_look_transposed_are_said_to_be(make_instance) -> None:
    good = make_instance("ofdma", devices=3, subcarriers=8)
    assert "it looks transposed: give gain.T" in _words(lambda: good.with_changes(gain=good.gain.T))


def test_a_flat_list_of_levels_is_not_one_fixed_rate_each(make_instance) -> None:
    levels = [0.25, 0.5, 1.0]
    assert "[[0.25, 0.5, 1.0]] * K" in _words(lambda: make_instance(devices=3, keep_levels=levels))
    many = make_instance(devices=3, keep_levels=np.array([levels] * 3))
    assert many.keep_levels is not None
    assert [rates.tolist() for rates in many.keep_levels if rates is not None] == [levels] * 3


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3, 4],
        (Fraction(1), Decimal(2), np.float32(3), 4),
        np.array([1, 2, 3, 4], dtype=np.uint8),
        np.array([1, 2.0, 3, 4], dtype=object),
        pd.Series([1, 2, 3, 4], dtype="Int64"),
        range(1, 5),
        np.ma.masked_array([1.0, 2.0, 3.0, 4.0], False),
    ],
    ids=str,
)
def test_whatever_holds_real_numbers_is_taken(make_instance, value: Any) -> None:
    assert make_instance(energy_j=value).energy_j.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_tensors_are_taken_where_they_can_be_read(make_instance) -> None:
    torch = pytest.importorskip("torch")
    assert make_instance(energy_j=torch.tensor([1, 2, 3, 4])).energy_j.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert "energy_j" in _words(lambda: make_instance(energy_j=torch.ones(4, requires_grad=True)))


def test_single_numbers_become_floats(make_instance) -> None:
    instance = make_instance(
        bandwidth_hz=np.int64(1000000), latency_s=Fraction(15), exclusion_penalty=np.float32(2)
    )
    values = (instance.bandwidth_hz, instance.latency_s, instance.exclusion_penalty)
    assert values == (1e6, 15.0, 2.0)
    assert {type(value) for value in values} == {float}
    rows = ([AdapterOption("a", np.int64(1000000), np.float32(100))], None)
    edgealloc.save_instance(make_instance(devices=2, adapter_options=rows), "/dev/null")


@pytest.mark.parametrize(
    "names",
    [(0, 1, 2, 3), np.arange(4), pd.Index([0, 1, 2, 3]), ["0", "1", "2", "3"], map(str, range(4))],
    ids=["tuple", "array", "index", "list", "iterator"],
)
def test_names_may_be_any_sequence_and_survive_saving(make_instance, names: Any, tmp_path: Path) -> None:
    instance = make_instance(device_names=names)
    assert instance.device_names == ("0", "1", "2", "3")
    assert edgealloc.load(edgealloc.save_instance(instance, tmp_path / "cell.json")) == instance


def test_a_misspelt_field_is_answered_with_the_nearest(make_instance) -> None:
    good: Instance = make_instance()
    assert "did you mean 'bandwidth_hz'?" in _words(lambda: make_instance(bandwith_hz=1e6))
    assert "did you mean 'latency_s'?" in _words(lambda: good.with_changes(latncy_s=2.0))
    assert "did you mean 'underfit_weight'?" in _words(lambda: BoundSpec(underfit_wait=2.0))  # type: ignore[call-arg]
    assert "did you mean 'cycles_lora'?" in _words(lambda: AdapterOption("a", 1.0, cycle_lora=2.0))  # type: ignore[call-arg]
    assert pickle.loads(pickle.dumps(good)) == good


def test_a_curve_of_no_numbers_is_named() -> None:
    assert "underfit_curve: value = complex numbers" in _words(
        lambda: UnderfitCurve(np.array([0.1, 1.0]), np.array([1j, 0.0]))  # type: ignore[arg-type]
    )
