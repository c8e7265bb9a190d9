"""A small system, its clients and what spoils them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from edgealloc.data.spec import BoundSpec
from edgealloc.flower.client import answer_state, answer_update, read_assignment
from edgealloc.flower.messages import from_arrays, to_arrays
from edgealloc.flower.strategy import FedLoDrop
from edgealloc.models.exchange.replies import AdapterShape
from edgealloc.rounds.system import DeviceState, System
from tests.flower.grid import Client, LocalGrid

rng = np.random.default_rng(5)
START = {
    "enc.q.lora_A.weight": rng.normal(size=(2, 8)).astype(np.float32),
    "enc.q.lora_B.weight": rng.normal(size=(12, 2)).astype(np.float32),
    "enc.v.lora_A.weight": rng.normal(size=(2, 8)).astype(np.float32),
    "enc.v.lora_B.weight": rng.normal(size=(12, 2)).astype(np.float32),
    "head.weight": rng.normal(size=(3, 12)).astype(np.float32),
}


SHAPE = AdapterShape.from_state(START)


SYSTEM = System(
    access="fdma",
    bandwidth_hz=60.0,
    noise_psd_dbm_per_hz=-174.0,
    latency_s=15.0,
    bound=BoundSpec(),
    payload_fixed_bits=SHAPE.payload_fixed_bits,
    payload_lora_bits=SHAPE.payload_lora_bits,
    cycles_fixed=1e10,
    cycles_lora=2e8,
)


def state_of(k: int, **changes: Any) -> DeviceState:
    fields: dict[str, Any] = {
        "gain": 1e-14 * (k + 1),
        "samples": 100 + 10 * k,
        "energy_j": 3.0,
        "power_max_w": 0.1,
        "freq_min_hz": 3e8,
        "freq_max_hz": 2e9,
        "capacitance": 1e-28,
    }
    return DeviceState(**(fields | changes))


def trained(adapter: dict[str, Any], k: int, number: int) -> dict[str, Any]:
    """Training stands in: every entry moves by an amount of its own, a device and a round."""
    noise = np.random.default_rng([k, number])
    return {name: value + noise.normal(size=value.shape).astype(np.float32) for name, value in adapter.items()}


def client_of(k: int, **changes: Any) -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return answer_state(message, f"dev-{k:02d}", state_of(k, **changes))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        task = read_assignment(message, START)
        loss = {"loss": 1.0 + k}
        return answer_update(message, task, trained(task.adapter, k, task.round_number), 100 + 10 * k, loss)

    return app


def spoilt(client: Client, spoil: Callable[[Message], None], kind: str = "train") -> Client:
    """A client whose replies of a kind are tampered with."""

    def call(message: Message, context: Context) -> Message:
        reply = client(message, context)
        if message.metadata.message_type == kind:
            spoil(reply)
        return reply

    return call


def run_rounds(
    clients: dict[int, Client], rounds: int = 1, **options: Any
) -> tuple[dict[str, Any], FedLoDrop, LocalGrid]:
    grid, strategy = LocalGrid(clients), FedLoDrop(options.pop("planner", SYSTEM), **options)
    result = strategy.start(grid, to_arrays(START), num_rounds=rounds, timeout=1.0)
    return from_arrays(result.arrays), strategy, grid


def nodes(count: int) -> dict[int, Client]:
    """Node ids that do not follow the devices' names."""
    return {1000 - 7 * k: client_of(k) for k in range(count)}
