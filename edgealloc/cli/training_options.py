"""The commands ``edgealloc calibrate`` and ``edgealloc validate``: from training to the allocator, and back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgealloc.cli.options import options_of
from edgealloc.cli.shared import say
from edgealloc.errors import Fault, InputError, printable

if TYPE_CHECKING:
    from edgealloc.data.instance import Instance
    from edgealloc.models.training.client import FederatedOptions
    from edgealloc.models.training.task import Setup

__all__ = ["TrainingOptions"]

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


def training_options() -> list[click.Option]:
    """The options that all commands that train have in common."""
    return options_of(TrainingOptions)


class Rates(click.ParamType[tuple[float, ...]]):
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
def training_bar(title: str, total: int, store: Path) -> Iterator[Callable[[str], None]]:
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
            task = progress.add_task(printable(title), total=total)

            def advance(words: str) -> None:
                progress.update(task, advance=1, description=printable(f"{title}: {words}"))

            yield advance
    except KeyboardInterrupt:
        say(f"stopped; finished runs are in {store}, and the same command goes on from there", err=True)
        sys.exit(EXIT_INTERRUPTED)
