"""Every row of the merging benchmark on tiny tasks: it trains, and sends no more than its reference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from benchmarks import merging_rows, two_tasks
from benchmarks.merging_rows import SECTIONS, budget_of
from benchmarks.two_tasks import Ground, joined
from edgealloc.models.training.backbone import AdapterHandle, LoraSpec, add_adapter
from edgealloc.models.training.cache import Feed
from edgealloc.models.training.client import evaluate
from edgealloc.models.training.examples import Examples
from edgealloc.models.training.task import Setup, Task

LORA, EACH, HELD = LoraSpec(8, 16, ("query", "value"), 1), 8, 10


def bert(name: str, classes: int, seed: int = 0) -> Any:
    """In place of the backbone: the same weights below the head for any number of classes."""
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=16,
        num_labels=classes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        body = BertModel(config).state_dict()
        model = BertForSequenceClassification(config)
    model.bert.load_state_dict(body)
    return SimpleNamespace(model=model)


def task_of(devices: int, classes: int = 2, longest: int = 6) -> Task:
    """Every example shows its class in all its tokens."""
    count = EACH * devices + 2 * HELD
    labels = np.arange(count) % classes
    ids = 4 + 5 * labels[:, None] + np.random.default_rng(0).integers(0, 5, (count, longest))
    handle = AdapterHandle.of(add_adapter(bert("", classes).model, LORA))
    feed = Feed(handle, Examples({"input_ids": ids, "attention_mask": np.ones_like(ids)}, labels))
    held = np.arange(EACH * devices, count)
    shares = np.split(np.arange(EACH * devices), devices)
    return Task(handle, feed, tuple(shares), held[:HELD], held[HELD:], handle.read())


def pair_of(apart: bool, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setattr(two_tasks, "load_backbone", bert)
    parts = [task_of(5), task_of(5, classes=3, longest=9)]
    return joined(("two", "three"), parts, Setup(lora=LORA), 0, apart=apart)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 3, "MOST_ROUNDS": 4, "WARM_UP": 1}.items():
        monkeypatch.setattr(merging_rows, name, value)


# an uneven mix has the rows of an even one
@pytest.mark.parametrize("section", [s for s in SECTIONS if "uneven" not in s.title], ids=lambda s: s.title)
def test_every_row_trains_within_the_uploads(section: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if section.pair:
        ground = pair_of("on each" not in section.title, monkeypatch)
    else:
        ground = Ground(task_of(10 if "ten" in section.title else 5))
    budget = budget_of(ground, 0)
    for name, row in section.rows.items():
        found = row.train(ground, 0, budget)
        assert np.isfinite(found["best_test_loss"]), name
        assert found["upload_bits"] <= budget, name
        assert found["devices"] == len(ground.task.devices)
        if name == section.reference:
            assert found["upload_bits"] == budget
            assert found["rounds"] == 3
        if name == "every device alone":
            assert found["upload_bits"] == 0
        if "FedLEASE" in name:
            assert found["upload_bits"] > found["round_bits"] * found["rounds"]


def test_two_tasks_share_an_adapter_and_no_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    apart, both = pair_of(True, monkeypatch), pair_of(False, monkeypatch)
    assert apart.kinds == (0,) * 5 + (1,) * 5
    assert apart.held is not None
    assert apart.held[9] is apart.own[1]
    assert both.held is None
    assert [len(share) for share in both.task.devices] == [2 * EACH] * 5
    task, (two, three) = apart.task, apart.parts
    assert len(task.feed) == len(two.feed) + len(three.feed)
    for k, share in enumerate(apart.task.devices):
        part, own = (two, k) if k < 5 else (three, k - 5)
        low = 0 if k < 5 else 2
        assert task.feed.labels[share].tolist() == [c + low for c in part.feed.labels[part.devices[own]].tolist()]
    with task.feed.shortcuts(), torch.no_grad():
        logits = task.feed.logits(torch.from_numpy(task.test))
        assert np.isfinite(evaluate(task, task.test).loss)
    assert torch.isinf(logits).tolist() == [[False] * 2 + [True] * 3] * HELD + [[True] * 2 + [False] * 3] * HELD
    # a sentence reads the same beside those of the other task: padding, and the other's head, change nothing
    two.handle.write({n: task.initial[n][:2] if "classifier" in n else task.initial[n] for n in two.initial})
    with two.feed.shortcuts(), torch.no_grad():
        alone = two.feed.logits(torch.from_numpy(two.test))
    torch.testing.assert_close(logits[:HELD, :2], alone, atol=1e-5, rtol=1e-5)
