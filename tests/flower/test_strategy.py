"""The Flower strategy against clients that work, fail, dawdle and lie; all in one process, no Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message
from flwr.serverapp.strategy import FedAvg

from edgealloc.data.spec import AdapterOption
from edgealloc.errors import InputError
from edgealloc.flower.client import answer_state, answer_update, read_assignment
from edgealloc.flower.messages import ADAPTER, from_arrays, to_arrays
from edgealloc.flower.strategy import Fate, FedLoDrop, Outcome, RoundReport
from edgealloc.models.exchange.replies import Aggregation, Update, gather, masks_for, slice_adapter
from edgealloc.rounds.allocator import OnlineAllocator
from edgealloc.rounds.round import plan_round
from edgealloc.runs import RunBudget
from tests.flower.clients import SHAPE, START, SYSTEM, client_of, nodes, run_rounds, spoilt, state_of, trained
from tests.flower.grid import LocalGrid
from tests.flower.test_broken_clients import reply_crash, reply_late, reply_nan


def test_every_device_gets_its_own_settings_and_slices() -> None:
    merged, strategy, grid = run_rounds(nodes(4))
    plan = strategy.rounds[0].plan
    assert plan is not None
    assert plan.status == "optimal"
    sent = {m.metadata.dst_node_id: m.content for m in grid.sent if m.metadata.message_type == "train"}
    assert len(sent) == 4
    keeps = set()
    updates = {}
    for k in range(4):
        settings, content = plan.for_device(f"dev-{k:02d}"), sent[1000 - 7 * k]
        record = dict(content.config_records["settings"])
        assert {key: record[key] for key in settings} == settings
        masks = masks_for(SHAPE, settings["keep"], settings["mask_seed"])
        slices, arrays = slice_adapter(START, masks), from_arrays(content.array_records[ADAPTER])
        assert {name: v.tolist() for name, v in arrays.items()} == {name: v.tolist() for name, v in slices.items()}
        assert 0.05 < settings["keep"] < 1.0
        keeps.add(settings["keep"])
        whole = {name: v.copy() for name, v in START.items()}
        for layer in ("enc.q", "enc.v"):
            whole[f"{layer}.lora_A.weight"][:, ~masks.columns[layer]] = 0.0
            whole[f"{layer}.lora_B.weight"][~masks.rows[layer]] = 0.0
        updates[f"dev-{k:02d}"] = Update(slice_adapter(trained(whole, k, 1), masks), masks, 100 + 10 * k)
    assert len(keeps) == 4
    expected = gather(START, updates)
    assert strategy.rounds[0].weights == expected.weights
    for name, value in expected.state.items():
        np.testing.assert_array_equal(merged[name], value)


def test_stock_aggregation_adds_what_does_not_belong_together() -> None:
    """Two devices keep different rows of equal number: Flower's FedAvg adds their slices and says nothing."""
    grid = LocalGrid({1: client_of(0), 2: client_of(1)})
    planner = partial(plan_round, replace(SYSTEM, common_keep=True))
    strategy = FedLoDrop(planner)
    messages = list(strategy.configure_train(1, to_arrays(START), ConfigRecord(), grid))
    replies = grid.send_and_receive(messages)
    first, second = (from_arrays(r.content.array_records[ADAPTER]) for r in replies)
    assert {n: v.shape for n, v in first.items()} == {n: v.shape for n, v in second.items()}
    assert first["enc.q.lora_B.weight"].shape[0] < 12

    stock, _ = FedAvg(min_train_nodes=2).aggregate_train(1, replies)
    assert stock is not None  # no complaint
    ours, _ = strategy.aggregate_train(1, replies)
    assert ours is not None
    state = from_arrays(ours)

    masks = {node: strategy._asked[node] for node in (1, 2)}
    weight = {1: 100 / 210, 2: 110 / 210}
    expected = np.zeros((12, 2))
    for reply in replies:
        node = reply.metadata.src_node_id
        expected[masks[node].rows["enc.q"]] += (
            weight[node] * from_arrays(reply.content.array_records[ADAPTER])["enc.q.lora_B.weight"]
        )
    np.testing.assert_allclose(state["enc.q.lora_B.weight"], expected, rtol=1e-6, atol=1e-7)
    # However the stock sum is spread over the rows afterwards, by either mask, it is not the mean.
    for node in (1, 2):
        wrong = np.zeros((12, 2))
        wrong[masks[node].rows["enc.q"]] = from_arrays(stock)["enc.q.lora_B.weight"]
        assert np.abs(wrong - expected).max() > 0.1
    np.testing.assert_allclose(state["head.weight"], from_arrays(stock)["head.weight"], rtol=1e-6)


