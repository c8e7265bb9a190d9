"""What a LoRA adapter costs a device: bits to upload and operations to train, from tensor shapes alone.

An adapted linear map with ``n_in`` inputs and ``n_out`` outputs carries ``A`` [r, n_in] and ``B`` [n_out, r],
that is ``r (n_in + n_out)`` parameters. Masks keep a fraction s of A's columns and of B's rows, so the upload
is ``D0 + D1 s`` and the work ``W0 + W1 s`` (docs/model.md, *What it costs*) with

    D1 = bits * sum r (n_in + n_out)          D0 = bits * (head parameters) + mask description
    W1 = 6 tokens * sum r (n_in + n_out)      W0 = everything frozen, and the head

Operations count one multiplication and one addition as two and leave out what is not a matrix product
(softmax, normalisation, activation functions, optimiser), less than a few per cent. A trained matrix costs
2 forward, 2 for the gradient of its input and 2 for its own gradient per parameter and token; a frozen one
costs 2 + 2. Derived here; ``tests/scenario/test_adapter.py`` checks it against PyTorch's own operation counter. It
counts an input gradient in every block; training stops short of it in the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from edgealloc.data.spec import AdapterOption
from edgealloc.errors import Fault, InputError
from edgealloc.scenario.tensors import LoraLayer, TrainedTensors, read_adapter

__all__ = [
    "ARCHITECTURES",
    "AdapterCost",
    "Architecture",
    "LoraLayer",
    "TrainedTensors",
    "adapter_cost",
    "adapter_menu",
    "architecture",
    "lora_layers",
    "read_adapter",
]

MaskFormat = Literal["seed", "bitmap", "none"]


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
        The linear maps of one block: name -> (n_in, n_out).
    default_targets
        The maps that LoRA adapts by default (those of Hu et al. 2021, arXiv 2106.09685: query and value).
    dense_head
        The classification head has a hidden x hidden layer before its output (RoBERTa's does).
    token_head_parameters
        Frozen parameters that every token meets after the blocks (a language model's output map).
    """

    name: str
    layers: int
    hidden: int
    modules: Mapping[str, tuple[int, int]]
    default_targets: tuple[str, ...]
    dense_head: bool = False
    token_head_parameters: int = 0

    @property
    def frozen_parameters(self) -> int:
        """Parameters that every token is multiplied with: linear maps of all blocks, output map."""
        per_block = sum(n_in * n_out for n_in, n_out in self.modules.values())
        return self.layers * per_block + self.token_head_parameters

    def head_parameters(self, labels: int) -> int:
        """Parameters, biases included, of a classification head with ``labels`` outputs (0: no head)."""
        dense = self.hidden * self.hidden + self.hidden if self.dense_head and labels else 0
        return dense + labels * (self.hidden + 1)


def _bert(name: str, layers: int, hidden: int, dense_head: bool = False) -> Architecture:
    wide = 4 * hidden
    modules = {
        "query": (hidden, hidden),
        "key": (hidden, hidden),
        "value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (hidden, wide),
        "output.dense": (wide, hidden),
    }
    return Architecture(name, layers, hidden, MappingProxyType(modules), ("query", "value"), dense_head)


def _llama(name: str, layers: int, hidden: int, wide: int, vocabulary: int) -> Architecture:
    attention = {f"{part}_proj": (hidden, hidden) for part in "qkvo"}
    gated = {"gate_proj": (hidden, wide), "up_proj": (hidden, wide), "down_proj": (wide, hidden)}
    modules = MappingProxyType(attention | gated)
    return Architecture(name, layers, hidden, modules, ("q_proj", "v_proj"), False, vocabulary * hidden)


