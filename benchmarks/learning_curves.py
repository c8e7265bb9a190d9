"""Which form the losses of pilot runs follow, round after round, and which rule of scaling and merging to take.

    python -m benchmarks.learning_curves --data FOLDER [--task trec banking77 ...] [--seeds 0 1]
    python -m benchmarks.learning_curves [--curves FOLDER]

The first trains pilot runs, by the zero-filled mean and by inverted scaling with keeper averaging, and adds them
to OUT/learning_curves.csv (a line per run and round); FOLDER holds trec/, mrpc/ ... as tab-separated files, the
digits need none. Runs already in OUT/learning_curves.jsonl are not repeated. The second fits every form to what
is in the CSV, and to the files of --curves: one JSON object a line with dropout, seed, val and test (losses by
round), named TASK.jsonl or TASK-inverted.jsonl. It writes OUT/learning_curves.md, with what forms of overfitting
err by on what they were not fitted to: pilots of another keep rate, and runs of OUT/planned_runs.csv. On one
thread; same platform, same bits.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.models.trials.curves import LearningCurves, curves_from_records
from edgealloc.models.trials.learning import LearningFit, fit_learning, past
from edgealloc.models.trials.rules import best_rounds, rule_table, rule_verdict
from edgealloc.units import FloatArray

Record = dict[str, Any]

RATES = {"zero-filled": (0.0, 0.1, 0.3), "inverted": (0.0, 0.4, 0.7)}
DIGITS_RATES = {"zero-filled": (0.0, 0.1, 0.3, 0.5), "inverted": (0.0, 0.3, 0.5, 0.7)}
ROUNDS = {"digits": 12, "mrpc": 12}  # digits overfit, and mrpc is not learned, sooner than in 20
CLASSES = {"sst2": 2, "clinc10": 10}  # of the files of --curves, which do not know them
COLUMNS = (
    "data",
    "rule",
    "dropout",
    "seed",
    "samples",
    "devices",
    "blind_loss",
    "round",
    "validation_loss",
    "test_loss",
)

_START_COUNT = 6
_NEAR = 0.15


@dataclass(frozen=True, slots=True)
class Form:
    """A form of F(R, s): its formula, and where its constants start and may go (from, to; least, most)."""

    name: str
    formula: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]
    anchored: bool = True  # whether it knows the loss before training, L + D
    free: int = 8  # how many of the constants it has, the first


def _protected(x: FloatArray, count: FloatArray, keep: FloatArray, power: float = 0.5) -> FloatArray:
    return np.asarray(x[5] * count ** x[6] / (1.0 + x[7] * (1.0 - keep**2)) ** power)


def _logistic(x: FloatArray, count: FloatArray, keep: FloatArray) -> FloatArray:
    return np.asarray(x[0] + x[1] / (1.0 + (x[2] * count * keep ** x[3]) ** x[4]))


# x = L, D, a, q, alpha, E, b, l in all of them
RIVALS = (
    Form("overfitting (R s^p)^b", lambda x, r, s: _logistic(x, r, s) + x[5] * (r * s ** x[7]) ** x[6]),
    Form("overfitting E R^b s^2", lambda x, r, s: _logistic(x, r, s) + x[5] * r ** x[6] * s**2, free=7),
    Form("protection squared", lambda x, r, s: _logistic(x, r, s) + _protected(x, r, s, 2.0)),
    Form(
        "exponential learning",
        lambda x, r, s: x[0] + x[1] * np.exp(-((x[2] * r * s ** x[3]) ** x[4])) + _protected(x, r, s),
    ),
    Form(
        "power of R s^q (posynomial)",
        lambda x, r, s: x[0] + x[1] * (r * s ** x[3]) ** -x[4] + _protected(x, r, s),
        anchored=False,
    ),
    Form(
        "separable u(s) c(R)",
        lambda x, r, s: (
            (1 + x[3] * (1 / s - 1) + x[7] * s**2) * (_logistic(x, r, np.ones_like(s)) + x[5] * r ** x[6])
        ),
        anchored=False,
    ),
)
OURS = Form("ours", lambda x, r, s: _logistic(x, r, s) + _protected(x, r, s))
UNSEEN = (OURS, *RIVALS[:3])  # the forms of overfitting
_FROM = np.array([0.5, 0.5, 0.03, 0.3, 0.7, 1e-4, 0.5, 0.1])  # the first two in the least loss
_TO = np.array([1.0, 3.0, 3.0, 3.0, 4.0, 0.3, 2.5, 20.0])
_LEAST = np.array([1e-3, 1e-3, 1e-4, 1e-2, 0.2, 1e-9, 0.1, 1e-3])
_MOST = np.array([1e2, 1e2, 50.0, 8.0, 12.0, 10.0, 5.0, 1e4])


def rival_loss(form: Form, curves: LearningCurves, at: FloatArray | None = None) -> FloatArray:
    """Fit a form as :func:`fit_learning` fits ours, and return what it predicts, by keep rate and round [P, R].

    Of the pilots' keep rates, or of others, ``at``. Shape [P].
    """
    from scipy.optimize import least_squares
    from scipy.stats import qmc

    keep, count = np.broadcast_arrays(curves.keep[:, None], curves.rounds[None, :])
    over = past(curves)
    least = float(np.nanmin(curves.loss))
    target = np.log(np.where(over, 1.3 * np.nanmin(curves.loss, axis=1, keepdims=True), curves.loss))

    def residual(z: FloatArray) -> FloatArray:
        x = np.exp(z)
        with np.errstate(all="ignore"):
            error = np.log(form.formula(x, count, keep)) - target
        error = np.where(over, np.minimum(error, 0.0), error)[~np.isnan(curves.loss)]
        if form.anchored and curves.blind_loss > 0.0:
            error = np.append(error, math.sqrt(len(curves.keep)) * math.log((x[0] + x[1]) / curves.blind_loss))
        return np.nan_to_num(error, nan=1e3, posinf=1e3, neginf=-1e3)

    scale = np.array([least, least, *np.ones(6)])
    bounds = (_FROM * scale, _TO * scale, _LEAST, _MOST)
    start, end, low, high = (np.log(bound[: form.free]) for bound in bounds)
    best: Any = None
    for unit in qmc.Halton(len(low), scramble=False).random(_START_COUNT + 1)[1:]:
        first = np.clip(start + unit * (end - start), low + 1e-6, high - 1e-6)
        options = {"x_scale": "jac", "loss": "soft_l1", "f_scale": 0.1, "ftol": 1e-6, "max_nfev": 100}
        found = least_squares(residual, first, bounds=(low, high), **options)
        if best is None or found.cost < best.cost:
            best = found
    if at is not None:
        keep, count = np.broadcast_arrays(at[:, None], curves.rounds[None, :])
    return form.formula(np.exp(best.x), count, keep)


def without(curves: LearningCurves, row: int) -> LearningCurves:
    """The pilots but those of one keep rate."""
    kept = np.arange(len(curves.keep)) != row
    parts = {"keep": curves.keep[kept], "loss": curves.loss[kept], "noise": curves.noise[kept]}
    return replace(curves, **parts)


def left_out(curves: LearningCurves, predict: Callable[[LearningCurves, FloatArray], FloatArray]) -> FloatArray:
    """What is predicted of each keep rate by a fit to the others. Shape [P, R]."""
    rates = range(len(curves.keep))
    return np.vstack([predict(without(curves, i), curves.keep[i : i + 1]) for i in rates])


def misfit(predicted: FloatArray, curves: LearningCurves) -> tuple[float, float, float]:
    """Errors in nats where a plan may go, near the least loss, and what following the prediction loses."""
    error, best = predicted - curves.loss, float(np.nanmin(curves.loss))
    choice = np.unravel_index(np.nanargmin(np.where(np.isnan(curves.loss), np.nan, predicted)), predicted.shape)
    return (
        float(np.sqrt(np.nanmean(error[~past(curves)] ** 2))),
        float(np.sqrt(np.nanmean(error[curves.loss <= best + _NEAR] ** 2))),
        float(curves.loss[choice]) - best,
    )


def planned(path: Path, data: str) -> tuple[FloatArray, FloatArray]:
    """Mean keep rates [P] and test losses [P, R] of benchmarks.planned_runs, where everybody reports.

    Means over the seeds; nan after the last round that was trained.
    """
    runs: dict[tuple[float, ...], list[list[float]]] = {}
    for row in read_rows(path):
        keep = tuple(map(float, row["keep"].split()))
        if row["task"] == data and min(keep) > 0.0:
            runs.setdefault(keep, []).append(list(map(float, row["test_loss"].split())))
    loss = np.full((len(runs), max((len(own[0]) for own in runs.values()), default=0)), math.nan)
    for line, own in zip(loss, runs.values(), strict=True):
        line[: len(own[0])] = np.mean(own, axis=0)
    return np.array([np.mean(keep) for keep in runs]), loss


def unseen(curves: LearningCurves, path: Path) -> str:
    """A row of what each form of overfitting errs by, fitted as the others are, on what it was not fitted to.

    Pilots of one keep rate by a fit to those of the others; planned runs, of other seeds and rates: error in nats,
    and what is lost by taking the run and the round that the form calls the best.
    """
    keep, loss = planned(path, curves.data) if curves.rule == "inverted" else (np.zeros(0), np.zeros((0, 0)))
    cells = []
    for form in UNSEEN:

        def fitted(part: LearningCurves, at: FloatArray, form: Form = form) -> FloatArray:
            return rival_loss(form, part, at)

        error = (left_out(curves, fitted) - curves.loss)[~past(curves)]
        cells.append(f"{np.sqrt(np.nanmean(error**2)):.3f}")
        if len(keep):
            guess = fitted(curves, keep)[:, : loss.shape[1]]
            seen = replace(curves, keep=keep, loss=loss, noise=np.full_like(loss, math.nan))
            cells[-1] += " / {0:.3f} / {2:.3f}".format(*misfit(guess, seen))
    return f"| {curves.data} | {curves.rule} | {len(curves.keep)} | " + " | ".join(cells) + " |"


def train(folder: Path | None, tasks: Sequence[str], seeds: Sequence[int], out: Path) -> list[Record]:
    """Make the pilot runs that are not in the store yet."""
    import torch

    from edgealloc.models.training.digits import DIGITS_LEARNING_RATE
    from edgealloc.models.training.task import Setup, source_setup
    from edgealloc.models.trials.sweep import sweep

    def tell(r: Record) -> None:
        print(f"{r['data']} {r['rule']} {r['dropout']} {r['seed']}: {r['cpu_seconds']} s", flush=True)

    torch.set_num_threads(1)
    records = []
    for name in tasks:
        options: dict[str, Any] = {"rounds": ROUNDS.get(name, 20)}
        if name == "digits":
            setup = Setup()
            options["learning_rate"] = DIGITS_LEARNING_RATE
        else:
            assert folder is not None, "--data names the folder of the text sets"
            sizes = {"train_size": 500, "validation_size": 200, "test_size": 250 if name == "rte" else 500}
            setup = replace(source_setup(str(folder / name)), name=name, devices=5, **sizes)
        for rule, rates in (DIGITS_RATES if name == "digits" else RATES).items():
            kept = out / "learning_curves.jsonl"
            records += sweep(setup, [rule], rates, seeds, store=kept, options=options, curves=True, progress=tell)
    return records


def rows_of(record: Record) -> list[Record]:
    """A row per round of a run."""
    losses = zip(record["curves"]["validation_loss"], record["curves"]["test_loss"], strict=True)
    told = {key: record[key] for key in COLUMNS[:7]}
    return [
        told | {"round": i, "validation_loss": f"{a:.5f}", "test_loss": f"{b:.5f}"}
        for i, (a, b) in enumerate(losses, start=1)
    ]


def read_rows(path: Path) -> list[Record]:
    """The rows of the committed table."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_rows(rows: Sequence[Record], path: Path) -> None:
    """Write rows, the later one of two of a run and round, in order."""

    def place(row: Record) -> tuple[Any, ...]:
        return (row["data"], row["rule"], float(row["dropout"]), int(row["seed"]), int(row["round"]))

    latest = {place(row): row for row in rows}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(latest[key] for key in sorted(latest))


