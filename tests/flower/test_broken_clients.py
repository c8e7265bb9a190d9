"""Broken clients never poison a round."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from edgealloc.flower.messages import ADAPTER, METRICS, from_arrays, to_arrays
from edgealloc.flower.strategy import Fate, FedLoDrop
from edgealloc.rounds.round import plan_round
from tests.flower.clients import START, SYSTEM, client_of, nodes, run_rounds, spoilt
from tests.flower.grid import Client, Late, LocalGrid


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

        return spoilt(client_of(k), spoil)

    strategy = FedLoDrop(partial(plan_round, replace(SYSTEM, bandwidth_hz=120.0)))  # nobody rests
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


def reply_nan(reply: Message) -> None:
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


def reply_crash(reply: Message) -> None:
    raise RuntimeError("out of memory")


def reply_late(reply: Message) -> None:
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
        ("train", reply_nan, Fate.REJECTED, "enc.v.lora_A.weight: 1 of .* not finite"),
        ("train", _short, Fate.REJECTED, "enc.v.lora_A.weight: shape"),
        ("train", _nameless, Fate.REJECTED, "tensors missing"),
        ("train", _bytes, Fate.REJECTED, "cannot be read"),
        ("train", _other_masks, Fate.REJECTED, "other masks"),
        ("train", _no_metrics, Fate.REJECTED, "no record 'metrics'"),
        ("train", _no_samples, Fate.REJECTED, "samples"),
        ("train", _cleared, Fate.REJECTED, "no record 'adapter'"),
        ("train", reply_crash, Fate.FAILED, "out of memory"),
        ("train", reply_late, Fate.LATE, "no reply in time"),
        ("query", reply_crash, Fate.NO_STATE, "out of memory"),
        ("query", reply_late, Fate.NO_STATE, "no state in time"),
        ("query", _nan_gain, Fate.NO_STATE, "gain"),
        ("query", _no_gain, Fate.NO_STATE, "gain"),
        ("query", _taken_name, Fate.NO_STATE, "'dev-00' too"),
        ("query", _cleared, Fate.NO_STATE, "no record 'state'"),
    ],
)
def test_one_broken_client_never_poisons_a_round(kind: str, spoil: Any, fate: Fate, reason: str) -> None:
    """The round without the broken client is, bit for bit, the round in which the others answered."""
    clients = nodes(3)
    broken = 1000 - 7 * 1  # dev-01; sorted by node id it comes after dev-02 and before dev-00
    clients[broken] = spoilt(clients[broken], spoil, kind)
    if spoil is _taken_name:  # the lower node id keeps the name
        clients = {(5000 if node == broken else node): client for node, client in clients.items()}
        broken = 5000
    merged, strategy, _ = run_rounds(clients)
    report = strategy.rounds[0]
    (outcome,) = [o for o in report.outcomes if o.node == broken]
    assert outcome.fate is fate
    assert re.search(reason, outcome.reason), outcome.reason
    assert set(report.with_fate(Fate.ANSWERED)) == {"dev-00", "dev-02"}
    assert sum(report.weights.values()) == pytest.approx(1.0, abs=1e-12)

    if kind == "query":  # it was not planned for either
        del clients[broken]
        alone, *_ = run_rounds(clients)
    else:
        clients[broken] = spoilt(client_of(1), reply_crash)
        alone, *_ = run_rounds(clients)
    for name, value in alone.items():
        np.testing.assert_array_equal(merged[name], value)
