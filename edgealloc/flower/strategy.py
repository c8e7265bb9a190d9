"""A Flower strategy that allocates every round: its own settings and its own sub-adapter for every device.

Built on Flower's message API (flwr 1.41 or newer). A round: ask everybody for their state (QUERY), plan, send each
selected device what it gets (TRAIN), merge by mask whoever answered in time. Flower's own strategies send one
record to all and add equal shapes entry by entry, which is wrong for sub-adapters: equal shapes come from
different rows and columns.

The clients' side is in :mod:`edgealloc.flower.client`; ``docs/flower.md`` shows both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edgealloc.errors import Fault, InputError, MissingPackageError, printable, shown
from edgealloc.flower.history import Fate, Outcome, RoundReport
from edgealloc.flower.messages import (
    ROUND,
    from_arrays,
    metrics_of,
    read_state,
    read_update,
    settings_message,
    to_arrays,
    to_config,
)
from edgealloc.models.exchange.dropout import Method
from edgealloc.models.exchange.ranks import rank_of_label
from edgealloc.models.exchange.replies import (
    LARGEST_CHANGE,
    AdapterShape,
    Aggregation,
    Masks,
    Update,
    canonical_state,
    gather,
    masks_for,
    slice_adapter,
)
from edgealloc.models.exchange.wire import WireArray
from edgealloc.rounds.allocator import OnlineAllocator
from edgealloc.rounds.round import Planner, plan_valid
from edgealloc.rounds.system import DeviceState, Plan, System
from edgealloc.runs.begun.budget import RunBudget

try:
    from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Strategy
except ImportError as error:
    raise MissingPackageError("flwr", "flower", "the Flower strategy") from error

__all__ = ["Fate", "FedLoDrop", "Outcome", "Planner", "RoundReport", "from_arrays", "to_arrays"]

log = logging.getLogger(__name__)

_POLL_S = 0.2  # between two looks for nodes


class FedLoDrop(Strategy):
    """Federated LoRA with dropout under an allocation that is made anew every round.

    Parameters
    ----------
    planner
        The system, planned for by an online allocator within its 30 s a round: a device that fails or is late
        twice in a row rests, and one that says how long it took is planned with a margin. Or what makes a plan of
        states, which knows of no failures unless ``on_round`` tells it, for example ``partial(plan_round, system,
        seed=1, time_limit_s=0.1)`` or the ``plan`` of an online allocator of your own.
    aggregation
        How updates are merged. ``exact`` and ``stack`` are not possible: they change base weights, which are not
        sent. Nor is a ``robust`` rule, which needs a round without dropout.
    masks
        ``exact`` or ``bernoulli``, as the clients draw them.
    sends_a
        False where A is frozen and known to the clients (FFA-LoRA).
    min_nodes, join_timeout_s
        Wait for so many nodes at most so long, in s; then go on with those that are there.
    state_timeout_s
        How long a node may take to state how it stands, in s. The first time it includes the client's start-up.
    on_round
        Called with the report of every round, for example to tell an online allocator who was late.
    largest_change
        How far an update may move the adapter, as for :func:`edgealloc.models.exchange.replies.gather`.
    run
        Time, energy and rounds of the whole run, for the allocator of a system: each round gets its part of what
        is left, and after the last one nobody is asked to train.

    Attributes
    ----------
    rounds
        Reports of the rounds so far.

    Raises
    ------
    InputError
        For the correction ``exact``, stacked factors, a ``robust`` rule, masks of single entries, and for ``svd``
        where A is frozen.
    ValueError
        For a run beside a planner.

    Notes
    -----
    How long a node may take to train is the ``timeout`` of :meth:`start`. A late reply is never used. The planned
    deadline is not enforced here: what a device does with its bandwidth, power and frequency is up to its radio
    and its processor.
    """

    def __init__(
        self,
        planner: System | Planner,
        *,
        aggregation: Aggregation | None = None,
        masks: Method = "exact",
        sends_a: bool = True,
        min_nodes: int = 1,
        join_timeout_s: float = 60.0,
        state_timeout_s: float = 60.0,
        on_round: Callable[[RoundReport], None] | None = None,
        largest_change: float = LARGEST_CHANGE,
        run: RunBudget | None = None,
    ) -> None:
        if run is not None and not isinstance(planner, System):
            raise ValueError("run: goes with a system; give it to the OnlineAllocator whose plan is the planner")
        self._allocator = OnlineAllocator(planner, run=run) if isinstance(planner, System) else None
        self.planner: Planner = planner if self._allocator is None else self._allocator.plan  # type: ignore[assignment]
        self.aggregation = aggregation or Aggregation()
        self._require_rule(masks, sends_a)
        self.masks, self.sends_a = masks, sends_a
        self.min_nodes, self.join_timeout_s, self.state_timeout_s = min_nodes, join_timeout_s, state_timeout_s
        self.on_round, self.largest_change = on_round, largest_change
        self.rounds: list[RoundReport] = []
        self._names: dict[int, str] = {}  # of nodes that have said theirs
        self._state: dict[str, WireArray] = {}
        self._plan: Plan | None = None
        self._asked: dict[int, Masks] = {}  # node: masks of what it was sent
        self._outcomes: dict[int, Outcome] = {}  # node: its fate, where it is known already

    def _require_rule(self, masks: Method, sends_a: bool) -> None:
        """Make sure that every round can be merged as it was asked for, before the first one begins.

        Raises
        ------
        InputError
            Names every option that does not go with plans, or with another option.
        """
        rule, faults = self.aggregation, self.aggregation.misfits(sends_a=sends_a, masks="exact")
        unsent = "which leaves base weights as they are, for they are not sent"
        for field, word in (("correction", "exact"), ("merge", "stack")):
            if getattr(rule, field) == word:
                faults.append(Fault("options", field, word, f"one {unsent}"))
        if rule.robust != "none":
            allowed = "none: it looks at rounds without dropout, and plans have some"
            faults.append(Fault("options", "robust", rule.robust, allowed))
        if masks not in ("exact", "bernoulli"):
            allowed = "exact or bernoulli (entries are drawn once for all rounds, plans draw anew)"
            faults.append(Fault("options", "masks", shown(masks), allowed))
        if faults:
            raise InputError("strategy", faults)

    # The strategy as Flower calls it.

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for states, plan, and return one message per selected device.

        Parameters
        ----------
        server_round
            Flower's number of the round, from 1.
        arrays
            The adapter as it is.
        config
            What goes to every device beside its own settings.
        grid
            Flower's way to the nodes.

        Returns
        -------
        list of flwr.app.Message
            TRAIN messages; empty where nobody is selected.

        Raises
        ------
        ValueError
            When the plan chose a row of an adapter menu that is not a LoRA rank (``r=8``), or one above that of
            the adapter.
        InputError
            For a fault of the system itself; devices whose state is not valid are left out.
        """
        self._state = canonical_state(from_arrays(arrays))
        self._asked, self._outcomes, self._plan = {}, {}, None
        nodes = self._wait_for_nodes(grid)
        states = self._ask_for_states(server_round, nodes, grid)
        node_of = {self._names[node]: node for node in states}
        plan, refused = plan_valid(
            self.planner, {self._names[n]: s for n, s in states.items()}, round_number=server_round
        )
        for name, why in refused.items():
            self._note(node_of[name], Fate.NO_STATE, why)
        self._plan = plan
        if plan is None:
            return []
        shape = AdapterShape.from_state(self._state, sends_a=self.sends_a)
        messages = []
        for name, node in node_of.items():
            if node in self._outcomes:
                continue  # its state was not valid
            settings = plan.for_device(name)
            if not settings["selected"]:
                self._note(node, Fate.LEFT_OUT, settings["reason"])
                continue
            rank = rank_of_label(settings["adapter_option"]) if "adapter_option" in settings else None
            if rank is not None and rank > shape.rank:
                raise ValueError(f"{name} was given rank {rank}, above {shape.rank}, that of the server's adapter")
            masks = masks_for(shape, settings["keep"], settings["mask_seed"], self.masks, rank)
            self._asked[node] = masks
            slices = slice_adapter(self._state, masks, sends_a=self.sends_a)
            messages.append(settings_message(server_round, node, {**config, **settings}, masks, slices))
        self._warn_of_payload(shape, plan)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Merge by mask whoever answered; with nobody, return the adapter as it was.

        Parameters
        ----------
        server_round
            Flower's number of the round.
        replies
            What came back in time.

        Returns
        -------
        tuple of ArrayRecord and MetricRecord
            The merged adapter, and how many devices left the round in which way, their mean loss and the plan's
            bounds.
        """
        updates: dict[str, Update] = {}
        metrics: dict[str, dict[str, float]] = {}
        for reply in replies:
            node = reply.metadata.src_node_id
            if node not in self._asked or node in self._outcomes:
                log.warning("round %d: node %d sent what it was not asked for; ignored", server_round, node)
                continue
            if reply.has_error():
                self._note(node, Fate.FAILED, reply.error.reason or f"error code {reply.error.code}")
                continue
            if self._names[node] in updates:
                log.warning("round %d: node %d sent a second update; ignored", server_round, node)
                continue
            try:
                updates[self._names[node]], metrics[self._names[node]] = read_update(reply, self._asked[node])
            except ValueError as error:
                self._note(node, Fate.REJECTED, str(error))
        gathered = gather(
            self._state,
            updates,
            self.aggregation,
            sends_a=self.sends_a,
            samples=None if self._plan is None else self._plan.samples,
            masks={self._names[node]: masks for node, masks in self._asked.items()},
            largest_change=self.largest_change,
        )
        for node in self._asked:
            name = self._names[node]
            if name in gathered.rejected:
                self._note(node, Fate.REJECTED, gathered.rejected[name])
            elif name in gathered.weights:
                weight, note = gathered.weights[name], gathered.noted.get(name, "")
                self._outcomes[node] = Outcome(name, node, Fate.ANSWERED, "", weight, metrics[name], note)
                if note:
                    log.warning("%s: %s", name, note)
            elif node not in self._outcomes:
                self._note(node, Fate.LATE, "no reply in time")
        report = RoundReport(
            server_round, self._plan, tuple(sorted(self._outcomes.values(), key=lambda o: (o.device, o.node)))
        )
        self.rounds.append(report)
        if self._allocator is not None:
            self._allocator.report(report.latencies, round_number=report.number)
        if self.on_round is not None:
            self.on_round(report)
        return to_arrays(gathered.state), _summary(report)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: the server evaluates (``evaluate_fn`` of :meth:`start`); devices save their energy.

        Parameters
        ----------
        server_round, arrays, config, grid
            As for :meth:`configure_train`; not used.

        Returns
        -------
        list
            Always empty.
        """
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing.

        Parameters
        ----------
        server_round, replies
            As for :meth:`aggregate_train`; not used.
        """
        return None

    def summary(self) -> None:
        """Log how the strategy is set up."""
        log.info("FedLoDrop: %s masks, %s, planner %s", self.masks, self.aggregation, self.planner)

    # The steps of a round.

    def _note(self, node: int, fate: Fate, reason: str) -> None:
        name = self._names.get(node, f"node-{node}")
        outcome = self._outcomes[node] = Outcome(name, node, fate, printable(reason, lines=True))
        level = logging.INFO if fate is Fate.LEFT_OUT else logging.WARNING
        log.log(level, "%s: %s: %s", outcome.device, fate.value, outcome.brief)

    def _wait_for_nodes(self, grid: Grid) -> list[int]:
        end = time.monotonic() + self.join_timeout_s
        while len(nodes := sorted(grid.get_node_ids())) < self.min_nodes and time.monotonic() < end:
            time.sleep(_POLL_S)
        return nodes

    def _ask_for_states(self, server_round: int, nodes: list[int], grid: Grid) -> dict[int, DeviceState]:
        """States by node, of those who answered properly; the others' fate is noted. Sorted by device name."""
        question = [
            Message(
                RecordDict({"config": to_config({ROUND: server_round})}),
                dst_node_id=node,
                message_type=MessageType.QUERY,
            )
            for node in nodes
        ]
        found: dict[int, DeviceState] = {}
        owner = {self._names[node]: node for node in nodes if node in self._names}  # a name stays with its node
        answers = list(grid.send_and_receive(question, timeout=self.state_timeout_s)) if question else []
        for reply in sorted(answers, key=lambda r: r.metadata.src_node_id):
            node = reply.metadata.src_node_id
            if reply.has_error():
                self._note(node, Fate.NO_STATE, reply.error.reason or f"error code {reply.error.code}")
                continue
            try:
                name, state = read_state(reply)
            except ValueError as error:
                self._note(node, Fate.NO_STATE, str(error))
                continue
            if self._names.get(node, name) != name:
                self._note(node, Fate.NO_STATE, f"it calls itself {name!r} now")
                continue
            if owner.setdefault(name, node) != node:
                self._note(node, Fate.NO_STATE, f"node {owner[name]} is called {name!r} too")
                continue
            found[node], self._names[node] = state, name
        for node in nodes:
            if node not in found and node not in self._outcomes:
                self._note(node, Fate.NO_STATE, "no state in time")
        return dict(sorted(found.items(), key=lambda item: self._names[item[0]]))

    def _warn_of_payload(self, shape: AdapterShape, plan: Plan) -> None:
        """Say once if the plan counts on other uploads than the adapter makes."""
        if self.rounds or plan.result is None or plan.result.problem.instance.adapter_options is not None:
            return
        instance = plan.result.problem.instance
        for key in ("payload_lora_bits", "payload_fixed_bits"):
            planned, real = np.unique(getattr(instance, key)), getattr(shape, key)
            if not np.allclose(planned, real):
                log.warning("the plan counts on %s = %s, the adapter makes it %s", key, planned.tolist(), real)


def _summary(report: RoundReport) -> MetricRecord:
    """Figures of a round for Flower's own history."""
    values: dict[str, Any] = {fate.value: len(report.with_fate(fate)) for fate in Fate}
    losses = [(o.weight, o.metrics["loss"]) for o in report.outcomes if o.metrics and "loss" in o.metrics]
    if losses:
        values["loss"] = sum(weight * loss for weight, loss in losses) / sum(weight for weight, _ in losses)
    if report.plan is not None:
        values |= {key: getattr(report.plan, key) for key in ("objective", "lower_bound", "seconds")}
    return metrics_of(values)
