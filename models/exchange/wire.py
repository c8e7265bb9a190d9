"""What travels between server and device: names, shapes and bits of a LoRA adapter and its head.

An adapter is a plain mapping from names to float arrays, in the spelling that PEFT saves:
``<layer>.lora_A.weight`` of shape [rank, n_in], ``<layer>.lora_B.weight`` of shape [n_out, rank], and the
head's tensors under their own names. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgealloc.scenario.tensors import Entry, LoraLayer, entry_of, layers_of, trained_entries

WireArray = NDArray[np.floating]  # tensors of an adapter, at any precision
State = Mapping[str, WireArray]

WIRE_DTYPES: dict[str, np.dtype[np.floating]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
}


def canonical_name(key: str) -> str:
    """Return a state-dict key in the spelling that PEFT saves, without the adapter's name.

    Both ``...lora_A.default.weight`` (in the module) and ``...lora_A.weight`` (in the file) are accepted, and
    likewise ``...classifier.modules_to_save.default.weight`` and ``...classifier.weight``.

    Parameters
    ----------
    key
        Name of a tensor, in either spelling.

    Returns
    -------
    str
        ``<layer>.lora_A.weight``, ``<layer>.lora_B.weight``, or the name of a tensor of the head.

    Raises
    ------
    ValueError
        For a part of PEFT that column and row masks do not describe (embedding LoRA, DoRA).
    """
    return _maskable(entry_of(key)).name


def _maskable(entry: Entry) -> Entry:
    if entry.kind not in ("factor", "tokens", "other"):
        raise ValueError(
            f"{entry.key}: only lora_A and lora_B weights of linear layers can be masked; "
            "configure LoRA without embeddings, DoRA or lora_bias"
        )
    return entry


def a_name(layer: str) -> str:
    """Return the name of a layer's A factor, [rank, n_in]."""
    return f"{layer}.lora_A.weight"


def b_name(layer: str) -> str:
    """Return the name of a layer's B factor, [n_out, rank]."""
    return f"{layer}.lora_B.weight"


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """The inventory from which the payload D(s) = D0 + D1 s follows (docs/model.md, *What it costs*).

    Parameters
    ----------
    layers
        Adapted layers.
    head
        Name and shape of every tensor that is trained but never dropped.
    wire_dtype
        Number format on the wire, a key of ``WIRE_DTYPES``.
    sends_a
        False where A is frozen and shared beforehand (FFA-LoRA): only B is masked and sent.

    Raises
    ------
    ValueError
        For an unknown number format, or without a LoRA layer.
    """

    layers: tuple[LoraLayer, ...]
    head: tuple[tuple[str, tuple[int, ...]], ...] = ()
    wire_dtype: str = "float32"
    sends_a: bool = True

    def __post_init__(self) -> None:
        if self.wire_dtype not in WIRE_DTYPES:
            raise ValueError(f"wire_dtype {self.wire_dtype!r}: must be one of {', '.join(WIRE_DTYPES)}")
        if not self.layers:
            raise ValueError("the adapter has no LoRA layer: check the target modules")

    @property
    def bits_per_parameter(self) -> int:
        """Bits of one number on the wire."""
        return 8 * WIRE_DTYPES[self.wire_dtype].itemsize

    @property
    def payload_lora_bits(self) -> int:
        """D1 in bit: what the undropped adapter occupies, q * sum_u r_u (n_in + n_out)."""
        per_layer = (u.rank * (u.n_in * self.sends_a + u.n_out) for u in self.layers)
        return self.bits_per_parameter * sum(per_layer)

    @property
    def payload_fixed_bits(self) -> int:
        """D0 in bit: the head. Mask indices cost nothing, since server and device draw the same mask."""
        return self.bits_per_parameter * sum(int(np.prod(shape)) for _, shape in self.head)

    def payload_bits(self, keep: float) -> float:
        """Return the payload D(s) = D0 + D1 s (docs/model.md, *What it costs*).

        Parameters
        ----------
        keep
            Keep rate s in [0, 1].

        Returns
        -------
        float
            D(s) in bit.
        """
        return self.payload_fixed_bits + self.payload_lora_bits * keep

    @property
    def rank(self) -> int:
        """The highest rank of its layers."""
        return max(u.rank for u in self.layers)

    def of_rank(self, rank: int) -> AdapterShape:
        """The inventory of a device that has the first components only.

        Parameters
        ----------
        rank
            Of the device, >= 1; a layer of no higher rank stays as it is.

        Returns
        -------
        AdapterShape
            With its own payload.

        Raises
        ------
        ValueError
            For a rank that is no whole number of at least 1.
        """
        if rank < 1 or rank % 1:
            raise ValueError(f"rank {rank}: a device has a whole number of components, at least one")
        return replace(self, layers=tuple(replace(u, rank=min(u.rank, rank)) for u in self.layers))

    @classmethod
    def from_state(
        cls,
        state: State,
        *,
        wire_dtype: str = "float32",
        sends_a: bool = True,
        adapter: str | None = None,
        config: Any = None,
    ) -> AdapterShape:
        """Read the inventory off a state dict in either PEFT spelling.

        Parameters
        ----------
        state
            Tensors of the adapter and of the head, by name; the frozen ones of a live state dict are left out.
        wire_dtype, sends_a
            Taken over into the inventory.
        adapter, config
            As for :func:`canonical_state`.

        Returns
        -------
        AdapterShape
            Layers in the order of the state dict.

        Raises
        ------
        InputError
            If there is no adapter, or a layer's factors do not form a product B A; convolutions are refused, for
            masks know only columns and rows. Also as :func:`canonical_state`.
        ValueError
            For a part of PEFT that masks do not describe (embedding LoRA, DoRA), or an unknown number format.
        """
        entries = _maskable_entries(state, adapter, config)
        head = tuple((name, tuple(np.shape(v))) for name, (entry, v) in entries.items() if entry.kind != "factor")
        return cls(layers_of(entries, flat=True), head, wire_dtype, sends_a)


