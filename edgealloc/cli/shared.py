"""What several commands share: options, the check of an output path, the console, exit codes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from edgealloc.errors import PlausibilityWarning

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_INVALID",
    "case_argument",
    "console",
    "json_option",
    "out_path",
    "plain_warnings",
    "rel_gap_option",
    "seed_option",
    "time_limit_option",
    "writable",
]

EXIT_INVALID = 1
EXIT_BAD_INPUT = 2

case_argument = click.argument("case", type=click.Path(path_type=Path))
out_path = click.Path(path_type=Path, dir_okay=False)
rel_gap_option = click.option(
    "--rel-gap", type=float, default=1e-4, show_default=True, help="stop when (UB - LB)/|UB| is at most this"
)
time_limit_option = click.option("--time-limit", type=float, help="wall-clock limit in s; the incumbent is kept")
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="seed of all random draws")
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON instead of tables")


def writable(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse an output that cannot be written before hours of work go into it."""
    if value is not None and not value.parent.is_dir():
        raise click.BadParameter(f"the folder {str(value.parent)!r} does not exist", ctx, param)
    if value is not None and value.is_dir():
        raise click.BadParameter(f"{str(value)!r} is a folder", ctx, param)
    return value


def console() -> Console:
    """The terminal; a pipe, which has no width, is made wide enough that no cell is cut."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Values that look like a mistake of unit are told plainly, each once; other warnings as Python does."""
    told: set[str] = set()
    with warnings.catch_warnings():
        otherwise = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, PlausibilityWarning):
                otherwise(message, category, filename, lineno, file, line)
            elif str(message) not in told:
                told.add(str(message))
                click.echo(f"Warning: {message}", err=True)

        warnings.showwarning = show
        yield
