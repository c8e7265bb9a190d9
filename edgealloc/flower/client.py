"""The Flower client's side: say how the device stands, take the sub-adapter, train its kept entries, return them.

>>> @app.query()
... def query(message, context):
...     return answer_state(message, "dev-00", DeviceState(...))
>>> @app.train()
... def train(message, context):
...     task = read_assignment(message, own)  # own: the PEFT model's adapter, for names and shapes
...     with sub_adapter(peft_model, task):  # written into the model; gradients masked
...         loss = ...  # any training loop
...     trained = AdapterHandle.of(peft_model).read()
...     return answer_update(message, task, trained, samples, {"loss": loss})

Only :func:`sub_adapter` and :func:`train_task` need torch.

How it is used is in docs/flower.md, section *The client*.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.data.spec import number_of, plain
from edgealloc.errors import MissingPackageError, shown
from edgealloc.flower.messages import (
    ADAPTER,
    DEVICE,
    DIGEST,
    METRICS,
    ROUND,
    SAMPLES,
    SETTINGS,
    STATE,
    from_arrays,
    mask_digest,
    metrics_of,
    to_arrays,
    to_config,
)
from edgealloc.models.exchange.dropout import Method, round_generator
from edgealloc.models.exchange.ranks import rank_of_label
from edgealloc.models.exchange.replies import (
    AdapterShape,
    Masks,
    canonical_state,
    masked,
    masks_for,
    scatter_adapter,
    slice_adapter,
)
from edgealloc.models.exchange.wire import State, WireArray, to_wire
from edgealloc.rounds.system import DeviceState

try:
    from flwr.app import Message, RecordDict
except ImportError as error:
    raise MissingPackageError("flwr", "flower", "the Flower client") from error

if TYPE_CHECKING:
    from edgealloc.models.training.client import FederatedOptions
    from edgealloc.models.training.task import Task

__all__ = ["Assignment", "answer_state", "answer_update", "read_assignment", "sub_adapter", "train_task"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the server asks of a device in a round.

    Parameters
    ----------
    round_number
        Flower's number of the round, from 1.
    settings
        The device's plan (:meth:`edgealloc.rounds.system.Plan.for_device`) and whatever the server's train config
        holds.
    masks
        Kept columns of A and rows of B.
    adapter
        Adapter of full size by name, A of shape [r, n_in] and B of shape [n_out, r]; what was dropped is zero.
    sends_a
        False where A is frozen and not sent.
    """

    round_number: int
    settings: dict[str, Any]
    masks: Masks
    adapter: dict[str, WireArray]
    sends_a: bool = True


def answer_state(message: Message, device: str, state: DeviceState) -> Message:
    """Reply to QUERY: who the device is and how it stands.

    Parameters
    ----------
    message
        What the server sent.
    device
        The device's name, the same in every round and not another's.
    state
        How it stands.

    Returns
    -------
    flwr.app.Message
        The reply.
    """
    record = to_config({**state.to_dict(), DEVICE: device})
    return Message(RecordDict({STATE: record}), reply_to=message)


def read_assignment(message: Message, own: State, *, masks: Method = "exact", sends_a: bool = True) -> Assignment:
    """Read a TRAIN message.

    Parameters
    ----------
    message
        What the server sent.
    own
        The device's own adapter in either PEFT spelling, for names and shapes; its values count only where A is
        frozen and not sent.
    masks, sends_a
        As the server's strategy has them.

    Returns
    -------
    Assignment
        Settings, masks, and the adapter of full size that training starts from.

    Raises
    ------
    ValueError
        When the server drew other masks, or its adapter has other tensors or shapes than the device's: model,
        rank, options or versions differ. Flower reports it to the server.
    """
    settings: dict[str, Any] = dict(message.content.config_records[SETTINGS])
    number, digest = settings.pop(ROUND), settings.pop(DIGEST)
    own = canonical_state(own)
    shape = AdapterShape.from_state(own, sends_a=sends_a)
    rank = rank_of_label(settings["adapter_option"]) if "adapter_option" in settings else None
    drawn = masks_for(shape, settings["keep"], settings["mask_seed"], masks, rank)
    if mask_digest(drawn) != digest:
        raise ValueError(
            "the server drew other masks: are model, mask method and versions the same on both sides?"
        )
    adapter = scatter_adapter(from_arrays(message.content.array_records[ADAPTER]), drawn)
    sent = {name: value.shape for name, value in adapter.items()}
    held = {name: v.shape for name, v in own.items() if sends_a or not name.endswith(".lora_A.weight")}
    differ = [
        f"{name} is {list(sent.get(name, ())) or 'not'} there and {list(held.get(name, ())) or 'not'} here"
        for name in sorted({*sent, *held})
        if sent.get(name) != held.get(name)
    ]
    if differ:
        raise ValueError(f"the server's adapter is another one, of another rank or head: {'; '.join(differ[:5])}")
    whole = {name: adapter.get(name, value) for name, value in masked(own, drawn).items()}
    return Assignment(int(number), settings, drawn, whole, sends_a)


