"""Menu rows that are downloaded beside the sub-adapter and never sent: what they cost, and who may take them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgealloc import conformance, solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import AdapterOption, BoundSpec
from edgealloc.errors import InputError
from edgealloc.files.instance import dict_from_instance, instance_from_dict
from edgealloc.formulation.problem import Problem
from edgealloc.rounds.stragglers import slowed
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate

FETCH = conformance.FETCH
STRONG = BoundSpec(underfit_weight=0.3)


def _cell(**changes: object) -> Instance:
    return conformance.cell(adapter_options=(FETCH,) * 3, downlink_bps=5e6, bound=STRONG, **changes)


def test_a_row_takes_time_and_cycles_and_sends_no_more() -> None:
    instance = _cell()
    result = solve(instance, rel_gap=1e-4)
    assert result.allocation is not None
    for option in itertools.product(range(3), repeat=3):
        point = result.allocation.__class__(
            **{f: getattr(result.allocation, f) for f in result.allocation.__slots__ if f != "option"},
            option=np.array(option),
        )
        use = Problem(instance).evaluate(point)
        bits = 1e7 * point.keep
        np.testing.assert_allclose(use.payload_bits, bits)
        work = instance.cycles_fixed + 3e8 * np.array(option) + 2e8 * point.keep
        latency = (bits + 1.2e7 * np.array(option)) / 5e6 + work / point.freq_hz + bits / use.rate_bps
        np.testing.assert_allclose(use.latency_s, latency, rtol=1e-13)
        energy = 1e-28 * point.freq_hz**2 * work + point.power_w * bits / use.rate_bps + 0.1
        np.testing.assert_allclose(use.energy_j, energy, rtol=1e-13)


@pytest.mark.parametrize("make", ["fdma", "ofdma"])
def test_the_best_rows_are_found_among_all(make: str) -> None:
    if make == "fdma":
        instance, k = _cell(), 3
    else:
        instance, k = conformance.ofdma(adapter_options=(FETCH,) * 2, downlink_bps=5e6, bound=STRONG), 2
    whole = solve(instance, rel_gap=1e-6, time_limit=60.0)
    assert whole.status is Status.OPTIMAL
    values = {}
    for option in itertools.product(range(3), repeat=k):
        menus = tuple((FETCH[o],) for o in option)
        one = solve(instance.with_changes(adapter_options=menus), rel_gap=1e-5, time_limit=60.0)
        values[option] = (one.lower_bound, one.objective)
    best = min(values, key=lambda option: values[option][1])
    assert values[best][0] <= whole.objective * (1 + 1e-12)
    assert whole.lower_bound <= values[best][1] * (1 + 1e-12)
    assert whole.allocation is not None
    assert values[tuple(whole.allocation.option.tolist())][0] <= whole.objective * (1 + 1e-5)
    assert best != (0,) * k  # it matters what is fetched
    proved, proof = certified(whole)
    assert proved.status is Status.OPTIMAL
    assert not check_certificate(instance, proof).faults


@pytest.mark.parametrize("make", ["fdma", "ofdma"])
def test_a_download_that_takes_too_long_is_what_is_missing(make: str) -> None:
    heavy = (AdapterOption("m=9", 1e7, 2e8, 1.0, 6e7),)  # 12 of 15 s
    changes = {"adapter_options": (heavy,) * (3 if make == "fdma" else 2), "downlink_bps": 5e6}
    instance = conformance.cell(**changes) if make == "fdma" else conformance.ofdma(**changes)
    result = solve(instance)
    assert result.status is Status.INFEASIBLE
    needs = [found.required for found in result.diagnosis if found.budget == "latency_s" and found.device]
    assert needs
    needed = max(needs)
    assert 15.0 < needed < np.inf
    assert solve(instance.with_changes(latency_s=1.02 * needed, energy_j=50.0)).status is not Status.INFEASIBLE


def test_files_faults_and_stragglers_know_the_fields() -> None:
    instance = _cell()
    data = dict_from_instance(instance)
    rows = data["devices"][0]["adapter_options"]
    assert "download_bits" not in rows[0]
    assert rows[2]["download_bits"] == 2.4e7
    assert instance_from_dict(data) == instance
    with pytest.raises(InputError, match="download_bits = -1"):
        _cell().with_changes(adapter_options=((AdapterOption("m=1", 1e7, 2e8, 1.0, -1.0),), None, None))
    late = slowed(instance, np.array([1.0, 2.0, 1.0]))
    assert late.adapter_options is not None
    assert late.adapter_options[1] is not None
    assert late.adapter_options[1][2].download_bits == 4.8e7
    assert late.adapter_options[1][2].cycles_fixed == 1.2e9
