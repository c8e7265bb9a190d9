"""What is wrong with a reply: the check of every one that came over a network, whatever its sender made of it.

A reply is read into an :class:`~edgealloc.models.exchange.update.Update` of plain arrays, or it is a
:class:`BadReplyError` that says why not. What passes has the names, shapes and masks that were asked for, and real
numbers that are finite in the adapter's own number format. Needs numpy only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from edgealloc.data.spec import MOST_SAMPLES, number_of
from edgealloc.errors import Fault, InputError, shown
from edgealloc.models.exchange.dropout import Masks
from edgealloc.models.exchange.update import Update
from edgealloc.models.exchange.wire import State, WireArray

__all__ = [
    "LARGEST_CHANGE",
    "BadReplyError",
    "change_of",
    "check_server",
    "medians_of_others",
    "read_reply",
    "root_mean_square",
]

LARGEST_CHANGE = 30.0  # how it was chosen: docs/embedding.md, *Replies that lie*
_NAMED = 3  # names that a reason lists


class BadReplyError(ValueError):
    """A reply cannot be used; the message is the reason, without the device's name."""


def check_server(previous: State, samples: Mapping[str, float] | None) -> None:
    """Make sure that what the server itself brings is sound, so that no reply is blamed for it.

    Parameters
    ----------
    previous
        The adapter before the round, by name.
    samples
        The plan's sample counts by device, or None.

    Raises
    ------
    InputError
        Names every tensor and every device at fault.
    """
    faults = [
        Fault("adapter", name, f"an array of {np.asarray(value).dtype}", "finite floating-point numbers")
        for name, value in previous.items()
        if np.asarray(value).dtype.kind != "f" or not np.all(np.isfinite(value))
    ]
    for device, count in (samples or {}).items():
        if not 0.0 < number_of(count) <= MOST_SAMPLES:
            allowed = f"the plan's count, a number > 0 and at most {MOST_SAMPLES:g}"
            faults.append(Fault(str(device), "samples", shown(count), allowed))
    if faults:
        raise InputError("gather", faults)


def read_reply(previous: State, reply: object, *, sends_a: bool, masks: Masks | None, counted: bool) -> Update:
    """A reply as plain arrays, once nothing is wrong with it.

    Parameters
    ----------
    previous
        The server's adapter before the round, full size.
    reply
        What came; anything.
    sends_a
        False where A is frozen and not sent.
    masks
        What the server drew for the device; None to go by the reply's own.
    counted
        Whether the server knows the number of samples, so that the claim only has to be a number.

    Returns
    -------
    Update
        Of its own dictionary, with plain arrays; their shapes are those that the masks make.

    Raises
    ------
    BadReplyError
        Says what is wrong. Whatever else a reply raises while it is read is turned into one.
    """
    try:
        return _read(previous, reply, sends_a, masks, counted)
    except BadReplyError:
        raise
    except Exception as error:  # objects of a stranger: whatever they do to the reader, the round goes on
        raise BadReplyError(f"it cannot be read: {type(error).__name__}: {shown(str(error))}") from error


def change_of(previous: State, update: Update) -> float:
    """How far an update moved what it was sent: root mean square over its entries, in units of the adapter.

    Parameters
    ----------
    previous
        The server's adapter before the round, full size.
    update
        Of the shapes that its masks make.

    Returns
    -------
    float
        0 for an update without entries; inf where the difference is none of a double.
    """
    return root_mean_square(
        piece.astype(float) - _sent(previous[name], name, update.masks) for name, piece in update.slices.items()
    )


def root_mean_square(arrays: Iterable[WireArray]) -> float:
    """Root mean square of all entries of some arrays of any shape; no square under- or overflows."""
    kept = [np.abs(array) for array in arrays if array.size]
    peak = max((float(array.max()) for array in kept), default=0.0)
    if peak == 0.0 or not math.isfinite(peak):
        return peak
    total = math.fsum(float(np.sum(np.square(array / peak))) for array in kept)
    return peak * math.sqrt(total / sum(array.size for array in kept))


