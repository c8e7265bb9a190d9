"""The Flower strategy against clients that work, fail, dawdle and lie; all in one process, no Ray."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from edgealloc.data.instance import AdapterOption, BoundSpec
from edgealloc.flower.client import answer_state, answer_update, read_assignment
from edgealloc.flower.messages import ADAPTER, METRICS, from_arrays, to_arrays
from edgealloc.flower.strategy import Fate, FedLoDrop, RoundReport
from edgealloc.models.exchange.replies import AdapterShape, Aggregation, Update, gather, masks_for, slice_adapter
from edgealloc.rounds.allocator import OnlineAllocator
from edgealloc.rounds.system import DeviceState, System, plan_round
from tests.flower.grid import Client, Late, LocalGrid

rng = np.random.default_rng(5)
START = {
    "enc.q.lora_A.weight": rng.normal(size=(2, 8)).astype(np.float32),
    "enc.q.lora_B.weight": rng.normal(size=(12, 2)).astype(np.float32),
    "enc.v.lora_A.weight": rng.normal(size=(2, 8)).astype(np.float32),
    "enc.v.lora_B.weight": rng.normal(size=(12, 2)).astype(np.float32),
    "head.weight": rng.normal(size=(3, 12)).astype(np.float32),
}
SHAPE = AdapterShape.from_state(START)
SYSTEM = System(
    access="fdma",
    bandwidth_hz=60.0,
    noise_psd_dbm_per_hz=-174.0,
    latency_s=15.0,
    bound=BoundSpec(),
    payload_fixed_bits=SHAPE.payload_fixed_bits,
    payload_lora_bits=SHAPE.payload_lora_bits,
    cycles_fixed=1e10,
    cycles_lora=2e8,
)


def _state(k: int, **changes: Any) -> DeviceState:
    fields: dict[str, Any] = {
        "gain": 1e-14 * (k + 1),
        "samples": 100 + 10 * k,
        "energy_j": 3.0,
        "power_max_w": 0.1,
        "freq_min_hz": 3e8,
        "freq_max_hz": 2e9,
        "capacitance": 1e-28,
    }
    return DeviceState(**(fields | changes))


def _trained(adapter: dict[str, Any], k: int, number: int) -> dict[str, Any]:
    """Training stands in: every entry moves by an amount of its own, a device and a round."""
    noise = np.random.default_rng([k, number])
    return {name: value + noise.normal(size=value.shape).astype(np.float32) for name, value in adapter.items()}


def _client(k: int, **changes: Any) -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return answer_state(message, f"dev-{k:02d}", _state(k, **changes))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        task = read_assignment(message, START)
        loss = {"loss": 1.0 + k}
        return answer_update(message, task, _trained(task.adapter, k, task.round_number), 100 + 10 * k, loss)

    return app


def _spoil(client: Client, spoil: Callable[[Message], None], kind: str = "train") -> Client:
    """A client whose replies of a kind are tampered with."""

    def call(message: Message, context: Context) -> Message:
        reply = client(message, context)
        if message.metadata.message_type == kind:
            spoil(reply)
        return reply

    return call


def _run(
    clients: dict[int, Client], rounds: int = 1, **options: Any
) -> tuple[dict[str, Any], FedLoDrop, LocalGrid]:
    grid, strategy = LocalGrid(clients), FedLoDrop(options.pop("planner", SYSTEM), **options)
    result = strategy.start(grid, to_arrays(START), num_rounds=rounds, timeout=1.0)
    return from_arrays(result.arrays), strategy, grid


def _nodes(count: int) -> dict[int, Client]:
    """Node ids that do not follow the devices' names."""
    return {1000 - 7 * k: _client(k) for k in range(count)}


def test_every_device_gets_its_own_settings_and_slices() -> None:
    merged, strategy, grid = _run(_nodes(4))
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
        updates[f"dev-{k:02d}"] = Update(slice_adapter(_trained(whole, k, 1), masks), masks, 100 + 10 * k)
    assert len(keeps) == 4
    expected = gather(START, updates)
    assert strategy.rounds[0].weights == expected.weights
    for name, value in expected.state.items():
        np.testing.assert_array_equal(merged[name], value)


