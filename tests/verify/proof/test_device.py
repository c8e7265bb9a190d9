"""Enclosures of one device: closed forms that cancel, against decimals of 60 digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest

from edgealloc.verify.proof.device import energy_shape
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number


@pytest.mark.parametrize("kind", [Intervals, Balls])
def test_the_shape_of_energy_is_enclosed_narrowly(kind: type[Number]) -> None:
    efficiency = np.concatenate((np.geomspace(1e-18, 40.0, 240), [0.05, np.nextafter(0.05, 0.0)]))
    shape, slope = energy_shape(kind.of(efficiency))
    ends = np.stack([end for part in (shape, slope) for end in (part.lower(), part.upper())])
    with localcontext() as digits:
        digits.prec = 60
        for v, (low, high, low1, high1) in zip(map(Decimal, efficiency.tolist()), ends.T.tolist(), strict=True):
            grown = v.exp()
            eps = (grown - 1) / v
            assert Decimal(low) <= eps <= Decimal(high)
            assert Decimal(low1) <= (grown - eps) / v <= Decimal(high1)
            assert high1 - low1 <= 1e-12 * low1
