"""Which tensors of an adapter are trained, and so uploaded: read off names and shapes, without torch.

PEFT spells a tensor in two ways: ``...lora_A.NAME.weight`` in a live model with an adapter of that name, and
``...lora_A.weight`` in a saved adapter, which holds one only. A live model's ``state_dict()`` also holds the
frozen backbone, and originals of what ``modules_to_save`` copied; a saved adapter may hold frozen embeddings and,
with trained biases, some of them twice. What is trained beside the factors A and B (a head, biases, magnitudes of
DoRA, tokens of an embedding) is uploaded in full.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from edgealloc.errors import Fault, InputError

__all__ = ["Entry", "LoraLayer", "TrainedTensors", "layers_of", "read_adapter", "trained_entries"]

Kind = Literal["factor", "embedding", "magnitude", "bias", "tokens", "other", "unknown"]

_ADAPTER = r"(?:\.(?P<adapter>[^.]+))?"  # the name in a live model; a module's key holds no dot
_PATTERNS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("factor", re.compile(rf"(?:(?P<layer>.+)\.)?lora_(?P<part>[AB]){_ADAPTER}\.weight")),
    ("bias", re.compile(rf"(?:(?P<layer>.+)\.)?lora_(?P<part>[AB]){_ADAPTER}\.bias")),
    ("embedding", re.compile(rf"(?:(?P<layer>.+)\.)?lora_embedding_(?P<part>[AB]){_ADAPTER}")),
    ("magnitude", re.compile(rf"(?:(?P<layer>.+)\.)?lora_(?P<part>magnitude_vector){_ADAPTER}(?:\.weight)?")),
    ("tokens", re.compile(rf"(?:(?P<layer>.+)\.)?(?P<part>trainable_tokens_delta){_ADAPTER}")),
)
_COPY = re.compile(r"\.modules_to_save\.(?P<adapter>[^.]+)\.")

# Adapters of other kinds, by what stands in their keys: they have no A and B to drop columns and rows of.
_OTHERS = {
    "lora_E": "AdaLoRA",
    "ia3_": "IA3",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "vera_": "VeRA",
    "oft_": "OFT",
    "boft_": "BOFT",
    "prompt_e": "prompt or prefix tuning",
    "prefix_": "prefix tuning",
    "fourierft_": "FourierFT",
    "hra_": "HRA",
    "randlora_": "RandLoRA",
}


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """One adapted linear map: A [rank, n_in], B [n_out, rank]."""

    name: str
    n_in: int
    n_out: int
    rank: int

    @property
    def parameters(self) -> int:
        """``rank (n_in + n_out)``."""
        return self.rank * (self.n_in + self.n_out)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key of a state dict says.

    Parameters
    ----------
    key
        The key.
    kind
        ``factor`` (A or B of a map or of a convolution), ``embedding`` (those of an embedding), ``magnitude``
        (DoRA), ``bias`` (of B, ``lora_bias``), ``tokens`` (``trainable_token_indices``), ``unknown`` (some other
        ``lora_`` tensor), or ``other``.
    layer
        The adapted module; empty for ``other``.
    part
        ``A``, ``B``, or another word.
    adapter
        Name of the adapter where the key carries one.
    name
        The key as PEFT saves it.
    """

    key: str
    kind: Kind
    layer: str
    part: str
    adapter: str | None
    name: str


def entry_of(key: str) -> Entry:
    """Read a key in either spelling."""
    for kind, pattern in _PATTERNS:
        if found := pattern.fullmatch(key):
            layer, part, adapter = found["layer"] or "", found["part"], found["adapter"]
            if kind == "magnitude" and adapter == "weight":  # as some versions save it
                adapter = None
            stem = {"embedding": "lora_embedding_", "tokens": ""}.get(kind, "lora_") + part
            end = {"factor": ".weight", "bias": ".bias"}.get(kind, "")
            return Entry(key, kind, layer, part, adapter, f"{layer}.{stem}{end}".removeprefix("."))
    if ".lora_" in f".{key}".split(".modules_to_save.")[0]:
        return Entry(key, "unknown", "", "", None, key)
    copy = _COPY.search(key)
    return Entry(key, "other", "", "", copy and copy["adapter"], _COPY.sub(".", key))