def _unchanged(merged: dict[str, Any]) -> bool:
    return all(np.array_equal(merged[name], value) for name, value in START.items())


def test_rounds_without_an_allocation_leave_the_model_as_it_is() -> None:
    nobody = {k: spoilt(client_of(k), reply_crash, "query") for k in range(2)}
    merged, strategy, _ = run_rounds(nobody)
    assert _unchanged(merged)
    assert strategy.rounds[0].plan is None
    assert strategy.rounds[0].with_fate(Fate.NO_STATE) == ("node-0", "node-1")

    merged, strategy, grid = run_rounds({k: client_of(k, energy_j=1e-3) for k in range(2)})
    assert _unchanged(merged)
    assert strategy.rounds[0].plan is not None
    assert strategy.rounds[0].plan.status == "infeasible"
    assert {o.fate for o in strategy.rounds[0].outcomes} == {Fate.LEFT_OUT}
    assert all("infeasible" in o.reason for o in strategy.rounds[0].outcomes)
    assert {m.metadata.message_type for m in grid.sent} == {"query"}

    merged, strategy, _ = run_rounds({}, join_timeout_s=0.0)
    assert _unchanged(merged)
    assert strategy.rounds[0].outcomes == ()


def test_selection_and_absence() -> None:
    """A device that cannot carry its load is planned without; one that is away is not planned for."""
    clients = {0: client_of(0), 1: client_of(1, energy_j=1e-3), 2: client_of(2, available=False)}
    _, strategy, grid = run_rounds(clients, planner=replace(SYSTEM, exclusion_penalty=4.0))
    reasons = {o.device: o.reason for o in strategy.rounds[0].outcomes if o.fate is Fate.LEFT_OUT}
    assert reasons["dev-01"].startswith("infeasible even alone, lacks energy_j: dev-01 has too little energy")
    assert reasons["dev-02"] == "not available"
    assert [m.metadata.dst_node_id for m in grid.sent if m.metadata.message_type == "train"] == [0]
    assert strategy.rounds[0].weights == {"dev-00": 1.0}


def test_both_sides_must_draw_the_same_masks() -> None:
    """A client with another mask method would return equal-shaped slices of other rows: it notices and refuses."""
    merged, strategy, _ = run_rounds(nodes(2), masks="bernoulli")
    assert _unchanged(merged)
    for outcome in strategy.rounds[0].outcomes:
        assert outcome.fate is Fate.FAILED
        assert "other masks" in outcome.reason


def test_a_faulty_system_is_raised_and_not_blamed_on_devices() -> None:
    with pytest.raises(ValueError, match="bandwidth_hz"):
        run_rounds(nodes(2), planner=replace(SYSTEM, bandwidth_hz=-1.0))


