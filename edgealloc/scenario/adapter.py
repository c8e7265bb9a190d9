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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgealloc.data.spec import AdapterOption
from edgealloc.errors import Fault, InputError
from edgealloc.scenario.architecture import ARCHITECTURES, Architecture, architecture, lora_layers
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
