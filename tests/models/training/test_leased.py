"""Experts for kinds of devices: kinds are found, one kind is the ordinary run, the own expert always counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

import torch

from edgealloc.errors import InputError
from edgealloc.models.exchange.aggregation import Aggregation
from edgealloc.models.exchange.wire import AdapterShape, a_name, b_name
from edgealloc.models.training.backbone import AdapterHandle
from edgealloc.models.training.cache import Feed
from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.examples import Examples
from edgealloc.models.training.experts.lease import LeaseOptions, run_experts
from edgealloc.models.training.experts.router import Router, drawn_router, router_name, slot_weights
from edgealloc.models.training.federated import Ending, run
from edgealloc.models.training.task import Task

MakeTask = Callable[..., Task]
OPTIONS = FederatedOptions(rounds=2, local_epochs=1, batch_size=8, learning_rate=1e-2)
WARM = LeaseOptions(warmup_rounds=1)


@pytest.fixture
def two_kinds(make_model: Callable[..., object], token_examples: Callable[..., Examples]) -> MakeTask:
    """Return a maker of a task of four devices, of which two see the one class only and two the other."""

    def make(fast: bool = True) -> Task:
        device = np.arange(120) % 4
        examples = token_examples(120).with_labels(device // 2)
        shares = tuple(np.flatnonzero((device == k) & (np.arange(120) < 64)) for k in range(4))
        handle = AdapterHandle.of(make_model("bert"))
        feed = Feed(handle, examples, fast=fast)
        return Task(handle, feed, shares, np.arange(64, 92), np.arange(92, 120), handle.read())

    return make


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


def test_one_cluster_without_warm_up_is_the_ordinary_run(make_task: MakeTask) -> None:
    task = make_task()
    for router in (False, True):
        leased = run_experts(task, 0.5, OPTIONS, LeaseOptions(warmup_rounds=0, router=router))
        plain = run(task, 0.5, OPTIONS)
        assert leased.labels.tolist() == [0, 0, 0]
        assert leased.histories[0].rounds == plain.rounds
        assert leased.histories[0].test == plain.test
        _same(leased.histories[0].state, plain.state)
        assert leased.summary()["upload_bits"] == plain.summary()["upload_bits"]


def test_one_cluster_goes_on_from_the_mean_of_the_warm_up(make_task: MakeTask) -> None:
    task = make_task()
    leased = run_experts(task, [0.5, 1.0, 0.25], OPTIONS, replace(WARM, clusters=1))
    weights = np.array([len(share) for share in task.devices]) / sum(len(share) for share in task.devices)
    learned = list(zip(weights, leased.warmed.states, strict=True))
    start = {name: sum(w * s[name].astype(float) for w, s in learned).astype("f4") for name in task.initial}
    assert any(np.any(start[name] != value) for name, value in task.initial.items())
    plain = run(replace(task, initial=start), [0.5, 1.0, 0.25], OPTIONS)
    _same(leased.histories[0].state, plain.state)
    uniform = replace(OPTIONS, aggregation=Aggregation(weighting="uniform"))
    other = run_experts(task, [0.5, 1.0, 0.25], uniform, replace(WARM, clusters=1))
    assert any(np.any(other.histories[0].state[n] != v) for n, v in leased.histories[0].state.items())


def test_kinds_of_devices_are_found_and_merged_for_themselves(two_kinds: MakeTask) -> None:
    task = two_kinds()
    leased = run_experts(task, 0.5, OPTIONS, replace(WARM, router=False))
    assert leased.labels.tolist() == [0, 0, 1, 1]
    assert leased.dendrogram.silhouette(2) > 0.25
    # a cluster is a federation of its own: the second alone, from its start and with its seed, is the same
    again = run_experts(task, 0.5, OPTIONS, replace(WARM, router=False, clusters=2))
    for one, other in zip(leased.histories, again.histories, strict=True):
        _same(one.state, other.state)
    first = replace(task, devices=task.devices[:2])
    alone = run_experts(first, 0.5, OPTIONS, replace(WARM, router=False, clusters=1))
    _same(alone.histories[0].state, leased.histories[0].state)
    shape = AdapterShape.from_state(task.initial)
    assert leased.warmed.upload_bits == (shape.payload_bits(1.0),) * 4
    assert leased.warmed.unsettled == ()
    for history in leased.histories:
        assert [record["upload_bits"] for record in history.rounds] == [[shape.payload_bits(0.5)] * 2] * 2
    sent = leased.summary()
    assert sent["upload_bits"] == 4 * shape.payload_bits(1.0) + 2 * 4 * shape.payload_bits(0.5)
    assert sent["clusters"] == 2


def test_bits_with_a_router_are_the_payload_model(two_kinds: MakeTask) -> None:
    task, keep = two_kinds(), np.array([0.5, 1.0, 0.5, 0.25])
    leased = run_experts(task, keep, OPTIONS, WARM, fetched=[1, 2, 2, 9])
    shape = AdapterShape.from_state(task.initial)
    router = 32 * sum((2 * 2 - 1) * u.n_in for u in shape.layers)
    for e, history in enumerate(leased.histories):
        own = np.flatnonzero(leased.labels == e)
        for record in history.rounds:
            d0, d1 = shape.payload_fixed_bits, shape.payload_lora_bits
            assert record["upload_bits"] == [d0 + router + d1 * s for s in keep[own]]
            others = [0, 1, 1, 1]  # of two clusters there is one to fetch
            fetched = [d0 + router + d1 * keep[k] + others[k] * d1 for k in own]
            assert record["download_bits"] == fetched
        assert AdapterShape.from_state(history.state).payload_fixed_bits == shape.payload_fixed_bits + router


def test_router_and_own_expert_learn_and_the_model_is_left_as_it_was(two_kinds: MakeTask) -> None:
    task = two_kinds()
    before = {name: p.detach().clone() for name, p in task.handle.model.named_parameters() if not p.requires_grad}
    records: list[dict[str, object]] = []
    leased = run_experts(task, 0.5, OPTIONS, WARM, progress=records.append)
    assert [record["cluster"] for record in records] == [0, 1, 0, 1]
    for e, history in enumerate(leased.histories):
        assert history.ending is Ending.COMPLETED
        assert np.isfinite(history.best_test.loss)
        start = drawn_router(task.handle, 2, e, OPTIONS.seed)
        assert all(np.any(history.state[name] != value) for name, value in start.items())
    for name, p in task.handle.model.named_parameters():
        if name in before:
            assert torch.equal(p, before[name])
    again = run_experts(task, 0.5, OPTIONS, WARM)
    for one, other in zip(leased.histories, again.histories, strict=True):
        _same(one.state, other.state)
    # who fetches its own expert only has nothing to route: its router stays, its expert is that of no router
    alone = run_experts(task, 0.5, OPTIONS, WARM, fetched=1)
    plain = run_experts(task, 0.5, OPTIONS, replace(WARM, router=False))
    for e, (one, other) in enumerate(zip(alone.histories, plain.histories, strict=True)):
        _same(one.state, {**other.state, **drawn_router(task.handle, 2, e, OPTIONS.seed)})


def test_each_cluster_is_scored_on_what_its_devices_hold(two_kinds: MakeTask) -> None:
    task = two_kinds()
    held = [tuple(part[part % 4 // 2 == k // 2] for part in (task.validation, task.test)) for k in range(4)]
    leased = run_experts(task, 1.0, OPTIONS, WARM, held=held)  # type: ignore[arg-type]
    common = run_experts(task, 1.0, OPTIONS, replace(WARM, clusters=1))
    assert leased.summary()["test_loss"] < common.summary()["test_loss"]  # one mean knows neither class


@pytest.mark.parametrize("clusters", [2, 3, 5])
def test_the_own_expert_counts_for_every_input(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    for size in (0.0, 1.0, 1e3, 1e30):
        logits = torch.from_numpy((size * rng.standard_normal((400, 2 * clusters - 1))).astype("f4"))
        logits[0, :clusters] = -size  # the worst: all others are ahead
        logits[0, clusters:] = size
        for closed in (None, torch.from_numpy(rng.random(clusters - 1) < 0.5)):
            own, others = slot_weights(logits, clusters, closed)
            assert bool((own > 0.0).all())
            torch.testing.assert_close(own + others.sum(-1), torch.ones(400))
            if closed is not None:
                assert not others[:, closed].any()
            if size == 1.0 and closed is None:
                assert bool((own < 1.0).any())


def test_a_routed_layer_is_the_weighed_sum_of_experts(make_task: MakeTask) -> None:
    rng = np.random.default_rng(1)
    for kind in ("bert", "gpt2"):
        task = make_task(kind)
        router = Router(task.handle, 3)
        states = [
            {n: (0.3 * rng.standard_normal(v.shape)).astype("f4") for n, v in router.handle.read().items()}
            for _ in range(3)
        ]
        router.handle.write(states[0])
        router.stand(states[1:])
        name, layer = next(iter(task.handle.layers.items()))
        x = torch.from_numpy(rng.standard_normal((4, 5, layer.lora_A["default"].in_features)).astype("f4"))
        with torch.no_grad(), router.installed():
            got = layer(x)
        with torch.no_grad():
            plain = layer.get_base_layer()(x)
            own, others = slot_weights(x @ torch.from_numpy(states[0][router_name(name)]).T, 3)
            weight = torch.cat((own[..., None], others), dim=-1)
            for j, state in enumerate(states):
                a, b = (torch.from_numpy(state[n(name)]) for n in (a_name, b_name))
                plain = plain + weight[..., j, None] * layer.scaling["default"] * (x @ a.T @ b.T)
        torch.testing.assert_close(got, plain, atol=1e-5, rtol=1e-5)


def test_the_shortcuts_hold_with_a_router(two_kinds: MakeTask) -> None:
    fast = run_experts(two_kinds(), 0.5, OPTIONS, replace(WARM, clusters=2))
    slow = run_experts(two_kinds(fast=False), 0.5, OPTIONS, replace(WARM, clusters=2))
    for one, other in zip(fast.histories, slow.histories, strict=True):
        assert one.test.loss == pytest.approx(other.test.loss, rel=1e-3)


def test_devices_and_runs_that_go_out_of_bounds_are_named(make_task: MakeTask) -> None:
    wild = replace(OPTIONS, learning_rate=1e8)
    leased = run_experts(make_task(), 0.5, wild, WARM)
    assert leased.warmed.unsettled == (0, 1, 2)
    assert leased.summary()["ending"] == "diverged"
    routed = run_experts(make_task(), 0.5, wild, replace(WARM, clusters=2))
    for history in routed.histories:
        assert history.ending is Ending.DIVERGED
        assert "round 1" in history.reason
        assert np.isnan(history.test.loss)


def test_what_does_not_go_together_is_named(make_task: MakeTask) -> None:
    task = make_task()
    options = FederatedOptions(scaling="inverted", patience=2, aggregation=Aggregation(correction="exact"))
    with pytest.raises(InputError) as caught:
        run_experts(task, 1.0, options)
    for words in ("scaling = inverted", "patience = 2", "correction = exact"):
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="5 clusters of 3 devices"):
        run_experts(task, 1.0, OPTIONS, LeaseOptions(clusters=5))
    with pytest.raises(ValueError, match="at least its own"):
        run_experts(task, 1.0, OPTIONS, fetched=0)
    with pytest.raises(ValueError, match="keep rates"):
        run_experts(task, 0.0, OPTIONS)
    with pytest.raises(ValueError, match="2 entries, there are 3 devices"):
        run_experts(task, 1.0, OPTIONS, held=[(task.validation, task.test)] * 2)
    for way, words in (({"robust": "clair"}, "robust = clair"), ({"merge": "stack"}, "merge = stack")):
        with pytest.raises(InputError, match=words):
            run_experts(task, 1.0, replace(OPTIONS, aggregation=Aggregation(**way)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="router = 'yes'"):
        LeaseOptions(router="yes")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="most"):
        LeaseOptions(most=0)
