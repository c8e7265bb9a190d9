"""The pure interface: states in, plain settings out, replies merged; no framework, no torch."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest

from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve, UnderfitLogistic
from edgealloc.errors import InputError
from edgealloc.files.schema import json_schema
from edgealloc.models.exchange.replies import AdapterShape, Aggregation, Update, gather, masks_for, slice_adapter
from edgealloc.rounds.round import plan_round, round_instance
from edgealloc.rounds.system import DeviceState, Plan, System, mask_seed_of
from edgealloc.scenario.adapter import LoraLayer
from tests.places import ROOT
from tests.rounds.cells import a_state, a_system, some_states


def test_plan_is_plain_and_breaks_no_budget() -> None:
    plan = plan_round(a_system(), some_states(count=4), round_number=3)
    assert plan.status == "optimal"
    assert plan.rel_gap <= 1e-4
    assert plan.selected == tuple(some_states(count=4))
    total = 0.0
    for key in plan.devices:
        own = plan.for_device(key)
        assert json.loads(json.dumps(own)) == own
        assert own["latency_s"] <= own["deadline_s"] == 15.0
        assert own["energy_j"] <= 3.0
        assert own["keep"] == pytest.approx(1.0 - own["dropout"])
        total += own["bandwidth_hz"]
    assert total <= 2e5
    assert plan.result is not None
    assert not plan.result.problem.violations(plan.result.allocation)  # type: ignore[arg-type]


def test_settings_are_those_of_the_allocation() -> None:
    """Settings belong to the device they are named after, whatever the order of the mapping."""
    states = some_states(count=4)
    shuffled = {key: states[key] for key in reversed(states)}
    one, other = plan_round(a_system(), states), plan_round(a_system(), shuffled)
    for key in states:
        assert one.for_device(key)["keep"] == pytest.approx(other.for_device(key)["keep"], rel=1e-6)
        assert one.for_device(key)["mask_seed"] == other.for_device(key)["mask_seed"]
    weak, strong = one.for_device("d0"), one.for_device("d3")
    assert weak["bandwidth_hz"] > strong["bandwidth_hz"]


def test_ofdma_lists_a_power_for_each_subcarrier() -> None:
    gains = np.random.default_rng(0).exponential(3e-11, (3, 8))
    states = {f"d{k}": a_state(gain=gains[k]) for k in range(3)}
    plan = plan_round(a_system(access="ofdma"), states)
    own = [plan.for_device(key) for key in states]
    assert all(len(one["subcarriers"]) == len(one["power_w"]) > 0 for one in own)
    dealt = [m for one in own for m in one["subcarriers"]]
    assert len(dealt) == len(set(dealt)) <= 8
    assert all("bandwidth_hz" not in one for one in own)
    assert Plan.from_json(plan.to_json()) == plan


def test_json_round_trips_are_exact() -> None:
    curve = UnderfitCurve([0.05, 0.3, 1.0], [3.0, 1.0 / 3.0, 0.0])  # type: ignore[arg-type]
    menu = (AdapterOption("r=4", 5e6, 1e8, 1.4), AdapterOption("r=8", 1e7, 2e8))
    system = a_system(
        bound=BoundSpec(underfit="curve", underfit_curve=curve), keep_levels=(0.1, 0.3), adapter_options=menu
    )
    text = json.dumps(system.to_dict())
    again = System.from_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    assert again.adapter_options == menu
    assert again.bound.underfit_curve is not None
    learning = a_system(bound=BoundSpec(underfit="logistic", underfit_logistic=UnderfitLogistic(1.0 / 3.0, 2.5)))
    assert System.from_dict(json.loads(json.dumps(learning.to_dict()))) == learning
    states = {"a": a_state(gain=np.array([1e-11, 1.0 / 3.0])), "b": a_state(downlink_bps=1e6 / 3.0)}
    for key, state in states.items():
        assert DeviceState.from_dict(json.loads(json.dumps(state.to_dict())), key) == state
    for plan in (
        plan_round(a_system(), some_states(count=4), round_number=3),
        plan_round(a_system(bandwidth_hz=1.0), some_states(count=4)),  # infeasible: infinities in the numbers
        plan_round(a_system(), {"a": a_state(available=False)}),
    ):
        assert Plan.from_json(plan.to_json()) == plan
        assert plan.to_json() == Plan.from_json(plan.to_json()).to_json()


def test_who_is_not_available_gets_nothing() -> None:
    states = some_states(count=4) | {"d2": a_state(available=False)}
    plan = plan_round(a_system(), states)
    assert plan.for_device("d2") == {"selected": False, "reason": "not available"}
    assert plan.selected == ("d0", "d1", "d3")
    nobody = plan_round(a_system(), {"a": a_state(available=False)})
    assert nobody.status == "no_devices"
    assert nobody.result is None
    assert nobody.selected == ()


def test_a_device_left_out_at_the_penalty_says_so() -> None:
    """It could take part alone, but its share of the spectrum is worth more to the others."""
    states = some_states(count=4) | {"dear": a_state(gain=1e-14)}
    plan = plan_round(a_system(exclusion_penalty=4.0), states)
    assert plan.for_device("dear") == {"selected": False, "reason": "left out at the exclusion penalty"}
    assert (len(plan.selected), plan.drop) == (4, ())


@pytest.mark.parametrize(
    ("where", "field", "system", "change"),
    [
        ("d1", "energy_j", {}, {"energy_j": -1.0}),
        ("d1", "gain", {}, {"gain": "strong"}),
        ("d1", "gain", {}, {"gain": [1e-11, 2e-11]}),
        ("d1", "gain", {"access": "ofdma"}, {}),
        ("d1", "samples", {}, {"samples": float("nan")}),
        ("d1", "samples", {}, {"samples": None}),
        ("d1", "power_max_w", {}, {"power_max_w": True}),
        ("d1", "available", {}, {"available": "yes"}),
        ("d1", "keep_min", {}, {"keep_min": 0.9, "keep_max": 0.5}),
        ("d1", "cycles_fixed", {"cycles_fixed": None}, {}),
        ("system", "latency_s", {"latency_s": "soon"}, {}),
        ("instance", "latency_s", {"latency_s": -1.0}, {}),
    ],
)
def test_bad_input_names_device_and_field(where: str, field: str, system: dict[str, Any], change: Any) -> None:
    states = some_states(count=4) | {"d1": a_state(**change)}
    with pytest.raises(InputError) as caught:
        plan_round(a_system(**system), states)
    assert (where, field) in {(fault.where, fault.field) for fault in caught.value.faults}


def test_all_faults_come_at_once() -> None:
    states = some_states(count=4) | {"d1": a_state(energy_j=-1.0), "d2": a_state(keep_min=2.0, samples=0)}
    with pytest.raises(InputError) as caught:
        plan_round(a_system(), states)
    named = {(fault.where, fault.field) for fault in caught.value.faults}
    assert {("d1", "energy_j"), ("d2", "keep_min"), ("d2", "samples")} <= named


def test_bad_keys_are_named() -> None:
    with pytest.raises(InputError, match=r"dev-7: gian = given") as caught:
        DeviceState.from_dict({**a_state().to_dict(), "gian": 1.0}, "dev-7")
    assert len(caught.value.faults) == 1
    with pytest.raises(InputError, match=r"system: latency_s = missing"):
        System.from_dict({key: value for key, value in a_system().to_dict().items() if key != "latency_s"})
    with pytest.raises(InputError, match="nobody"):
        plan_round(a_system(), some_states(count=4)).for_device("nobody")
    with pytest.raises(InputError, match="to_json"):
        Plan.from_json("[]")
    with pytest.raises(InputError, match="edgealloc-plan/1"):
        Plan.from_json("{}")
    text = json.loads(plan_round(a_system(), some_states(count=2)).to_json())
    first = next(iter(text["devices"]))
    text["devices"][first]["keepp"] = text["devices"][first].pop("keep")
    text["seconds"] = -1.0
    with pytest.raises(InputError, match="did you mean 'keep'") as caught:
        Plan.from_json(json.dumps(text))
    assert len(caught.value.faults) == 2


def test_plans_keep_their_published_schema() -> None:
    check = jsonschema.Draft202012Validator(json_schema("plan"))
    for plan in (
        plan_round(a_system(), some_states(count=3)),
        plan_round(a_system(bandwidth_hz=1.0), some_states(count=2)),
        plan_round(a_system(), {"a": a_state(available=False)}),
    ):
        check.validate(json.loads(plan.to_json()))
        assert "\n" not in repr(plan)
        assert "<table>" in plan._repr_html_()


def test_mask_seeds_differ_by_round_and_device_and_fit_a_double() -> None:
    seeds = {mask_seed_of(s, r, f"d{k}") for s in range(3) for r in range(20) for k in range(20)}
    assert len(seeds) == 1200
    assert all(int(float(seed)) == seed < 2**53 for seed in seeds)
    assert mask_seed_of(1, 2, "x") == mask_seed_of(1, 2, "x")


def test_instances_are_made_in_the_order_of_the_states() -> None:
    instance = round_instance(a_system(), some_states(count=4))
    assert instance is not None
    assert instance.device_names == tuple(some_states(count=4))
    np.testing.assert_array_equal(instance.samples, [300, 350, 400, 450])


SHAPE = AdapterShape((LoraLayer("a", 6, 8, 2), LoraLayer("b", 8, 4, 2)), head=(("head.weight", (2, 4)),))


def _adapter(rng: np.random.Generator) -> dict[str, np.ndarray]:
    state = {}
    for u in SHAPE.layers:
        state[f"{u.name}.lora_A.weight"] = rng.standard_normal((u.rank, u.n_in)).astype(np.float32)
        state[f"{u.name}.lora_B.weight"] = rng.standard_normal((u.n_out, u.rank)).astype(np.float32)
    state["head.weight"] = rng.standard_normal((2, 4)).astype(np.float32)
    return state


def _reply(state: dict[str, np.ndarray], k: int, samples: float = 10.0) -> Update:
    masks = masks_for(SHAPE, 0.5, mask_seed_of(0, 0, f"d{k}"))
    slices = slice_adapter(state, masks)
    return Update({name: piece + np.float32(k) for name, piece in slices.items()}, masks, samples)


def test_masks_are_the_same_on_both_sides_and_keep_what_was_planned() -> None:
    server, client = masks_for(SHAPE, 0.5, 99), masks_for(SHAPE, 0.5, 99)
    for layer in ("a", "b"):
        np.testing.assert_array_equal(server.columns[layer], client.columns[layer])
        np.testing.assert_array_equal(server.rows[layer], client.rows[layer])
        assert int(server.columns[layer].sum()) == server.columns[layer].size // 2
    assert any(not np.array_equal(server.columns[u], masks_for(SHAPE, 0.5, 98).columns[u]) for u in ("a", "b"))


def test_weights_sum_to_one_over_those_who_answered() -> None:
    state = _adapter(np.random.default_rng(0))
    replies = {f"d{k}": _reply(state, k, 10.0 + 5 * k) for k in range(4)}
    for asleep in ((), ("d1",), ("d0", "d2", "d3")):
        heard = {key: reply for key, reply in replies.items() if key not in asleep}
        got = gather(state, heard)
        assert sum(got.weights.values()) == pytest.approx(1.0, abs=1e-15)
        assert set(got.weights) == set(heard)
        total = sum(reply.samples for reply in heard.values())
        expected = sum(r.samples / total * r.slices["head.weight"].astype(float) for r in heard.values())
        np.testing.assert_allclose(got.state["head.weight"], expected, rtol=1e-6)
    backwards = dict(reversed(replies.items()))
    for name, value in gather(state, replies).state.items():  # arrival order changes no bit
        np.testing.assert_array_equal(value, gather(state, backwards).state[name])


def test_nobody_answered() -> None:
    state = _adapter(np.random.default_rng(0))
    got = gather(state, {})
    assert got.weights == {}
    assert got.rejected == {}
    for name, value in state.items():
        np.testing.assert_array_equal(got.state[name], value)


def test_broken_replies_are_rejected_by_name() -> None:
    state = _adapter(np.random.default_rng(0))
    good, bad = _reply(state, 0), _reply(state, 1)
    poisoned = {name: piece.copy() for name, piece in bad.slices.items()}
    poisoned["a.lora_A.weight"][0, 0] = np.nan
    lacking = {name: piece for name, piece in bad.slices.items() if name != "head.weight"}
    wrong = dict(bad.slices) | {"head.weight": np.zeros((3, 4), np.float32)}
    replies = {
        "good": good,
        "nan": replace(bad, slices=poisoned),
        "lacks": replace(bad, slices=lacking),
        "shape": replace(bad, slices=wrong),
        "samples": replace(bad, samples=float("inf")),
    }
    got = gather(state, replies, Aggregation(fill="keepers"))
    assert set(got.rejected) == {"nan", "lacks", "shape", "samples"}
    assert "a.lora_A.weight: 1 of" in got.rejected["nan"]
    assert "head.weight" in got.rejected["lacks"]
    assert "shape [3, 4]" in got.rejected["shape"]
    assert got.weights == {"good": 1.0}
    alone = gather(state, {"good": good}, Aggregation(fill="keepers"))
    for name, value in alone.state.items():
        np.testing.assert_array_equal(got.state[name], value)
    nothing = gather(state, {"nan": replies["nan"]})
    for name, value in state.items():
        np.testing.assert_array_equal(nothing.state[name], value)


def test_neither_torch_nor_a_framework_is_imported() -> None:
    code = (
        "import sys, edgealloc.rounds.system, edgealloc.models.exchange.replies\n"
        "print([m for m in ('torch', 'flwr', 'pandas', 'pydantic', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_plain_loop_learns_through_failures() -> None:
    """An arbitrary framework is a loop: four devices, one that fails, one that sends NaN."""
    path = ROOT / "examples" / "plain_loop.py"
    spec = importlib.util.spec_from_file_location("plain_loop", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    history = module.main(rounds=8, quiet=True)
    assert len(history) == 9
    assert np.all(np.isfinite(history))
    assert history[-1] < 0.3 * history[0]
    assert history == module.main(rounds=8, quiet=True)  # same seeds, same bits


def test_a_system_is_not_pooled_by_cluster_for_states_have_none() -> None:
    with pytest.raises(InputError, match=r"bound\.pooling = 'cluster'; allowed: global or device"):
        a_system(bound=BoundSpec(pooling="cluster"))