def answer_update(
    message: Message,
    assignment: Assignment,
    trained: State,
    samples: float,
    metrics: Mapping[str, float] | None = None,
    *,
    wire_dtype: str = "float32",
) -> Message:
    """Reply to TRAIN with the kept slices of the trained adapter.

    Parameters
    ----------
    message, assignment
        What the server sent, and what was read from it.
    trained
        The adapter after training, full size, in either PEFT spelling.
    samples
        Number of samples it was trained on: the weight of the update.
    metrics
        Other numbers for the server's history, for example ``loss``; what is no finite number is left out.
    wire_dtype
        ``float32``, or ``float16`` to halve the upload.

    Returns
    -------
    flwr.app.Message
        The reply.

    Raises
    ------
    KeyError
        For an unknown ``wire_dtype``.
    OverflowError
        For a number that ``wire_dtype`` cannot hold.
    ValueError
        For ``samples`` that are no number.
    """
    if not math.isfinite(number_of(plain(samples))):
        raise ValueError(f"samples = {shown(samples)}: must be the number of samples that the device trained on")
    slices = slice_adapter(canonical_state(trained), assignment.masks, sends_a=assignment.sends_a)
    content = RecordDict(
        {
            ADAPTER: to_arrays({name: to_wire(name, value, wire_dtype) for name, value in slices.items()}),
            SETTINGS: to_config({DIGEST: mask_digest(assignment.masks)}),
            METRICS: metrics_of({**(metrics or {}), SAMPLES: samples}),
        }
    )
    return Message(content, reply_to=message)


@contextmanager
def sub_adapter(peft_model: Any, assignment: Assignment) -> Iterator[None]:
    """Write the sub-adapter into a PEFT model and mask its gradients, for any training loop inside.

    Dropped entries are zero and get no gradient, so they stay zero under optimisers that start afresh and whose
    step vanishes with gradient and weight (SGD, Adam, AdamW). Where A is not sent it does not train either.

    Parameters
    ----------
    peft_model
        The model; its adapter is overwritten.
    assignment
        What the server asks, from :func:`read_assignment`.

    Yields
    ------
    None
        Inside, gradients are masked; afterwards the trained adapter is in the model.
    """
    from edgealloc.models.training.backbone import AdapterHandle

    handle = AdapterHandle.of(peft_model)
    handle.write(assignment.adapter)
    frozen = [p for name, p in handle.parameters.items() if not assignment.sends_a and ".lora_A." in name]
    hooks = []
    for name, parameter in handle.parameters.items():
        mask = assignment.masks.spread(name)
        if mask is not None and not mask.all():
            factor = parameter.detach().new_tensor(mask.astype(np.float32))
            hooks.append(parameter.register_hook(factor.__mul__))  # type: ignore[no-untyped-call]
    try:
        for parameter in frozen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for hook in hooks:
            hook.remove()


def train_task(
    task: Task, k: int, assignment: Assignment, options: FederatedOptions
) -> tuple[dict[str, WireArray], float]:
    """Train as device k of the trainer does in its round ``round_number - 1``: same batches, same bits.

    Parameters
    ----------
    task
        The learning task; call inside ``task.feed.shortcuts()``.
    k
        The device's index in it.
    assignment
        What the server asks.
    options
        Epochs, batch size, rates and seed of the batches. Rounds, masks and aggregation are the server's affair.

    Returns
    -------
    tuple
        The trained adapter, A [r, n_in] and B [n_out, r] by name, and the mean loss over the last epoch.
    """
    from edgealloc.models.training.client import BATCH_DRAWS, inverse_scale, train_locally

    task.handle.write(assignment.adapter)
    keep = assignment.settings["keep"]
    scale = inverse_scale(keep, assignment.sends_a) if options.scaling == "inverted" else 1.0
    rng = round_generator(options.seed, BATCH_DRAWS, assignment.round_number - 1, k)
    loss = train_locally(task, task.devices[k], assignment.masks, options, rng, scale)
    return task.handle.read(), loss
