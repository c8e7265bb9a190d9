"""Which rule of scaling and merging to take: what each one reaches, in how many rounds, and for what it sends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.report.tables import markdown_cell

__all__ = ["RuleRow", "RuleVerdict", "best_rounds", "rule_table", "rule_verdict"]

_WARMED_UP = ("clair",)  # rules whose first round sends whole adapters, whatever the rate
_AS_GOOD = 0.02  # nats above the least loss of all that count as good as it, where the noise is smaller


@dataclass(frozen=True, slots=True)
class RuleRow:
    """Pilot runs of one task, rule and dropout rate, each stopped at its round of least validation loss.

    Parameters
    ----------
    data, rule, dropout
        What was trained.
    seeds
        How many runs.
    rounds
        Mean number of rounds until the least validation loss.
    loss
        Mean test loss there, in nats.
    noise
        Its standard error; nan for one seed.
    uploads
        How many whole adapters' worth a device has sent by then, (1 - dropout) rounds, of which a warm-up round is
        a whole one: the head and other parts that are never dropped do not count.
    falling
        Whether a run was best in its last round, so that ``rounds`` and ``loss`` are not the end of it.
    """

    data: str
    rule: str
    dropout: float
    seeds: int
    rounds: float
    loss: float
    noise: float
    uploads: float
    falling: bool


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """Which rule of one task gets to the least loss for the fewest uploads.

    Parameters
    ----------
    data
        The task.
    least
        The least loss of all rules and rates, in nats.
    within
        How far above it a loss counts as good, in nats.
    cheapest
        Per rule its rate of fewest uploads among those as good as the least; None where none is.
    best
        Per rule its rate of least loss.
    """

    data: str
    least: float
    within: float
    cheapest: Mapping[str, RuleRow | None]
    best: Mapping[str, RuleRow]

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that are as good as the best for the fewest uploads; several where they are alike."""
        good = [row for row in self.cheapest.values() if row is not None]
        fewest = min(row.uploads for row in good)
        return tuple(row.rule for row in good if row.uploads <= fewest)

    def __str__(self) -> str:
        parts = []
        for name, row in self.cheapest.items():
            if row is None:
                best = self.best[name]
                parts.append(f"{name} reaches {best.loss:.3f} only (dropout {best.dropout:g})")
            else:
                parts.append(
                    f"{name} {row.uploads:.1f} adapters a device (dropout {row.dropout:g}, {row.rounds:.0f} "
                    f"rounds, loss {row.loss:.3f})"
                )
        goal = f"to within {self.within:.3f} of {self.least:.3f} nats"
        return f"{self.data}: {goal}, {'; '.join(parts)}: {' or '.join(self.rules)}"


def best_rounds(records: Iterable[Mapping[str, Any]]) -> list[RuleRow]:
    """Return a row per data set, rule and dropout rate of the records of a sweep.

    Parameters
    ----------
    records
        Of :func:`edgealloc.models.trials.sweep.sweep`, with ``curves``. Runs that diverged are left out.

    Returns
    -------
    list of RuleRow
        In the order of the records.

    Raises
    ------
    InputError
        If a run has no curves.
    """
    groups: dict[tuple[str, str, float], list[tuple[int, float, bool]]] = {}
    for r in records:
        if "curves" not in r:
            found = f"none in {r['data']}, {r['rule']}, dropout {r['dropout']:g}"
            allowed = "runs with the losses of every round: sweep(..., curves=True) trains them again"
            raise InputError("rules", [Fault("pilot runs", "curves", found, allowed)])
        if r.get("ending") == "diverged":
            continue
        validation, test = r["curves"]["validation_loss"], r["curves"]["test_loss"]
        scored = [i for i, loss in enumerate(test) if loss is not None and math.isfinite(loss)]
        if not scored:
            continue
        best = min(scored, key=lambda i: validation[i])
        place = groups.setdefault((r["data"], r["rule"], float(r["dropout"])), [])
        place.append((best + 1, float(test[best]), best == scored[-1]))
    rows = []
    for (data, rule, dropout), runs in groups.items():
        losses = [loss for _, loss, _ in runs]
        rounds = float(np.mean([count for count, _, _ in runs]))
        noise = float(np.std(losses, ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
        falling = any(last for _, _, last in runs)
        sent = (1.0 - dropout) * rounds + (dropout if rule in _WARMED_UP else 0.0)
        row = (len(runs), rounds, float(np.mean(losses)), noise, sent, falling)
        rows.append(RuleRow(data, rule, dropout, *row))
    return rows


def rule_verdict(rows: Sequence[RuleRow], data: str) -> RuleVerdict:
    """Say which rule to take for a task, by its pilot runs.

    Parameters
    ----------
    rows
        Of :func:`best_rounds`.
    data
        The task.

    Returns
    -------
    RuleVerdict
        By rule; a loss is as good as the least one if it is within .02 nats of it, or the noise of the two.

    Raises
    ------
    InputError
        If there are no rows of this task.
    """
    own = [row for row in rows if row.data == data]
    if not own:
        known = ", ".join(dict.fromkeys(row.data for row in rows)) or "a task with pilot runs"
        raise InputError("rules", [Fault("pilot runs", "data", data, known)])
    least = min(own, key=lambda row: row.loss)
    noise = 0.0 if math.isnan(least.noise) else least.noise
    within = max(_AS_GOOD, math.sqrt(2.0) * noise)
    cheapest: dict[str, RuleRow | None] = {}
    best: dict[str, RuleRow] = {}
    for rule in dict.fromkeys(row.rule for row in own):
        mine = [row for row in own if row.rule == rule]
        good = [row for row in mine if row.loss <= least.loss + within]
        cheapest[rule] = min(good, key=lambda row: (row.uploads, row.loss)) if good else None
        best[rule] = min(mine, key=lambda row: row.loss)
    return RuleVerdict(data, least.loss, within, cheapest, best)


def rule_table(rows: Iterable[RuleRow]) -> str:
    """Render rows as Markdown; a round with a plus is the last one that was trained."""
    lines = [
        "| data | rule | dropout | seeds | best round | its test loss | adapters sent by then |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {markdown_cell(r.data)} | {r.rule} | {r.dropout:g} | {r.seeds} | {r.rounds:.1f}"
            f"{'+' if r.falling else ''} | {r.loss:.3f} | {r.uploads:.1f} |"
        )
    return "\n".join(lines) + "\n"
