"""Path loss, line of sight and shadowing against independent reference values and the tables' properties."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc.errors import InputError
from edgealloc.scenario.environment import ENVIRONMENTS, OutsideValidity, breakpoint_m, environment
from edgealloc.scenario.path_loss import (
    path_loss_db,
    path_loss_macro_db,
    path_loss_rma_db,
    path_loss_uma_db,
    path_loss_umi_db,
)
from edgealloc.scenario.sight import (
    draw_line_of_sight,
    draw_shadowing_db,
    effective_height_uma_m,
    line_of_sight_probability,
    shadowing_sigma_db,
)

UMA, UMI, RMA, MACRO = (ENVIRONMENTS[name] for name in ("uma", "umi", "rma", "macro"))

# Loss in dB at 5 GHz, device at 1.5 m, nominal masts: the reference values of ns-3's own test of TR 38.901
# Table 7.4.1-1 (src/propagation/test/three-gpp-propagation-loss-model-test-suite.cc), computed there outside
# ns-3. Columns: distance in m, LOS, loss.
NS3 = {
    "rma": [
        (10.0, True, 77.3784),
        (100.0, True, 87.2965),
        (1000.0, True, 108.5577),
        (10000.0, True, 140.3896),
        (10.0, False, 77.3784),
        (100.0, False, 95.7718),
        (1000.0, False, 133.5223),
        (5000.0, False, 160.5169),
    ],
    "uma": [
        (10.0, True, 72.9380),
        (100.0, True, 86.2362),
        (1000.0, True, 109.7252),
        (5000.0, True, 137.6794),
        (10.0, False, 82.5131),
        (100.0, False, 106.1356),
        (1000.0, False, 144.7641),
        (5000.0, False, 172.0753),
    ],
    "umi": [
        (10.0, True, 69.8591),
        (100.0, True, 88.4122),
        (1000.0, True, 119.3114),
        (5000.0, True, 147.2696),
        (10.0, False, 76.7563),
        (100.0, False, 107.9432),
        (1000.0, False, 143.1886),
        (5000.0, False, 167.8617),
    ],
}


@pytest.mark.parametrize("name", list(NS3))
def test_path_loss_reproduces_the_reference_values_of_ns3(name: str) -> None:
    distance, los, loss = (np.array(column) for column in zip(*NS3[name], strict=True))
    assert path_loss_db(environment(name), distance, los, 5e9) == pytest.approx(loss, abs=5e-5)


def test_rma_reproduces_the_example_of_matlab() -> None:
    # nrPathLoss documentation: RMa, buildings 7 m, street 25 m, 3.5 GHz, mast at 30 m, device at
    # (1000, 1000, 1.5) m, LOS: 110.1615 dB.
    loss = path_loss_rma_db(np.hypot(1e3, 1e3), True, 3.5e9, 1.5, 30.0, 7.0, 25.0)
    assert float(loss) == pytest.approx(110.1615, abs=5e-5)


def test_macro_line_at_one_and_a_tenth_of_a_kilometre() -> None:
    assert path_loss_macro_db([1000.0, 100.0]) == pytest.approx([128.1, 90.5], abs=1e-12)


@pytest.mark.parametrize(
    ("env", "loss", "jump_db"),
    # RMa writes the breakpoint with the 2D distance and the loss with the 3D one: a jump of
    # (40 - 21) lg(d3D/dBP), 1.5e-4 dB here, is in the standard itself.
    [(UMA, path_loss_uma_db, 1e-9), (UMI, path_loss_umi_db, 1e-9), (RMA, path_loss_rma_db, 2e-3)],
)
def test_los_loss_is_continuous_at_the_breakpoint_and_steeper_beyond(env, loss, jump_db) -> None:  # type: ignore[no-untyped-def]
    point = float(breakpoint_m(env, 2e9))
    below, above = loss(point * np.array([1.0 - 1e-12, 1.0 + 1e-12]), True, 2e9)
    assert abs(above - below) < jump_db
    slope_before = loss(point, True, 2e9) - loss(point / 1.1, True, 2e9)
    slope_after = loss(point * 1.1, True, 2e9) - loss(point * 1.0001, True, 2e9)
    assert slope_after > 1.3 * slope_before


def test_breakpoints_by_hand() -> None:
    # UMa: 4 * 24 * 0.5 * 2e9 / 3e8 = 320 m; UMi: 4 * 9 * 0.5 * 2e9 / 3e8 = 120 m;
    # RMa: 2 pi * 35 * 1.5 * 2e9 / 3e8 = 700 pi m.
    values = [float(breakpoint_m(env, 2e9)) for env in (UMA, UMI, RMA)]
    assert values == pytest.approx([320.0, 120.0, 700.0 * np.pi], rel=1e-12)


@pytest.mark.parametrize("env", [UMA, UMI, RMA, MACRO])
def test_loss_grows_with_distance_and_blocked_links_lose_no_less(env) -> None:  # type: ignore[no-untyped-def]
    distance = np.geomspace(35.0, 5000.0, 400)
    los = path_loss_db(env, distance, True, 2e9)
    nlos = path_loss_db(env, distance, False, 2e9)
    assert np.all(np.diff(los) > 0)
    assert np.all(np.diff(nlos) > 0)
    assert np.all(nlos >= los)


def test_los_probability_by_hand() -> None:
    # TR 38.901 Table 7.4.2-1 at d = 63 m (UMa) and 36 m (UMi): the exponential is 1/e.
    e = np.exp(-1.0)
    assert float(line_of_sight_probability(UMA, 63.0)) == pytest.approx(18 / 63 + e * (1 - 18 / 63))
    assert float(line_of_sight_probability(UMI, 36.0)) == pytest.approx(0.5 + e * 0.5)
    assert float(line_of_sight_probability(RMA, 1010.0)) == pytest.approx(e)
    # C' = 1 at 23 m; at d = 150 m the factor is 1 + 5/4 * 1.5^3 / e.
    plain = 18 / 150 + np.exp(-150 / 63) * (1 - 18 / 150)
    assert float(line_of_sight_probability(UMA, 150.0, 23.0)) == pytest.approx(plain * (1 + 1.25 * 1.5**3 * e))


@pytest.mark.parametrize("env", [UMA, UMI, RMA])
@pytest.mark.parametrize("height_m", [1.5, 12.0, 22.5])
def test_los_probability_is_a_probability_and_certain_nearby(env, height_m) -> None:  # type: ignore[no-untyped-def]
    distance = np.geomspace(1.0, 5000.0, 500)
    probability = line_of_sight_probability(env, distance, height_m)
    assert np.all((probability >= 0) & (probability <= 1))
    assert np.all(probability[distance <= 10.0] == 1.0)


def test_drawn_los_share_matches_the_probability() -> None:
    distance = np.full(40_000, 80.0)
    share = draw_line_of_sight(UMI, distance, np.random.default_rng(1)).mean()
    probability = float(line_of_sight_probability(UMI, 80.0))
    assert share == pytest.approx(probability, abs=5 * np.sqrt(0.25 / 40_000))


def test_shadowing_follows_the_table_and_has_mean_zero() -> None:
    table = {
        env.name: shadowing_sigma_db(env, [100.0, 100.0], [True, False], breakpoint_m(env, 2e9)).tolist()
        for env in (UMA, UMI, RMA)
    }
    assert table == {"uma": [4.0, 6.0], "umi": [4.0, 7.82], "rma": [4.0, 8.0]}
    assert float(shadowing_sigma_db(RMA, 3000.0, True, breakpoint_m(RMA, 2e9))) == 6.0
    drawn = draw_shadowing_db(np.full(40_000, 6.0), np.random.default_rng(2))
    assert drawn.mean() == pytest.approx(0.0, abs=5 * 6.0 / 200)
    assert drawn.std() == pytest.approx(6.0, rel=0.02)


def test_effective_height_takes_the_values_of_the_note_with_its_probability() -> None:
    rng = np.random.default_rng(3)
    low = effective_height_uma_m(np.full(1000, 200.0), 1.5, rng)
    assert np.all(low == 1.0)
    high = effective_height_uma_m(np.full(40_000, 200.0), 22.5, rng)
    assert set(np.unique(high)) == {1.0, 12.0, 15.0, 18.0, 21.0}
    c = 0.95**1.5 * 1.25 * 8.0 * np.exp(-200 / 150)
    assert (high == 1.0).mean() == pytest.approx(1.0 / (1.0 + c), abs=0.013)


def test_outside_the_fit_a_warning_names_the_field() -> None:
    with pytest.warns(OutsideValidity, match=r"distance_m: 1 of 2 outside 10\.\.5000"):
        path_loss_uma_db([100.0, 6000.0], True, 2e9)
    with pytest.warns(OutsideValidity, match="distance_m"):  # RMa NLOS ends at 5 km, LOS at 10 km
        path_loss_rma_db(7000.0, False, 2e9)
    with pytest.warns(OutsideValidity, match="frequency_hz"):
        path_loss_rma_db(1000.0, True, 40e9)
    with pytest.warns(OutsideValidity, match="ue_height_m"):
        path_loss_umi_db(100.0, True, 2e9, ue_height_m=30.0)
    with pytest.warns(OutsideValidity, match="frequency_hz"):
        path_loss_db(MACRO, 100.0, False, 3.5e9)


def test_meaningless_inputs_raise_and_name_the_field() -> None:
    with pytest.raises(InputError, match="distance_m"):
        path_loss_uma_db([100.0, 0.0], True, 2e9)
    with pytest.raises(InputError, match=r"ue_height_m - effective_height_m"):
        path_loss_umi_db(100.0, True, 2e9, ue_height_m=0.5)
    with pytest.raises(InputError, match="uma, umi, rma, macro"):
        environment("urban")
