"""Training over Flower equals the trainer, bit for bit, on the same masks and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from edgealloc.data.spec import BoundSpec
from edgealloc.flower.client import (
    Assignment,
    answer_state,
    answer_update,
    read_assignment,
    sub_adapter,
    train_task,
)
from edgealloc.flower.messages import from_arrays, to_arrays
from edgealloc.flower.strategy import Fate, FedLoDrop
from edgealloc.models.exchange.dropout import round_generator
from edgealloc.models.exchange.replies import AdapterShape, Aggregation, masked, masks_for
from edgealloc.models.training import client as trainer_client
from edgealloc.models.training.client import FederatedOptions, train_locally
from edgealloc.models.training.federated import run
from edgealloc.models.training.task import Task
from edgealloc.rounds.system import DeviceState, System
from tests.flower.grid import LocalGrid


def _system(shape: AdapterShape) -> System:
    return System(
        access="fdma",
        bandwidth_hz=600.0,
        noise_psd_dbm_per_hz=-174.0,
        latency_s=15.0,
        bound=BoundSpec(),
        payload_fixed_bits=shape.payload_fixed_bits,
        payload_lora_bits=shape.payload_lora_bits,
        cycles_fixed=1e10,
        cycles_lora=2e8,
    )


def _app(task: Task, k: int, options: FederatedOptions) -> ClientApp:
    app, samples = ClientApp(), len(task.devices[k])

    @app.query()
    def query(message: Message, context: Context) -> Message:
        state = DeviceState(1e-13 * (k + 1), samples, 3.0, 0.1, 3e8, 2e9, 1e-28)
        return answer_state(message, f"dev-{k:02d}", state)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        assignment = read_assignment(message, task.initial, sends_a=not options.freeze_a)
        if k == 1 and assignment.round_number == 2:
            raise RuntimeError("battery empty")
        trained, loss = train_task(task, k, assignment, options)
        return answer_update(message, assignment, trained, samples, {"loss": loss}, wire_dtype=options.wire_dtype)

    return app


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aggregation": Aggregation("keepers", correction="fair"), "scaling": "inverted"},
        {"freeze_a": True, "wire_dtype": "float16"},
    ],
    ids=["zero", "keepers-fair-inverted", "frozen-a-float16"],
)
def test_flower_equals_the_trainer(
    changes: dict[str, Any], make_task: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rounds, three devices, one of which crashes in the second: equal adapters to the last bit."""
    task = make_task()
    options = FederatedOptions(rounds=3, local_epochs=2, batch_size=8, seed=4, **changes)
    shape = AdapterShape.from_state(task.initial, sends_a=not options.freeze_a)
    strategy = FedLoDrop(_system(shape), aggregation=options.aggregation, sends_a=shape.sends_a)
    grid = LocalGrid({90 - k: _app(task, k, options) for k in range(3)})
    with task.feed.shortcuts():
        result = strategy.start(grid, to_arrays(task.initial), num_rounds=3)
    ours = from_arrays(result.arrays)
    plans = [report.plan for report in strategy.rounds]
    reports = np.array(
        [[o.fate is Fate.ANSWERED for o in report.outcomes] for report in strategy.rounds], dtype=bool
    )
    assert reports.tolist() == [[True] * 3, [True, False, True], [True] * 3]
    settings = [[plan.for_device(f"dev-{k:02d}") for k in range(3)] for plan in plans if plan]
    keep = np.array([[own["keep"] for own in row] for row in settings])
    assert np.all((keep > 0.1) & (keep < 1.0))

    def generator(seed: int, *key: int) -> np.random.Generator:
        """The trainer's draws, but for the masks: those of the plans."""
        if key[0] == trainer_client.MASK_DRAWS:
            return np.random.default_rng(settings[key[1]][key[2]]["mask_seed"])
        return round_generator(seed, *key)

    monkeypatch.setattr(trainer_client, "round_generator", generator)
    theirs = run(task, keep, options, reports=reports)
    for name, value in theirs.state.items():
        np.testing.assert_array_equal(ours[name], value)
    for record, report in zip(theirs.rounds, strategy.rounds, strict=True):
        losses = [o.metrics["loss"] for o in report.outcomes if o.metrics]
        assert np.mean(losses) == record["local_loss"]
    assert any(not np.array_equal(ours[name], task.initial[name]) for name in ours)


@pytest.mark.parametrize("sends_a", [True, False])
def test_any_training_loop_inside_sub_adapter_trains_kept_entries_only(
    sends_a: bool, make_task: Callable[..., Task]
) -> None:
    """A plain loop with AdamW inside ``sub_adapter`` equals the trainer's masked training.

    Bit for bit where A trains; where it does not, the trainer computes its gradient and drops it, which makes
    torch take other kernels.
    """
    task = make_task()
    shape = AdapterShape.from_state(task.initial, sends_a=sends_a)
    masks = masks_for(shape, 0.4, 9)
    assignment = Assignment(1, {"keep": 0.4}, masks, masked(task.initial, masks), sends_a)
    options = FederatedOptions(local_epochs=2, batch_size=8, weight_decay=0.1, freeze_a=not sends_a)
    with task.feed.shortcuts():
        task.handle.write(assignment.adapter)
        train_locally(task, task.devices[1], masks, options, np.random.default_rng(2))
        expected = task.handle.read()
        rng = np.random.default_rng(2)
        with sub_adapter(task.handle.model, assignment):
            parameters = [p for p in task.handle.model.parameters() if p.requires_grad]
            optimiser = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.1)
            for _ in range(2):
                for batch in task.feed.shuffled(task.devices[1], 8, rng):
                    loss = torch.nn.functional.cross_entropy(task.feed.logits(batch), task.feed.labels[batch])
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
    trained = task.handle.read()
    assert set(trained) == set(task.initial)
    for name, value in expected.items():
        np.testing.assert_allclose(trained[name], value, rtol=0, atol=0 if sends_a else 1e-7)
    (row,) = [n for n in trained if n.endswith("query.lora_B.weight")]
    assert np.all(trained[row][~masks.rows[row.removesuffix(".lora_B.weight")]] == 0.0)
    assert np.any(trained[row] != 0.0)
    assert all(p.requires_grad for p in task.handle.parameters.values())
    assert not any(p._backward_hooks for p in task.handle.parameters.values())
