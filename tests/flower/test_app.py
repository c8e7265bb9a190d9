"""The Flower example app, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgealloc.flower.strategy import Fate, RoundReport
from edgealloc.models.exchange.dropout import round_generator
from edgealloc.models.training import client as trainer_client
from edgealloc.models.training.federated import run
from tests.places import ROOT

APP = ROOT / "examples" / "flower_app"
NAMES = [f"dev-{k:02d}" for k in range(4)]


def test_one_command_runs_the_app_and_its_model_is_the_trainers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes, serialisation, crash and time-out are Flower's own; the bits are those of the trainer."""
    command = [sys.executable, str(APP / "run.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "round 3: optimal" in done.stdout

    rounds = [RoundReport.from_dict(row) for row in json.loads((tmp_path / "history.json").read_text())]
    fates = {(o.device, r.number): o for r in rounds for o in r.outcomes}
    assert len(fates) == 4 * len(rounds) == 12
    # On a busy machine others may be late as well; what follows holds for whoever answered.
    if any((name, r.number) not in fates for name in NAMES for r in rounds):
        pytest.skip("the machine is so busy that a node did not say its name in the minute it had")
    assert fates["dev-01", 2].fate is Fate.FAILED
    assert "battery empty" in fates["dev-01", 2].brief
    assert fates["dev-03", 3].fate is Fate.LATE
    reports = np.array([[fates[name, r.number].fate is Fate.ANSWERED for name in NAMES] for r in rounds])
    assert reports.sum() >= 6
    for report in rounds:
        assert sum(report.weights.values()) == pytest.approx(1.0, abs=1e-12)
    plans = [report.plan for report in rounds if report.plan is not None]
    assert [plan.status for plan in plans] == ["optimal"] * 3
    settings = [[plan.for_device(name) for name in NAMES] for plan in plans]
    keep = np.array([[own["keep"] for own in row] for row in settings])
    assert len(np.unique(keep.round(3))) > 6  # everybody's own, every round anew

    def generator(seed: int, *key: int) -> np.random.Generator:
        """The trainer's draws, but for the masks: those of the plans."""
        if key[0] == trainer_client.MASK_DRAWS:
            return np.random.default_rng(settings[key[1]][key[2]]["mask_seed"])
        return round_generator(seed, *key)

    monkeypatch.syspath_prepend(APP)
    monkeypatch.setattr(trainer_client, "round_generator", generator)
    threads = torch.get_num_threads()
    from lodrop_app import cell  # sets torch to one thread, as in the app's processes: equal bits need it

    torch.set_num_threads(1)
    try:
        history = run(cell.task_of(4, 0), keep, cell.options_of({"rounds": 3, "seed": 0}), reports=reports)
    finally:
        torch.set_num_threads(threads)
    with np.load(tmp_path / "model.npz") as model:
        assert set(model.files) == set(history.state)
        for name, value in history.state.items():
            np.testing.assert_array_equal(model[name], value)
    assert history.test.accuracy > 0.4  # of five classes: it has learned