def records_of(rows: Sequence[Record]) -> list[Record]:
    """Rows as records of a sweep."""
    runs: dict[tuple[str, ...], list[Record]] = {}
    for row in rows:
        runs.setdefault((row["data"], row["rule"], row["dropout"], row["seed"]), []).append(row)
    records = []
    for (data, rule, dropout, seed), own in runs.items():
        curves = {name: [float(row[name]) for row in own] for name in ("validation_loss", "test_loss")}
        facts = {"samples": int(own[0]["samples"]), "devices": int(own[0]["devices"])}
        facts |= {"dropout": float(dropout), "seed": int(seed), "blind_loss": float(own[0]["blind_loss"])}
        records.append({"data": data, "rule": rule, "ending": "completed", "curves": curves, **facts})
    return records


def measured(folder: Path) -> list[Record]:
    """Curves that were measured elsewhere, by the names of their files."""
    records = []
    for path in sorted(folder.glob("*.jsonl")):
        data = path.stem.removesuffix("-inverted").removesuffix("-10")
        devices = 10 if path.stem.endswith("-10") else 5
        rule = "inverted" if path.stem.endswith("-inverted") else "zero-filled"
        for run in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            curves = {"validation_loss": run["val"], "test_loss": run["test"]}
            facts = {"samples": 500, "devices": devices, "blind_loss": math.log(CLASSES[data])}
            name = data if devices == 5 else f"{data}, {devices} devices"
            told = {"data": name, "rule": rule, "dropout": run["dropout"], "seed": run["seed"]}
            records.append({**told, "ending": "completed", "curves": curves, **facts})
    return records


