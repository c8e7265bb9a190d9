"""The formats of whole training runs as types: learning curves of instances, and plans."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from edgealloc.files.types import CLOSED, Finite, NonNegative, Positive, Text

__all__ = ["LearningFile", "RunPlanFile"]

Loss = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Shape = Annotated[float, Field(ge=0.15, le=50, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


@with_config(CLOSED)
class LearningFile(TypedDict):
    """The learning curve of a whole run (docs/runs.md): the loss predicted after R rounds at given keep rates."""

    form: Literal["effective-rounds"]
    floor: Annotated[Loss, Field(description="L, what the loss tends to but for overfitting, nats")]
    drop: Annotated[Loss, Field(description="D, what there is to lose, nats")]
    pace: Annotated[float, Field(ge=1e-6, le=1e6, description="a; a R s^q is the progress after R rounds")]
    exponent: Annotated[Shape, Field(description="q")]
    order: Annotated[Shape, Field(description="alpha, how sharply the loss falls once the progress passes 1")]
    overfit: Annotated[Loss, Field(description="E, nats")]
    growth: Annotated[float, Field(ge=0, le=10, description="b; overfitting grows as E R^b")]
    protection: Annotated[float, Field(ge=0, le=1e9, description="l, how dropout holds overfitting down")]


@with_config(CLOSED)
class NeededFile(TypedDict):
    """How many rounds a run needs: fixed + per_keep * sum_k w_k / s_k (docs/runs.md)."""

    form: Literal["needed-rounds"]
    fixed: Annotated[float, Field(ge=0, le=1e9, description="c0, rounds whatever is kept")]
    per_keep: Annotated[float, Field(ge=1e-9, le=1e9, description="c1, rounds beyond these without dropout")]


@with_config(CLOSED)
class RunPlanFile(TypedDict):
    """The plan of a whole training run: how many rounds, how long each, and what every device does in it."""

    format: Literal["edgealloc-runplan/1"]
    instance: Annotated[str, Field(description="name of the instance: one round, with its caps")]
    method: str
    status: Annotated[
        Literal["optimal", "locally_solved", "feasible", "no_solution", "infeasible", "error"],
        Field(description="as of a solution"),
    ]
    minimise: Annotated[Literal["loss", "time", "energy", "weighted"], Field(description="what is made least")]
    learning: Annotated[
        LearningFile | NeededFile,
        Field(discriminator="form", description="the learning curve, or the rounds needed"),
    ]
    time_s: Annotated[Positive | None, Field(description="time for all rounds together, s; null: no such budget")]
    energy_j: Annotated[
        dict[Text, Positive] | None, Field(description="energy for all rounds together, J, by device; null: none")
    ]
    caps: Annotated[bool, Field(description="whether the instance's own budgets hold in every round beside these")]
    rounds_range: Annotated[list[Count], Field(min_length=2, max_length=2, description="least and greatest R")]
    target: Annotated[
        Finite | None, Field(description="loss to be reached, nats; 1 of needed rounds; null: minimised")
    ]
    rounds: Annotated[Count | None, Field(description="R; null: no plan")]
    latency_s: Annotated[Positive | None, Field(description="deadline of each round, s")]
    loss: Annotated[Finite | None, Field(description="predicted loss F, nats; or the share of R that is needed")]
    objective: Annotated[
        Finite | None, Field(description="what is minimised: nats, s, share of energy_j, or weighted")
    ]
    lower_bound: Annotated[Finite | None, Field(description="proven lower bound of it; null: none")]
    rel_gap: Annotated[NonNegative | None, Field(description="(objective - lower_bound) / |objective|")]
    seconds: Annotated[NonNegative, Field(description="time that planning took, s")]
    solves: Annotated[int, Field(ge=0, description="single rounds that were solved")]
    message: str
    round: Annotated[dict[str, Any] | None, Field(description="each round's allocation, an edgealloc-solution/1")]
    weights: NotRequired[
        Annotated[
            list[Positive],
            Field(min_length=2, max_length=2, description="weighted: what a second costs, and all of energy_j"),
        ]
    ]
