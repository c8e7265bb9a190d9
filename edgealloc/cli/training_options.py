"""The commands ``edgealloc calibrate`` and ``edgealloc validate``: from training to the allocator, and back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from edgealloc.cli.options import LazyOptions, options_of
from edgealloc.errors import Fault, InputError

if TYPE_CHECKING:
    from edgealloc.data.instance import Instance
    from edgealloc.models.training.client import FederatedOptions
    from edgealloc.models.training.task import Setup

__all__ = ["TrainingOptions", "calibrate_command", "validate_command"]

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What is trained, and how; None stands for the default of the data (digits or text)."""

    data: str | None = _option(
        None,
        "folder with train.tsv and test.tsv or dev.tsv, a tsv, csv or jsonl file, or a hub name; else digits",
    )
    backbone: str = _option("minilm", "model for text: minilm (extra minilm), a local path or a hub name")
    rule: str = _option("zero-filled", "masks, scaling, aggregation: zero-filled, keepers, inverted, exact, ...")
    seeds: int = _option(3, "number of seeds")
    rounds: int | None = _option(None, "rounds (digits 4, text 10)")
    local_epochs: int = _option(3, "passes over its data that a device makes per round")
    batch_size: int = _option(20, "examples per step")
    learning_rate: float | None = _option(None, "of AdamW (digits 1e-2, text 3e-3)")
    train_size: int | None = _option(
        None, "training examples; as many as the instance has samples, or as there are"
    )
    validation_size: int = _option(150, "examples to choose rounds by")
    test_size: int = _option(500, "examples to judge by")
    label_noise: float = _option(0.0, "share of training labels that are flipped")
    device: str = _option("cpu", "torch device")
    threads: int = _option(1, "torch threads; results repeat bit for bit at the same number")

    def start(self) -> None:
        """Check that the trainer is installed, and set its threads.

        Raises
        ------
        MissingPackageError
            Names the extra.
        """
        from edgealloc.models.training.backbone import require_training

        require_training(self.threads)

    def setup(self, instance: Instance, data: str | None) -> Setup:
        """Describe the learning task for the devices of an instance.

        Raises
        ------
        InputError
            If the data cannot be read, or are too few for what was asked.
        """
        from edgealloc.models.training.task import source_setup

        setup = replace(
            source_setup(data),
            backbone=self.backbone,
            train_size=self.train_size or int(instance.total_samples),
            validation_size=self.validation_size,
            test_size=self.test_size,
            devices=instance.num_devices,
            label_noise=self.label_noise,
        )
        try:
            most = setup.most_training()
        except (OSError, ValueError) as error:
            fault = Fault("options", "data", str(error), "a text classification set")
            raise InputError("training", [fault]) from error
        if most < 1 or (self.train_size or 0) > most:
            fault = Fault(f"data {setup.name}", "train_size", str(setup.train_size), f"at most {max(most, 0)}")
            raise InputError("training", [fault])
        return replace(setup, train_size=min(setup.train_size, most))

    def training(self) -> dict[str, Any]:
        """Fields of the federated options that these options set."""
        from edgealloc.models.training.client import FederatedOptions
        from edgealloc.models.training.digits import DIGITS_LEARNING_RATE

        usual = FederatedOptions()
        rounds, rate = (4, DIGITS_LEARNING_RATE) if self.data is None else (usual.rounds, usual.learning_rate)
        return {
            "rounds": self.rounds or rounds,
            "local_epochs": self.local_epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate or rate,
        }

    def federated(self) -> FederatedOptions:
        """The rule's options with those of the training.

        Raises
        ------
        InputError
            For an unknown rule.
        """
        from edgealloc.models.trials.sweep import RULES

        if self.rule not in RULES:
            raise InputError("training", [Fault("options", "rule", repr(self.rule), ", ".join(RULES))])
        return replace(RULES[self.rule], **self.training())