def report(records: Sequence[Record], runs: Path) -> str:
    """Fit every form to every pilot and render what they are off by, the constants, and the rules.

    With what they are off by on planned runs, of which ``runs`` has the losses.
    """
    head = "| data | rule | seeds | noise | " + " | ".join(["ours", *(form.name for form in RIVALS)]) + " |"
    lines = [head, "|" + "---|" * (5 + len(RIVALS))]
    fits: list[tuple[LearningFit, int]] = []
    for data, rule in dict.fromkeys((r["data"], r["rule"]) for r in records):
        try:
            curves = curves_from_records(records, data=data, rule=rule)
        except ValueError as error:
            print(f"{data}, {rule}: {error}")
            continue
        seeds = len({r["seed"] for r in records if (r["data"], r["rule"]) == (data, rule)})
        fits.append((fit_learning(curves), seeds))
        print(fits[-1][0].report(), *fits[-1][0].doubts, sep="\n", flush=True)
        predictions = [fits[-1][0].predicted, *(rival_loss(form, curves) for form in RIVALS)]
        cells = ["{:.3f} / {:.3f} / {:.3f}".format(*misfit(p, curves)) for p in predictions]
        noise = "" if math.isnan(curves.mean_noise) else f"{curves.mean_noise:.3f}"
        lines.append(f"| {data} | {rule} | {seeds} | {noise} | " + " | ".join(cells) + " |")
    names = " | ".join(form.name for form in UNSEEN)
    lines += ["", f"| data | rule | rates | {names} |", "|" + "---|" * (3 + len(UNSEEN))]
    lines += [unseen(found.curves, runs) for found, _ in fits]
    lines += ["", "| data | rule | L | D | a | q | alpha | E | b | l | doubts |", "|" + "---|" * 11]
    for found, _ in fits:
        values = " | ".join(f"{value:.3g}" for value in found.constants.values())
        doubts = "; ".join(doubt.split(":")[0] for doubt in found.doubts) or "none"
        lines.append(f"| {found.curves.data} | {found.curves.rule} | {values} | {doubts} |")
    rows = best_rounds(records)
    lines += ["", rule_table(rows)]
    for data in dict.fromkeys(row.data for row in rows):
        if len({row.rule for row in rows if row.data == data}) > 1:
            lines.append(f"- {rule_verdict(rows, data)}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the text sets")
    parser.add_argument("--task", nargs="+", default=[], help="pilots to train: digits, or folders of --data")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the pilots")
    parser.add_argument("--curves", type=Path, help="folder of curves that were measured before")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    asked = parser.parse_args(arguments)
    table = asked.out / "learning_curves.csv"
    if asked.task:
        records = train(asked.data, asked.task, asked.seeds, asked.out)
        write_rows([*read_rows(table), *(row for r in records for row in rows_of(r))], table)
        return
    records = records_of(read_rows(table)) + (measured(asked.curves) if asked.curves else [])
    (asked.out / "learning_curves.md").write_text(
        report(records, asked.out / "planned_runs.csv"), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
