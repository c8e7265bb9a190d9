"""What clients say in types of their own, and adapters that are not the server's: found before training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edgealloc.flower.client import answer_state, answer_update, read_assignment
from edgealloc.flower.messages import read_state, read_update, settings_message
from edgealloc.models.exchange.replies import AdapterShape, masks_for, slice_adapter
from edgealloc.models.exchange.wire import State
from edgealloc.rounds.system import DeviceState
from tests.flower.clients import state_of

TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1  # as Flower's processes do
SETTINGS = {"selected": True, "keep": 0.5, "mask_seed": 7}


def adapter(rank: int = 4, classes: int = 3, head: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rank)
    state = {"m.q.lora_A.weight": (rank, 8), "m.q.lora_B.weight": (8, rank), "classifier.weight": (classes, 8)}
    return {name: rng.normal(size=shape).astype("f4") for name, shape in state.items() if head or "lora" in name}


SERVER = adapter()
MASKS = masks_for(AdapterShape.from_state(SERVER), 0.5, 7)


def asked(sent: State = SERVER, sends_a: bool = True) -> Message:
    masks = masks_for(AdapterShape.from_state(sent, sends_a=sends_a), 0.5, 7)
    return settings_message(1, 1, SETTINGS, masks, slice_adapter(sent, masks, sends_a=sends_a))


def answered(samples: Any, metrics: Any = None) -> tuple[float, dict[str, float]]:
    message = asked()
    update, said = read_update(
        answer_update(message, read_assignment(message, SERVER), SERVER, samples, metrics), MASKS
    )
    return update.samples, said


def numbers(value: float) -> list[Any]:
    """The same number in the types that numpy and torch give."""
    given = [value, np.float32(value), np.float64(value), np.array(value)]
    try:
        import torch
    except ImportError:
        return given
    tensors = [
        torch.tensor(value),
        torch.tensor(value, dtype=torch.bfloat16),
        torch.tensor(value, requires_grad=True),
    ]
    return [*given, *tensors]


def test_numbers_of_any_make_are_taken() -> None:
    for value in [*numbers(8.0), np.int64(8), np.int32(8), np.uint8(8), 8]:
        assert answered(value, {"loss": value}) == (8, {"loss": 8})
    assert answered(10, {"early": True, "done": np.bool_(False)}) == (10, {"early": 1, "done": 0})
    assert answered(10, {"large": 2**70}) == (10, {"large": 2.0**70})


@pytest.mark.parametrize(
    "value", [None, "A", [0.1, 0.2], np.zeros(2), math.nan, np.float32("inf"), 10**400, {}, 1j]
)
def test_what_is_no_number_is_left_out_and_said(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert answered(10, {"loss": 0.5, "odd\x1b": value}) == (10, {"loss": 0.5})
    assert r"metric odd\x1b = " in caplog.text
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize("samples", [None, "ten", math.nan, [10], True])
def test_samples_that_are_no_number_are_named(samples: Any) -> None:
    with pytest.raises(ValueError, match=r"samples = .*must be the number of samples"):
        answered(samples)


def test_states_take_numbers_of_any_make() -> None:
    plain = state_of(0)
    query = Message(RecordDict(), dst_node_id=1, message_type="query")
    for given in numbers(0.25):
        state = DeviceState(**{**plain.to_dict(), "keep_min": given, "gain": given, "available": np.bool_(True)})
        assert read_state(answer_state(query, "dev", state)) == ("dev", state)
        assert (type(state.keep_min), type(state.gain), type(state.available)) == (float, float, bool)
    wide = [plain.gain] * 3
    for column in (wide, np.array(wide), [np.float64(g) for g in wide]):
        assert DeviceState(**{**plain.to_dict(), "gain": column}).gain == tuple(wide)


@pytest.mark.parametrize(
    ("own", "word"),
    [
        (adapter(8), r"m\.q\.lora_A\.weight is \[4, 8\] there and \[8, 8\] here"),
        (adapter(2), "of another rank or head"),
        (adapter(classes=5), r"classifier\.weight is \[3, 8\] there and \[5, 8\] here"),
        (adapter(head=False), r"classifier\.weight is \[3, 8\] there and not here"),
        (adapter() | {"score.bias": np.zeros(3)}, r"score\.bias is not there and \[3\] here"),
    ],
)
def test_an_adapter_that_is_not_the_servers_is_found_before_training(own: State, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        read_assignment(asked(), own)
    if "lora_A" in word:  # not sent, so B must say it
        with pytest.raises(ValueError, match=r"lora_B\.weight is \[8, 4\] there and \[8, 8\] here"):
            read_assignment(asked(sends_a=False), own, sends_a=False)
    assert read_assignment(asked(sends_a=False), SERVER, sends_a=False).adapter.keys() == SERVER.keys()
