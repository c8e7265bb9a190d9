"""Fitting the bound to pilot runs."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from edgealloc.data.spec import BoundSpec
from edgealloc.errors import InputError
from edgealloc.formulation.bound import StabilityTerm
from edgealloc.models.trials.calibrate import calibrate, pilot_from_records, transfer
from edgealloc.models.trials.fit import Pilot, fit, predict
from tests.conftest import MakeInstance
from tests.places import ROOT

KEEP = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])


def pilot_of(spec: BoundSpec, samples: int = 400, devices: int = 4, keep: np.ndarray = KEEP) -> Pilot:
    loss = predict(spec, keep, samples, devices)
    return Pilot("made", keep, 0.2 * (1 - keep), loss, np.full(len(keep), 0.01), samples, devices)


@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize("kind", ["inverse-keep", "perturbation"])
def test_made_up_constants_are_recovered_in_what_they_predict(kind: str, pooling: str) -> None:
    weight = 0.05 if kind == "inverse-keep" else 0.5
    true = BoundSpec(kind, weight, pooling, 3.0, 0.8, 0.05)  # type: ignore[arg-type]
    found = fit(pilot_of(true), kind, pooling=pooling, starts=16)  # type: ignore[arg-type]
    assert found.rms_error < 1e-4
    grid = np.linspace(0.1, 1.0, 200)
    np.testing.assert_allclose(found.loss(grid), predict(true, grid, 400, 4), atol=5e-3)
    assert found.best_keep == pytest.approx(grid[np.argmin(predict(true, grid, 400, 4))], abs=0.02)
    # slack is free to be zero here, so the constants carry over to another size of the overfitting term
    other = predict(found.spec, grid, 1600, 8) - found.slack
    np.testing.assert_allclose(other, predict(true, grid, 1600, 8), atol=0.02)


def test_prediction_is_the_bound_of_the_formulation() -> None:
    spec = BoundSpec("inverse-keep", 0.07, "global", 2.0, 0.9, 0.1, 0.3, 0.05)
    s, n = 0.6, 250
    gap = np.sqrt((4.0 + 24 * 2.0 * 0.81 / (0.1 + 0.6 * (1 - s * s))) / (2 * n * 0.05))
    assert predict(spec, [s], n, 5)[0] == pytest.approx(0.07 * (1 / s - 1) + gap, rel=1e-12)
    assert predict(spec, [s], n, 5)[0] == pytest.approx(
        0.07 * (1 / s - 1) + StabilityTerm.of(spec, np.array(250.0)).value(np.array(s * s)), rel=1e-12
    )


def test_a_curve_is_used_where_no_formula_fits() -> None:
    spec = BoundSpec("inverse-keep", 1.0, "global", 1.0, 0.5, 0.05)
    gap = predict(spec, KEEP, 400, 4) - (1 / KEEP - 1)
    step = np.array([2.0, 1.9, 1.8, 0.1, 0.05, 0.0])  # a cliff between 0.5 and 0.7
    pilot = Pilot("cliff", KEEP, 0.1 + step, gap + step, np.full(6, np.nan), 400, 4)
    found = calibrate(pilot, tolerance=0.05, starts=8)
    assert found.spec.underfit == "curve"
    assert found.rms_error < 0.05
    assert found.spec.underfit_curve is not None
    assert np.all(np.diff(found.spec.underfit_curve.value) <= 0)
    assert min(fit(pilot, kind, starts=8).rms_error for kind in ("inverse-keep", "perturbation")) > 0.05  # type: ignore[arg-type]
    smooth = pilot_of(BoundSpec("perturbation", 0.5, "global", 3.0, 0.8, 0.05))
    assert calibrate(smooth, starts=8).spec.underfit == "perturbation"


def test_the_minimum_counts_not_only_the_error() -> None:
    """Ten devices on SST-2: both formulas fit within 0.03 nats, with a best dropout .1 beside the measured one."""
    keep = np.array([0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    train = np.array([0.62, 0.54, 0.44, 0.32, 0.27, 0.23, 0.18])
    test = np.array([0.660, 0.603, 0.528, 0.467, 0.482, 0.518, 0.614])
    pilot = Pilot("zero-filled", keep, train, test, np.full(7, 0.01), 500, 10)
    forms = [fit(pilot, kind, starts=8) for kind in ("inverse-keep", "perturbation")]  # type: ignore[arg-type]
    assert all(c.rms_error < 0.05 and abs(c.best_keep - 0.7) > 0.09 for c in forms)
    found = calibrate(pilot, starts=8, shift=0.09)
    assert found.spec.underfit == "curve"
    assert abs(found.best_keep - 0.7) < 0.05
    assert calibrate(pilot, starts=8, shift=0.09, curve=False).spec.underfit in ("inverse-keep", "perturbation")


def test_a_fit_is_the_same_every_time_and_reports_its_error() -> None:
    rng = np.random.default_rng(0)
    true = pilot_of(BoundSpec("inverse-keep", 0.05, "global", 3.0, 0.8, 0.05))
    noisy = Pilot(
        "noisy", KEEP, true.train_loss, true.test_loss + 0.02 * rng.normal(size=6), true.test_error, 400, 4
    )
    first, second = calibrate(noisy, starts=8), calibrate(noisy, starts=8)
    assert first.spec == second.spec
    assert 0 < first.rms_error < 0.03
    assert f"fit error {first.rms_error:.4f}" in first.report()


def test_transfer_measures_regret_on_the_other_task() -> None:
    spec = BoundSpec("inverse-keep", 0.05, "global", 3.0, 0.8, 0.05)
    found = calibrate(pilot_of(spec), starts=8)
    same = transfer(found, pilot_of(spec))
    assert same.regret < 0.01
    assert same.correlation > 0.999
    other = transfer(found, pilot_of(BoundSpec("inverse-keep", 0.9, "global", 3.0, 0.1, 0.05)))
    assert other.measured_keep == 0.9
    assert other.regret > 0.3
    assert other.rms_error >= other.rms_shape_error


def test_constants_that_say_nothing_are_not_applied(make_instance: MakeInstance) -> None:
    """Nothing learned, rates that the noise hides, a fit no better than a constant: told, and not written."""
    good = pilot_of(BoundSpec("inverse-keep", 0.05, "global", 3.0, 0.8, 0.05))
    fitted = fit(good, "inverse-keep", starts=2)
    assert fitted.doubts == ()
    blind = replace(good, train_loss=np.full(6, 0.69), blind_loss=np.log(2.0))
    noisy = replace(good, test_error=np.full(6, 0.5 * np.ptp(good.test_loss)))
    rough = replace(good, test_loss=np.array([0.9, 0.5, 0.9, 0.5, 0.9, 0.5]))
    flat = replace(good, test_loss=np.full(6, 0.7), test_error=np.full(6, np.nan))
    for pilot, words in (
        (blind, "learned nothing"),
        (noisy, "does not tell rates apart"),
        (rough, "the fit says nothing"),
        (flat, "the fit says nothing"),
    ):
        error = float(np.sqrt(np.mean((fitted.loss(KEEP) - pilot.test_loss) ** 2)))
        found = replace(fitted, pilot=pilot, rms_error=error)
        assert any(words in doubt for doubt in found.doubts), words
        with pytest.raises(InputError, match="anyway"):
            found.apply(make_instance())
        assert found.apply(make_instance(), anyway=True).bound == found.spec


def test_the_committed_pilot_says_something() -> None:
    with (ROOT / "benchmarks" / "results" / "fedlodrop_sweep.csv").open(encoding="utf-8") as file:
        numbers = ("dropout", "samples", "devices", "train_loss", "test_loss")
        records = [{k: float(v) if k in numbers else v for k, v in row.items()} for row in csv.DictReader(file)]
    assert fit(pilot_from_records(records, data="sst2", rule="zero-filled"), "inverse-keep", starts=2).doubts == ()


def test_records_are_grouped_by_rate() -> None:
    records = [
        {
            "data": "d",
            "rule": "r",
            "dropout": g,
            "samples": 100,
            "devices": 2,
            "train_loss": g,
            "test_loss": g + seed,
        }
        for g in (0.0, 0.2, 0.4, 0.6)
        for seed in (0, 1)
    ]
    pilot = pilot_from_records(records, data="d", rule="r")
    np.testing.assert_allclose(pilot.keep, [0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(pilot.test_loss, [1.1, 0.9, 0.7, 0.5])
    np.testing.assert_allclose(pilot.test_error, 0.5)
    assert pilot.best_keep == 1.0
    with pytest.raises(InputError, match="at least 4 rates"):
        pilot_from_records(records[:6], data="d", rule="r")
    with pytest.raises(InputError, match="one size"):
        pilot_from_records([*records, records[0] | {"samples": 7}], data="d", rule="r")
    wild = records[0] | {"test_loss": np.nan, "seed": 7, "reason": "round 2: too large"}
    with pytest.raises(InputError, match=r"dropout 0, seed 7: run = diverged \(round 2: too large\)"):
        pilot_from_records([*records, wild], data="d", rule="r")