def trained_entries(
    state: Mapping[str, Any], adapter: str | None = None, config: Any = None
) -> dict[str, tuple[Entry, Any]]:
    """What is trained of a state dict, live or saved.

    Parameters
    ----------
    state
        Tensors by key; if any says ``requires_grad``, that decides what is trained beside the adapter.
    adapter
        Name of the adapter in a live state dict; needed only where it holds several.
    config
        What ``adapter_config.json`` holds, or PEFT's own configuration: its ``bias`` says whether biases of the
        backbone are trained, which a live state dict does not. Without it they count as frozen, with a warning.

    Returns
    -------
    dict of str to (Entry, tensor)
        By the name that PEFT saves, in the order of ``state``.

    Raises
    ------
    InputError
        For tensors of LoRA that are none of the known ones, both spellings in one state dict, an adapter that is
        not there, and several of which none is named.
    """
    entries = [entry_of(key) for key in state]
    named = {entry.adapter for entry in entries if entry.kind not in ("other", "unknown")}
    live = bool(named) and None not in named
    strange = [entry.key for entry in entries if entry.kind == "unknown"]
    faults = [
        Fault("state dict", key, f"shape {_shape(state[key])}", f"lora_A and lora_B matrices{_kinds(strange)}")
        for key in strange
    ]
    if None in named and len(named) > 1:
        words = ", ".join(sorted(repr(name) for name in named if name is not None))
        faults.append(Fault("state dict", "adapters", f"{words}, and one without a name", "one adapter"))
    elif live and adapter is None and len(named) > 1:
        words = ", ".join(sorted(map(repr, named)))
        faults.append(Fault("state dict", "adapters", words, "one of them, named by adapter="))
    elif live and adapter is not None and adapter not in named:
        words = ", ".join(sorted(map(repr, named)))
        faults.append(Fault("state dict", "lora_A", f"none for adapter {adapter!r}", f"one of {words}"))
    if faults:
        raise InputError("adapter", faults)
    if live:
        chosen = adapter if adapter is not None else next(iter(named))
        kept = _of_live(entries, state, chosen, config)
    else:
        kept = _of_saved(entries)
    return {entry.name: (entry, state[entry.key]) for entry in kept}


def _of_saved(entries: list[Entry]) -> list[Entry]:
    """All of a saved adapter but for embeddings as they were, originals, and biases that are there twice."""
    kept, names = [], {entry.key for entry in entries}
    for entry in entries:
        plain = entry.key.replace(".modules_to_save.", ".")
        frozen = ".original_module." in entry.key or entry.key.endswith(".base_layer.weight")
        if entry.kind != "other" or not (frozen or (plain != entry.key and plain in names)):
            kept.append(entry)
    return kept


def _of_live(entries: list[Entry], state: Mapping[str, Any], adapter: str | None, config: Any) -> list[Entry]:
    """Of a live model: the adapter of that name, its copies of modules, and what else is known to be trained."""
    says = any(getattr(value, "requires_grad", None) is True for value in state.values())
    adapted = {entry.layer for entry in entries if entry.kind == "factor" and entry.adapter == adapter}
    mode, kept, unsure = _bias_mode(config), [], False
    for entry in entries:
        if entry.kind != "other" or entry.adapter is not None:
            if entry.adapter == adapter:
                kept.append(entry)
        elif says:
            if state[entry.key].requires_grad:
                kept.append(entry)
        elif f".{entry.key}".endswith(".bias") and ".original_module." not in entry.key:
            unsure = unsure or mode is None
            layer = entry.key.removesuffix(".bias").removesuffix(".base_layer")
            if mode == "all" or (mode == "lora_only" and layer in adapted and ".base_layer." in entry.key):
                kept.append(entry)
    if unsure:
        warnings.warn(
            "a live state dict does not say whether biases are trained: they count as frozen. Pass the model, the "
            "adapter as PEFT saves it (get_peft_model_state_dict), or config= with PEFT's configuration",
            stacklevel=4,
        )
    return _once(kept, state)


def _once(entries: list[Entry], state: Mapping[str, Any]) -> list[Entry]:
    """Entries without tied modules and tokens by their other names; factors are never tied."""
    seen: set[tuple[int, tuple[int, ...]] | None] = set()
    kept = []
    for entry in entries:
        place = _place(state[entry.key]) if entry.kind in ("other", "tokens") else None
        if place is None or place not in seen:
            kept.append(entry)
            seen.add(place)
    return kept


def _place(value: Any) -> tuple[int, tuple[int, ...]] | None:
    """Where a tensor of torch or numpy lies in memory, with its shape; None where that cannot be told."""
    if hasattr(value, "data_ptr"):
        start = value.data_ptr()
    else:
        start = getattr(value, "__array_interface__", {"data": (0,)})["data"][0]
    return (start, _shape(value)) if start and prod(_shape(value)) else None


def _bias_mode(config: Any) -> str | None:
    if config is None:
        return None
    return str((config.get("bias") if isinstance(config, Mapping) else getattr(config, "bias", None)) or "none")


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in value.shape)


def _kinds(keys: Iterable[str]) -> str:
    """What other kind of adapter these keys are of, in brackets, where that can be told."""
    found = {kind for key in keys for mark, kind in _OTHERS.items() if f".{mark}" in f".{key}"}
    return f" (this is an adapter of the kind {', '.join(sorted(found))})" if found else ""