def test_what_the_strategy_cannot_do_is_refused() -> None:
    for rule, words in (
        ({"correction": "exact"}, "correction = exact"),
        ({"merge": "stack"}, "merge = stack"),
        ({"robust": "clair"}, "robust = clair"),
        ({"merge": "svd"}, "merge = 'svd'; allowed: .* where A is frozen"),
    ):
        with pytest.raises(InputError, match=words):
            FedLoDrop(SYSTEM, aggregation=Aggregation(**rule), sends_a=False)
    for masks in ("entries", "half", None):
        with pytest.raises(InputError, match=f"masks = {masks!r}; allowed: exact or bernoulli"):
            FedLoDrop(SYSTEM, masks=masks)  # type: ignore[arg-type]
    for label, words in (("8 bit", "menu row '8 bit'"), ("r=9", "rank 9, above 2, that of the server's")):
        menu = (AdapterOption(label, 800.0, 1e8, 1.4),)
        with pytest.raises(ValueError, match=words):
            run_rounds(nodes(2), planner=replace(SYSTEM, adapter_options=menu))


def test_a_menu_of_ranks_sends_each_device_the_components_that_it_has() -> None:
    menu = (AdapterOption("r=1", SHAPE.payload_lora_bits / 2, 1e8, 1.4),)
    merged, strategy, _ = run_rounds(nodes(2), planner=replace(SYSTEM, adapter_options=menu))
    assert [outcome.fate for outcome in strategy.rounds[0].outcomes] == [Fate.ANSWERED] * 2
    for name in ("enc.q", "enc.v"):
        assert not np.any(merged[f"{name}.lora_A.weight"][1:])  # nobody had them: zero in the zero-filled mean
        assert np.any(merged[f"{name}.lora_A.weight"][:1])


def test_payload_that_is_not_the_adapters_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    run_rounds(nodes(2))
    assert "payload" not in caplog.text
    run_rounds(nodes(2), planner=replace(SYSTEM, payload_lora_bits=500.0))
    assert f"payload_lora_bits = [500.0], the adapter makes it {SHAPE.payload_lora_bits}" in caplog.text


