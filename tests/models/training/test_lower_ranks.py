"""Devices of lower rank in the trainer: they train what a model of their rank would, and send no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

from edgealloc.errors import InputError
from edgealloc.models.exchange.aggregation import Aggregation
from edgealloc.models.exchange.dropout import full_masks
from edgealloc.models.exchange.wire import AdapterShape
from edgealloc.models.training.client import FederatedOptions, device_round
from edgealloc.models.training.federated import Ending, fingerprint, run
from edgealloc.models.training.task import Task

MakeTask = Callable[..., Task]
SHORT = FederatedOptions(rounds=2, local_epochs=1, batch_size=8, learning_rate=1e-2, seed=3)


def test_a_device_of_lower_rank_trains_what_a_model_of_that_rank_would(make_task: MakeTask) -> None:
    """Both models have alpha / r = 2, so the masked components of the larger one are the smaller one."""
    large, small = make_task(rank=4), make_task(rank=2)
    start = {name: np.array(value) for name, value in large.initial.items()}
    rng = np.random.default_rng(0)
    for name in start:
        if "lora_B" in name:
            start[name] = 0.1 * rng.normal(size=start[name].shape).astype(np.float32)
    shape = AdapterShape.from_state(large.initial)
    masks = full_masks(shape, 2)
    cut = {name: masks.cut(name, value) for name, value in start.items()}
    with large.feed.shortcuts():
        update, loss, bits = device_round(large, shape, start, 1, 0, 1.0, SHORT, rank=2)
    with small.feed.shortcuts():
        other, same, sent = device_round(small, AdapterShape.from_state(small.initial), cut, 1, 0, 1.0, SHORT)
    assert bits == sent == shape.of_rank(2).payload_bits(1.0)
    assert loss == pytest.approx(same, rel=1e-5)
    for name, value in other.slices.items():
        np.testing.assert_allclose(update.slices[name], value, rtol=1e-3, atol=2e-5)
    assert any(not np.allclose(update.slices[name], cut[name], atol=1e-3) for name in cut)


@pytest.mark.parametrize("way", ["factors", "svd", "stack"])
def test_mixed_ranks_train_send_their_payload_and_resume_bit_for_bit(
    way: Any, make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task()
    shape = AdapterShape.from_state(task.initial)
    options = replace(SHORT, aggregation=Aggregation(merge=way))
    ranks, keep = [1, 2, 4], 0.5
    whole = run(task, keep, options, ranks=ranks)
    assert whole.ending is Ending.COMPLETED
    for record in whole.rounds:
        assert record["upload_bits"] == [shape.of_rank(r).payload_bits(keep) for r in ranks]

    class Cut(Exception):
        pass

    def cut(record: dict[str, Any]) -> None:
        raise Cut

    place = tmp_path / "run.npz"
    with pytest.raises(Cut):
        run(task, keep, options, ranks=ranks, checkpoint=place, progress=cut)
    with pytest.raises(InputError, match="another"):
        run(task, keep, options, ranks=[1, 2, 3], checkpoint=place)
    again = run(task, keep, options, ranks=ranks, checkpoint=place)
    assert again.rounds == whole.rounds
    for name, value in whole.state.items():
        np.testing.assert_array_equal(again.state[name], value)
    assert again.test == whole.test


def test_stacked_factors_restart_from_another_a_in_every_round_and_the_model_still_learns(
    make_task: MakeTask,
) -> None:
    options = replace(SHORT, rounds=6, local_epochs=2, learning_rate=3e-2, aggregation=Aggregation(merge="stack"))
    seen: list[float] = []
    history = run(make_task(last_layers=None), 1.0, options, progress=lambda r: seen.append(r["local_loss"]))
    assert seen[-1] < seen[0] - 0.05
    first, second = (run(make_task(), 1.0, replace(options, rounds=n)).state for n in (1, 2))
    for name in first:
        if "lora_A" in name:
            assert not np.allclose(first[name], second[name])
        if "lora_B" in name:
            assert not np.any(first[name])
    assert history.train.loss < seen[0]
    frozen = run(make_task(), 1.0, replace(options, rounds=2, freeze_a=True))
    for name, value in make_task().initial.items():
        if "lora_A" in name:
            np.testing.assert_array_equal(frozen.state[name], value)


def test_full_rank_by_name_is_full_rank(make_task: MakeTask) -> None:
    task = make_task()
    plain, named = run(task, 0.5, SHORT), run(task, 0.5, SHORT, ranks=[4, 4, 4])
    assert plain.rounds == named.rounds


def test_ranks_that_cannot_be_are_refused_and_are_part_of_what_a_run_depends_on(make_task: MakeTask) -> None:
    task = make_task()
    for ranks in ([0, 1, 2], [1, 2, 5], [1.0, 2.0, 3.0]):
        with pytest.raises(ValueError, match="of 1 to 4, the rank of the adapter"):
            run(task, 1.0, SHORT, ranks=ranks)
    with pytest.raises(InputError, match=r"merge = 'svd'; allowed: .* where A is frozen"):
        FederatedOptions(freeze_a=True, aggregation=Aggregation(merge="svd"))
    sparse = replace(SHORT, freeze_a=True, masks="entries")
    with pytest.raises(InputError, match=r"ranks = \[4, 2, 4\]; allowed: 4 for all with masks of single entries"):
        run(task, 1.0, sparse, ranks=[4, 2, 4])
    rates, present = np.ones((2, 3)), np.ones((2, 3), bool)
    marks = {
        fingerprint(task, rates, present, SHORT, ranks)
        for ranks in (None, np.full((2, 3), 4), np.eye(2, 3, dtype=int))
    }
    assert len(marks) == 3