def test_stock_aggregation_adds_what_does_not_belong_together() -> None:
    """Two devices keep different rows of equal number: Flower's FedAvg adds their slices and says nothing."""
    grid = LocalGrid({1: _client(0), 2: _client(1)})
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


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_failing_clients(probability: float) -> None:
    """Devices fail at random, by a crash or by silence: weights sum to one over those who answered."""
    odds = np.random.default_rng(11)
    rounds, count = 6, 8
    crash = {k: odds.random(rounds) < probability for k in range(count)}

    def failing(k: int) -> Client:
        def spoil(reply: Message) -> None:
            if crash[k][len(strategy.rounds)]:
                raise RuntimeError("battery empty") if k % 2 else Late

        return _spoil(_client(k), spoil)

    strategy = FedLoDrop(replace(SYSTEM, bandwidth_hz=120.0))
    result = strategy.start(
        LocalGrid({50 + k: failing(k) for k in range(count)}), to_arrays(START), num_rounds=rounds
    )
    total = 0
    for report in strategy.rounds:
        failed = {f"dev-{k:02d}" for k in range(count) if crash[k][report.number - 1]}
        total += len(failed)
        assert len(report.outcomes) == count  # nobody is lost
        assert set(report.with_fate(Fate.ANSWERED)) == {f"dev-{k:02d}" for k in range(count)} - failed
        assert set(report.with_fate(Fate.FAILED)) | set(report.with_fate(Fate.LATE)) == failed
        for outcome in report.outcomes:
            assert (outcome.reason == "") == (outcome.fate is Fate.ANSWERED)
            if outcome.fate is Fate.FAILED:
                assert "battery empty" in outcome.reason
        samples = {f"dev-{k:02d}": 100 + 10 * k for k in range(count) if f"dev-{k:02d}" not in failed}
        if samples:
            assert sum(report.weights.values()) == pytest.approx(1.0, abs=1e-12)
            share = {name: n / sum(samples.values()) for name, n in samples.items()}
            assert report.weights == pytest.approx(share)
        else:
            assert report.weights == {}
    assert len(strategy.rounds) == rounds
    assert total > 0
    if probability == 1.0:
        for name, value in from_arrays(result.arrays).items():
            np.testing.assert_array_equal(value, START[name])
    else:
        assert not np.array_equal(from_arrays(result.arrays)["head.weight"], START["head.weight"])


def _nan(reply: Message) -> None:
    arrays = from_arrays(reply.content.array_records[ADAPTER])
    arrays["enc.v.lora_A.weight"].flat[0] = np.nan
    reply.content[ADAPTER] = to_arrays(arrays)


def _short(reply: Message) -> None:
    arrays = from_arrays(reply.content.array_records[ADAPTER])
    arrays["enc.v.lora_A.weight"] = arrays["enc.v.lora_A.weight"][:, :-1]
    reply.content[ADAPTER] = to_arrays(arrays)


def _nameless(reply: Message) -> None:
    reply.content[ADAPTER] = ArrayRecord({})


def _bytes(reply: Message) -> None:
    record = reply.content.array_records[ADAPTER]
    record["head.weight"] = Array("float32", (3, 12), "numpy.ndarray", b"garbage")


def _other_masks(reply: Message) -> None:
    reply.content.config_records["settings"]["mask_digest"] = "0" * 16


def _no_metrics(reply: Message) -> None:
    del reply.content[METRICS]


def _no_samples(reply: Message) -> None:
    reply.content[METRICS] = MetricRecord({"num-examples": 0})


def _crash(reply: Message) -> None:
    raise RuntimeError("out of memory")


def _late(reply: Message) -> None:
    raise Late


def _nan_gain(reply: Message) -> None:
    reply.content.config_records["state"]["gain"] = float("nan")


def _no_gain(reply: Message) -> None:
    del reply.content.config_records["state"]["gain"]


def _taken_name(reply: Message) -> None:
    reply.content.config_records["state"]["device"] = "dev-00"


def _cleared(reply: Message) -> None:
    reply.content = RecordDict({})


