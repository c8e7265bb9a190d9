"""Shapes of named transformers, and which of their linear maps LoRA adapts, as PEFT chooses them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from types import MappingProxyType
from typing import Any

from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import read_json
from edgealloc.scenario.tensors import LoraLayer

__all__ = ["ARCHITECTURES", "Architecture", "architecture", "configured_layers", "lora_layers"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """Shapes of a transformer: all a payload and an operation count need.

    Parameters
    ----------
    name
        Our name, for example ``roberta-base``.
    layers
        Number of transformer blocks.
    hidden
        Width of the residual stream.
    modules
        The linear maps of one block, by their path in it: path -> (n_in, n_out).
    default_targets
        The maps that LoRA adapts by default (those of Hu et al. 2021, arXiv 2106.09685: query and value), as PEFT
        names targets: the ends of paths.
    dense_head
        The classification head has a hidden x hidden layer before its output (RoBERTa's does).
    token_head_parameters
        Frozen parameters that every token meets after the blocks (a language model's output map).
    blocks
        Path of the blocks in the model as transformers builds it: ``BLOCKS.0.PATH`` names a map.
    beside
        Linear maps outside the blocks, by path: frozen, met once per sequence, and adapted by ``all-linear``.
    """

    name: str
    layers: int
    hidden: int
    modules: Mapping[str, tuple[int, int]]
    default_targets: tuple[str, ...]
    dense_head: bool = False
    token_head_parameters: int = 0
    blocks: str = "layer"
    beside: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def maps(self) -> dict[str, tuple[int, int]]:
        """Every linear map of the model that can be adapted: full name -> (n_in, n_out)."""
        inside = {
            f"{self.blocks}.{i}.{path}": shape for i in range(self.layers) for path, shape in self.modules.items()
        }
        return inside | dict(self.beside)

    @property
    def frozen_parameters(self) -> int:
        """Parameters that every token is multiplied with: linear maps of all blocks, output map."""
        per_block = sum(n_in * n_out for n_in, n_out in self.modules.values())
        return self.layers * per_block + self.token_head_parameters

    def head_parameters(self, labels: int) -> int:
        """Parameters, biases included, of a classification head with ``labels`` outputs (0: no head)."""
        dense = self.hidden * self.hidden + self.hidden if self.dense_head and labels else 0
        return dense + labels * (self.hidden + 1)


def _bert(
    name: str, layers: int, hidden: int, model: str = "bert", *, dense_head: bool = False, pooler: bool = False
) -> Architecture:
    wide, attention = 4 * hidden, "attention.attention" if model == "vit" else "attention.self"
    modules = {f"{attention}.{part}": (hidden, hidden) for part in ("query", "key", "value")} | {
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (hidden, wide),
        "output.dense": (wide, hidden),
    }
    beside = {f"{model}.pooler.dense": (hidden, hidden)} if pooler else {}
    targets, blocks = ("query", "value"), f"{model}.encoder.layer"
    return Architecture(name, layers, hidden, MappingProxyType(modules), targets, dense_head, 0, blocks, beside)


def _llama(name: str, layers: int, hidden: int, wide: int, vocabulary: int, shared: int = 1) -> Architecture:
    """Grouped-query attention where ``shared`` query heads share one head of keys and values."""
    narrow = hidden // shared
    attention = {f"self_attn.{part}_proj": (hidden, narrow if part in "kv" else hidden) for part in "qkvo"}
    gated = {"mlp.gate_proj": (hidden, wide), "mlp.up_proj": (hidden, wide), "mlp.down_proj": (wide, hidden)}
    targets, blocks = ("q_proj", "v_proj"), "model.layers"
    modules = MappingProxyType(attention | gated)
    return Architecture(name, layers, hidden, modules, targets, False, vocabulary * hidden, blocks)


# Shapes from the models' published configurations: RoBERTa (arXiv 1907.11692), LLaMA-7B (arXiv 2302.13971),
# MiniLM-L6-H384 (config.json of nreimers/MiniLM-L6-H384-uncased), ViT-B/16 (arXiv 2010.11929; 197 tokens an
# image of 224 x 224); with grouped queries Llama 3 8B (arXiv 2407.21783, table 3), Mistral 7B (arXiv 2310.06825,
# table 1), TinyLlama 1.1B (arXiv 2401.02385), Qwen2.5 0.5B and 7B (arXiv 2412.15115, table 1).
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        a.name: a
        for a in (
            _bert("roberta-base", 12, 768, "roberta", dense_head=True),
            _bert("roberta-large", 24, 1024, "roberta", dense_head=True),
            _bert("minilm-l6", 6, 384, pooler=True),
            _bert("vit-b16", 12, 768, "vit"),
            _llama("llama-7b", 32, 4096, 11008, 32000),
            _llama("llama-3-8b", 32, 4096, 14336, 128256, shared=4),
            _llama("mistral-7b", 32, 4096, 14336, 32000, shared=4),
            _llama("tinyllama-1.1b", 22, 2048, 5632, 32000, shared=8),
            _llama("qwen2.5-0.5b", 24, 896, 4864, 151936, shared=7),
            _llama("qwen2.5-7b", 28, 3584, 18944, 152064, shared=7),
        )
    }
)


def architecture(name: str) -> Architecture:
    """The architecture of a name in :data:`ARCHITECTURES`.

    Raises
    ------
    InputError
        For an unknown name; the known ones are in the message.
    """
    if name not in ARCHITECTURES:
        raise InputError("adapter", [Fault("model", "architecture", repr(name), ", ".join(ARCHITECTURES))])
    return ARCHITECTURES[name]


def lora_layers(arch: Architecture, rank: int, targets: str | Iterable[str] = ()) -> tuple[LoraLayer, ...]:
    """The adapted maps of a named architecture, chosen as PEFT chooses them.

    Parameters
    ----------
    arch
        The frozen model.
    rank
        Rank r.
    targets
        As PEFT's ``target_modules``: ends of names (``q_proj``), ``all-linear``, or as one text a regular
        expression for whole names (a text that is the end of a name is taken for that). Empty: the usual ones.

    Returns
    -------
    tuple of LoraLayer
        In the order of the model.

    Raises
    ------
    InputError
        For a rank below 1, or a target that the architecture does not have.
    """
    return _adapted(arch, rank, targets or arch.default_targets, strict=True)


def configured_layers(arch: Architecture, config: Any) -> tuple[LoraLayer, ...]:
    """The adapted maps of a named architecture under a published ``adapter_config.json``.

    Parameters
    ----------
    arch
        The frozen model.
    config
        What the file holds, its path, or PEFT's own configuration.

    Returns
    -------
    tuple of LoraLayer
        With the ranks of ``rank_pattern``; a head in ``modules_to_save`` is for ``head_labels`` of
        :func:`adapter_cost`.

    Raises
    ------
    InputError
        When the file cannot be read, for another kind of adapter, and for whatever else the configuration trains,
        which takes the model itself to count (:func:`read_adapter`).
    """
    given = config.to_dict() if hasattr(config, "to_dict") else config
    given = given if isinstance(given, Mapping) else read_json(given)
    allowed = "left out here: count it with read_adapter(model)"
    faults = [
        Fault("configuration", key, repr(given[key]), allowed)
        for key in _BEYOND
        if given.get(key) not in (None, False, "none", [], {})
    ]
    kind, rank = given.get("peft_type", "LORA"), given.get("r", 8)
    if str(getattr(kind, "value", kind)) != "LORA":
        faults.append(Fault("configuration", "peft_type", repr(kind), "LORA: others have no A and B"))
    saved = [name for name in given.get("modules_to_save") or () if name not in _HEADS]
    if saved:
        faults.append(
            Fault("configuration", "modules_to_save", repr(saved), f"{', '.join(_HEADS)}; more is {allowed}")
        )
    layers = given.get("layers_to_transform")
    if faults:
        raise InputError("adapter", faults)
    return _adapted(
        arch,
        rank,
        given.get("target_modules") or arch.default_targets,
        rank_pattern=given.get("rank_pattern") or {},
        blocks={layers} if isinstance(layers, int) else None if layers is None else set(layers),
        excluded=given.get("exclude_modules") or (),
    )


# What a configuration may train beside A and B of linear maps, and what changes which maps there are.
_BEYOND = (
    "bias",
    "use_dora",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "megatron_config",
    "alora_invocation_tokens",
    "arrow_config",
)
_HEADS = ("classifier", "score", "classification_head")


def _adapted(
    arch: Architecture,
    rank: Any,
    targets: str | Iterable[str],
    *,
    strict: bool = False,
    rank_pattern: Mapping[str, Any] = MappingProxyType({}),
    blocks: set[int] | None = None,
    excluded: str | Iterable[str] = (),
) -> tuple[LoraLayer, ...]:
    """The maps that are chosen, with their ranks; strict: every target must choose some, as one at least must.

    Raises
    ------
    InputError
        Lists unknown targets, ranks below 1 and blocks that there are not.
    """
    maps, faults = arch.maps, []
    names = [targets] if isinstance(targets, str) else list(targets)
    chosen = list(maps) if names == ["all-linear"] else [name for name in maps if _hit(targets, name)]
    if not chosen:
        chosen = [name for name in maps if _hit(names, name)]
    idle = [t for t in names if not any(_hit([t], name) for name in maps)] if strict and len(names) > 1 else []
    for target in idle if chosen else names:
        faults.append(Fault(arch.name, "targets", repr(target), ", ".join((*arch.modules, *arch.beside))))
    for key, value in {"rank": rank, **{f"rank_pattern {k!r}": v for k, v in rank_pattern.items()}}.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            faults.append(Fault(arch.name, key, repr(value), "an integer >= 1"))
    if blocks is not None:
        if not blocks <= set(range(arch.layers)):
            allowed = f"blocks 0 to {arch.layers - 1}"
            faults.append(Fault(arch.name, "layers_to_transform", f"{sorted(blocks)}", allowed))
        chosen = [name for name in chosen if name.startswith(tuple(f"{arch.blocks}.{i}." for i in blocks))]
    if faults:
        raise InputError("adapter", faults)
    kept = [name for name in chosen if not (excluded and _hit(excluded, name))]
    return tuple(LoraLayer(name, *maps[name], int(_rank(name, rank, rank_pattern))) for name in kept)


def _hit(targets: str | Iterable[str], name: str) -> bool:
    """Whether PEFT would adapt the module of that name: a text is a pattern, a list holds ends of names."""
    if isinstance(targets, str):
        try:
            return re.fullmatch(targets, name) is not None
        except re.error:
            return False
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _rank(name: str, rank: int, pattern: Mapping[str, int]) -> int:
    """The rank of a module: that of the first key that is the end of its name, as a regular expression."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", name)), rank)
