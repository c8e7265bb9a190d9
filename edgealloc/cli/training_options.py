"""The commands ``edgealloc calibrate`` and ``edgealloc validate``: from training to the allocator, and back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgealloc.cli.options import options_of
from edgealloc.cli.shared import say
from edgealloc.errors import Fault, InputError, printable

if TYPE_CHECKING:
    from edgealloc.data.instance import Instance
    from edgealloc.models.exchange.wire import AdapterShape
    from edgealloc.models.training.backbone import LoraSpec
    from edgealloc.models.training.client import FederatedOptions
    from edgealloc.models.training.task import Setup

__all__ = ["TrainingOptions", "run_text"]

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
    rule: str = _option("inverted", "masks, scaling, aggregation: inverted, zero-filled, keepers, exact, ...")
    fair_lambda: float | None = _option(
        None, "weight of ||dB||^2 beside the cosine, with the rule fair (0.01, as in LoRA-FAIR)"
    )
    rank: int | None = _option(None, "LoRA rank r, with alpha = 2 r (digits 4, text 8)")
    target_modules: tuple[str, ...] | None = _option(
        None, "adapted layers by name, or all-linear (digits all linear ones, text query and value)"
    )
    last_layers: int | None = _option(None, "adapt the last so many layers, 0 for all (digits 0, text 1)")
    seeds: int = _option(3, "number of seeds")
    rounds: int | None = _option(None, "rounds (digits 4, text 10)")
    local_epochs: int = _option(3, "passes over its data that a device makes per round")
    batch_size: int = _option(20, "examples per step")
    learning_rate: float | None = _option(None, "of AdamW (digits 1e-2, text 3e-3)")
    patience: int = _option(
        0, "stop after so many rounds without a lower validation loss, at the best round; 0: train all rounds"
    )
    train_size: int | None = _option(
        None, "training examples; as many as the instance has samples, or as there are"
    )
    validation_size: int = _option(150, "examples to choose rounds by")
    test_size: int = _option(500, "examples to judge by")
    concentration: float | None = _option(
        None, "Dirichlet concentration of the classes per device, 0.1 for few classes each; without it IID"
    )
    label_noise: float = _option(0.0, "share of training labels that are flipped")
    device: str = _option("cpu", "torch device")
    threads: int = _option(1, "torch threads; results repeat bit for bit at the same number")

    def start(self, instance: Instance) -> None:
        """Check that the trainer is installed, and all options, before anything is read; set torch's threads.

        Raises
        ------
        InputError
            Names every option that is out of its range.
        MissingPackageError
            Names the extra.
        """
        from edgealloc.models.training.backbone import require_training
        from edgealloc.models.training.ranges import device, require, whole

        require_training()
        faults = [whole("seeds", self.seeds, 1), whole("threads", self.threads, 1), device(self.device)]
        for make in (self.federated, partial(self._described, instance, self.data), self._lora):
            try:
                make()
            except InputError as error:
                faults += error.faults
        require("training", dict.fromkeys(faults))
        require_training(self.threads)

    def setup(self, instance: Instance, data: str | None) -> Setup:
        """Describe the learning task for the devices of an instance, and read its data.

        Raises
        ------
        InputError
            If the data cannot be read, or are too few for what was asked.
        """
        setup = self._described(instance, data)
        with _told("data", data or "digits", "a text classification set"):
            most = setup.most_training()
        least, asked = max(instance.num_devices, 1), self.train_size
        if most < least or (asked or 0) > most:
            allowed = f"at most {most}" if most >= least else f"data with {least - most} examples more"
            raise InputError(
                "training", [Fault(f"data {setup.name}", "train_size", str(setup.train_size), allowed)]
            )
        if setup.train_size < least:
            fault = Fault(
                "options", "train_size", str(setup.train_size), f"at least {least}, one for every device"
            )
            raise InputError("training", [fault])
        return replace(setup, train_size=min(setup.train_size, most))

    def _described(self, instance: Instance, data: str | None) -> Setup:
        from edgealloc.models.training.task import source_setup

        setup = replace(
            source_setup(data),
            backbone=self.backbone,
            train_size=int(instance.total_samples) if self.train_size is None else self.train_size,
            validation_size=self.validation_size,
            test_size=self.test_size,
            devices=instance.num_devices,
            concentration=self.concentration,
            label_noise=self.label_noise,
        )
        return replace(setup, lora=self._lora(setup.usual_lora))

    def _lora(self, usual: LoraSpec | None = None) -> LoraSpec | None:
        """What is adapted, if options say so.

        Raises
        ------
        InputError
            For a number that is out of its range.
        """
        from edgealloc.models.training.backbone import LoraSpec

        changes: dict[str, Any] = {}
        if self.rank is not None:
            changes |= {"rank": self.rank, "alpha": 2 * self.rank}
        if self.target_modules:
            changes |= {"target_modules": self.target_modules}
            if self.target_modules == ("all-linear",):
                changes |= {"last_layers": None}  # it chooses by itself
        if self.last_layers is not None:
            changes |= {"last_layers": None if self.last_layers == 0 else self.last_layers}
        return replace(usual or LoraSpec(), **changes) if changes else None

    def adapter(self, setup: Setup) -> AdapterShape:
        """The inventory of the adapter that is trained: model and layers are there, or named.

        Raises
        ------
        InputError
            If the model cannot be loaded, or has none of the layers.
        """
        from edgealloc.models.training.task import adapter_shape

        rule = self.federated()
        with _told("backbone", setup.backbone, "a model that can be loaded, and layers that it has"):
            return adapter_shape(setup, wire_dtype=rule.wire_dtype, sends_a=not rule.freeze_a)

    @property
    def data_path(self) -> Path | None:
        """The file or folder that is read, None where the data are of the hub or the digits."""
        return None if self.data is None or not Path(self.data).exists() else Path(self.data)

    def training(self) -> dict[str, Any]:
        """Fields of the federated options that these options set."""
        from edgealloc.models.training.client import FederatedOptions
        from edgealloc.models.training.digits import DIGITS_LEARNING_RATE

        usual = FederatedOptions()
        rounds, rate = (4, DIGITS_LEARNING_RATE) if self.data is None else (usual.rounds, usual.learning_rate)
        return {
            "rounds": rounds if self.rounds is None else self.rounds,
            "local_epochs": self.local_epochs,
            "batch_size": self.batch_size,
            "learning_rate": rate if self.learning_rate is None else self.learning_rate,
            "patience": self.patience,
        }

    def federated(self) -> FederatedOptions:
        """The rule's options with those of the training.

        Raises
        ------
        InputError
            For an unknown rule, and options that are out of their range.
        """
        from edgealloc.models.training.client import FederatedOptions
        from edgealloc.models.training.ranges import number, require
        from edgealloc.models.trials.sweep import RULES

        faults: list[Fault | None] = []
        rule = RULES.get(self.rule)
        if rule is None:
            faults.append(Fault("options", "rule", repr(self.rule), ", ".join(RULES)))
        elif self.fair_lambda is not None and rule.aggregation.correction != "fair":
            faults.append(Fault("options", "fair_lambda", f"{self.fair_lambda:g}", "the rule fair beside it"))
        if self.fair_lambda is not None:
            faults.append(number("fair_lambda", self.fair_lambda, 0.0))
        chosen = FederatedOptions() if rule is None else rule
        try:
            chosen = replace(chosen, **self.training())
        except InputError as error:
            faults += error.faults
        require("training", faults)
        if self.fair_lambda is None:
            return chosen
        return replace(chosen, aggregation=replace(chosen.aggregation, fair_lambda=self.fair_lambda))


@contextmanager
def _told(field: str, value: str, allowed: str) -> Iterator[None]:
    """What goes wrong while something is read, as one message.

    Raises
    ------
    InputError
        In place of what was raised.
    """
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError("training", [Fault("options", field, f"{value!r} ({error})", allowed)]) from error


def run_text(record: Mapping[str, Any]) -> str:
    """How a run ended, in a word or two."""
    if record["ending"] == "diverged":
        return f"diverged ({record['reason']})"
    early = ", stopped early" if record["ending"] == "stopped early" else ""
    return f"loss {record['test_loss']:.3f}{early}"


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
        if len(rates) < 4 or not all(0 <= rate < 1 for rate in rates):
            self.fail(f"{value!r}: at least four rates in [0, 1)", param, ctx)
        return rates


@contextmanager
def training_bar(title: str, total: int, store: Path) -> Iterator[Callable[[str], None]]:
    """Show a bar on standard error, or a line for each run where that is no terminal.

    Ctrl-C ends the command with a word on how to go on.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    done = 0
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(printable(title), total=total)

            def advance(words: str) -> None:
                nonlocal done
                done += 1
                progress.update(task, advance=1, description=printable(f"{title}: {words}"))
                if not console.is_terminal:
                    say(f"{title}, {done} of {total}: {words}", err=True)

            yield advance
    except KeyboardInterrupt:
        say(f"stopped; finished runs are in {store}, and the same command goes on from there", err=True)
        sys.exit(EXIT_INTERRUPTED)
