"""The NVFlare example app, run as a user runs it: the pure interface in a second framework."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgealloc.models.exchange.replies import Update, gather, masked, masks_for, slice_adapter
from edgealloc.rounds.system import Plan
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
