"""edgealloc inside NVIDIA FLARE: a controller that allocates every round, and an executor that trains its share.

Nothing here but the pure interface (edgealloc.rounds.system, edgealloc.models.exchange.replies) and numpy: the
model is a linear map y = B A x of low rank, learned by gradient descent.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.model_controller import ModelController

from edgealloc import BoundSpec
from edgealloc.models import AdapterShape, Masks, Update, gather, masks_for, scatter_adapter, slice_adapter
from edgealloc.rounds import DeviceState, System, plan_round, plan_valid

A, B = "map.lora_A.weight", "map.lora_B.weight"
INPUTS, OUTPUTS, RANK, SAMPLES = 12, 10, 3, 40
POLL_S = 0.2


def start() -> dict[str, np.ndarray]:
    """Return the adapter before the first round: B = 0, as in LoRA."""
    first = np.random.default_rng(0).normal(size=(RANK, INPUTS)) / np.sqrt(INPUTS)
    return {A: first.astype(np.float32), B: np.zeros((OUTPUTS, RANK), dtype=np.float32)}


SHAPE = AdapterShape.from_state(start())
SYSTEM = System(
    access="fdma",
    bandwidth_hz=12.0,
    noise_psd_dbm_per_hz=-174.0,
    latency_s=15.0,
    bound=BoundSpec(),
    payload_fixed_bits=SHAPE.payload_fixed_bits,
    payload_lora_bits=SHAPE.payload_lora_bits,
    cycles_fixed=1e10,
    cycles_lora=2e8,
    exclusion_penalty=20.0,
)


def data(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs [n, in] and outputs [n, out] of device k; all devices see one linear map."""
    truth = np.random.default_rng(1).normal(size=(RANK, INPUTS, OUTPUTS))
    x = np.random.default_rng([2, k]).normal(size=(SAMPLES + 10 * k, INPUTS))
    return x, x @ truth.sum(0) / INPUTS


def descend(state: dict[str, np.ndarray], k: int, masks: Masks) -> tuple[dict[str, np.ndarray], float]:
    """Return the adapter after ten steps of its kept entries on device k's data, and the last loss."""
    x, y = data(k)
    a, b = state[A].astype(float), state[B].astype(float)
    for _ in range(10):
        wrong = x @ a.T @ b.T - y
        slope_a, slope_b = b.T @ wrong.T @ x, wrong.T @ (x @ a.T)
        a, b = a - 0.2 * masks.spread(A) * slope_a / len(x), b - 0.2 * masks.spread(B) * slope_b / len(x)
    loss = float(np.mean((x @ a.T @ b.T - y) ** 2))
    return {A: a.astype(np.float32), B: b.astype(np.float32)}, loss


class LoDropExecutor(Executor):
    """A device: ``state`` asks how it stands, ``train`` brings its settings and its sub-adapter.

    It crashes in round ``crash_round`` and is late by ``late_s`` seconds in round ``late_round`` (0: never).
    """

    def __init__(self, index: int, crash_round: int = 0, late_round: int = 0, late_s: float = 0.0) -> None:
        super().__init__()
        self.index, self.crash_round, self.late_round, self.late_s = index, crash_round, late_round, late_s

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Do a task."""
        asked = FLModelUtils.from_shareable(shareable)
        number = int(asked.current_round)
        if task_name == "state":
            fading = max(0.1, float(np.random.default_rng([3, number, self.index]).exponential()))
            state = DeviceState(1e-14 * fading, len(data(self.index)[0]), 3.0, 0.1, 3e8, 2e9, 1e-28)
            return FLModelUtils.to_shareable(FLModel(params={}, meta={"state": state.to_dict()}))
        if number == self.crash_round:
            raise RuntimeError("battery empty")
        if number == self.late_round:
            time.sleep(self.late_s)
        settings = asked.meta["settings"]
        masks = masks_for(SHAPE, settings["keep"], settings["mask_seed"])
        trained, loss = descend(scatter_adapter(asked.params, masks), self.index, masks)
        answer = FLModel(params=slice_adapter(trained, masks), metrics={"loss": loss})
        answer.meta["samples"] = len(data(self.index)[0])
        return FLModelUtils.to_shareable(answer)


class LoDropController(ModelController):
    """The server: states, plan, one sub-adapter per device, merge by mask whoever answered in time."""

    def __init__(self, rounds: int, out: str, timeout_s: int, state_timeout_s: int = 120) -> None:
        super().__init__(ignore_result_error=True, persistor_id="")
        self.rounds, self.out, self.timeout_s, self.state_timeout_s = rounds, out, timeout_s, state_timeout_s

    def run(self) -> None:
        """Run all rounds and save the adapter and what became of everybody."""
        adapter, history = start(), []
        for number in range(1, self.rounds + 1):
            everybody = self.sample_clients()
            empty = FLModel(params={}, current_round=number)
            found = self.collect("state", {name: empty for name in everybody}, self.state_timeout_s)
            states = {name: found[name].meta.get("state") for name in sorted(found)}
            plan, refused = plan_valid(partial(plan_round, SYSTEM), states, round_number=number)
            settings = {} if plan is None else {name: plan.for_device(name) for name in plan.selected}
            masks = {name: masks_for(SHAPE, own["keep"], own["mask_seed"]) for name, own in settings.items()}
            replies = self.collect(
                "train",
                {
                    name: FLModel(
                        params=slice_adapter(adapter, masks[name]),
                        current_round=number,
                        meta={"settings": own},
                    )
                    for name, own in settings.items()
                },
                self.timeout_s,
            )
            updates = {
                name: Update(reply.params, masks[name], reply.meta.get("samples"))
                for name, reply in replies.items()
                if name in masks
            }
            samples = {name: own["samples"] for name, own in settings.items()}
            gathered = gather(adapter, updates, samples=samples, masks=masks)
            adapter = gathered.state
            row = {"plan": None if plan is None else plan.to_json(), "refused": refused}
            history.append(
                row | {"weights": gathered.weights, "rejected": gathered.rejected, "noted": gathered.noted}
            )
        np.savez(Path(self.out) / "model.npz", **adapter)
        (Path(self.out) / "history.json").write_text(json.dumps(history, indent=1))

    def collect(self, task: str, messages: dict[str, FLModel], timeout_s: int) -> dict[str, FLModel]:
        """Send every device its own message; return the replies that came in time, by device."""
        replies: dict[str, FLModel] = {}

        def keep(reply: FLModel) -> None:
            replies[reply.meta["client_name"]] = reply

        for name, message in messages.items():
            self.send_model(task, message, targets=[name], timeout=timeout_s, callback=keep)
        while self.get_num_standing_tasks() and not self.abort_signal.triggered:
            time.sleep(POLL_S)
        return dict(replies)
