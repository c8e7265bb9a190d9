"""Compiles before any clock of these tests runs."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc.solvers.ofdma.pricing import mode as ofdma_pricing
from tests.solvers.ofdma.oracle import random_ofdma
from tests.solvers.ofdma.solving import solve


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Compile before any clock runs: half a minute the first time, nothing later."""
    with pytest.MonkeyPatch.context() as patch:
        for work in (1, ofdma_pricing._FIRST_WORK):
            patch.setattr(ofdma_pricing, "_FIRST_WORK", work)
            for seed in range(3):
                solve(random_ofdma(np.random.default_rng([7, seed])))
