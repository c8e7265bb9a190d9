"""The NVFlare example app, run as a user runs it: the pure interface in a second framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc.models.exchange.replies import Update, gather, masked, masks_for, scatter_adapter, slice_adapter
from edgealloc.rounds.system import DeviceState, Plan
from tests.places import ROOT

APP = ROOT / "examples" / "nvflare_app"


@pytest.mark.slow
def test_one_command_runs_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One site crashes, one is late; the adapter is what the plans, masks and answers make of it, bit for bit."""
    command = [sys.executable, str(APP / "run.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr

    monkeypatch.syspath_prepend(APP)
    from lodrop_parts import SHAPE, data, descend, start

    adapter, keeps = start(), set()
    history = json.loads((tmp_path / "history.json").read_text())
    for number, row in enumerate(history, start=1):
        plan = Plan.from_json(row["plan"])
        assert (plan.status, plan.round_number) == ("optimal", number)
        assert row["rejected"] == {}
        assert sum(row["weights"].values()) == pytest.approx(1.0, abs=1e-12)
        updates = {}
        for name in row["weights"]:
            own, k = plan.for_device(name), int(name[-2:])
            masks = masks_for(SHAPE, own["keep"], own["mask_seed"])
            trained, _ = descend(masked(adapter, masks), k, masks)
            updates[name] = Update(slice_adapter(trained, masks), masks, len(data(k)[0]))
            keeps.add(own["keep"])
        adapter = gather(adapter, updates).state
    answered = [set(row["weights"]) for row in history]
    everybody = {f"dev-{k:02d}" for k in range(4)}
    assert answered == [everybody, everybody - {"dev-01"}, everybody - {"dev-03"}]
    assert len(keeps) > 6
    with np.load(tmp_path / "model.npz") as model:
        for name, value in adapter.items():
            np.testing.assert_array_equal(model[name], value)
    assert np.any(adapter["map.lora_B.weight"] != 0.0)


def _play(out: Path, lies: dict[str, Any], names: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Two rounds of the example's controller, its sites in this process; ``lies`` spoil what some of them say."""
    from lodrop_parts import SHAPE, LoDropController, data, descend
    from nvflare.app_common.abstract.fl_model import FLModel

    class Here(LoDropController):  # type: ignore[misc]
        def sample_clients(self) -> list[str]:
            return names

        def collect(self, task: str, messages: dict[str, Any], timeout_s: int) -> dict[str, Any]:
            return {name: lies.get((name, task), lambda reply: reply)(answer(name, task, messages[name]))
                    for name in messages}  # fmt: skip

    def answer(name: str, task: str, asked: Any) -> Any:
        k = int(name[-2:])
        if task == "state":
            state = DeviceState(1e-14 * (k + 1), len(data(k)[0]), 3.0, 0.1, 3e8, 2e9, 1e-28)
            return FLModel(params={}, meta={"state": state.to_dict()})
        own = asked.meta["settings"]
        masks = masks_for(SHAPE, own["keep"], own["mask_seed"])
        trained, _ = descend(scatter_adapter(asked.params, masks), k, masks)
        return FLModel(params=slice_adapter(trained, masks), meta={"samples": len(data(k)[0])})

    out.mkdir()
    Here(2, str(out), 1).run()
    with np.load(out / "model.npz") as model:
        return dict(model), json.loads((out / "history.json").read_text())


def test_lying_sites_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """States and updates of all sorts: the adapter is that of the honest sites, and every liar is named."""
    pytest.importorskip("nvflare")
    monkeypatch.syspath_prepend(APP)
    honest = ["dev-00", "dev-01", "dev-02"]
    alone, _ = _play(tmp_path / "alone", {}, honest)

    def meta(key: str, value: Any) -> Any:
        def lie(reply: Any) -> Any:
            reply.meta[key] = value
            return reply

        return lie

    states = {"dev-03": None, "dev-04": {}, "dev-05": "state", "dev-06": {"gain": 1e100}, "dev-07": [1, 2]}
    lies = {(name, "state"): meta("state", value) for name, value in states.items()}
    model, history = _play(tmp_path / "states", lies, honest + list(states))
    for row in history:
        assert set(row["refused"]) == set(states)
    for name, value in alone.items():
        np.testing.assert_array_equal(model[name], value)

    def params(value: Any) -> Any:
        def lie(reply: Any) -> Any:
            reply.params = value if value is None else {n: value(v) for n, v in reply.params.items()}
            return reply

        return lie

    lies = {("dev-01", "train"): params(None), ("dev-02", "train"): params(lambda v: np.full(v.shape, 1e300))}
    model, history = _play(tmp_path / "updates", lies, honest)
    assert set(history[0]["rejected"]) == {"dev-01", "dev-02"}
    assert all(np.all(np.isfinite(value)) for value in model.values())

    model, history = _play(tmp_path / "claims", {("dev-01", "train"): meta("samples", 1e308)}, honest)
    assert set(history[0]["noted"]) == {"dev-01"}
    for name, value in alone.items():
        np.testing.assert_array_equal(model[name], value)