@pytest.mark.parametrize(
    ("kind", "spoil", "fate", "reason"),
    [
        ("train", _nan, Fate.REJECTED, "enc.v.lora_A.weight: 1 of .* not finite"),
        ("train", _short, Fate.REJECTED, "enc.v.lora_A.weight: shape"),
        ("train", _nameless, Fate.REJECTED, "tensors missing"),
        ("train", _bytes, Fate.REJECTED, "cannot be read"),
        ("train", _other_masks, Fate.REJECTED, "other masks"),
        ("train", _no_metrics, Fate.REJECTED, "no record 'metrics'"),
        ("train", _no_samples, Fate.REJECTED, "samples"),
        ("train", _cleared, Fate.REJECTED, "no record 'adapter'"),
        ("train", _crash, Fate.FAILED, "out of memory"),
        ("train", _late, Fate.LATE, "no reply in time"),
        ("query", _crash, Fate.NO_STATE, "out of memory"),
        ("query", _late, Fate.NO_STATE, "no state in time"),
        ("query", _nan_gain, Fate.NO_STATE, "gain"),
        ("query", _no_gain, Fate.NO_STATE, "gain"),
        ("query", _taken_name, Fate.NO_STATE, "'dev-00' too"),
        ("query", _cleared, Fate.NO_STATE, "no record 'state'"),
    ],
)
def test_one_broken_client_never_poisons_a_round(kind: str, spoil: Any, fate: Fate, reason: str) -> None:
    """The round without the broken client is, bit for bit, the round in which the others answered."""
    clients = _nodes(3)
    broken = 1000 - 7 * 1  # dev-01; sorted by node id it comes after dev-02 and before dev-00
    clients[broken] = _spoil(clients[broken], spoil, kind)
    if spoil is _taken_name:  # the lower node id keeps the name
        clients = {(5000 if node == broken else node): client for node, client in clients.items()}
        broken = 5000
    merged, strategy, _ = _run(clients)
    report = strategy.rounds[0]
    (outcome,) = [o for o in report.outcomes if o.node == broken]
    assert outcome.fate is fate
    assert re.search(reason, outcome.reason), outcome.reason
    assert set(report.with_fate(Fate.ANSWERED)) == {"dev-00", "dev-02"}
    assert sum(report.weights.values()) == pytest.approx(1.0, abs=1e-12)

    if kind == "query":  # it was not planned for either
        del clients[broken]
        alone, *_ = _run(clients)
    else:
        clients[broken] = _spoil(_client(1), _crash)
        alone, *_ = _run(clients)
    for name, value in alone.items():
        np.testing.assert_array_equal(merged[name], value)


def _unchanged(merged: dict[str, Any]) -> bool:
    return all(np.array_equal(merged[name], value) for name, value in START.items())


def test_rounds_without_an_allocation_leave_the_model_as_it_is() -> None:
    nobody = {k: _spoil(_client(k), _crash, "query") for k in range(2)}
    merged, strategy, _ = _run(nobody)
    assert _unchanged(merged)
    assert strategy.rounds[0].plan is None
    assert strategy.rounds[0].with_fate(Fate.NO_STATE) == ("node-0", "node-1")

    merged, strategy, grid = _run({k: _client(k, energy_j=1e-3) for k in range(2)})
    assert _unchanged(merged)
    assert strategy.rounds[0].plan is not None
    assert strategy.rounds[0].plan.status == "infeasible"
    assert {o.fate for o in strategy.rounds[0].outcomes} == {Fate.LEFT_OUT}
    assert all("infeasible" in o.reason for o in strategy.rounds[0].outcomes)
    assert {m.metadata.message_type for m in grid.sent} == {"query"}

    merged, strategy, _ = _run({}, join_timeout_s=0.0)
    assert _unchanged(merged)
    assert strategy.rounds[0].outcomes == ()


def test_selection_and_absence() -> None:
    """A device that cannot carry its load is left out at the penalty; one that is away is not planned for."""
    clients = {0: _client(0), 1: _client(1, energy_j=1e-3), 2: _client(2, available=False)}
    _, strategy, grid = _run(clients, planner=replace(SYSTEM, exclusion_penalty=4.0))
    reasons = {o.device: o.reason for o in strategy.rounds[0].outcomes if o.fate is Fate.LEFT_OUT}
    assert reasons == {"dev-01": "left out at the exclusion penalty", "dev-02": "not available"}
    assert [m.metadata.dst_node_id for m in grid.sent if m.metadata.message_type == "train"] == [0]
    assert strategy.rounds[0].weights == {"dev-00": 1.0}


