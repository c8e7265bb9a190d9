"""What travels between the Flower server and its clients, and how it is read back without trust.

A round has two exchanges. QUERY: the client answers with record ``state``, the fields of its
:class:`~edgealloc.rounds.system.DeviceState` and its name. TRAIN: the server sends ``settings``, the device's own
plan, and ``adapter``, its own sub-adapter; the client answers with ``adapter``, the trained slices, and
``metrics``. Masks do not travel: both sides draw them. Their digest does, so that two sides that draw different
masks of equal shapes find out instead of adding up what does not belong together.

How it is used is in docs/flower.md.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgealloc.data.spec import number_of, plain
from edgealloc.errors import MissingPackageError, printable, shown
from edgealloc.models.exchange.replies import Masks, Update
from edgealloc.models.exchange.wire import State, WireArray
from edgealloc.rounds.ranges import ID_ALLOWED, is_id
from edgealloc.rounds.system import DeviceState

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
except ImportError as error:
    raise MissingPackageError("flwr", "flower", "the Flower strategy and client") from error

log = logging.getLogger("edgealloc")

STATE, SETTINGS, ADAPTER, METRICS = "state", "settings", "adapter", "metrics"
ROUND, DEVICE, DIGEST, SAMPLES = "server-round", "device", "mask_digest", "num-examples"


def to_config(values: Mapping[str, Any]) -> ConfigRecord:
    """Plain values as a Flower record, which knows no None (left out) and no lists of mixed numbers (floats)."""
    record = ConfigRecord()
    for key, value in values.items():
        if value is None:
            continue
        record[key] = np.asarray(value).tolist() if isinstance(value, tuple | list) else plain(value)
    return record


def to_arrays(state: State) -> ArrayRecord:
    """Named arrays as a Flower record, in order.

    Parameters
    ----------
    state
        Arrays by name, of any shapes and number format.

    Returns
    -------
    flwr.app.ArrayRecord
        The record.
    """
    return ArrayRecord({name: Array(np.ascontiguousarray(value)) for name, value in state.items()})


def from_arrays(record: ArrayRecord) -> dict[str, WireArray]:
    """Read back what :func:`to_arrays` wrote.

    Parameters
    ----------
    record
        The record.

    Returns
    -------
    dict of str to numpy.ndarray
        Copies that may be written to, in the shapes and the number format of the record.
    """
    return {name: np.array(value.numpy()) for name, value in record.items()}


def mask_digest(masks: Masks) -> str:
    """Short fingerprint of masks: names, sizes and every bit."""
    digest = hashlib.blake2b(digest_size=8)
    for kind, side in (("A", masks.columns), ("B", masks.rows), ("r", masks.ranks), ("e", masks.entries)):
        for name in sorted(side):
            digest.update(f"{kind}:{name}:{side[name].size}:".encode() + np.packbits(side[name]).tobytes())
    return digest.hexdigest()


def read_state(reply: Message) -> tuple[str, DeviceState]:
    """Device name and state from a reply to QUERY.

    Raises
    ------
    ValueError
        When the reply does not hold them.
    """
    if STATE not in reply.content.config_records:
        raise ValueError(f"the reply has no record {STATE!r}")
    values: dict[str, Any] = dict(reply.content.config_records[STATE])
    name = values.pop(DEVICE, None)
    if not isinstance(name, str) or not is_id(name):
        raise ValueError(f"the state names no device: {DEVICE} = {shown(name)}, must be {ID_ALLOWED}")
    try:
        return name, DeviceState(**values)
    except TypeError as error:  # a field is missing or unknown
        raise ValueError(f"the state cannot be read: {error}") from None


def read_update(reply: Message, masks: Masks) -> tuple[Update, dict[str, float]]:
    """Update of the device with these masks, and its other finite metrics, from a reply to TRAIN.

    The numbers of the update are judged by :func:`edgealloc.models.exchange.replies.gather`.

    Raises
    ------
    ValueError
        When the reply does not hold them, or was made with other masks.
    """
    content = reply.content
    for name, records in ((ADAPTER, content.array_records), (METRICS, content.metric_records)):
        if name not in records:
            raise ValueError(f"the reply has no record {name!r}")
    metrics = dict(content.metric_records[METRICS])
    if SAMPLES not in metrics:
        raise ValueError(f"the metrics hold no number {SAMPLES!r}")
    samples: Any = metrics.pop(SAMPLES)
    said = content.config_records.get(SETTINGS, ConfigRecord()).get(DIGEST)
    if said != mask_digest(masks):
        raise ValueError("trained with other masks than the server drew: are models and versions the same?")
    try:
        slices = from_arrays(content.array_records[ADAPTER])
    except Exception as error:  # bytes of a client: whatever they do to the reader, the round goes on
        raise ValueError(f"the arrays cannot be read: {error}") from error
    numbers = {key: number_of(value) for key, value in metrics.items()}
    return Update(slices, masks, samples), {key: value for key, value in numbers.items() if math.isfinite(value)}


def settings_message(number: int, node: int, settings: Mapping[str, Any], masks: Masks, slices: State) -> Message:
    """The TRAIN message of one device: its own settings and its own sub-adapter."""
    record = to_config({**settings, ROUND: number, DIGEST: mask_digest(masks)})
    content = RecordDict({SETTINGS: record, ADAPTER: to_arrays(slices)})
    return Message(content, dst_node_id=node, message_type="train")


def metrics_of(values: Mapping[str, Any]) -> MetricRecord:
    """Metrics as a Flower record: finite numbers, whoever's; what else there is, is left out and logged.

    Training is over when metrics are sent, so nothing about them may raise any more.
    """
    record = MetricRecord()
    for key, given in values.items():
        value = plain(given)
        value = int(value) if isinstance(value, bool) else value
        if math.isfinite(number_of(value)):
            record[key] = value if abs(value) < 2**63 else float(value)  # Flower's integers have 64 bit
        else:
            log.warning("metric %s = %s is left out: it is no finite number", printable(key), shown(given))
    return record
