"""Underfitting terms of single devices: lines and cubics below them, none far below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from edgealloc.data.spec import UnderfitCurve, UnderfitLogistic
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number
from edgealloc.verify.proof.several import Several

TERMS = (None, UnderfitCurve([0.01, 0.2, 0.5, 1.0], [3.0, 1.2, 0.4, 0.1]), UnderfitLogistic(0.2, 2.0), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Intervals, Balls])
@pytest.mark.parametrize("underfit", ["inverse-keep", "perturbation"])
def test_what_lies_below_the_terms_is_close_to_them(make_instance: Any, underfit: str, kind: type[Number]) -> None:
    instance = make_instance(device_underfit=TERMS)
    instance = instance.with_changes(bound=type(instance.bound)(underfit))
    rng = np.random.default_rng(3)
    for width in (0.1, 1e-3):
        device = np.repeat(np.arange(4), 5)
        left = rng.uniform(0.21, 0.39, len(device))
        right = left + width
        of = Several.of(instance, device, kind)

        def term(keep: Any, device: Any = device) -> Any:
            own = 1.0 / keep - 1.0 if underfit == "inverse-keep" else (1.0 - keep) * (1.0 + keep)
            steps = PchipInterpolator([0.01, 0.2, 0.5, 1.0], [3.0, 1.2, 0.4, 0.1])(keep)
            return np.select([device == 1, device == 2], [steps, 1.0 / (1.0 + (keep / 0.2) ** 2)], own)

        near = 120.0 * width * width + 1e-13  # no second derivative in s or s^2 is larger there
        assert np.abs(of.value(left).lower() - term(left)).max() <= 1e-13
        for squared in (False, True):
            first, last = of.ends(left, right, squared)
            for share in np.linspace(0.0, 1.0, 9):
                keep = left + share * width
                at = (keep**2 - left**2) / (right**2 - left**2) if squared else share
                line = first.lower() * (1.0 - at) + last.lower() * at
                assert np.all(line <= term(keep) + 1e-13)
                assert np.all(line >= term(keep) - near)
        touch = left + rng.random(len(left)) * width
        a, b, c, d = (part.lower() for part in of.below(left, right, touch))
        for t in np.linspace(0.0, 1.0, 9):
            cubic = a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t * t * (1 - t) + d * t**3
            assert np.all(cubic <= term(left + t * width) + 1e-13)
            assert np.all(cubic >= term(left + t * width) - near)
        some = np.array([7, 2, 19])
        assert np.array_equal(of.take(some).value(left[some]).lower(), of.value(left).lower()[some])
    assert {0.01, 0.2, 0.5, 1.0} <= set(of.knots.tolist())
