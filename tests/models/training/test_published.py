"""Adapters as people publish them: what PEFT trains and saves of tiny models, against what is counted and sent."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")
peft = pytest.importorskip("peft", reason="the trainer's extra is not installed")
transformers = pytest.importorskip("transformers", reason="the trainer's extra is not installed")

from edgealloc.errors import InputError  # noqa: E402
from edgealloc.models.exchange.dropout import draw_masks, masked, scatter_adapter, slice_adapter  # noqa: E402
from edgealloc.models.exchange.wire import AdapterShape, canonical_state  # noqa: E402
from edgealloc.models.training.backbone import AdapterHandle, LoraSpec, add_adapter  # noqa: E402
from edgealloc.scenario.architecture import ARCHITECTURES, Architecture, configured_layers, lora_layers  # noqa: E402
from edgealloc.scenario.tensors import LoraLayer, TrainedTensors, read_adapter  # noqa: E402

WIDE = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 50}
HEADS = {"num_attention_heads": 4}
GROUPED = WIDE | HEADS | {"num_key_value_heads": 2}
GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}


def bert() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**WIDE, **HEADS, num_labels=3))


def roberta() -> Any:
    config = transformers.RobertaConfig(**WIDE, **HEADS, num_labels=3)
    return transformers.RobertaForSequenceClassification(config)


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))  # its output map is its embedding


def llama(tied: bool = False) -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED, tie_word_embeddings=tied))


def tied() -> Any:
    return llama(tied=True)


def mixtral() -> Any:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**GROUPED, num_local_experts=4))


def resnet() -> Any:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    return transformers.ResNetForImageClassification(config)


class Window(torch.nn.Module):
    """One convolution of a window of one, whose factors broadcast where they should not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(6, 8, 1)


def lora(**options: Any) -> Any:
    return peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj"]} | options)


def on_bert(**options: Any) -> Any:
    return lora(**{"target_modules": ["query", "value"], "task_type": "SEQ_CLS"} | options)


PATTERN = {"rank_pattern": {"q_proj": 8, "layers.0.self_attn.v_proj": 2}, "alpha_pattern": {"q_proj": 32}}
TRANSPOSED = {"target_modules": ["c_attn"], "fan_in_fan_out": True}  # of GPT-2
HEAD = {"modules_to_save": ["classifier"]}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
EMBEDDED = 50 * 16  # numbers of an embedding, which is saved along where LoRA adapts it alone
Case = tuple[Callable[[], Any], Callable[[], Any], int, bool]
CASES: dict[str, Case] = {  # the model, PEFT's configuration, numbers saved but not trained, whether masks fit
    "plain": (bert, on_bert, 0, True),
    "all-linear": (bert, lambda: on_bert(target_modules="all-linear"), 0, True),
    "all-linear, grouped queries": (llama, lambda: lora(target_modules="all-linear"), 0, True),
    "a regular expression": (llama, lambda: lora(target_modules=r".*\.(q|v)_proj"), 0, True),
    "rank and alpha patterns": (llama, lambda: lora(target_modules=["q_proj", "v_proj"], **PATTERN), 0, True),
    "some layers": (llama, lambda: lora(layers_to_transform=[1], layers_pattern="layers"), 0, True),
    "all but some": (llama, lambda: lora(target_modules="all-linear", exclude_modules=["down_proj"]), 0, True),
    "rsLoRA": (llama, lambda: lora(use_rslora=True), 0, True),
    "PiSSA": (llama, lambda: lora(init_lora_weights="pissa"), 0, True),
    "DoRA": (llama, lambda: lora(use_dora=True), 0, False),
    "layers replicated": (llama, lambda: lora(layer_replication=[[0, 2], [1, 2]]), 0, True),
    # each bias of the head is saved three times: the original, the copy, and the copy by its own name
    "all biases": (bert, lambda: on_bert(bias="all"), 2 * 3, True),
    "biases of a head of two layers": (roberta, lambda: on_bert(bias="all"), 2 * (16 + 3), True),
    "biases of adapted layers": (bert, lambda: on_bert(bias="lora_only"), 0, True),
    "biases of B": (bert, lambda: on_bert(lora_bias=True), 0, False),
    "Conv1D of GPT-2": (gpt2, lambda: lora(**TRANSPOSED), 0, True),
    "an embedding": (llama, lambda: lora(target_modules=["embed_tokens"]), EMBEDDED, False),
    "an embedding and a map": (llama, lambda: lora(target_modules=["embed_tokens", "q_proj"]), EMBEDDED, False),
    "whole modules": (llama, lambda: lora(modules_to_save=["embed_tokens", "lm_head"]), 0, True),
    "a tied embedding": (gpt2, lambda: lora(**TRANSPOSED, modules_to_save=["wte"]), 0, True),
    "some tokens": (llama, lambda: lora(trainable_token_indices=[1, 2, 3]), 0, True),
    "some tokens of a tied embedding": (tied, lambda: lora(trainable_token_indices=[1, 2, 3]), 0, True),
    "experts": (mixtral, lambda: lora(target_parameters=EXPERTS, modules_to_save=["lm_head"]), 0, True),
    "convolutions": (resnet, lambda: lora(target_modules=["convolution"], **HEAD), 0, False),
    "convolutions of one": (Window, lambda: lora(target_modules=["conv"]), 0, False),
}