def layers_of(entries: Mapping[str, tuple[Entry, Any]], *, flat: bool = False) -> tuple[LoraLayer, ...]:
    """The adapted maps of trained entries.

    Parameters
    ----------
    entries
        From :func:`trained_entries`.
    flat
        Whether only matrices will do: masks know no convolutions.

    Returns
    -------
    tuple of LoraLayer
        In the order of the entries; of a convolution n_in counts the positions of its window.

    Raises
    ------
    InputError
        Where A and B do not pair up, and where there is none.
    """
    factors: dict[str, dict[str, tuple[int, ...]]] = {}
    for entry, value in entries.values():
        if entry.kind in ("factor", "embedding"):
            factors.setdefault(entry.layer, {})[entry.part] = _shape(value)
    layers, faults = [], []
    for module, pair in factors.items():
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None or min(len(a), len(b)) < 2 or a[0] != b[1]:
            faults.append(Fault("state dict", module, f"A {a}, B {b}", "A [r, n_in] and B [n_out, r]"))
        elif flat and (len(a) > 2 or len(b) > 2):
            allowed = "A [r, n_in] and B [n_out, r]: masks drop columns and rows of matrices, not of convolutions"
            faults.append(Fault("state dict", module, f"A {a}, B {b}", allowed))
        else:
            layers.append(LoraLayer(module, prod(a[1:]), prod(b) // b[1], a[0]))
    if not layers and not faults:
        beside = [entry.key for entry, _ in entries.values() if entry.kind != "other"]
        words = "none" + (f" beside {beside[0]}" if beside else "")
        keys = [entry.key for entry, _ in entries.values()]
        faults.append(Fault("state dict", "lora_A", words, f"at least one pair lora_A, lora_B{_kinds(keys)}"))
    if faults:
        raise InputError("adapter", faults)
    return tuple(layers)


@dataclass(frozen=True, slots=True)
class TrainedTensors:
    """What a trained adapter uploads: adapted maps, and parameters of everything else that is trained."""

    layers: tuple[LoraLayer, ...]
    fixed_parameters: int

    def payload_bits(self, bits: float = 16.0) -> tuple[float, float]:
        """(payload_fixed_bits, payload_lora_bits) at ``bits`` per parameter."""
        return bits * self.fixed_parameters, bits * float(sum(x.parameters for x in self.layers))


def read_adapter(model: Any, adapter: str | None = None, *, config: Any = None) -> TrainedTensors:
    """What is trained, and so uploaded, of a PEFT model or state dict, without importing torch.

    All that is trained beside A and B counts as fixed: ``modules_to_save``, biases, magnitudes of DoRA, tokens
    of ``trainable_token_indices``, and whatever else of a model says ``requires_grad``.

    Parameters
    ----------
    model
        A PEFT model, or a mapping of key -> anything with ``shape``. Both key styles are read:
        ``...lora_A.default.weight`` (a live model) and ``...lora_A.weight`` (a saved adapter).
    adapter
        Name of the adapter; needed only where there are several and the model has none or several active.
    config
        Of a live state dict whose biases may be trained: what ``adapter_config.json`` holds, or PEFT's own
        configuration. A model has it.

    Returns
    -------
    TrainedTensors
        The adapted maps, A [r, n_in] and B [n_out, r], and the number of the other trained parameters.

    Raises
    ------
    InputError
        Where A and B do not pair up, where there is no adapter or several of which none is named, and for
        tensors of LoRA that are none of those above.
    """
    state, adapter, config = _parts(model, adapter, config)
    entries = trained_entries(state, adapter, config)
    beside = [value for entry, value in entries.values() if entry.kind not in ("factor", "embedding")]
    return TrainedTensors(layers_of(entries), sum(prod(_shape(value)) for value in beside))


def _parts(model: Any, adapter: str | None, config: Any) -> tuple[Mapping[str, Any], str | None, Any]:
    """The tensors of a model, each once though weights be tied; the active adapter and its configuration."""
    if isinstance(model, Mapping):
        return model, adapter, config
    if not hasattr(model, "named_parameters"):
        return model.state_dict(), adapter, config
    state = dict(model.named_parameters())
    factors = [entry for entry in map(entry_of, state) if entry.kind in ("factor", "embedding")]
    named = {entry.adapter for entry in factors}
    if adapter is None:
        active = getattr(model, "active_adapter", None)
        adapter = active if isinstance(active, str) else next(iter(named)) if len(named) == 1 else None
    configs = getattr(model, "peft_config", None)
    if config is None and isinstance(configs, Mapping):
        config = configs.get(adapter if adapter is not None else next(iter(configs), None))
    trains = any(state[entry.key].requires_grad for entry in factors if entry.adapter == adapter)
    if not trains:  # an adapter that rests, in a model whose other parameters belong to another one
        state = {key: _Shaped(_shape(value)) for key, value in state.items()}
    return state, adapter, config


@dataclass(frozen=True, slots=True)
class _Shaped:
    """A tensor of which only the shape counts."""

    shape: tuple[int, ...]
