"""Clients that lie on purpose: whatever one of them sends, the others' round is what it would be without it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Context, Message, MetricRecord

from edgealloc.flower.messages import ADAPTER, METRICS, SETTINGS, STATE, from_arrays, mask_digest, to_arrays
from edgealloc.flower.strategy import Fate, FedLoDrop
from edgealloc.models.exchange.replies import full_masks, slice_adapter
from edgealloc.rounds.allocator import OnlineAllocator
from tests.flower.clients import SHAPE, START, SYSTEM, client_of, nodes, run_rounds, spoilt
from tests.flower.grid import Client, LocalGrid
from tests.flower.test_broken_clients import reply_crash

LIAR = 1000 - 7 * 1  # the node of dev-01


def tensor(change: Callable[[Any], Any], name: str = "head.weight") -> Callable[[Message], None]:
    def spoil(reply: Message) -> None:
        arrays = from_arrays(reply.content.array_records[ADAPTER])
        reply.content[ADAPTER] = to_arrays({**arrays, name: change(arrays[name])})

    return spoil


def raw(data: bytes, kind: str = "numpy.ndarray") -> Callable[[Message], None]:
    def spoil(reply: Message) -> None:
        reply.content.array_records[ADAPTER]["head.weight"] = Array("float32", (3, 12), kind, data)

    return spoil


def metric(**values: Any) -> Callable[[Message], None]:
    def spoil(reply: Message) -> None:
        reply.content[METRICS] = MetricRecord({**reply.content.metric_records[METRICS], **values})

    return spoil


def said(**values: Any) -> Callable[[Message], None]:
    def spoil(reply: Message) -> None:
        reply.content[STATE] = ConfigRecord({**reply.content.config_records[STATE], **values})

    return spoil


def everything(reply: Message) -> None:
    """Rows and columns that it was not sent, with the digest of masks that keep them."""
    reply.content[ADAPTER] = to_arrays(slice_adapter(START, full_masks(SHAPE)))
    reply.content[SETTINGS] = ConfigRecord({"mask_digest": mask_digest(full_masks(SHAPE))})


def archive() -> bytes:
    """What numpy reads as something else than an array."""
    out = BytesIO()
    np.savez(out, x=np.ones((3, 12)))
    return out.getvalue()


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + b"\n"
REPLIES: dict[str, tuple[Callable[[Message], None], str]] = {
    "1e300": (tensor(lambda a: np.full(a.shape, 1e300)), "not finite in float32"),
    "1e30": (tensor(lambda a: a + np.float32(1e30)), "changes the adapter by"),
    "complex": (tensor(lambda a: a + 1j), "type 'complex"),
    "text": (tensor(lambda a: a.astype(str)), "type '<U"),
    "booleans": (tensor(lambda a: a > 0), "type 'bool'"),
    "integers": (tensor(lambda a: a.astype(np.int32)), "type 'int32'"),
    "one number": (tensor(lambda a: np.float32(1) * np.ones((), np.float32)), "shape"),
    "flat": (tensor(lambda a: a.ravel()), "shape"),
    "another name": (lambda r: r.content[ADAPTER].__setitem__("x", Array(np.ones(2))), r"not known: \['x'\]"),
    "no array": (raw(b""), "cannot be read"),
    "pickled": (raw(b"\x80\x04cos\nsystem\n(S'true'\ntR."), "cannot be read"),
    "an archive": (raw(archive()), "shape"),
    "a header of 4 TB": (raw(b"\x93NUMPY\x01\x00v\x00" + HEADER), "cannot be read"),
    "of another kind": (raw(b"x", "torch.tensor"), "cannot be read"),
    "all of it": (everything, "other masks"),
    "samples nan": (metric(**{"num-examples": float("nan")}), "samples is nan"),
    "samples negative": (metric(**{"num-examples": -3}), "samples is -3"),
    "samples listed": (metric(**{"num-examples": [1, 2]}), "samples is "),
}


@pytest.mark.parametrize("attack", REPLIES)
def test_a_lying_update_is_rejected_by_name(attack: str) -> None:
    spoil, reason = REPLIES[attack]
    clients = nodes(3)
    clients[LIAR] = spoilt(clients[LIAR], spoil)
    merged, strategy, _ = run_rounds(clients)
    (outcome,) = [o for o in strategy.rounds[0].outcomes if o.node == LIAR]
    assert outcome.fate is Fate.REJECTED
    assert re.search(reason, outcome.reason), outcome.reason
    clients[LIAR] = spoilt(client_of(1), reply_crash)
    alone, *_ = run_rounds(clients)
    for name, value in alone.items():
        np.testing.assert_array_equal(merged[name], value)


@pytest.mark.parametrize("claim", [1e308, 1, 10**9])
def test_a_claim_of_samples_changes_nothing_and_is_noted(claim: float) -> None:
    """Weights are those of the plan, which the device stated before it knew what for."""
    clients = nodes(3)
    honest, before, _ = run_rounds(clients)
    clients[LIAR] = spoilt(clients[LIAR], metric(**{"num-examples": claim}))
    merged, strategy, _ = run_rounds(clients)
    for name, value in honest.items():
        np.testing.assert_array_equal(merged[name], value)
    assert strategy.rounds[0].weights == before.rounds[0].weights
    notes = {o.device: o.note for o in strategy.rounds[0].outcomes}
    assert "counted with the plan's 110" in notes.pop("dev-01")
    assert set(notes.values()) == {""}


STATES: dict[str, tuple[Callable[[Message], None], str]] = {
    "1e100 samples": (said(samples=1e100), "dev-01: samples"),
    "gain 2": (said(gain=2.0), "dev-01: gain"),
    "gains": (said(gain=[1e-14, 1e-14]), "dev-01: gain"),
    "no gains": (said(gain=[]), "dev-01: gain"),
    "text": (said(energy_j="3.0"), "dev-01: energy_j"),
    "bytes": (said(power_max_w=b"0.1"), "dev-01: power_max_w"),
    "true": (said(freq_max_hz=True), "dev-01: freq_max_hz"),
    "inf": (said(cycles_fixed=float("inf")), "dev-01: cycles_fixed"),
    "unknown field": (said(gian=1.0), "gian"),
    "not available, or is it": (said(available="no"), "dev-01: available"),
    "no name": (said(device=""), "names no device"),
    "a name of numbers": (said(device=[1, 2]), "names no device"),
    "a name that writes": (said(device="\x1b[2Jdev-01\n"), "names no device"),
    "a name without end": (said(device="x" * 10**5), "names no device"),
}


@pytest.mark.parametrize("selection", [None, 4.0])
@pytest.mark.parametrize("attack", STATES)
def test_a_lying_state_is_left_out_by_name(attack: str, selection: float | None) -> None:
    spoil, reason = STATES[attack]
    clients = nodes(3)
    clients[LIAR] = spoilt(clients[LIAR], spoil, "query")
    merged, strategy, _ = run_rounds(clients, planner=replace(SYSTEM, exclusion_penalty=selection))
    (outcome,) = [o for o in strategy.rounds[0].outcomes if o.node == LIAR]
    assert outcome.fate is Fate.NO_STATE
    assert reason in outcome.reason
    assert outcome.device.isprintable()
    assert len(outcome.reason) < 400
    del clients[LIAR]
    alone, *_ = run_rounds(clients, planner=replace(SYSTEM, exclusion_penalty=selection))
    for name, value in alone.items():
        np.testing.assert_array_equal(merged[name], value)


def test_a_name_stays_with_its_node() -> None:
    """A node that takes another's name in a later round, or changes its own, is not heard; the other one is."""

    def thief(message: Message, context: Context) -> Message:
        reply = client_of(5)(message, context)
        if message.metadata.message_type == "query" and len(strategy.rounds) > 0:
            said(device="dev-00" if len(strategy.rounds) == 1 else "dev-77")(reply)
        return reply

    clients: dict[int, Client] = {1: thief, 7: client_of(0), 9: client_of(1)}  # the lowest node
    strategy = FedLoDrop(SYSTEM)
    strategy.start(LocalGrid(clients), to_arrays(START), num_rounds=3, timeout=1.0)
    assert strategy.rounds[0].with_fate(Fate.ANSWERED) == ("dev-00", "dev-01", "dev-05")
    for report in strategy.rounds[1:]:
        assert report.with_fate(Fate.ANSWERED) == ("dev-00", "dev-01")
        assert {o.node for o in report.outcomes if o.fate is Fate.NO_STATE} == {1}


