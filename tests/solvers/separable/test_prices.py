"""The dual of a separable problem by columns."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc.solvers.separable.prices import search_prices


@pytest.mark.parametrize("budget_hz", [1e-12, 1.0, 1e13])
def test_prices_without_end_are_added_up(budget_hz: float) -> None:
    """Columns that exceed the budget by less than its margin are worth any price."""
    share = np.array([0.4, 0.6 * (1.0 + 2e-13)])
    columns = (np.ones(2), budget_hz * share, np.zeros(2))
    priced = search_prices(np.arange(3), columns, budget_hz, np.zeros(5), (0.0, 0.0), 1e-9, np.inf)
    assert priced.prices[0] > 1e100 / budget_hz
    assert not np.isnan(priced.bound)
