"""``edgealloc new --from``: an instance from tables of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import edgealloc
from edgealloc.cli.app import main

GAIN = 1e-11 * np.random.default_rng(5).exponential(size=(3, 8))


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "devices.csv"
    pd.DataFrame({"device": [7, 8, 9], "power_dbm": 20.0, "energy_mj": [3e3, 2e3, 4e3]}).to_csv(path)
    np.save(tmp_path / "gains.npy", GAIN)
    return path


def test_tables_become_an_instance_file(table: Path, tmp_path: Path) -> None:
    out, gains = tmp_path / "cell.json", tmp_path / "gains.npy"
    done = _run(
        "new", "--from", table, "--gains", gains, "--set", "bandwidth_khz=60", "--latency-s", 20,
        "--underfit", "perturbation", "--set", "name=mine", "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "assumed       noise_psd_dbm_per_hz -174, samples 500, energy_static_j 0" in done.stderr
    assert "latency_s" not in done.stderr
    instance = edgealloc.load(out)
    assert (instance.name, instance.access, instance.device_names) == ("mine", "ofdma", ("7", "8", "9"))
    assert (instance.bandwidth_hz, instance.latency_s, instance.bound.underfit) == (6e4, 20.0, "perturbation")
    assert instance.energy_j.tolist() == [3.0, 2.0, 4.0]
    assert np.array_equal(instance.gain, GAIN)
    assert _run("solve", out).exit_code == 0


def test_options_that_shape_a_random_cell_are_refused_and_the_other_way_round(table: Path, tmp_path: Path) -> None:
    own = ("new", "--from", table, "--gains", tmp_path / "gains.npy", "--bandwidth-hz", 6e4)
    for more, words in (
        (("--devices", "3"), "--devices: for a random cell"),
        (("--seed", "1"), "--seed: for a random cell"),
        (("--set", "latency_s"), "NAME=VALUE is wanted"),
        (("--set", "latncy_s=3"), "did you mean 'latency_s'?"),
        (("--ignore", "energy_mj", "--gains-db", "x.xlsx"), "a file of .npy, .npz, .mat, .csv"),
    ):
        done = _run(*own, *more)
        assert done.exit_code == 2
        assert words in done.stderr
    assert "go with --from" in _run("new", "--gains", "g.npy").stderr


def test_no_input_is_overwritten(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "gains.npz", H=GAIN)
    own = ("new", "--from", table, "--set", "bandwidth_hz=6e4", "--gains", f"{tmp_path / 'gains.npz'}:H", "--out")
    for out in (table, tmp_path / "gains.npz"):
        before = out.read_bytes()
        assert _run(*own, out).exit_code == 2
        assert out.read_bytes() == before


@pytest.mark.filterwarnings("default::edgealloc.errors.PlausibilityWarning")
def test_a_likely_mistake_of_unit_is_said(table: Path, tmp_path: Path) -> None:
    done = _run("new", "--from", table, "--gains", tmp_path / "gains.npy", "--bandwidth-hz", 20)
    assert done.exit_code == 0
    assert "Warning: instance 'devices' may hold a mistake of unit:" in done.stderr
    assert "bandwidth_hz = 20 Hz is next to nothing" in done.stderr
