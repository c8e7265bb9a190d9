"""Likely mistakes of unit are remarked on and warned of; honest instances raise no alarm."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc.bench.suites import SUITES
from edgealloc.data.spec import AdapterOption
from edgealloc.errors import PlausibilityWarning
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from tests.scenario.test_cell import VARIANTS


def test_the_public_cases_raise_no_alarm(cases: Path) -> None:
    paths = [path for path in sorted(cases.glob("*.json")) if path.name != "references.json"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarms = {path.name: edgealloc.load(path).check() for path in paths}
    assert len(alarms) >= 40
    assert {name: remarks for name, remarks in alarms.items() if remarks} == {}


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: "-".join(map(str, o.values())) or "default")
def test_random_cells_raise_no_alarm(options: dict[str, Any]) -> None:
    for seed in range(12):
        assert make_cell(CellOptions(**options), np.random.default_rng(seed)).instance.check() == []


def test_the_cells_of_the_suites_raise_no_alarm() -> None:
    cases = {case.name: case for suite in SUITES.values() for case in suite().cases}
    assert len(cases) > 50
    some = dict(list(cases.items())[::8])  # drawing them all takes ten seconds
    assert {name: remarks for name, case in some.items() if (remarks := case.instance().check())} == {}


def _ten_times_tighter(make_instance) -> edgealloc.Instance:
    """Budgets a tenth of what full speed takes, as an honest instance may have them: the hardest to tell apart."""
    return make_instance(energy_j=0.6, latency_s=15.0, energy_static_j=0.0)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [  # field, what is given, what the remark must hold
    ("gain", {"gain": np.full(4, 110.0)}, "A path loss? Then 1 / loss"),
    ("gain", {"gain": np.full(4, 110.0)}, "in dB? Then 10**(dB/10)"),
    ("noise_psd_dbm_per_hz", {"noise_psd_dbm_per_hz": 4e-15}, "W/Hz or W? Of W/Hz it is"),
    ("noise_psd_dbm_per_hz", {"noise_psd_dbm_per_hz": -114.0}, "in the whole band? Then it is -174 dBm/Hz"),
    ("noise_psd_dbm_per_hz", {"noise_psd_dbm_per_hz": -204.0}, "dBW/Hz? Then add 30"),
    ("bandwidth_hz", {"bandwidth_hz": 20.0}, "kHz or MHz?"),
    ("power_max_w", {"power_max_w": 23.0}, "dBm"),
    ("freq_max_hz", {"freq_max_hz": 2.4, "freq_min_hz": 0.3}, "MHz or GHz?"),
    ("payload_lora_bits", {"payload_lora_bits": 4.7, "payload_fixed_bits": 0.0}, "Mbit or MB?"),
    ("samples", {"samples": [0.1, 0.2, 0.3, 0.4]}, "shares of the data?"),
    ("energy_j", {"energy_j": 600.0}, "mJ?"),
    ("latency_s", {"latency_s": 15000.0}, "ms?"),
]


@pytest.mark.parametrize(("field", "changes", "words"), MISTAKES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_mistake_of_unit_is_remarked_on(make_instance, field: str, changes: dict[str, Any], words: str) -> None:
    honest = _ten_times_tighter(make_instance)
    assert honest.check() == []
    remarks = [remark for remark in honest.with_changes(**changes).check() if remark.field == field]
    assert len(remarks) == 1
    assert words in str(remarks[0])
    assert np.ravel(changes[field])[0] == remarks[0].value


def test_a_remark_names_the_device_and_how_many_more(make_instance) -> None:
    (one,) = make_instance(power_max_w=[0.1, 23.0, 0.1, 0.1]).check()
    assert str(one).startswith("dev-0001: power_max_w = 23 W is more than 10")
    (more,) = make_instance(power_max_w=[0.1, 23.0, 0.1, 20.0]).check()
    assert more.where == "dev-0001 and 1 more"


def test_more_devices_than_subcarriers_looks_transposed_unless_some_may_be_left_out(make_instance) -> None:
    wide = make_instance("ofdma", devices=9, subcarriers=6)
    assert "transposed? give gain.T" in str(wide.check()[0])
    assert wide.with_changes(exclusion_penalty=4.0).check() == []


def test_menus_and_a_server_among_devices_raise_no_alarm(make_instance) -> None:
    menu = [(AdapterOption("tiny", 100.0, 1.0), AdapterOption("r=8", 1e6, 2e8))] * 4
    assert make_instance(adapter_options=menu, payload_lora_bits=1.0, payload_fixed_bits=0.0).check() == []
    assert make_instance(energy_j=[0.6, 0.6, 0.6, 1e9]).check() == []  # on the mains


def test_solving_and_loading_warn_where_they_are_called(make_instance, tmp_path: Path) -> None:
    instance = make_instance(power_max_w=23.0)
    path = edgealloc.save_instance(instance, tmp_path / "cell.json")
    for act in (
        lambda: edgealloc.load(path),
        lambda: edgealloc.solve(instance),
        lambda: edgealloc.solve(path),
        lambda: edgealloc.compare(instance),
        lambda: edgealloc.front(instance, "bandwidth_hz", [1.0, 2.0]),
    ):
        with pytest.warns(PlausibilityWarning, match="power_max_w = 23 W") as caught:
            act()
        assert [warning.filename for warning in caught] == [__file__]


def test_warnings_can_be_silenced_as_they_say(make_instance) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PlausibilityWarning)
        edgealloc.solve(make_instance(power_max_w=23.0))


def test_the_command_line_says_it_once_and_can_be_silenced(make_instance, tmp_path: Path) -> None:
    path = edgealloc.save_instance(make_instance(power_max_w=23.0), tmp_path / "cell.json")
    code = f"from edgealloc.cli.app import main; main(['solve', {str(path)!r}])"
    said = []
    for silence in ("", "ignore::UserWarning"):
        environment = os.environ | {"PYTHONWARNINGS": silence}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
        )
        said.append(done.stderr)
    assert said[0].count("Warning: instance 'fdma-4' may hold a mistake of unit:") == 1
    assert said[1] == ""
