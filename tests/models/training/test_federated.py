"""Federated rounds on a tiny model: what travels, what stays, and that it can be repeated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

from edgealloc.errors import InputError  # noqa: E402
from edgealloc.models.exchange.aggregation import Aggregation  # noqa: E402
from edgealloc.models.exchange.dropout import draw_masks, masked, slice_adapter  # noqa: E402
from edgealloc.models.exchange.wire import AdapterShape  # noqa: E402
from edgealloc.models.training.client import FederatedOptions, train_locally  # noqa: E402
from edgealloc.models.training.federated import run  # noqa: E402
from edgealloc.models.training.task import Task  # noqa: E402

SHORT = FederatedOptions(rounds=3, local_epochs=2, batch_size=8, learning_rate=1e-2)


def test_training_learns(make_task) -> None:
    options = replace(SHORT, rounds=8, test_every=4, learning_rate=3e-2)
    history = run(make_task(rank=8, last_layers=None), 1.0, options)
    assert history.train.loss < 0.55
    assert history.train.loss < history.rounds[0]["local_loss"] - 0.1
    assert [("test_loss" in r) for r in history.rounds] == [False, False, False, True] * 2
    assert history.rounds[-1]["test_loss"] == history.test.loss
    assert history.rounds[history.best_round]["validation_loss"] == min(
        r["validation_loss"] for r in history.rounds
    )


def test_only_kept_entries_train(make_task) -> None:
    task: Task = make_task()
    shape = AdapterShape.from_state(task.initial)
    rng = np.random.default_rng(0)
    start = {name: rng.normal(size=v.shape).astype(np.float32) for name, v in task.initial.items()}
    masks = draw_masks(shape, 0.5, rng)
    task.handle.write(masked(start, masks))
    with task.feed.shortcuts():
        train_locally(task, task.devices[1], masks, replace(SHORT, weight_decay=0.1), rng)
    after = task.handle.read()
    for name, value in after.items():
        mask = masks.spread(name)
        if mask is None:
            assert not np.allclose(value, start[name])
            continue
        outside = np.broadcast_to(~mask, value.shape)
        assert np.all(value[outside] == 0.0), name
        assert np.all(value[~outside] != start[name][~outside]), name


def test_bytes_on_the_wire_follow_the_payload_model(make_task) -> None:
    task: Task = make_task()
    shape = AdapterShape.from_state(task.initial, wire_dtype="float16")
    keep = np.array([0.25, 0.5, 1.0])  # whole numbers of the 32 columns and rows
    history = run(task, keep, replace(SHORT, wire_dtype="float16"))
    for record in history.rounds:
        assert record["upload_bits"] == [shape.payload_bits(s) for s in keep]
    reset = run(task, keep, replace(SHORT, semantics="reset"))
    full = AdapterShape.from_state(task.initial).payload_bits(1.0)
    assert reset.rounds[0]["upload_bits"] == [full] * 3
    frozen = run(task, keep, replace(SHORT, freeze_a=True))
    ffa = AdapterShape.from_state(task.initial, sends_a=False)
    assert frozen.rounds[0]["upload_bits"] == [ffa.payload_bits(s) for s in keep]
    for name, value in frozen.state.items():
        if "lora_A" in name:
            np.testing.assert_array_equal(value, task.initial[name])


@pytest.mark.parametrize(
    "options",
    [
        SHORT,
        replace(SHORT, scaling="inverted", aggregation=Aggregation("keepers")),
        replace(SHORT, masks="bernoulli", aggregation=Aggregation(correction="exact")),
    ],
)
def test_runs_repeat_and_resume_bit_for_bit(make_task, tmp_path, options: FederatedOptions) -> None:
    task: Task = make_task()
    whole = run(task, 0.6, options)

    class Interrupted(Exception):
        pass

    def stop(record: dict[str, object]) -> None:
        if record["round"] == 1:
            raise Interrupted

    place = tmp_path / "run.npz"
    with pytest.raises(Interrupted):
        run(task, 0.6, options, checkpoint=place, progress=stop)
    seen: list[int] = []
    resumed = run(make_task(), 0.6, options, checkpoint=place, progress=lambda r: seen.append(r["round"]))
    assert seen == [2]
    for name, value in whole.state.items():
        np.testing.assert_array_equal(resumed.state[name], value)
    assert resumed.rounds == whole.rounds
    assert (resumed.test, resumed.train, resumed.best_test) == (whole.test, whole.train, whole.best_test)
    with pytest.raises(InputError, match="other options, data or versions"):
        run(task, 0.7, options, checkpoint=place)


def test_the_seed_matters_and_the_fast_path_does_not(make_task) -> None:
    first, second = (run(make_task(), 0.5, replace(SHORT, seed=s)).test.loss for s in (0, 1))
    assert first != second
    slow = run(make_task(fast=False), 0.5, SHORT)
    assert slow.test.loss == pytest.approx(first, rel=1e-3)


def test_without_dropout_masks_scaling_and_fill_are_all_the_same(make_task) -> None:
    plain = run(make_task(), 1.0, SHORT)
    for options in (
        replace(SHORT, masks="bernoulli"),
        replace(SHORT, scaling="inverted"),
        replace(SHORT, semantics="reset"),
        replace(SHORT, aggregation=Aggregation("keepers")),
    ):
        other = run(make_task(), 1.0, options)
        assert other.test.loss == pytest.approx(plain.test.loss, rel=1e-6)


def test_one_device_without_dropout_is_local_training(make_task) -> None:
    task: Task = make_task()
    alone = replace(task, devices=(task.devices[2],))
    history = run(alone, 1.0, replace(SHORT, rounds=1))
    task.handle.write(task.initial)
    from edgealloc.models.exchange.dropout import full_masks, round_generator

    masks = full_masks(AdapterShape.from_state(task.initial))
    with task.feed.shortcuts():
        train_locally(alone, alone.devices[0], masks, SHORT, round_generator(0, 1, 0, 0))
    for name, value in task.handle.read().items():
        np.testing.assert_allclose(history.state[name], value, rtol=1e-6)


def test_the_exact_correction_shifts_the_base_and_puts_it_back(make_task) -> None:
    task: Task = make_task()
    weights = {name: layer.get_base_layer().weight.detach().clone() for name, layer in task.handle.layers.items()}
    plain = run(task, 1.0, SHORT)
    exact = run(task, 1.0, replace(SHORT, aggregation=Aggregation(correction="exact")))
    assert exact.test.loss != plain.test.loss
    for name, layer in task.handle.layers.items():
        assert torch.equal(layer.get_base_layer().weight, weights[name])


def test_devices_that_do_not_report_are_left_out(make_task) -> None:
    task: Task = make_task()
    reports = np.array([True, False, True])
    history = run(task, np.array([0.5, np.nan, 0.5]), SHORT, reports=reports)
    assert all(r["reporting"] == 2 and r["upload_bits"][1] == 0 for r in history.rounds)
    two = replace(task, devices=(task.devices[0], task.devices[2]))
    # the same two devices, but for the second one's masks and batches, which are keyed by its place
    assert run(two, 0.5, SHORT).test.loss == pytest.approx(history.test.loss, abs=0.2)
    nobody = run(task, 0.5, SHORT, reports=np.zeros(3, bool))
    for name, value in nobody.state.items():
        np.testing.assert_array_equal(value, task.initial[name])


def test_mistakes_are_refused(make_task) -> None:
    task: Task = make_task()
    with pytest.raises(ValueError, match="keep rates"):
        run(task, 0.0, SHORT)
    with pytest.raises(ValueError, match="rounds = 0"):
        FederatedOptions(rounds=0)
    with pytest.raises(ValueError, match="scaling = 'twice'"):
        FederatedOptions(scaling="twice")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="test examples are also in training"):
        replace(task, test=np.arange(80, 100))
    with pytest.raises(ValueError, match="both validation and test"):
        replace(task, test=task.validation)
    state = slice_adapter(
        task.initial, draw_masks(AdapterShape.from_state(task.initial), 0.5, np.random.default_rng(0))
    )
    with pytest.raises(ValueError, match="shape"):
        task.handle.write(state)