# Shapes from the models' published configurations: RoBERTa (arXiv 1907.11692), LLaMA-7B (arXiv 2302.13971),
# MiniLM-L6-H384 (config.json of nreimers/MiniLM-L6-H384-uncased), ViT-B/16 (arXiv 2010.11929; 197 tokens an
# image of 224 x 224).
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        a.name: a
        for a in (
            _bert("roberta-base", 12, 768, dense_head=True),
            _bert("roberta-large", 24, 1024, dense_head=True),
            _bert("minilm-l6", 6, 384),
            _bert("vit-b16", 12, 768),
            _llama("llama-7b", 32, 4096, 11008, 32000),
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


def lora_layers(arch: Architecture, rank: int, targets: Iterable[str] = ()) -> tuple[LoraLayer, ...]:
    """The adapted maps of a named architecture; ``targets`` empty means its default ones.

    Raises
    ------
    InputError
        For a rank below 1, or a target that the architecture does not have.
    """
    names = tuple(targets) or arch.default_targets
    unknown = [t for t in names if t not in arch.modules]
    faults = [Fault(arch.name, "targets", repr(t), ", ".join(arch.modules)) for t in unknown]
    if rank < 1:
        faults.append(Fault(arch.name, "rank", f"{rank}", "an integer >= 1"))
    if faults:
        raise InputError("adapter", faults)
    return tuple(LoraLayer(f"layer.{i}.{t}", *arch.modules[t], rank) for i in range(arch.layers) for t in names)


@dataclass(frozen=True, slots=True)
class AdapterCost:
    """Bits and operations of one local update with the whole adapter kept (s = 1).

    ``*_fixed`` is spent at any keep rate, ``*_lora`` is multiplied by the keep rate. Bits; floating-point
    operations (a multiplication and an addition are two).
    """

    payload_fixed_bits: float
    payload_lora_bits: float
    flops_fixed: float
    flops_lora: float


def adapter_cost(
    arch: Architecture,
    layers: tuple[LoraLayer, ...],
    *,
    bits: float = 16.0,
    tokens: int = 512,
    sequence_length: int = 128,
    head_labels: int = 0,
    mask: MaskFormat = "seed",
) -> AdapterCost:
    """Cost of one local update of ``tokens`` tokens in sequences of ``sequence_length``.

    Parameters
    ----------
    arch, layers
        The frozen model and its adapted maps, from :func:`lora_layers` or :func:`read_adapter`.
    bits
        Bits per uploaded parameter (32, 16, or fewer when quantised).
    tokens
        Tokens that a device trains on in one round, over all its local steps.
    sequence_length
        Tokens per sequence: sets the cost of attention and how often the head runs.
    head_labels
        Outputs of a trained classification head, uploaded in full; 0 for none.
    mask
        How the device describes its mask: ``seed`` 64 bit, ``bitmap`` one bit per column of A and row of B,
        ``none`` when the server chose it.

    Raises
    ------
    InputError
        Lists every option that is out of range.
    """
    numbers = {"bits": bits, "tokens": tokens, "sequence_length": sequence_length}
    faults = [Fault("adapter", key, f"{value}", "a number > 0") for key, value in numbers.items() if value <= 0]
    if head_labels < 0:
        faults.append(Fault("adapter", "head_labels", f"{head_labels}", "an integer >= 0"))
    if mask not in ("seed", "bitmap", "none"):
        faults.append(Fault("adapter", "mask", repr(mask), "seed, bitmap, none"))
    if faults:
        raise InputError("adapter", faults)
    trained = sum(layer.parameters for layer in layers)
    head = arch.head_parameters(head_labels)
    mask_bits = {"seed": 64, "bitmap": sum(x.n_in + x.n_out for x in layers), "none": 0}[mask]
    # Scores and weighted sum, 2 * sequence_length * hidden each; backward both factors get a gradient.
    attention = 3 * 4 * sequence_length * arch.hidden * arch.layers
    return AdapterCost(
        payload_fixed_bits=float(bits * head + mask_bits),
        payload_lora_bits=float(bits * trained),
        flops_fixed=float(tokens) * (4 * arch.frozen_parameters + attention + 6 * head / sequence_length),
        flops_lora=float(tokens) * 6 * trained,
    )


def adapter_menu(
    arch: Architecture,
    *,
    flops_per_cycle: float,
    ranks: Iterable[int] = (4, 8, 16),
    bits: Iterable[int] = (16,),
    targets: Iterable[str] = (),
    tokens: int = 512,
    rank_exponent: float = 0.5,
) -> tuple[AdapterOption, ...]:
    """Menu of ranks and quantisations for one device class, rows in the order rank, bits.

    The underfitting factor is ``(rank_max / rank)^rank_exponent * (1 + 4^-bits)``. The second factor is the
    relative error power of a uniform quantiser on uniform values, derived; the first is an assumption to be
    replaced by measured factors (``dataclasses.replace(row, underfit_factor=...)``).

    Parameters
    ----------
    arch
        The frozen model, from :data:`ARCHITECTURES`.
    flops_per_cycle
        Floating-point operations that the class does per processor cycle.
    ranks, bits
        Ranks r, and bits per uploaded parameter: one row for each pair.
    targets
        Adapted maps; empty for the model's usual ones.
    tokens
        Tokens that a device trains on in one round.
    rank_exponent
        Exponent of the assumed factor of the rank, dimensionless.

    Returns
    -------
    tuple of AdapterOption
        Bits and cycles of the whole adapter (s = 1), and the factor on the underfitting term.

    Raises
    ------
    InputError
        As :func:`lora_layers` and :func:`adapter_cost`.
    """
    rank_list, bit_list = tuple(ranks), tuple(bits)
    rows = []
    for rank in rank_list:
        for width in bit_list:
            cost = adapter_cost(arch, lora_layers(arch, rank, targets), bits=width, tokens=tokens)
            factor = (max(rank_list) / rank) ** rank_exponent * (1.0 + 4.0**-width)
            label = f"r={rank}" if len(bit_list) == 1 else f"r={rank},{width} bit"
            rows.append(AdapterOption(label, cost.payload_lora_bits, cost.flops_lora / flops_per_cycle, factor))
    return tuple(rows)