def build(case: Case, name: str = "default") -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(case[0](), case[1](), adapter_name=name)


def trained(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def saved(model: Any, folder: Path, name: str = "default") -> tuple[dict[str, np.ndarray], int]:
    """What PEFT writes of an adapter, and how many bytes its tensors take there."""
    from safetensors.numpy import load_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, selected_adapters=[name])
    (path,) = folder.rglob("adapter_model.safetensors")
    content = path.read_bytes()
    return load_file(path), len(content) - 8 - struct.unpack("<Q", content[:8])[0]


def ordered(counted: TrainedTensors) -> tuple[list[LoraLayer], int]:
    """Without the order of the layers: a file sorts them by name."""
    return sorted(counted.layers, key=lambda layer: layer.name), counted.fixed_parameters


def arrays(model: Any) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", CASES)
def test_what_is_counted_is_what_peft_trains_and_saves(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = build(case)
    state, size = saved(model, tmp_path)
    if name == "biases of adapted layers" and size / 4 < trained(model):
        pytest.skip("this PEFT, before 0.21, leaves out of its file some biases that it trains")
    counted = read_adapter(model)
    assert sum(counted.payload_bits(1)) == trained(model)
    assert sum(counted.payload_bits(8)) + 32 / 4 * case[2] == size / 4 * 8
    assert ordered(read_adapter(state)) == ordered(counted)
    live = arrays(model)
    config = model.peft_config["default"]
    assert ordered(read_adapter(live, config=config)) == ordered(counted)
    assert ordered(read_adapter(live, config=config.to_dict())) == ordered(counted)
    if not case[3]:
        for given in (state, live):
            with pytest.raises(ValueError, match=r"linear layers|not of convolutions"):
                AdapterShape.from_state(given, config=config)
        return
    shape = AdapterShape.from_state(state)
    assert shape.payload_lora_bits + shape.payload_fixed_bits == 32 * trained(model)
    again = AdapterShape.from_state(live, config=config)
    assert (sorted(again.head), again.payload_lora_bits) == (sorted(shape.head), shape.payload_lora_bits)
    handle = AdapterHandle.of(model)
    read = handle.read()
    assert set(read) == set(canonical_state(state)) == set(canonical_state(live, config=config))
    masks = draw_masks(shape, 0.5, np.random.default_rng(0))
    slices = slice_adapter(read, masks)
    assert 32 * sum(value.size for value in slices.values()) <= shape.payload_bits(0.5)
    back, sub = scatter_adapter(slices, masks), masked(read, masks)
    assert all(np.array_equal(back[key], sub[key]) for key in read)
    handle.write(sub)
    handle.write(state)
    assert all(np.array_equal(value, read[key]) for key, value in handle.read().items())


OTHERS: dict[str, Callable[[], Any]] = {
    "AdaLoRA": lambda: peft.AdaLoraConfig(target_modules=["q_proj"], init_r=6, target_r=4, total_step=10),
    "IA3": lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "LoHa": lambda: peft.LoHaConfig(r=4, target_modules=["q_proj"]),
    "LoKr": lambda: peft.LoKrConfig(r=4, target_modules=["q_proj"]),
    "VeRA": lambda: peft.VeraConfig(r=4, target_modules=["q_proj"]),
    "OFT": lambda: peft.OFTConfig(oft_block_size=4, target_modules=["q_proj"]),
    "prompt or prefix tuning": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_adapters_of_other_kinds_are_refused_by_name(kind: str) -> None:
    model = build((llama, OTHERS[kind], 0, False))
    state = {key: value.numpy() for key, value in peft.get_peft_model_state_dict(model).items()}
    for read in (
        lambda: read_adapter(model),
        lambda: read_adapter(state),
        lambda: AdapterShape.from_state(state),
        lambda: AdapterShape.from_state(arrays(model)),
    ):
        with pytest.raises(InputError, match=kind):
            read()


@pytest.mark.parametrize("name", ["site-1", "site1", "müller's 2", "default_0"])
def test_an_adapter_of_any_name(name: str, tmp_path: Path) -> None:
    model = build(CASES["plain"], name)
    state, _ = saved(model, tmp_path, name)
    counted = read_adapter(model)
    assert sum(counted.payload_bits(1)) == trained(model)
    assert read_adapter(model, name) == counted
    assert ordered(read_adapter(state)) == ordered(counted)
    with pytest.warns(UserWarning, match="biases"):
        assert AdapterShape.from_state(arrays(model)).payload_fixed_bits == 32 * counted.fixed_parameters
    assert set(AdapterHandle.of(model).read()) == set(canonical_state(state))


def test_of_two_adapters_one_is_counted() -> None:
    model = build(CASES["plain"])
    first = read_adapter(model)
    model.add_adapter("second", on_bert(r=16, target_modules=["query"], bias="none"))
    second = peft.get_peft_model_state_dict(model, adapter_name="second")
    assert read_adapter(model) == read_adapter(model, "default") == first
    assert read_adapter(model, "second") == read_adapter({key: value.numpy() for key, value in second.items()})
    model.set_adapter("second")
    assert read_adapter(model) == read_adapter(model, "second") != first
    with pytest.raises(InputError, match="'default', 'second'; allowed: one of them, named by adapter="):
        AdapterShape.from_state(arrays(model))
    with pytest.raises(InputError, match="none for adapter 'third'; allowed: one of 'default', 'second'"):
        read_adapter(arrays(model), "third")
    chosen = AdapterShape.from_state(arrays(model), adapter="second", config={})
    assert {layer.rank for layer in chosen.layers} == {16}
    model = build((llama, lora, 0, True))
    model.add_adapter("second", lora())
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match="two adapters at once"):
        AdapterHandle.of(model)


def test_a_live_state_dict_hides_whether_biases_train() -> None:
    model = build(CASES["biases of adapted layers"])
    with pytest.warns(UserWarning, match="get_peft_model_state_dict"):
        assert read_adapter(arrays(model)).fixed_parameters == 3 * 17
    kept = dict(model.named_parameters())  # tensors that say themselves whether they train
    assert read_adapter(kept) == read_adapter(model)
    model.base_model.model.bert.pooler.dense.weight.requires_grad_(True)  # trained by hand
    assert sum(read_adapter(model).payload_bits(1)) == trained(model)


def test_the_trainer_takes_targets_as_peft_does() -> None:
    for targets in ("all-linear", ("all-linear",)):
        model = add_adapter(bert(), LoraSpec(4, 8, targets, None))
        assert len(read_adapter(model).layers) == 2 * 6 + 1  # with the pooler
        with pytest.raises(ValueError, match="last_layers=None"):
            add_adapter(bert(), LoraSpec(4, 8, targets, 1))
    model = add_adapter(bert(), LoraSpec(4, 8, r".*layer\.1.*query", None))
    assert [layer.name.split("layer.")[1] for layer in read_adapter(model).layers] == ["1.attention.self.query"]


# ---- named architectures ----

NAMED: dict[str, tuple[Callable[[], Any], str]] = {
    "minilm-l6": (bert, "bert"),
    "roberta-base": (roberta, "roberta"),
    "llama-3-8b": (llama, "llama"),
}
CHOICES: list[dict[str, Any]] = [
    {"target_modules": ["query", "q_proj", "v_proj", "value"]},
    {"target_modules": ["output.dense", "o_proj", "down_proj"]},
    {"target_modules": ["attention.output.dense", "self_attn.k_proj"]},
    {"target_modules": r".*(layers|layer)\.1\..*(query|q_proj)"},
    {"target_modules": ["query", "k_proj"], "layers_to_transform": [0]},
    {"target_modules": ["query", "k_proj"], "layers_to_transform": 1, "rank_pattern": {"k_proj": 2, "query": 3}},
    {"target_modules": ["query", "value", "q_proj", "k_proj"], "rank_pattern": {r"1\..*(query|q_proj)": 7}},
    {"target_modules": ["dense", "up_proj", "down_proj"], "exclude_modules": ["output.dense", "down_proj"]},
    {"target_modules": "all-linear"},
]


def small(name: str) -> Architecture:
    """The architecture at the sizes of the tiny models above."""
    from edgealloc.scenario import architecture as module

    if name == "llama-3-8b":
        return module._llama(name, 2, 16, 64, 50, shared=2)
    return module._bert(name, 2, 16, NAMED[name][1], pooler=name == "minilm-l6")


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: str(sorted(c.items()))[:60])
def test_named_architectures_are_adapted_as_peft_does(name: str, choice: dict[str, Any], tmp_path: Path) -> None:
    if name == "roberta-base" and choice["target_modules"] in ("all-linear", ["dense", "up_proj", "down_proj"]):
        pytest.skip("PEFT also adapts the first layer of its head, which is no map of the backbone")
    config = peft.LoraConfig(r=5, **choice, modules_to_save=["classifier"] if name != "llama-3-8b" else None)
    if name != "llama-3-8b":
        config.task_type = "SEQ_CLS"
    model = build((NAMED[name][0], lambda: config, 0, True))
    (tmp_path / "here").mkdir()
    config.save_pretrained(tmp_path / "here")
    expected = {layer.name.removeprefix("base_model.model."): layer for layer in read_adapter(model).layers}
    for given in (config, tmp_path / "here" / "adapter_config.json"):
        found = {layer.name: layer for layer in configured_layers(small(name), given)}
        assert set(found) == set(expected)
        assert all(replace(layer, name=expected[key].name) == expected[key] for key, layer in found.items())
    if not set(choice) - {"target_modules"} and isinstance(choice["target_modules"], str):
        assert len(lora_layers(small(name), 5, choice["target_modules"])) == len(expected)


def test_paths_are_those_of_the_models() -> None:
    for name, (make, _) in NAMED.items():
        modules = {key for key, module in make().named_modules() if isinstance(module, torch.nn.Linear)}
        assert set(small(name).maps) <= modules
        assert set(ARCHITECTURES[name].modules) == set(small(name).modules)
