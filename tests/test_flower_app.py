"""The Flower example app: its global model equals the trainer's; in one process, and as `flwr run` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict

from edgealloc.flower import Fate, RoundReport
from edgealloc.models import client as trainer_client
from edgealloc.models.dropout import round_generator
from edgealloc.models.federated import run
from tests.flower_grid import Late, LocalGrid

APP = Path(__file__).resolve().parents[1] / "examples" / "flower_app"
NAMES = [f"dev-{k:02d}" for k in range(4)]


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The app's module of shared things, imported; it sets torch to one thread, for equal bits in any process."""
    threads = torch.get_num_threads()
    monkeypatch.syspath_prepend(APP)
    from lodrop_app import cell

    yield cell  # type: ignore[misc]
    torch.set_num_threads(threads)


def _check(cell: ModuleType, folder: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the app saved: one device crashed, one was late, and the rest is what the trainer makes of it."""
    rounds = [RoundReport.from_dict(row) for row in json.loads((folder / "history.json").read_text())]
    fates = {(o.device, r.number): o for r in rounds for o in r.outcomes}
    assert len(fates) == 4 * len(rounds) == 12
    assert fates["dev-01", 2].fate is Fate.FAILED
    assert fates["dev-01", 2].brief.endswith("battery empty'>") or "battery empty" in fates["dev-01", 2].brief
    assert fates["dev-03", 3].fate is Fate.LATE
    reports = np.array([[fates[name, r.number].fate is Fate.ANSWERED for name in NAMES] for r in rounds])
    assert reports.sum() == 10
    for report in rounds:
        assert report.plan is not None
        assert report.plan.status == "optimal"
        assert sum(report.weights.values()) == pytest.approx(1.0, abs=1e-12)
    settings = [[r.plan.for_device(name) for name in NAMES] for r in rounds if r.plan is not None]
    keep = np.array([[own["keep"] for own in row] for row in settings])
    assert len(np.unique(keep.round(3))) > 6  # everybody's own, every round anew

    def generator(seed: int, *key: int) -> np.random.Generator:
        """The trainer's draws, but for the masks: those of the plans."""
        if key[0] == trainer_client._MASKS:
            return np.random.default_rng(settings[key[1]][key[2]]["mask_seed"])
        return round_generator(seed, *key)

    monkeypatch.setattr(trainer_client, "round_generator", generator)
    torch.set_num_threads(1)
    history = run(cell.task_of(4, 0), keep, cell.options_of(config), reports=reports)
    with np.load(folder / "model.npz") as model:
        assert set(model.files) == set(history.state)
        for name, value in history.state.items():
            np.testing.assert_array_equal(model[name], value)
    assert history.test.accuracy > 0.4  # of five classes: it has learned


def test_app_in_one_process_equals_the_trainer(
    cell: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lodrop_app import client_app, server_app

    config = {"devices": 4, "rounds": 3, "seed": 0, "timeout-s": 600.0, "out": str(tmp_path)}
    config |= {"crash-device": 1, "crash-round": 2, "late-device": 3, "late-round": 3}

    def sleep(seconds: float) -> None:
        raise Late

    monkeypatch.setattr(client_app, "time", SimpleNamespace(sleep=sleep))
    grid = LocalGrid({700 + k: client_app.app for k in range(4)}, config)
    server_app.app(grid, Context(1, 0, {}, RecordDict(), config))
    _check(cell, tmp_path, config, monkeypatch)


def test_one_command_runs_the_app_on_flowers_simulation(
    cell: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`flwr run` on Ray: processes, serialisation and time-outs are real; the bits are the same."""
    command = [sys.executable, str(APP / "run.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "round 3: optimal" in done.stdout
    _check(cell, tmp_path, {"rounds": 3, "seed": 0}, monkeypatch)
