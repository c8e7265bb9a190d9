"""Allocation and masks inside Flower.

The names below are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgealloc.face import face

if TYPE_CHECKING:
    from edgealloc.flower.client import Assignment as Assignment
    from edgealloc.flower.client import answer_state as answer_state
    from edgealloc.flower.client import answer_update as answer_update
    from edgealloc.flower.client import read_assignment as read_assignment
    from edgealloc.flower.client import sub_adapter as sub_adapter
    from edgealloc.flower.client import train_task as train_task
    from edgealloc.flower.history import Fate as Fate
    from edgealloc.flower.history import Outcome as Outcome
    from edgealloc.flower.history import RoundReport as RoundReport
    from edgealloc.flower.messages import from_arrays as from_arrays
    from edgealloc.flower.messages import to_arrays as to_arrays
    from edgealloc.flower.strategy import FedLoDrop as FedLoDrop
    from edgealloc.flower.strategy import Planner as Planner

_HOME = {
    "Assignment": "client",
    "Fate": "history",
    "FedLoDrop": "strategy",
    "Outcome": "history",
    "Planner": "strategy",
    "RoundReport": "history",
    "answer_state": "client",
    "answer_update": "client",
    "from_arrays": "messages",
    "read_assignment": "client",
    "sub_adapter": "client",
    "to_arrays": "messages",
    "train_task": "client",
}

__all__ = list(_HOME)

__getattr__, __dir__ = face(__name__, _HOME)