def medians_of_others(values: Sequence[float]) -> list[float]:
    """Of each number the median of all others, 0 where there are none; sorted once, for a round may be large."""
    count = len(values) - 1
    if count < 1:
        return [0.0] * len(values)
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    for rank, i in enumerate(order):
        low, high = (values[order[j + (j >= rank)]] for j in ((count - 1) // 2, count // 2))
        found[i] = 0.5 * low + 0.5 * high
    return found


def _sent(whole: WireArray, name: str, masks: Masks) -> WireArray:
    return masks.cut(name, whole).astype(float)


def _read(previous: State, reply: object, sends_a: bool, masks: Masks | None, counted: bool) -> Update:
    if not isinstance(reply, Update):
        raise BadReplyError(f"it is {_kind(reply)}, must be an Update")
    samples = number_of(reply.samples)
    if not 0.0 < samples <= (sys.float_info.max if counted else MOST_SAMPLES):
        allowed = "a finite number > 0" if counted else f"a number > 0 and at most {MOST_SAMPLES:g}"
        raise BadReplyError(f"samples is {shown(reply.samples)}, must be {allowed}")
    own = _read_masks(previous, reply.masks)
    if masks is not None and not _same(own, masks):
        raise BadReplyError("trained with other masks than the server drew: are models and versions the same?")
    expected = {name: value for name, value in previous.items() if sends_a or ".lora_A." not in name}
    if not isinstance(reply.slices, Mapping):
        raise BadReplyError(f"slices is {_kind(reply.slices)}, must be a mapping of names to arrays")
    given = dict(islice(reply.slices.items(), len(expected) + _NAMED))
    unknown = [name for name in given if name not in expected]
    missing = [name for name in expected if name not in given]
    if missing or unknown:
        raise BadReplyError(f"tensors missing: {_some(missing)}; not known: {_some(unknown)}")
    slices = {name: _read_piece(name, given[name], before, own) for name, before in expected.items()}
    return Update(slices, own, samples)


def _read_masks(previous: State, masks: Any) -> Masks:
    """Masks of plain booleans, one of the right length for every layer and for no other.

    Raises
    ------
    BadReplyError
        For anything else.
    """
    if not isinstance(masks, Masks):
        raise BadReplyError(f"masks is {_kind(masks)}, must be Masks")
    sides = []
    for field, suffix, axes in (
        ("columns", ".lora_A.weight", (1,)),
        ("rows", ".lora_B.weight", (0,)),
        ("ranks", ".lora_B.weight", (1,)),
        ("entries", ".lora_B.weight", (0, 1)),
    ):
        given: Any = getattr(masks, field)
        sizes = {
            n.removesuffix(suffix): tuple(np.shape(v)[axis] for axis in axes)
            for n, v in previous.items()
            if n.endswith(suffix)
        }
        if field in ("ranks", "entries") and isinstance(given, Mapping):  # a layer without a mask is there in full
            sizes = {layer: size for layer, size in sizes.items() if layer in given}
        if not isinstance(given, Mapping) or len(given) != len(sizes) or any(u not in given for u in sizes):
            raise BadReplyError(f"masks: {field} is {_kind(given)}, must hold one mask for each of {_some(sizes)}")
        side = {}
        for layer, size in sizes.items():
            mask = given[layer]
            if not isinstance(mask, np.ndarray) or np.asarray(mask).dtype != np.bool_ or mask.shape != size:
                wanted = "x".join(map(str, size))
                raise BadReplyError(
                    f"masks: {field} of {layer} is {_kind(mask)}, it must have {wanted} entries, true or false"
                )
            side[layer] = np.asarray(mask)
        sides.append(side)
    return Masks(*sides)


def _same(one: Masks, other: Masks) -> bool:
    pairs = [(getattr(one, f), getattr(other, f)) for f in ("columns", "rows", "ranks", "entries")]
    return all(a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a) for a, b in pairs)


def _read_piece(name: str, piece: Any, before: WireArray, masks: Masks) -> WireArray:
    """One tensor as a plain array.

    Raises
    ------
    BadReplyError
        If it is not one of real numbers, finite in the adapter's format, of the shape that the masks make.
    """
    if not isinstance(piece, np.ndarray) or isinstance(piece, np.ma.MaskedArray):
        raise BadReplyError(f"{name}: {_kind(piece)}, must be a numpy array")
    plain = np.asarray(piece)  # of no subclass, whose arithmetic would be its own
    shape = list(np.shape(before))
    for axis, kept in masks.sides(name):
        shape[axis] = int(np.sum(kept))
    chosen = masks.entries_of(name)
    if chosen is not None:
        shape = [int(np.sum(chosen))]
    if list(plain.shape) != shape:
        raise BadReplyError(f"{name}: shape {list(plain.shape)}, the masks make it {shape}")
    if plain.dtype.kind != "f":
        raise BadReplyError(f"{name}: numbers of type {shown(str(plain.dtype))}, must be real floating point")
    with np.errstate(all="ignore"):
        finite = np.isfinite(plain.astype(before.dtype, copy=False))
    if not np.all(finite):
        bad = int(np.sum(~finite))
        raise BadReplyError(f"{name}: {bad} of {plain.size} numbers are not finite in {before.dtype}")
    return plain


def _kind(value: object) -> str:
    """What a value is, for a message that does not print what is in it."""
    if isinstance(value, np.ndarray):
        return f"an array of {shown(str(np.asarray(value).dtype))} of shape {list(np.shape(np.asarray(value)))}"
    return f"of type {type(value).__name__}"


def _some(names: Iterable[Any]) -> str:
    """A few names for a message."""
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return "[" + ", ".join(map(shown, listed[:_NAMED])) + f"]{more}"
