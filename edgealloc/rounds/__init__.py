"""Round after round: plans, energy over a horizon, an allocator that stays, a simulator.

The names below are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgealloc.face import face

if TYPE_CHECKING:
    from edgealloc.rounds.allocator import OnlineAllocator as OnlineAllocator
    from edgealloc.rounds.energy import EnergyHorizon as EnergyHorizon
    from edgealloc.rounds.energy import EnergyLedger as EnergyLedger
    from edgealloc.rounds.plan import Plan as Plan
    from edgealloc.rounds.policies import EnergyPolicy as EnergyPolicy
    from edgealloc.rounds.policies import EqualSplit as EqualSplit
    from edgealloc.rounds.policies import Rollover as Rollover
    from edgealloc.rounds.policies import RoundView as RoundView
    from edgealloc.rounds.policies import VirtualQueue as VirtualQueue
    from edgealloc.rounds.round import plan_round as plan_round
    from edgealloc.rounds.round import plan_valid as plan_valid
    from edgealloc.rounds.round import who_to_drop as who_to_drop
    from edgealloc.rounds.simulation import SimulateOptions as SimulateOptions
    from edgealloc.rounds.simulation import simulate as simulate
    from edgealloc.rounds.simulation import summary as summary
    from edgealloc.rounds.solver import RoundSolver as RoundSolver
    from edgealloc.rounds.stragglers import StragglerPolicy as StragglerPolicy
    from edgealloc.rounds.system import DeviceState as DeviceState
    from edgealloc.rounds.system import System as System

_HOME = {
    "DeviceState": "system",
    "EnergyHorizon": "energy",
    "EnergyLedger": "energy",
    "EnergyPolicy": "policies",
    "EqualSplit": "policies",
    "OnlineAllocator": "allocator",
    "Plan": "plan",
    "Rollover": "policies",
    "RoundSolver": "solver",
    "RoundView": "policies",
    "SimulateOptions": "simulation",
    "StragglerPolicy": "stragglers",
    "System": "system",
    "VirtualQueue": "policies",
    "plan_round": "round",
    "plan_valid": "round",
    "simulate": "simulation",
    "summary": "simulation",
    "who_to_drop": "round",
}

__all__ = list(_HOME)

__getattr__, __dir__ = face(__name__, _HOME)