def test_both_sides_must_draw_the_same_masks() -> None:
    """A client with another mask method would return equal-shaped slices of other rows: it notices and refuses."""
    merged, strategy, _ = _run(_nodes(2), masks="bernoulli")
    assert _unchanged(merged)
    for outcome in strategy.rounds[0].outcomes:
        assert outcome.fate is Fate.FAILED
        assert "other masks" in outcome.reason


def test_a_faulty_system_is_raised_and_not_blamed_on_devices() -> None:
    with pytest.raises(ValueError, match="bandwidth_hz"):
        _run(_nodes(2), planner=replace(SYSTEM, bandwidth_hz=-1.0))


def test_what_the_strategy_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="exact"):
        FedLoDrop(SYSTEM, aggregation=Aggregation(correction="exact"))
    menu = (AdapterOption("r=1", 800.0, 1e8, 1.4), AdapterOption("r=2", 1600.0, 2e8, 1.0))
    with pytest.raises(ValueError, match="menus"):
        _run(_nodes(2), planner=replace(SYSTEM, adapter_options=menu))


def test_payload_that_is_not_the_adapters_is_pointed_out(caplog: pytest.LogCaptureFixture) -> None:
    _run(_nodes(2))
    assert "payload" not in caplog.text
    _run(_nodes(2), planner=replace(SYSTEM, payload_lora_bits=500.0))
    assert f"payload_lora_bits = [500.0], the adapter makes it {SHAPE.payload_lora_bits}" in caplog.text


def test_frozen_a_is_not_sent() -> None:
    grid_seen: list[set[str]] = []

    def client(message: Message, context: Context) -> Message:
        if message.metadata.message_type == "query":
            return answer_state(message, "dev-00", _state(0))
        grid_seen.append(set(message.content.array_records[ADAPTER]))
        task = read_assignment(message, START, sends_a=False)
        np.testing.assert_array_equal(task.adapter["enc.q.lora_A.weight"], START["enc.q.lora_A.weight"])
        return answer_update(message, task, _trained(task.adapter, 0, 1), 100, wire_dtype="float16")

    merged, strategy, _ = _run({3: client}, sends_a=False)
    assert grid_seen == [{"enc.q.lora_B.weight", "enc.v.lora_B.weight", "head.weight"}]
    np.testing.assert_array_equal(merged["enc.q.lora_A.weight"], START["enc.q.lora_A.weight"])
    assert merged["head.weight"].shape == START["head.weight"].shape
    assert merged["head.weight"].dtype == np.float32
    assert not np.array_equal(merged["head.weight"], START["head.weight"])
    assert strategy.rounds[0].weights == {"dev-00": 1.0}


def test_an_online_allocator_rests_whom_it_waited_for_in_vain() -> None:
    clients = _nodes(3)
    clients[993] = _spoil(clients[993], _late)
    allocator = OnlineAllocator(SYSTEM, seed=3)
    _, strategy, _ = _run(
        clients, rounds=3, planner=allocator.plan, on_round=lambda r: allocator.report(r.latencies)
    )
    fates = [{o.device: (o.fate, o.reason) for o in r.outcomes}["dev-01"] for r in strategy.rounds]
    late = (Fate.LATE, "no reply in time")
    assert fates == [late, late, (Fate.LEFT_OUT, "resting")]
    assert all(set(r.weights) == {"dev-00", "dev-02"} for r in strategy.rounds)


def test_reports_survive_json() -> None:
    clients = _nodes(3)
    clients[1000] = _spoil(clients[1000], _late)
    seen: list[RoundReport] = []
    _, strategy, _ = _run(clients, rounds=2, on_round=seen.append)
    assert seen == strategy.rounds
    for report in strategy.rounds:
        text = json.dumps(report.to_dict(), allow_nan=False)
        assert RoundReport.from_dict(json.loads(text)) == report


def test_flowers_history_gets_the_figures() -> None:
    clients = _nodes(3)
    clients[1000] = _spoil(clients[1000], _nan)
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
for name in ("flower", "flower_client"):
    try:
        __import__("edgealloc." + name)
    except MissingPackageError as error:
        assert "edgealloc[flower]" in str(error)
    else:
        raise SystemExit(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_server_needs_no_torch() -> None:
    code = "import sys, edgealloc.flower.strategy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
