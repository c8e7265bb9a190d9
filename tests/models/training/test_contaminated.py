"""The rule ``clair`` in the trainer: who sends garbage or poison is found in the warm-up round and left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

from edgealloc.errors import InputError
from edgealloc.models.exchange.aggregation import Aggregation
from edgealloc.models.exchange.update import Update
from edgealloc.models.exchange.wire import AdapterShape, State, WireArray
from edgealloc.models.training import federated
from edgealloc.models.training.backbone import AdapterHandle
from edgealloc.models.training.cache import Feed
from edgealloc.models.training.client import FederatedOptions, device_round
from edgealloc.models.training.examples import Examples
from edgealloc.models.training.federated import run
from edgealloc.models.training.task import Task, with_flipped
from edgealloc.models.trials.validate import require_rule, validate

DEVICES, EACH, BAD = 6, 24, (1, 4)
PLAIN = FederatedOptions(rounds=2, local_epochs=2, batch_size=8, learning_rate=1e-2)
CLAIR = replace(PLAIN, aggregation=Aggregation(robust="clair"))
Poison = Callable[[str, WireArray, State], WireArray]


@pytest.fixture
def task(make_model) -> Task:
    """Six devices that all learn which half of the vocabulary a text is from: easy, so that they agree."""
    rng = np.random.default_rng(0)
    count = DEVICES * EACH + 60
    labels = rng.integers(0, 2, count)
    ids = rng.integers(4, 8, (count, 8)) + 28 * labels[:, None]
    handle = AdapterHandle.of(make_model())
    feed = Feed(handle, Examples({"input_ids": ids, "attention_mask": np.ones_like(ids)}, labels))
    own = np.split(np.arange(DEVICES * EACH), DEVICES)
    held = np.arange(DEVICES * EACH, count)
    return Task(handle, feed, tuple(own), held[:30], held[30:], handle.read())


def _opposite(name: str, value: WireArray, sent: State) -> WireArray:
    return 2 * sent[name] - value if ".lora_A." not in name else value


def _huge(name: str, value: WireArray, sent: State) -> WireArray:
    return value * np.float32(1e6)


def _noise(name: str, value: WireArray, sent: State) -> WireArray:
    rng = np.random.default_rng(len(name))
    return (rng.normal(size=value.shape) * np.std(value)).astype(value.dtype)


def _broken(name: str, value: WireArray, sent: State) -> WireArray:
    return np.full_like(value, np.nan)


def poisoned(monkeypatch: pytest.MonkeyPatch, poison: Poison) -> None:
    """From now on two devices send what ``poison`` makes of their updates."""

    def spoilt(task: Task, shape: AdapterShape, state: State, k: int, *rest):
        update, loss, bits = device_round(task, shape, state, k, *rest)
        if k in BAD:
            changed = {name: poison(name, value, state) for name, value in update.slices.items()}
            update = Update(changed, update.masks, update.samples)
        return update, loss, bits

    monkeypatch.setattr(federated, "device_round", spoilt)


def test_nobody_is_left_out_where_all_are_sound_and_only_the_first_round_differs(task: Task) -> None:
    history = run(task, 0.5, CLAIR)
    assert history.contaminated == {}
    shape = AdapterShape.from_state(task.initial)
    assert history.rounds[0]["upload_bits"] == [shape.payload_bits(1.0)] * DEVICES
    assert history.rounds[1]["upload_bits"] == [shape.payload_bits(0.5)] * DEVICES
    assert "contaminated" not in run(task, 0.5, PLAIN).rounds[0]


@pytest.mark.parametrize("poison", [_opposite, _huge, _noise, _broken])
def test_what_two_of_six_send_does_not_reach_the_model(
    task: Task, monkeypatch: pytest.MonkeyPatch, poison: Poison
) -> None:
    present = np.array([k not in BAD for k in range(DEVICES)])
    alone = run(task, [[1.0] * DEVICES, [0.5] * DEVICES], PLAIN, reports=present)
    poisoned(monkeypatch, poison)
    history = run(task, 0.5, CLAIR)
    assert tuple(history.contaminated) == BAD
    assert history.rounds[0]["reporting"] == DEVICES
    assert [bits > 0 for bits in history.rounds[1]["upload_bits"]] == present.tolist()
    for name, value in history.state.items():
        np.testing.assert_array_equal(value, alone.state[name])


def test_devices_whose_labels_are_turned_are_found(task: Task) -> None:
    turned = with_flipped(task, BAD, seed=0)
    labels, before = (t.feed.labels.numpy() for t in (turned, task))
    assert np.flatnonzero(labels != before).tolist() == np.concatenate([task.devices[k] for k in BAD]).tolist()
    history = run(turned, 0.5, CLAIR)
    assert tuple(history.contaminated) == BAD
    assert all("against" in why for why in history.contaminated.values())
    assert history.test.loss < run(turned, 0.5, PLAIN).test.loss
    half = with_flipped(task, (0,), seed=0, share=0.5)
    assert int((half.feed.labels != task.feed.labels).sum()) == EACH // 2
    with pytest.raises(ValueError, match="device 6: must be one of 0 to 5"):
        with_flipped(task, (6,), seed=0)


def test_a_run_that_was_cut_off_remembers_who_was_left_out(
    task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    poisoned(monkeypatch, _noise)
    whole = run(task, 0.5, CLAIR)
    place = tmp_path / "run.npz"

    class _Cut(Exception):
        pass

    def cut(record: dict[str, object]) -> None:
        raise _Cut

    with pytest.raises(_Cut):
        run(task, 0.5, CLAIR, checkpoint=place, progress=cut)
    resumed = run(task, 0.5, CLAIR, checkpoint=place)
    assert resumed.contaminated == whole.contaminated != {}
    assert all(np.array_equal(value, resumed.state[name]) for name, value in whole.state.items())


def test_what_it_does_not_go_with_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="none with masks of single entries"):
        replace(CLAIR, freeze_a=True, masks="entries")
    with pytest.raises(InputError, match="no plan has time and energy"):
        validate([], None, CLAIR, samples=np.ones(2))  # type: ignore[arg-type]
    sparse = replace(PLAIN, freeze_a=True, masks="entries")
    require_rule(sparse, menus=False)
    with pytest.raises(InputError, match="masks = entries; allowed: exact or bernoulli where"):
        require_rule(sparse, menus=True)
