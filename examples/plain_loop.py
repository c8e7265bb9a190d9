"""Federated fine-tuning without any framework: a numpy model, a plain loop, and the allocator in between.

A linear map W + B A is learned by four devices. Each round they report their state, get their own settings, train
their own sub-adapter on their own data and send it back. One device fails in round 3, one sends NaN in round 5.

Run: python examples/plain_loop.py
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from edgealloc import BoundSpec
from edgealloc.models import (
    AdapterShape,
    Aggregation,
    Masks,
    Update,
    gather,
    masks_for,
    scatter_adapter,
    slice_adapter,
)
from edgealloc.rounds import DeviceState, OnlineAllocator, System

IN, OUT, RANK, DEVICES = 32, 16, 4, 4
Adapter = dict[str, np.ndarray]


def local_training(adapter: Adapter, x: np.ndarray, y: np.ndarray, kept: Adapter, steps: int = 60) -> Adapter:
    """Gradient descent on ||y - x (B A)^T||^2, kept entries only: what a client does, in any framework."""
    a, b = adapter["map.lora_A.weight"].copy(), adapter["map.lora_B.weight"].copy()
    for _ in range(steps):
        error = x @ (b @ a).T - y
        grad = error.T @ x / len(x)  # [OUT, IN]
        grad_a, grad_b = b.T @ grad, grad @ a.T
        a -= 0.1 * grad_a * kept["map.lora_A.weight"]
        b -= 0.1 * grad_b * kept["map.lora_B.weight"]
    return {"map.lora_A.weight": a, "map.lora_B.weight": b}


def client(settings_json: str, slices: Adapter, x: np.ndarray, y: np.ndarray, shape: AdapterShape) -> Update:
    """One device: its settings arrive as JSON, its sub-adapter as slices; it draws the server's masks itself."""
    settings = json.loads(settings_json)
    masks = masks_for(shape, settings["keep"], settings["mask_seed"])
    whole = scatter_adapter(slices, masks)
    ones = scatter_adapter({name: np.ones_like(piece) for name, piece in slices.items()}, masks)
    trained = local_training(whole, x, y, ones)
    return Update(slice_adapter(trained, masks), masks, float(len(x)))


def main(rounds: int = 12, quiet: bool = False) -> list[float]:
    """Train; returns the loss of the global model before the first and after every round."""
    rng = np.random.default_rng(0)
    target = rng.standard_normal((OUT, RANK)) @ rng.standard_normal((RANK, IN)) / np.sqrt(IN)
    data = []
    for k in range(DEVICES):
        x = rng.standard_normal((80 + 40 * k, IN))
        data.append((x, x @ target.T))
    adapter: Adapter = {
        "map.lora_A.weight": rng.standard_normal((RANK, IN)) / np.sqrt(IN),
        "map.lora_B.weight": np.zeros((OUT, RANK)),
    }
    shape = AdapterShape.from_state(adapter)

    system = System(
        access="fdma",
        bandwidth_hz=8e4,
        noise_psd_dbm_per_hz=-174.0,
        latency_s=15.0,
        bound=BoundSpec(underfit_weight=0.05),
        payload_fixed_bits=0.0,
        payload_lora_bits=1e7,  # of the adapter that the numbers stand for
        cycles_fixed=1e10,
        cycles_lora=2e8,
        exclusion_penalty=20.0,
    )
    allocator = OnlineAllocator(system, seed=7)
    states = {
        f"dev-{k}": DeviceState(
            gain=1e-11,
            samples=len(data[k][0]),
            energy_j=3.0,
            power_max_w=0.1,
            freq_min_hz=3e8,
            freq_max_hz=2e9,
            capacitance=1e-28,
        )
        for k in range(DEVICES)
    }

    def loss() -> float:
        product = adapter["map.lora_B.weight"] @ adapter["map.lora_A.weight"]
        return float(np.mean([np.mean((x @ product.T - y) ** 2) for x, y in data]))

    history = [loss()]
    for number in range(rounds):
        fading = rng.exponential(size=DEVICES)
        now = {
            key: replace(s, gain=1e-10 * float(f) + 1e-11)
            for (key, s), f in zip(states.items(), fading, strict=True)
        }
        plan = allocator.plan(now)
        replies: dict[str, Update] = {}
        drawn: dict[str, Masks] = {}
        took: dict[str, float | None] = {}
        for device in plan.selected:
            settings = plan.for_device(device)
            drawn[device] = masks_for(shape, settings["keep"], settings["mask_seed"])
            took[device] = settings["latency_s"]
            if number == 3 and device == "dev-1":
                took[device] = None  # it never answers
                continue
            k = int(device.removeprefix("dev-"))
            sent = slice_adapter(adapter, drawn[device])
            replies[device] = client(json.dumps(settings), sent, *data[k], shape)
        if number == 5 and "dev-2" in replies:
            replies["dev-2"].slices["map.lora_B.weight"][...] = np.nan  # type: ignore[index]
        merged = gather(adapter, replies, Aggregation(fill="keepers"), samples=plan.samples, masks=drawn)
        adapter = merged.state
        allocator.report(took, round_number=plan.round_number)
        history.append(loss())
        if not quiet:
            kept = " ".join(f"{plan.for_device(d)['keep']:.2f}" for d in plan.selected)
            weight = sum(merged.weights.values())
            print(
                f"round {number:2d}  keep {kept:20s}  answered {len(merged.weights)} (weights sum {weight:.3f})  "
                f"bound {plan.objective:.4f} within {plan.rel_gap:.0e}  loss {history[-1]:.4f}"
            )
            for device, why in merged.rejected.items():
                print(f"          {device} rejected: {why}")
    return history


if __name__ == "__main__":
    main()
