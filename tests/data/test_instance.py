"""The instance: checked once with all faults at once, read-only, equal by value."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve, UnderfitLogistic, device_fields
from edgealloc.errors import InputError


def _faults(make_instance, *args, **changes) -> set[tuple[str, str]]:
    with pytest.raises(InputError) as caught:
        make_instance(*args, **changes)
    return {(fault.where, fault.field) for fault in caught.value.faults}


def _one_bad(value: float, good: float, at: int = 2) -> np.ndarray:
    column = np.full(4, good)
    column[at] = value
    return column


def test_arrays_are_copies_and_read_only(make_instance):
    samples = np.full(4, 100.0)
    instance = make_instance(samples=samples)
    samples[0] = -1.0
    assert instance.samples[0] == 100.0
    for key in device_fields():
        with pytest.raises(ValueError, match="read-only"):
            getattr(instance, key)[0] = 1.0
    with pytest.raises(AttributeError):
        instance.latency_s = 1.0


def test_derived_quantities(make_instance):
    instance = make_instance("ofdma", devices=3, subcarriers=5, noise_psd_dbm_per_hz=-174.0)
    assert (instance.num_devices, instance.num_subcarriers) == (3, 5)
    assert make_instance("fdma").num_subcarriers is None
    assert instance.noise_psd_w_per_hz == pytest.approx(3.9810717055349725e-21, rel=1e-14)  # 10^-20.4
    assert instance.total_samples == 300 + 350 + 400
    assert instance.weights == pytest.approx([300 / 1050, 350 / 1050, 400 / 1050])
    assert instance.device_names == ("dev-0000", "dev-0001", "dev-0002")
    assert np.array_equal(instance.power_max_w, [0.1] * 3)  # scalars are broadcast


@pytest.mark.parametrize("key", sorted(device_fields()))
@pytest.mark.parametrize("value", [np.nan, -1.0, -np.inf])
def test_every_device_field_is_checked(make_instance, key, value):
    good = {"gain": 1e-10, "capacitance": 1e-28}.get(key, 0.5)
    # the neighbours in a range are moved along, so that only the field under test is at fault
    changes = {"freq_min_hz": 0.1, "keep_min": 0.01} | {key: _one_bad(value, good)}
    partner = {"freq_max_hz": "freq_min_hz", "keep_max": "keep_min"}.get(key)  # then above its upper end
    assert _faults(make_instance, **changes) - {("dev-0002", partner)} == {("dev-0002", key)}


@pytest.mark.parametrize("key", sorted(set(device_fields()) - {"downlink_bps"}))
def test_only_the_downlink_may_be_infinite(make_instance, key):
    found = _faults(make_instance, **({"keep_min": 0.01} | {key: _one_bad(np.inf, 1.0)}))
    assert ("dev-0002", key) in found
    assert np.isinf(make_instance(downlink_bps=np.inf).downlink_bps).all()


def test_all_faults_are_listed_at_once(make_instance):
    curve = UnderfitCurve(np.array([0.5, 0.4]), np.array([1.0, 2.0]))
    bound = BoundSpec("wavy", -1.0, "none", -1.0, np.nan, 0.0, np.inf, 1.0, underfit_curve=curve)  # type: ignore[arg-type]
    found = _faults(
        make_instance, name="bad", bandwidth_hz=0.0, noise_psd_dbm_per_hz=200.0, latency_s=np.inf, bound=bound,
        block_hz=1.0, exclusion_penalty=-1.0,
    )  # fmt: skip
    assert found == {
        ("uplink", "bandwidth_hz"), ("uplink", "noise_psd_dbm_per_hz"), ("uplink", "block_hz"),
        ("instance", "latency_s"), ("selection", "exclusion_penalty"), ("bound", "underfit"),
        ("bound", "underfit_weight"), ("bound", "pooling"), ("bound", "loss_range"), ("bound", "lipschitz"),
        ("bound", "curvature"), ("bound", "sparsity_weight"), ("bound", "confidence_delta"),
        ("bound", "underfit_curve"), ("bound", "underfit_curve.keep"), ("bound", "underfit_curve.value"),
    }  # fmt: skip
    found = _faults(
        make_instance, samples=_one_bad(0, 9, at=0), freq_min_hz=_one_bad(9e9, 1e8, at=1), keep_min=0.9,
        keep_max=_one_bad(0.5, 1.0, at=2), device_names=("a", "b", "c", "a"),
    )  # fmt: skip
    assert found == {("a", "samples"), ("b", "freq_min_hz"), ("c", "keep_min"), ("device 3", "name")}


def test_the_message_names_value_and_what_is_allowed(make_instance):
    with pytest.raises(InputError, match=r"dev-0002: power_max_w = -0\.25; allowed: a finite number > 0"):
        make_instance(power_max_w=_one_bad(-0.25, 0.1))


def test_numbers_that_leave_the_range_of_doubles_are_named(make_instance):
    """Each is finite; what the bound or an upload makes of them is not."""
    for name, value in (("underfit_weight", 1e201), ("loss_range", 1e150), ("curvature", 1e-250)):
        spec = replace(BoundSpec(), **{name: value})
        with pytest.raises(InputError, match=rf"bound: {name} = {re.escape(repr(value))}; allowed: .*1e\+200"):
            make_instance(bound=spec)
    with pytest.raises(InputError, match=r"dev-0001: gain = 1e\+295; allowed: .* 1e-300 J"):
        make_instance(gain=_one_bad(1e295, 1e-12, at=1))
    good = [AdapterOption("r=8", 1e6, 1e7, 1.0), AdapterOption("r=9", 1e6, 1e7, 1.0, gain=1e300)]
    with pytest.raises(InputError, match=r"dev-0001, adapter option 'r=9': gain = 1e\+300"):
        make_instance(adapter_options=(None, good, None, None))
    make_instance(gain=_one_bad(1e295, 1e-12), adapter_options=(None, None, [replace(good[0], gain=1e-9)], None))
    make_instance(keep_min=1e-300)  # as good as nothing
    small = _one_bad(1e-299, 9.0, at=1)
    with pytest.raises(InputError, match=r"dev-0001: gain = 1e-12; allowed: a smaller one, or a larger payload"):
        make_instance(payload_fixed_bits=0.0, payload_lora_bits=small, gain=np.full(4, 1e-12))


def test_long_lists_of_faults_are_cut_in_the_message_only(make_instance):
    with pytest.raises(InputError, match=r"and 30 more") as caught:
        make_instance(devices=50, samples=-1.0)
    assert len(caught.value.faults) == 50


@pytest.mark.parametrize(
    ("access", "changes", "fault"),
    [
        ("fdma", {"gain": np.ones((4, 8))}, ("devices", "gain")),
        ("ofdma", {"gain": np.ones(4)}, ("devices", "gain")),
        ("fdma", {"gain": np.zeros(0)}, ("devices", "gain")),
        ("fdma", {"samples": np.ones(3)}, ("devices", "samples")),
        ("rb", {"block_hz": None}, ("uplink", "block_hz")),
        ("rb", {"block_hz": 2e6}, ("uplink", "block_hz")),
        ("fdma", {"device_names": ("a", "b")}, ("devices", "device_names")),
        ("fdma", {"keep_levels": (np.array([0.5]), None)}, ("devices", "keep_levels")),
        ("fdma", {"keep_levels": (np.array([0.01]), None, None, None)}, ("dev-0000", "keep_levels")),
        ("fdma", {"keep_levels": (np.array([]), None, None, None)}, ("dev-0000", "keep_levels")),
        ("fdma", {"bound": BoundSpec(underfit="curve")}, ("bound", "underfit_curve")),
        ("fdma", {"bound": BoundSpec(underfit="logistic")}, ("bound", "underfit_logistic")),
        (
            "fdma",
            {"bound": BoundSpec(underfit_logistic=UnderfitLogistic(0.3, 2.5))},
            ("bound", "underfit_logistic"),
        ),
        (
            "fdma",
            {"bound": BoundSpec(underfit="logistic", underfit_logistic=UnderfitLogistic(0.3, 2e9))},
            ("bound", "underfit_logistic.steepness"),
        ),
    ],
)
def test_shapes_and_variants_are_checked(make_instance, access, changes, fault):
    assert fault in _faults(make_instance, access, **changes)


def test_a_curve_must_cover_the_keep_range(make_instance):
    curve = UnderfitCurve(np.array([0.2, 0.8]), np.array([1.0, 0.0]))
    bound = BoundSpec(underfit="curve", underfit_curve=curve)
    found = _faults(make_instance, devices=1, bound=bound)
    assert found == {("dev-0000", "keep_min"), ("dev-0000", "keep_max")}
    assert make_instance(bound=bound, keep_min=0.2, keep_max=0.8).bound.underfit_curve is curve


def test_menus_are_checked_row_by_row(make_instance):
    rows = (AdapterOption("a", 0.0, -1.0, np.nan), AdapterOption("a", 1.0, 1.0))
    found = _faults(make_instance, devices=1, adapter_options=(rows,))
    where = "dev-0000, adapter option 'a'"
    assert found == {("dev-0000", "adapter_options")} | {
        (where, key) for key in ("payload_lora_bits", "cycles_lora", "underfit_factor")
    }


def test_levels_are_sorted_and_unique_and_empty_variants_vanish(make_instance):
    instance = make_instance(devices=2, keep_levels=(np.array([0.3, 0.1, 0.3]), None))
    assert instance.keep_levels is not None
    assert instance.keep_levels[0].tolist() == [0.1, 0.3]
    bare = make_instance(devices=2, keep_levels=(None, None), adapter_options=((), None))
    assert (bare.keep_levels, bare.adapter_options) == (None, None)


def test_equality_is_by_value(make_instance):
    assert make_instance() == make_instance()
    assert make_instance() != make_instance(latency_s=14.0)
    assert make_instance() != make_instance(devices=5)
    assert make_instance() != make_instance(bound=BoundSpec(pooling="device"))
    assert make_instance() != "fdma-4"


def test_take_reorders_everything_that_is_per_device(make_instance, menu):
    instance = make_instance(
        keep_levels=(np.array([0.5]), None, None, np.array([0.1])), adapter_options=(menu, None, None, menu)
    )
    order = [3, 0, 1, 2]
    moved = instance.take(order)
    assert moved.device_names == tuple(instance.device_names[i] for i in order)
    for key in device_fields():
        assert np.array_equal(getattr(moved, key), getattr(instance, key)[order])
    assert moved.take(np.argsort(order)) == instance
    assert instance.take(instance.samples > 350).num_devices == 2


def test_with_changes_checks_again(make_instance):
    instance: Instance = make_instance()
    assert instance.with_changes(latency_s=9.0).latency_s == 9.0
    with pytest.raises(InputError):
        instance.with_changes(latency_s=-9.0)
