"""Whole training runs: how many rounds, how long each, and who drops what, planned with a proof.

The names below are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgealloc.face import face

if TYPE_CHECKING:
    from edgealloc.runs.begun.budget import RunBudget as RunBudget
    from edgealloc.runs.needed import NeededRounds as NeededRounds
    from edgealloc.runs.picture import plot_rounds as plot_rounds
    from edgealloc.runs.picture import plot_run_front as plot_run_front
    from edgealloc.runs.plan import RunPlan as RunPlan
    from edgealloc.runs.planning import plan_run as plan_run
    from edgealloc.runs.replanning import replan as replan
    from edgealloc.runs.training import TrainingRun as TrainingRun

_HOME = {
    "NeededRounds": "needed",
    "RunBudget": "begun.budget",
    "RunPlan": "plan",
    "TrainingRun": "training",
    "plan_run": "planning",
    "plot_rounds": "picture",
    "plot_run_front": "picture",
    "replan": "replanning",
}

__all__ = list(_HOME)

__getattr__, __dir__ = face(__name__, _HOME)
