"""Tiny federated tasks on real architectures, small enough to train in a blink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgealloc.models.training.examples import Examples

VOCABULARY, WIDTH, LONGEST = 60, 32, 12


def _token_examples(count: int, seed: int = 0) -> Examples:
    """Sequences of mixed lengths; the class is whether more tokens are large than small."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, LONGEST + 1, count)
    mask = (np.arange(LONGEST) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(4, VOCABULARY, (count, LONGEST)) * mask
    labels = (((ids > VOCABULARY // 2) * mask).sum(1) * 2 > lengths).astype(np.int64)
    return Examples({"input_ids": ids, "attention_mask": mask}, labels)


@pytest.fixture
def token_examples() -> Callable[..., Examples]:
    """Return the maker of token sequences."""
    return _token_examples


def _bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=32,
        )
    )


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    return GPT2ForSequenceClassification(
        GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=3, n_head=4, n_positions=32, pad_token_id=0)
    )


def _distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=VOCABULARY, dim=WIDTH, n_layers=3, n_heads=4, hidden_dim=64, max_position_embeddings=32
        )
    )


_TARGETS = {"bert": ("query", "value"), "gpt2": ("c_attn",), "distilbert": ("q_lin", "v_lin")}


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """Return a maker of tiny PEFT models: ``make_model("bert", rank=4)``."""
    import torch

    from edgealloc.models.training.backbone import LoraSpec, add_adapter

    def make(kind: str = "bert", rank: int = 4, last_layers: int | None = 1) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            model = {"bert": _bert, "gpt2": _gpt2, "distilbert": _distilbert}[kind]()
        return add_adapter(model, LoraSpec(rank, 2 * rank, _TARGETS[kind], last_layers))

    return make


@pytest.fixture
def make_task(make_model: Callable[..., Any]) -> Callable[..., Any]:
    """Return a maker of tiny federated tasks: three devices of unequal size."""
    from edgealloc.models.training.backbone import AdapterHandle
    from edgealloc.models.training.cache import Feed
    from edgealloc.models.training.task import Task

    def make(kind: str = "bert", fast: bool = True, **options: Any) -> Task:
        handle = AdapterHandle.of(make_model(kind, **options))
        feed = Feed(handle, _token_examples(150), fast=fast)
        devices = (np.arange(0, 20), np.arange(20, 50), np.arange(50, 90))
        return Task(handle, feed, devices, np.arange(90, 115), np.arange(115, 150), handle.read())

    return make