def _training_options() -> list[click.Option]:
    return options_of(TrainingOptions)


class _Rates(click.ParamType[tuple[float, ...]]):
    """``0,0.2,0.5`` as dropout rates."""

    name = "rate,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            rates = tuple(sorted({float(word) for word in value.split(",")}))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers", param, ctx)
        if len(rates) < 4 or rates[0] < 0 or rates[-1] >= 1:
            self.fail(f"{value!r}: at least four rates in [0, 1)", param, ctx)
        return rates


@contextmanager
def _bar(title: str, total: int, store: Path) -> Iterator[Callable[[str], None]]:
    """Show a bar on standard error; Ctrl-C ends the command with a word on how to go on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)  # in a file or a pipe the bar would leave blank lines
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(title, total=total)

            def advance(words: str) -> None:
                progress.update(task, advance=1, description=f"{title}: {words}")

            yield advance
    except KeyboardInterrupt:
        click.echo(f"stopped; finished runs are in {store}, and the same command goes on from there", err=True)
        sys.exit(EXIT_INTERRUPTED)


case_argument = click.argument("case", type=click.Path(path_type=Path))


@click.command("calibrate", cls=LazyOptions, more=_training_options, short_help="fit the bound to pilot runs")
@case_argument
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="write the instance with its new bound"
)
@click.option(
    "--dropouts", type=_Rates(), default="0,0.1,0.2,0.3,0.5,0.7", show_default=True, help="rates of the pilot runs"
)
@click.option(
    "--underfit",
    type=click.Choice(["auto", "inverse-keep", "perturbation", "curve"]),
    default="auto",
    show_default=True,
    help="form of the underfitting term; auto takes the one that fits",
)
@click.option("--check", help="data like --data that the constants are tried on, not fitted to")
@click.option(
    "--store", type=click.Path(path_type=Path, dir_okay=False), default=Path("out/pilot.jsonl"), show_default=True,
    help="finished pilot runs, which are not repeated",
)  # fmt: skip
def calibrate_command(
    case: Path,
    out: Path | None,
    dropouts: tuple[float, ...],
    underfit: Literal["auto", "inverse-keep", "perturbation", "curve"],
    check: str | None,
    store: Path,
    **options: Any,
) -> None:
    """Train at common dropout rates, fit the bound's constants to the losses, and write them into an instance.

    The constants belong to the task, the number of devices and the rule (masks, scaling, aggregation) of the pilot
    runs. Nothing else of the instance changes; with --out the same as CASE it is replaced in one step.
    """
    from edgealloc.files.instance import load_instance, save_instance

    asked = TrainingOptions(**options)
    instance = load_instance(case)
    asked.start()
    import numpy as np

    from edgealloc.models.trials.calibrate import calibrate, fit, pilot_from_records, transfer
    from edgealloc.models.trials.sweep import Record, markdown, summarise, sweep

    asked.federated()  # an unknown rule is refused before anything is trained

    def pilot_runs(data: str | None) -> tuple[str, list[Record]]:
        setup = asked.setup(instance, data)
        seeds = range(asked.seeds)

        def tell(r: Record) -> str:
            return f"dropout {r['dropout']:g}, seed {r['seed']}: loss {r['test_loss']:.3f}"

        with _bar(f"pilot runs, {setup.name}", len(dropouts) * len(seeds), store) as advance:
            records = sweep(
                setup,
                [asked.rule],
                dropouts,
                seeds,
                store=store,
                options=asked.training(),
                device=asked.device,
                progress=lambda r: advance(tell(r)),
            )
        click.echo(markdown(summarise(records)))
        return setup.name, records

    name, records = pilot_runs(asked.data)
    pilot = pilot_from_records(records, data=name, rule=asked.rule)
    kept: dict[str, Any] = {
        "pooling": instance.bound.pooling,
        "confidence_delta": instance.bound.confidence_delta,
        "sparsity_weight": instance.bound.sparsity_weight,
    }
    covered = bool(np.all((instance.keep_min >= pilot.keep[0]) & (instance.keep_max <= pilot.keep[-1])))
    found = calibrate(pilot, curve=covered, **kept) if underfit == "auto" else fit(pilot, underfit, **kept)
    click.echo(found.report())
    if abs(found.best_keep - pilot.best_keep) > 0.1:
        hint = "" if covered else f"; for a curve, measure dropout up to {1 - instance.keep_min.min():g}"
        click.echo(f"note: the fitted minimum is off the measured one{hint}", err=True)
    if pilot.samples != int(instance.total_samples):
        sizes = f"{pilot.samples} samples, the instance {instance.total_samples:.0f}"
        click.echo(f"note: the pilot runs have {sizes}", err=True)
    ends = {1.0 - rate for rate in (dropouts[0], dropouts[-1]) if rate > 0}
    if pilot.best_keep in ends:
        click.echo("note: the best rate measured is the last one tried; try rates beyond it", err=True)
    if check is not None:
        other, tried = pilot_runs(check)
        seen = transfer(found, pilot_from_records(tried, data=other, rule=asked.rule))
        click.echo(
            f"on {other}, not fitted: best dropout predicted {1 - seen.predicted_keep:.2f}, measured "
            f"{1 - seen.measured_keep:.2f}; loss at the predicted rate {seen.regret:+.3f} nats above the least, "
            f"correlation of losses {seen.correlation:.2f}"
        )
    if out is not None:
        click.echo(f"written       {save_instance(found.apply(instance), out)}")


@click.command(
    "validate", cls=LazyOptions, more=_training_options, short_help="train under allocations, and see what wins"
)
@case_argument
@click.option(
    "--methods",
    help="names, separated by commas: methods of solve, stragglers (no dropout, equal shares) and admission "
    "(no dropout, for as many as fit)",
)
@click.option("--rel-gap", type=float, default=1e-4, show_default=True, help="gap that exact methods stop at")
@click.option("--time-limit", type=float, default=60.0, show_default=True, help="seconds per solve")
@click.option(
    "--slack", type=float, default=0.0, show_default=True, help="slack of the calibration, for the figure"
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/validation"), show_default=True
)
def validate_command(
    case: Path, methods: str | None, rel_gap: float, time_limit: float, slack: float, out: Path, **options: Any
) -> None:
    """Allocate a cell by several methods and train a model under each, by the cell's clock and meter.

    A round lasts as long as its slowest device; who misses the deadline is not heard, and pays. The training set
    is divided like the instance's samples. Writes scores, curves, a table and a page of figures into a folder.
    Calibrate the instance first: its bound is what the allocations are optimal for.
    """
    from edgealloc.files.instance import load_instance

    asked = TrainingOptions(**options)
    instance = load_instance(case)
    asked.start()
    from edgealloc.models.trials.cell import DEFAULT_PLANS, plans_for, save, verdict
    from edgealloc.models.trials.validate import markdown, validate

    training = asked.federated()
    setup = asked.setup(instance, asked.data)
    names = DEFAULT_PLANS if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    plans = plans_for(instance, names, rel_gap=rel_gap, time_limit=time_limit, tell=click.echo)
    store = out / "runs.jsonl"
    with _bar(f"training, {setup.name}", len(plans) * asked.seeds, store) as advance:
        seen = validate(
            plans,
            setup,
            training,
            samples=instance.samples,
            seeds=range(asked.seeds),
            store=store,
            device=asked.device,
            progress=lambda r: advance(f"{r['plan']}, seed {r['seed']}: loss {r['test_loss']:.3f}"),
        )
    click.echo(f"\n{markdown(seen)}\n{verdict(seen)}")
    for path in save(seen, out, f"{instance.name}, {setup.name}, {asked.rule}", slack):
        click.echo(f"written       {path}")