def test_a_second_update_is_not_counted() -> None:
    class Twice(LocalGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
            replies = super().send_and_receive(messages, timeout=timeout)
            if replies and ADAPTER in replies[0].content.array_records:
                again = self.clients[LIAR](
                    next(m for m in self.sent[::-1] if m.metadata.dst_node_id == LIAR), None
                )
                tensor(lambda a: a + 1.0)(again)
                replies.append(again)
            return replies

    merged, *_ = run_rounds(nodes(3))
    result = FedLoDrop(SYSTEM).start(Twice(nodes(3)), to_arrays(START), num_rounds=1, timeout=1.0)
    for name, value in from_arrays(result.arrays).items():
        np.testing.assert_array_equal(value, merged[name])


@pytest.mark.parametrize("lie", [float("nan"), float("inf"), -1.0, -(10**15)])
def test_metrics_that_are_none_reach_nobody(lie: float) -> None:
    """Neither the history, which stays JSON, nor an allocator that learns latencies."""
    clients = nodes(3)
    clients[LIAR] = spoilt(clients[LIAR], metric(latency_s=lie, loss=float("nan")))
    allocator = OnlineAllocator(SYSTEM)
    _, strategy, _ = run_rounds(
        clients,
        rounds=2,
        planner=allocator.plan,
        on_round=lambda r: allocator.report(r.latencies, round_number=r.number),
    )
    for report in strategy.rounds:
        assert set(report.with_fate(Fate.ANSWERED)) == {"dev-00", "dev-01", "dev-02"}
        json.dumps(report.to_dict(), allow_nan=False)
        assert report.latencies == {}
