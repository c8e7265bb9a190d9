"""What became of every device in every round: nothing that fails is lost. Needs no framework.

How it is used is in docs/flower.md, section *The server*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from edgealloc.rounds.system import Plan

# How Flower reports what a client raised, at the end of a trace and in the signs of a repr.
_CLIENT_ERROR = re.compile(r"Exception \w+ occurred\. Message: (.+?)(?:['\"]?>)?\s*$", re.MULTILINE)


class Fate(StrEnum):
    """How a device left a round."""

    ANSWERED = "answered"  # its update counts
    LEFT_OUT = "left_out"  # not available, or not selected, or nobody could be
    NO_STATE = "no_state"  # did not say in time, or not properly, how it stands
    FAILED = "failed"  # an error came back in place of an update
    LATE = "late"  # nothing came back in time
    REJECTED = "rejected"  # an update came back that cannot be used


@dataclass(frozen=True, slots=True)
class Outcome:
    """One device in one round.

    Parameters
    ----------
    device
        Its name; ``node-<id>`` for a node that has never said its name.
    node
        Flower's id of it.
    fate
        How it left the round.
    reason
        Why it did not answer or was not used; empty where it was.
    weight
        Its share in the merged adapter; 0 unless it answered.
    metrics
        What it reported with its update, for example its loss.
    note
        What of its update was not believed although it was used: another number of samples than the plan has.
    """

    device: str
    node: int
    fate: Fate
    reason: str = ""
    weight: float = 0.0
    metrics: Mapping[str, float] | None = None
    note: str = ""

    @property
    def brief(self) -> str:
        """The reason in a line: of a trace from a client's process, what the client's own error said."""
        said = _CLIENT_ERROR.findall(self.reason)
        return said[-1].strip() if said else self.reason.strip().rpartition("\n")[2]


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round: its plan, and what became of everybody.

    Parameters
    ----------
    number
        Flower's number of the round, from 1.
    plan
        The plan; None if no device said how it stands.
    outcomes
        Everybody's fate.
    """

    number: int
    plan: Plan | None
    outcomes: tuple[Outcome, ...]

    @property
    def weights(self) -> dict[str, float]:
        """Weights of those who answered, by device; they sum to one, or nobody answered."""
        return {o.device: o.weight for o in self.outcomes if o.fate is Fate.ANSWERED}

    @property
    def latencies(self) -> dict[str, float | None]:
        """Latencies for :meth:`~edgealloc.rounds.allocator.OnlineAllocator.report`.

        None for those who trained in vain or not at all.

        A client that measures its own latency says so in a metric ``latency_s``; without, or with a negative one,
        it counts as in time.
        """
        lost = {Fate.FAILED, Fate.LATE, Fate.REJECTED}
        found: dict[str, float | None] = {o.device: None for o in self.outcomes if o.fate in lost}
        for o in self.outcomes:
            if o.metrics is not None and o.metrics.get("latency_s", -1.0) >= 0.0:
                found[o.device] = o.metrics["latency_s"]
        return found

    def with_fate(self, fate: Fate) -> tuple[str, ...]:
        """Names of the devices that left the round in this way.

        Parameters
        ----------
        fate
            The way to ask for.

        Returns
        -------
        tuple of str
            Names of the devices, in the order of ``outcomes``.
        """
        return tuple(o.device for o in self.outcomes if o.fate is fate)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "number": self.number,
            "plan": None if self.plan is None else json.loads(self.plan.to_json()),
            "outcomes": [asdict(outcome) | {"fate": outcome.fate.value} for outcome in self.outcomes],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RoundReport:
        """Read what :meth:`to_dict` wrote.

        Parameters
        ----------
        data
            What it gave, or its like from JSON.

        Returns
        -------
        RoundReport
            The report, its plan without the ``result``.
        """
        plan = None if data["plan"] is None else Plan.from_json(json.dumps(data["plan"]))
        rows = tuple(Outcome(**(row | {"fate": Fate(row["fate"])})) for row in data["outcomes"])
        return cls(data["number"], plan, rows)