def test_frozen_a_is_not_sent() -> None:
    grid_seen: list[set[str]] = []

    def client(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "query":
            return answer_state(message, "dev-00", state_of(0))
        grid_seen.append(set(message.content.array_records[ADAPTER]))
        task = read_assignment(message, START, sends_a=False)
        np.testing.assert_array_equal(task.adapter["enc.q.lora_A.weight"], START["enc.q.lora_A.weight"])
        return answer_update(message, task, trained(task.adapter, 0, 1), 100, wire_dtype="float16")

    merged, strategy, _ = run_rounds({3: client}, sends_a=False)
    assert grid_seen == [{"enc.q.lora_B.weight", "enc.v.lora_B.weight", "head.weight"}]
    np.testing.assert_array_equal(merged["enc.q.lora_A.weight"], START["enc.q.lora_A.weight"])
    assert merged["head.weight"].shape == START["head.weight"].shape
    assert merged["head.weight"].dtype == np.float32
    assert not np.array_equal(merged["head.weight"], START["head.weight"])
    assert strategy.rounds[0].weights == {"dev-00": 1.0}


def test_an_online_allocator_rests_whom_it_waited_for_in_vain() -> None:
    clients = nodes(3)
    clients[993] = spoilt(clients[993], reply_late)
    allocator = OnlineAllocator(SYSTEM, seed=3)
    _, strategy, _ = run_rounds(
        clients, rounds=3, planner=allocator.plan, on_round=lambda r: allocator.report(r.latencies)
    )
    fates = [{o.device: (o.fate, o.reason) for o in r.outcomes}["dev-01"] for r in strategy.rounds]
    late = (Fate.LATE, "no reply in time")
    assert fates == [late, late, (Fate.LEFT_OUT, "resting")]
    assert all(set(r.weights) == {"dev-00", "dev-02"} for r in strategy.rounds)


def test_a_system_alone_is_planned_for_with_what_the_rounds_have_shown() -> None:
    """Without a planner of one's own, a device that crashes twice in a row is not chosen a third time."""
    clients = nodes(3)
    clients[993] = spoilt(clients[993], reply_crash)
    _, strategy, _ = run_rounds(clients, rounds=5)
    fates = [{o.device: (o.fate, o.brief) for o in r.outcomes}["dev-01"] for r in strategy.rounds]
    assert [fate for fate, _ in fates] == [Fate.FAILED] * 2 + [Fate.LEFT_OUT] * 2 + [Fate.FAILED]
    assert fates[2][1] == "resting"


def test_the_rounds_of_a_run_end_with_it() -> None:
    run = RunBudget(2, time_s=1.9 * SYSTEM.latency_s)
    _, strategy, grid = run_rounds(nodes(3), rounds=3, run=run)
    deadlines = []
    for report in strategy.rounds[:2]:
        assert report.plan is not None
        assert set(report.weights) == {"dev-00", "dev-01", "dev-02"}
        deadlines.append(report.plan.devices["dev-00"]["deadline_s"])
    assert deadlines[0] == pytest.approx(0.95 * SYSTEM.latency_s)
    assert sum(deadlines) <= 1.9 * SYSTEM.latency_s * (1.0 + 1e-9)
    assert {o.fate for o in strategy.rounds[2].outcomes} == {Fate.LEFT_OUT}
    assert {o.reason for o in strategy.rounds[2].outcomes} == {"all 2 rounds of the run are planned"}
    assert sum(m.metadata.message_type == "train" for m in grid.sent) == 6
    with pytest.raises(ValueError, match="goes with a system"):
        FedLoDrop(partial(plan_round, SYSTEM), run=run)


def test_what_a_client_raised_is_read_out_of_flowers_trace() -> None:
    trace = (
        "<class 'ray.exceptions.RayTaskError'>:<'\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=7)\n  File \"x\"\n"
        "flwr.client.client_app.ClientAppException: \n"
        "Exception ClientAppException occurred. Message: battery empty'>"
    )
    assert Outcome("dev", 1, Fate.FAILED, trace).brief == "battery empty"
    assert Outcome("dev", 1, Fate.FAILED, trace.replace("battery empty", "it said 'no'")).brief == "it said 'no'"
    assert Outcome("dev", 1, Fate.FAILED, "RuntimeError: battery empty").brief == "RuntimeError: battery empty"
    assert Outcome("dev", 1, Fate.ANSWERED).brief == ""


def test_reports_survive_json() -> None:
    clients = nodes(3)
    clients[1000] = spoilt(clients[1000], reply_late)
    seen: list[RoundReport] = []
    _, strategy, _ = run_rounds(clients, rounds=2, on_round=seen.append)
    assert seen == strategy.rounds
    for report in strategy.rounds:
        text = json.dumps(report.to_dict(), allow_nan=False)
        assert RoundReport.from_dict(json.loads(text)) == report


def test_flowers_history_gets_the_figures() -> None:
    clients = nodes(3)
    clients[1000] = spoilt(clients[1000], reply_nan)
    strategy = FedLoDrop(SYSTEM)
    result = strategy.start(LocalGrid(clients), to_arrays(START), num_rounds=2, timeout=1.0)
    plan = strategy.rounds[1].plan
    assert plan is not None
    figures = result.train_metrics_clientapp[2]
    assert figures["answered"] == 2
    assert figures["rejected"] == 1
    assert figures["objective"] == plan.objective
    assert figures["loss"] == pytest.approx((110 * 2.0 + 120 * 3.0) / 230)


def test_without_flower_the_error_names_the_extra() -> None:
    """And the pure interface needs neither Flower nor torch."""
    code = """
import sys
sys.modules["flwr"] = None
import edgealloc.rounds.system, edgealloc.models.exchange.replies
assert "torch" not in sys.modules
from edgealloc.errors import MissingPackageError
for name in ("client", "messages", "strategy"):
    try:
        __import__("edgealloc.flower." + name)
    except MissingPackageError as error:
        assert "edgealloc[flower]" in str(error)
    else:
        raise SystemExit(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_server_needs_no_torch() -> None:
    code = "import sys, edgealloc.flower.strategy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
