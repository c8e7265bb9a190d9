"""Random cells: feasible and tight by construction, faithful to their options, reproducible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.scenario.cell import make_cell, next_round
from edgealloc.scenario.environment import ENVIRONMENTS
from edgealloc.scenario.hardware import DEVICE_CLASSES
from edgealloc.scenario.options import CellOptions, option_help
from edgealloc.scenario.path_loss import path_loss_db


def _cell(seed: int = 0, **options: Any):  # type: ignore[no-untyped-def]
    return make_cell(CellOptions(**options), np.random.default_rng(seed))


VARIANTS: list[dict[str, Any]] = [
    {},
    {"access": "rb"},
    {"access": "ofdma", "devices": 6},
    {"access": "ofdma", "devices": 6, "subcarriers": 24, "delay_profile": "iid", "fading": "rician"},
    {"environment": "umi", "pooling": "device"},
    {"environment": "rma", "underfit": "perturbation"},
    {"environment": "macro", "fading": "none"},
    {"head_labels": 2, "downlink_bps": 2e7, "energy_static_j": 0.2, "mask": "bitmap"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: "-".join(map(str, o.values())) or "default")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cells_are_feasible_tight_and_worth_solving(options: dict[str, Any], seed: int) -> None:
    cell = _cell(seed, **options)
    problem = Problem(cell.instance)
    evaluation = problem.evaluate(cell.reference)
    assert evaluation.violations == ()
    # Tight: a resource-free device would keep clearly more than the spectrum was bought for.
    assert evaluation.objective > 1.2 * problem.free_objective
    if cell.instance.access == "fdma":
        # Nothing is left over: deadline and energy or power are spent by every device, and all the spectrum.
        assert np.all(evaluation.latency_slack_s < 1e-4 * cell.instance.latency_s)
        assert evaluation.bandwidth_hz == pytest.approx(cell.instance.bandwidth_hz, rel=1e-9)


def test_smaller_reference_keep_buys_less_spectrum() -> None:
    bands = [_cell(4, reference_keep=keep).instance.bandwidth_hz for keep in (0.1, 0.3, 0.6)]
    assert bands[0] < bands[1] < bands[2]


def test_gain_is_path_loss_shadowing_and_fading() -> None:
    cell = _cell(5, devices=2000, fading="none", antenna_gain_db=3.0)
    distance = np.hypot(*cell.position_m.T)
    assert distance.min() >= 35.0
    assert distance.max() <= 500.0
    loss_db = path_loss_db(ENVIRONMENTS["uma"], distance, cell.line_of_sight, 2e9)
    shadow_db = 3.0 - loss_db - 10 * np.log10(cell.instance.gain)
    for los, sigma in ((True, 4.0), (False, 6.0)):
        drawn = shadow_db[cell.line_of_sight == los]
        # The few devices out of coverage are drawn anew, which cuts a little off the far tail.
        assert drawn.std() == pytest.approx(sigma, rel=0.1)
        assert abs(drawn.mean()) < 0.6


def test_devices_fill_the_cell_uniformly_by_area() -> None:
    distance = np.hypot(*_cell(6, devices=4000, environment="umi").position_m.T)
    inner = np.mean(distance**2 < (10.0**2 + 200.0**2) / 2)
    assert inner == pytest.approx(0.5, abs=0.04)


def test_hardware_and_adapter_reach_the_instance() -> None:
    cell = _cell(7, devices=400, classes=(("phone", 3.0), ("jetson", 1.0)), rank=4, bits=32.0)
    inst = cell.instance
    assert set(cell.device_class) == {"phone", "jetson"}
    assert np.mean(cell.device_class == "phone") == pytest.approx(0.75, abs=0.08)
    for name in ("phone", "jetson"):
        kind, mine = DEVICE_CLASSES[name], cell.device_class == name
        assert np.all(inst.freq_max_hz[mine] == kind.freq_max_hz)
        assert np.all((inst.energy_j[mine] >= kind.energy_j[0]) & (inst.energy_j[mine] <= kind.energy_j[1]))
        # RoBERTa-base, query and value, rank 4: 12 * 2 * 4 * (768 + 768) parameters, 6 operations a token.
        parameters = 12 * 2 * 4 * (768 + 768)
        assert np.all(inst.payload_lora_bits[mine] == 32 * parameters)
        assert inst.cycles_lora[mine] == pytest.approx(6 * 512 * parameters / kind.flops_per_cycle)


def test_ofdma_subcarriers_are_correlated_by_the_delay_profile() -> None:
    options: dict[str, Any] = {"access": "ofdma", "devices": 40, "subcarriers": 64}

    def neighbour_correlation(**more: Any) -> float:
        inst = _cell(8, **options, **more).instance
        power = inst.gain / inst.gain.mean(axis=1, keepdims=True)
        return float(np.corrcoef(power[:, :-1].ravel(), power[:, 1:].ravel())[0, 1])

    assert neighbour_correlation(delay_spread_s=3e-8) > 0.9
    assert abs(neighbour_correlation(delay_profile="iid")) < 0.15


def test_same_seed_same_bits_other_seed_other_cell() -> None:
    for options in VARIANTS[:3]:
        first, again, other = (_cell(seed, **options).instance for seed in (9, 9, 10))
        assert first == again
        assert not np.array_equal(first.gain, other.gain)


def test_next_round_moves_the_fading_only() -> None:
    cell = _cell(11, devices=3000)
    rng = np.random.default_rng(12)
    later = next_round(cell, 0.9, rng)
    assert later.reference is None
    assert np.array_equal(later.links.mean_gain, cell.links.mean_gain)
    assert later.instance.bandwidth_hz == cell.instance.bandwidth_hz
    # |h|^2 of Gaussian amplitudes correlated by rho has correlation rho^2.
    before, after = (c.instance.gain / c.links.mean_gain for c in (cell, later))
    assert np.corrcoef(before, after)[0, 1] == pytest.approx(0.81, abs=0.05)
    frozen = next_round(_cell(11, fading="none"), 0.0, rng)
    assert np.array_equal(frozen.instance.gain, _cell(11, fading="none").instance.gain)


def test_given_bandwidth_is_kept_and_proven_only_where_it_suffices() -> None:
    need = _cell(13).instance.bandwidth_hz
    ample, scarce = _cell(13, bandwidth_hz=2 * need), _cell(13, bandwidth_hz=need / 2)
    assert ample.instance.bandwidth_hz == 2 * need
    assert Problem(ample.instance).evaluate(ample.reference).feasible
    assert scarce.reference is None


def test_bad_options_are_listed_together() -> None:
    with pytest.raises(InputError, match=r"devices(.|\n)*access(.|\n)*samples(.|\n)*classes(.|\n)*latency_s"):
        CellOptions(devices=0, access="tdma", samples=(5, 2), classes=(("mainframe", 1.0),), latency_s=-1.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="subcarriers"):
        CellOptions(access="ofdma", devices=8, subcarriers=4)
    with pytest.raises(InputError, match=r"radius_m"):
        _cell(radius_m=20.0)
    with pytest.raises(InputError, match="uma, umi, rma, macro"):
        _cell(environment="moon")
    with pytest.raises(InputError, match=r"span_hz"):
        _cell(access="ofdma", devices=4, span_hz=1e3)


def test_kinds_that_cannot_finish_are_named_with_a_remedy() -> None:
    # 10 GHz-cycles of an IoT board's work do not fit into two seconds at 1.5 GHz.
    with pytest.raises(InputError, match=r"class iot(.|\n)*latency_s"):
        _cell(latency_s=2.0, classes=(("iot", 1.0), ("jetson", 1.0)))


def test_every_option_has_help_and_its_default() -> None:
    table = option_help()
    assert list(table) == list(CellOptions.__dataclass_fields__)
    assert all(text for _, text in table.values())
    assert CellOptions(**{name: default for name, (default, _) in table.items()}) == CellOptions()


def test_ten_thousand_devices_are_drawn_at_once() -> None:
    cell = _cell(14, devices=10_000)
    assert Problem(cell.instance).evaluate(cell.reference).feasible
    assert cell.redrawn < 2000
