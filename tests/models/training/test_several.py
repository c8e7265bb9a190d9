"""Several tasks with an A of their own: what is fixed, what is sent, and that they do not disturb each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

from edgealloc.errors import InputError
from edgealloc.models.exchange.aggregation import Aggregation
from edgealloc.models.exchange.wire import AdapterShape
from edgealloc.models.training.client import FederatedOptions, inverse_scale
from edgealloc.models.training.federated import run
from edgealloc.models.training.several import run_tasks, together
from edgealloc.models.training.task import Task

MakeTask = Callable[..., Task]
SPARSE = FederatedOptions(
    rounds=2, local_epochs=1, batch_size=8, learning_rate=1e-2, freeze_a=True, masks="entries"
)


def test_the_mask_is_the_same_for_all_rounds_and_devices_and_bits_are_the_payload(make_task: MakeTask) -> None:
    task = make_task()
    history = run(task, 0.25, SPARSE)
    shape = AdapterShape.from_state(task.initial, sends_a=False)
    for record in history.rounds:
        assert record["upload_bits"] == [shape.payload_bits(0.25)] * 3
    for name, value in history.state.items():
        if "lora_B" in name:
            assert np.count_nonzero(value) == value.size // 4
        if "lora_A" in name:
            np.testing.assert_array_equal(value, task.initial[name])
    other = run(task, 0.25, replace(SPARSE, seed=1)).state
    assert any(
        np.any((value != 0) != (other[name] != 0)) for name, value in history.state.items() if "lora_B" in name
    )


def test_tasks_have_orthogonal_a_and_are_merged_for_themselves(make_task: MakeTask) -> None:
    tasks = [make_task(), make_task()]
    histories = run_tasks(tasks, [0.5, [0.25, 0.5, 1.0]], SPARSE)
    one, other = (h.state for h in histories)
    for name in one:
        if "lora_A" in name:
            np.testing.assert_allclose(one[name] @ other[name].T, 0.0, atol=1e-6)
            np.testing.assert_allclose(one[name] @ one[name].T, np.eye(4), atol=1e-6)
        if "lora_B" in name:
            assert np.any((one[name] != 0) != (other[name] != 0))
    alone = run_tasks(tasks[:1], [0.5], SPARSE)[0]
    assert alone.rounds[0]["upload_bits"] == histories[0].rounds[0]["upload_bits"]
    scores = together(tasks, histories)
    assert [np.isfinite(s.loss) for s in scores] == [True, True]
    assert scores[0].loss != histories[0].test.loss
    assert together(tasks[:1], [alone])[0].loss == pytest.approx(alone.test.loss, rel=1e-6)


def test_what_does_not_go_together_is_named(make_task: MakeTask) -> None:
    with pytest.raises(InputError) as caught:
        FederatedOptions(
            masks="entries", scaling="inverted", semantics="reset", aggregation=Aggregation(correction="fair")
        )
    for words in ("freeze_a = False", "scaling = 'inverted'", "semantics = 'reset'", "correction = 'fair'"):
        assert words in str(caught.value)
    with pytest.raises(InputError, match="aggregation = 'fair'; allowed: an Aggregation"):
        FederatedOptions(aggregation="fair")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="freeze_a=True"):
        run_tasks([make_task()], [1.0], FederatedOptions())
    with pytest.raises(ValueError, match="the same adapted layers"):
        run_tasks([make_task(), make_task(rank=2)], [1.0, 1.0], SPARSE)


def test_the_inverse_scale_counts_what_is_dropped() -> None:
    assert inverse_scale(0.5, sends_a=True) == 4.0
    assert inverse_scale(0.5, sends_a=False) == 2.0