def canonical_state(state: State, *, adapter: str | None = None, config: Any = None) -> dict[str, WireArray]:
    """Return a copy of what is trained of a state dict, with every key in the spelling that PEFT saves.

    Parameters
    ----------
    state
        Tensors by name, in either spelling.
    adapter
        Name of the adapter in a live state dict; needed only where it holds several.
    config
        Of a live state dict whose biases may be trained: what ``adapter_config.json`` holds, or PEFT's own
        configuration (:func:`edgealloc.scenario.read_adapter`).

    Returns
    -------
    dict of str to array
        Copies by canonical name (:func:`canonical_name`), of the same shapes.

    Raises
    ------
    InputError
        For several adapters of which none is named, one that is not there, and tensors of LoRA that are none of
        those that PEFT makes.
    ValueError
        For a part of PEFT that masks do not describe (embedding LoRA, DoRA).
    """
    return {name: np.array(value) for name, (_, value) in _maskable_entries(state, adapter, config).items()}


def _maskable_entries(state: State, adapter: str | None, config: Any) -> dict[str, tuple[Entry, WireArray]]:
    entries = trained_entries(state, adapter, config)
    for entry, _ in entries.values():
        _maskable(entry)
    return entries


def to_wire(name: str, value: WireArray, wire_dtype: str = "float32") -> WireArray:
    """Round a tensor to the number format of the wire.

    Parameters
    ----------
    name
        Of the tensor, for the message.
    value
        The tensor, of any shape.
    wire_dtype
        Number format, a key of ``WIRE_DTYPES``.

    Returns
    -------
    array
        The same shape, contiguous; what is not finite stays so.

    Raises
    ------
    KeyError
        For an unknown number format.
    OverflowError
        If a finite number is too large for the format: it would arrive as infinity.
    """
    dtype = WIRE_DTYPES[wire_dtype]
    with np.errstate(over="ignore"):
        sent = np.ascontiguousarray(value, dtype=dtype)
    lost = np.isfinite(value) & ~np.isfinite(sent)
    if np.any(lost):
        largest = float(np.max(np.abs(np.asarray(value)[lost])))
        raise OverflowError(
            f"{name}: {largest:.3g} is more than {wire_dtype} holds, {np.finfo(dtype).max:.3g}: send float32, or "
            "train at a lower learning rate"
        )
    return sent


def pack(slices: State, wire_dtype: str = "float32") -> bytes:
    """Serialise slices as little-endian numbers: the bytes on the wire, nothing else.

    Names, shapes and masks are not sent: both ends know the inventory and draw the same masks. Tensors go in the
    order of their names, which both ends agree on, not in that of a dictionary: a saved adapter has another than
    the live model.

    Parameters
    ----------
    slices
        Tensors by name.
    wire_dtype
        Number format, a key of ``WIRE_DTYPES``.

    Returns
    -------
    bytes
        All numbers, one after the other.

    Raises
    ------
    KeyError
        For an unknown number format.
    OverflowError
        For a number that the format cannot hold (:func:`to_wire`).
    """
    return b"".join(to_wire(name, slices[name], wire_dtype).tobytes() for name in sorted(slices))


def unpack(wire: bytes, like: State, wire_dtype: str = "float32") -> dict[str, WireArray]:
    """Read back what :func:`pack` wrote.

    Parameters
    ----------
    wire
        The bytes.
    like
        Names and shapes; the values are not used.
    wire_dtype
        Number format, a key of ``WIRE_DTYPES``.

    Returns
    -------
    dict of str to array
        Single-precision tensors, shaped as in ``like`` and in its order.

    Raises
    ------
    ValueError
        If the length is not what the shapes need.
    KeyError
        For an unknown number format.
    """
    dtype = WIRE_DTYPES[wire_dtype]
    needed = sum(value.size for value in like.values()) * dtype.itemsize
    if len(wire) != needed:
        raise ValueError(f"{len(wire)} bytes on the wire, {needed} expected from the masks")
    flat = np.frombuffer(wire, dtype=dtype).astype(np.float32)
    out: dict[str, WireArray] = dict(like)
    start = 0
    for name in sorted(like):
        size = like[name].size
        out[name] = flat[start : start + size].reshape(like[name].shape)
        start += size
    return out
