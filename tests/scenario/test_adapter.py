"""Adapter payloads and operation counts against published sizes, real PEFT tensors and PyTorch's counter."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgealloc.errors import InputError
from edgealloc.scenario.adapter import (
    ARCHITECTURES,
    Architecture,
    LoraLayer,
    adapter_cost,
    adapter_menu,
    architecture,
    lora_layers,
    read_adapter,
)
from edgealloc.scenario.architecture import configured_layers


@pytest.mark.parametrize(
    ("name", "rank", "targets", "published"),
    [
        # Hu et al. 2021 (arXiv 2106.09685), Table 2: 0.3 M and 0.8 M trainable parameters, r = 8 on W_q, W_v.
        ("roberta-base", 8, (), 0.3e6),
        ("roberta-large", 8, (), 0.8e6),
        # PEFT's print_trainable_parameters() for LLaMA-7B with r = 8 on q_proj, v_proj.
        ("llama-7b", 8, (), 4_194_304),
        ("llama-3-8b", 8, "", 3_407_872),
        ("mistral-7b", 8, ["q_proj", "v_proj"], 3_407_872),
        ("mistral-7b", 8, "all-linear", 20_971_520),
    ],
)
def test_adapter_sizes_match_published_ones(name: str, rank: int, targets: Any, published: float) -> None:
    parameters = sum(x.parameters for x in lora_layers(architecture(name), rank, targets))
    assert parameters == pytest.approx(published, rel=0.06 if published < 1e6 else 0)


@pytest.mark.parametrize(
    ("name", "millions"),
    # Linear maps of the blocks, by hand: 12 (4 h^2 + 8 h^2) for BERT-like ones; LLaMA-7B has 6.74 G
    # parameters of which 0.131 G are the input embedding, met by no product.
    [
        ("roberta-base", 84.93),
        ("roberta-large", 301.99),
        ("minilm-l6", 10.62),
        ("vit-b16", 84.93),
        ("llama-7b", 6607),
        # the published totals, 8.030 G, 7.242 G, 1.100 G, 0.494 G (tied) and 7.616 G, without input embeddings
        ("llama-3-8b", 7505),
        ("mistral-7b", 7111),
        ("tinyllama-1.1b", 1034.5),
        ("qwen2.5-0.5b", 494),
        ("qwen2.5-7b", 7071),
    ],
)
def test_frozen_parameters(name: str, millions: float) -> None:
    assert architecture(name).frozen_parameters / 1e6 == pytest.approx(millions, rel=1e-3)


def test_payload_and_operations_by_hand() -> None:
    arch = Architecture("toy", 1, 4, {"map": (4, 6)}, ("map",))
    cost = adapter_cost(
        arch, lora_layers(arch, 2), bits=8, tokens=10, sequence_length=5, head_labels=3, mask="bitmap"
    )
    assert cost.payload_lora_bits == 8 * 2 * (4 + 6)
    assert cost.payload_fixed_bits == 8 * 3 * (4 + 1) + (4 + 6)
    assert cost.flops_lora == 10 * 6 * 2 * (4 + 6)
    # Per token: 4 per frozen parameter, 12 * 5 * 4 for attention, the 15-parameter head once per 5 tokens.
    assert cost.flops_fixed == 10 * (4 * 24 + 12 * 5 * 4) + 2 * 6 * 15


def test_frozen_backbone_dominates_for_every_architecture() -> None:
    for arch in ARCHITECTURES.values():
        cost = adapter_cost(arch, lora_layers(arch, 8))
        assert cost.flops_lora < 0.05 * cost.flops_fixed


def _tiny(layers: int = 2, hidden: int = 32):  # type: ignore[no-untyped-def]
    """A BERT classifier with LoRA on query and value, as PEFT builds it."""
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config = transformers.BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=4 * hidden,
        num_attention_heads=4,
        vocab_size=50,
        num_labels=3,
        attn_implementation="eager",
    )
    base = transformers.BertForSequenceClassification(config)
    lora = peft.LoraConfig(r=4, target_modules=["query", "value"], task_type="SEQ_CLS")
    return peft.get_peft_model(base, lora), peft


def test_payload_of_a_peft_model_is_the_bytes_of_its_trained_tensors() -> None:
    model, peft = _tiny()
    uploaded = [p for p in model.parameters() if p.requires_grad]
    bytes_of_tensors = sum(p.element_size() * p.nelement() for p in uploaded)
    for state in (model, model.state_dict(), peft.get_peft_model_state_dict(model)):
        trained = read_adapter(state)
        fixed, lora = trained.payload_bits(32)
        assert fixed + lora == 8 * bytes_of_tensors
        assert lora == 32 * 2 * 2 * 4 * (32 + 32)  # 2 layers, 2 targets, r (n_in + n_out)
        assert {(x.n_in, x.n_out, x.rank) for x in trained.layers} == {(32, 32, 4)}
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(read_adapter(trainable).payload_bits(32)) == 8 * bytes_of_tensors


def test_operations_match_pytorchs_counter() -> None:
    model, _ = _tiny(layers=3)
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    hidden, layers, batch, length = 32, 3, 2, 16
    with FlopCounterMode(display=False) as counter:
        model(
            input_ids=torch.ones(batch, length, dtype=torch.long), labels=torch.zeros(batch).long()
        ).loss.backward()
    toy = Architecture(
        "toy",
        layers,
        hidden,
        {
            "query": (hidden, hidden),
            "key": (hidden, hidden),
            "value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (hidden, 4 * hidden),
            "output.dense": (4 * hidden, hidden),
        },
        ("query", "value"),
    )
    tokens = batch * length
    cost = adapter_cost(
        toy, lora_layers(toy, 4), tokens=tokens, sequence_length=length, head_labels=3, mask="none"
    )
    # Two things PyTorch does otherwise: below the first adapters there is nothing to train, so the first
    # block's query, key and value and the A matrices there need no gradient of their input, and neither
    # does its attention score through the (frozen) keys; and BERT's pooler, a frozen
    # hidden x hidden map, runs once per sequence (2 + 2).
    no_input_gradient = 2 * tokens * (3 * hidden**2 + 2 * 4 * hidden) + 2 * tokens * length * hidden
    pooler = 4 * batch * hidden**2
    head_bias = 6 * batch * 3  # biases take no product
    expected = cost.flops_fixed + cost.flops_lora - no_input_gradient + pooler - head_bias
    assert counter.get_total_flops() == expected


def test_a_saved_adapter_needs_only_shapes() -> None:
    state = {
        "m.q.lora_A.weight": np.zeros((2, 5)),
        "m.q.lora_B.weight": np.zeros((7, 2)),
        "m.conv.lora_A.weight": SimpleNamespace(shape=(3, 4, 3, 3)),
        "m.conv.lora_B.weight": SimpleNamespace(shape=(8, 3, 1, 1)),
        "m.emb.lora_embedding_A": np.zeros((2, 100)),
        "m.emb.lora_embedding_B": np.zeros((6, 2)),
        "classifier.weight": np.zeros((3, 6)),
    }
    trained = read_adapter(state)
    assert trained.layers == (
        LoraLayer("m.q", 5, 7, 2),
        LoraLayer("m.conv", 36, 8, 3),
        LoraLayer("m.emb", 100, 6, 2),
    )
    assert trained.fixed_parameters == 18
    assert sum(trained.payload_bits(16)) == 16 * sum(int(np.prod(v.shape)) for v in state.values())


def test_only_the_named_adapter_is_counted() -> None:
    state = {f"m.q.lora_{x}.{name}.weight": np.zeros((4, 4)) for x in "AB" for name in ("default", "other")}
    assert read_adapter(state, "other").payload_bits(1) == (0, 32)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"m.q.lora_A.weight": np.zeros((2, 5))}, "m.q"),
        ({"m.q.lora_A.weight": np.zeros((2, 5)), "m.q.lora_B.weight": np.zeros((7, 3))}, "m.q"),
        ({"m.q.lora_magnitude_vector": np.zeros(7)}, "lora_magnitude_vector"),
        ({"classifier.weight": np.zeros((3, 6))}, "lora_A"),
    ],
)
def test_unreadable_adapters_are_refused_by_key(state: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_adapter(state)


LIVE = "m.q.lora_{}.site-1.weight"
PAIR = {LIVE.format("A"): np.zeros((2, 5)), LIVE.format("B"): np.zeros((7, 2))}


@pytest.mark.parametrize(
    ("state", "fixed"),
    [
        (PAIR | {"m.q.base_layer.weight": np.zeros((7, 5)), "m.norm.weight": np.zeros(5)}, 0),
        (PAIR | {"head.modules_to_save.site-1.w": np.zeros(6), "head.original_module.w": np.zeros(6)}, 6),
        (PAIR | {"emb.token_adapter.trainable_tokens_delta.site-1": np.zeros((3, 4))}, 12),
        (
            PAIR | {"m.q.lora_magnitude_vector.site-1.weight": np.zeros(7), "m.q.lora_B.site-1.bias": np.zeros(7)},
            14,
        ),
        (
            PAIR
            | {"other.lora_A.site-2.weight": np.zeros((9, 9)), "other.lora_B.site-2.weight": np.zeros((9, 9))},
            0,
        ),
        (PAIR | {"head.modules_to_save.site-2.w": np.zeros(6), "my_lora_head.weight": np.zeros(6)}, 0),
    ],
)
def test_a_live_state_dict_holds_much_that_is_not_uploaded(state: dict[str, np.ndarray], fixed: int) -> None:
    trained = read_adapter(state, "site-1", config={"bias": "none"})
    assert (trained.layers, trained.fixed_parameters) == ((LoraLayer("m.q", 5, 7, 2),), fixed)


@pytest.mark.parametrize(("mode", "fixed"), [("none", 0), ("lora_only", 7), ("all", 7 + 5)])
def test_biases_of_a_live_state_dict_are_told_by_its_configuration(mode: str, fixed: int) -> None:
    biases = {
        "m.q.base_layer.bias": np.zeros(7),
        "norm.bias": np.zeros(5),
        "head.original_module.bias": np.zeros(3),
    }
    for config in ({"bias": mode}, SimpleNamespace(bias=mode)):
        assert read_adapter(PAIR | biases, config=config).fixed_parameters == fixed
    with pytest.warns(UserWarning, match="config="):
        assert read_adapter(PAIR | biases).fixed_parameters == 0


def test_which_of_several_adapters_must_be_said() -> None:
    saved = {"m.q.lora_A.weight": np.zeros((2, 5)), "m.q.lora_B.weight": np.zeros((7, 2))}
    both = PAIR | {key.replace("site-1", "site-2"): value for key, value in PAIR.items()}
    for state, adapter, words in (
        (both, None, "'site-1', 'site-2'; allowed: one of them"),
        (both, "site-3", "none for adapter 'site-3'; allowed: one of 'site-1', 'site-2'"),
        (both | saved, "site-1", "and one without a name"),
        (PAIR | {"m.q.lora_C.site-1": np.zeros(3)}, None, "lora_C"),
    ):
        with pytest.raises(InputError, match=words):
            read_adapter(state, adapter)
    assert read_adapter(both, "site-2") == read_adapter(saved)


def test_targets_are_chosen_as_peft_does() -> None:
    arch = architecture("minilm-l6")
    for targets, count in (
        ("", 12), ("query", 6), (("output.dense",), 12), (("attention.output.dense",), 6), ("all-linear", 37),
        (("dense",), 19), (r".*layer\.[01]\..*", 12), (("bert.pooler.dense", "key"), 7),
    ):  # fmt: skip
        assert len(lora_layers(arch, 4, targets)) == count, targets
    for targets in (("query", "q_proj"), "quer", "[", ("",)):
        with pytest.raises(InputError, match="targets"):
            lora_layers(arch, 4, targets)
    for rank in (True, 4.0, "8", None, -1):
        with pytest.raises(InputError, match="rank"):
            lora_layers(arch, rank)  # type: ignore[arg-type]
    assert lora_layers(arch, np.int64(4))[0].rank == 4


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"bias": "all"}, "bias"),
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"layers_to_transform": [6]}, "blocks 0 to 5"),
        ({"rank_pattern": {"query": 0}}, "rank_pattern 'query'"),
        ({"target_modules": ["nothing"]}, "targets"),
    ],
)
def test_a_configuration_that_trains_more_is_refused_by_name(changes: dict[str, Any], word: str) -> None:
    given = {"r": 4, "target_modules": ["query", "q_proj"], "modules_to_save": ["classifier"], "bias": "none"}
    assert len(configured_layers(architecture("minilm-l6"), given)) == 6
    with pytest.raises(InputError, match=word):
        configured_layers(architecture("minilm-l6"), given | changes)


def test_menu_rows_trade_payload_for_underfitting() -> None:
    arch = architecture("roberta-base")
    rows = adapter_menu(arch, flops_per_cycle=20.0, ranks=(4, 8, 16), bits=(4, 16))
    assert [row.label for row in rows] == [f"r={r},{b} bit" for r in (4, 8, 16) for b in (4, 16)]
    by_label = {row.label: row for row in rows}
    assert by_label["r=8,16 bit"].payload_lora_bits == 4 * by_label["r=8,4 bit"].payload_lora_bits
    assert by_label["r=16,4 bit"].payload_lora_bits == 2 * by_label["r=8,4 bit"].payload_lora_bits
    assert by_label["r=16,4 bit"].cycles_lora == 4 * by_label["r=4,4 bit"].cycles_lora
    factors = [by_label[f"r={r},16 bit"].underfit_factor for r in (4, 8, 16)]
    assert factors == pytest.approx([2.0, np.sqrt(2.0), 1.0], rel=1e-9)
    assert by_label["r=8,4 bit"].underfit_factor == pytest.approx(np.sqrt(2.0) * (1 + 1 / 256))


def test_bad_options_are_listed_together() -> None:
    arch = architecture("minilm-l6")
    with pytest.raises(InputError, match=r"q_proj(.|\n)*rank"):
        lora_layers(arch, 0, ["q_proj"])
    with pytest.raises(InputError, match=r"bits(.|\n)*tokens(.|\n)*mask"):
        adapter_cost(arch, lora_layers(arch, 4), bits=0, tokens=0, mask="zip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="roberta-base"):
        architecture("gpt")
