"""How far honest training moves an adapter: the figures behind the bound on a reply's change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgealloc.models.exchange.faults import change_of, root_mean_square
from edgealloc.models.exchange.replies import LARGEST_CHANGE, AdapterShape, gather
from edgealloc.models.training.client import FederatedOptions, device_round
from edgealloc.models.training.task import Task


@pytest.mark.parametrize("rate", [1e-4, 3e-3, 3e-2, 3e-1])
def test_honest_training_stays_far_below_the_bound(rate: float, make_task: Callable[..., Task]) -> None:
    """From a thirtieth of the usual learning rate to a hundred times it, unequal data, keep rates of 0.2 to 1."""
    task = make_task()
    options = FederatedOptions(local_epochs=2, batch_size=8, learning_rate=rate)
    shape = AdapterShape.from_state(task.initial)
    state = task.initial
    for number in range(2):
        with task.feed.shortcuts():
            replies = {
                f"d{k}": device_round(task, shape, state, k, number, keep, options)[0]
                for k, keep in enumerate((0.2, 0.5, 1.0))
            }
        own = root_mean_square(state.values())
        moved = {name: change_of(state, reply) for name, reply in replies.items()}
        for name, change in moved.items():
            others = [other for key, other in moved.items() if key != name]
            assert change < 0.2 * LARGEST_CHANGE * max(own, float(np.median(others)))
        got = gather(state, replies)
        assert got.rejected == {}
        state = got.state
