"""What several commands share: options, the checks of output paths, what they print by, exit codes."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from edgealloc.errors import Fault, InputError, PlausibilityWarning, printable

if TYPE_CHECKING:
    from rich.console import Console

    from edgealloc.data.constraints import Constraint

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_INVALID",
    "case_argument",
    "console",
    "constraints_of",
    "constraints_option",
    "in_path",
    "json_option",
    "makeable",
    "out_folder",
    "out_path",
    "plain_warnings",
    "refuse_overwriting",
    "rel_gap_option",
    "say",
    "seed_option",
    "storable",
    "time_limit_option",
    "writable",
]

EXIT_INVALID = 1
EXIT_BAD_INPUT = 2


class InputPath(click.ParamType[Path]):
    """A file to read; ``-`` is standard input (a file of that name is ``./-``)."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        from edgealloc.files.disk import STDIN

        return STDIN if value == "-" else Path(value)


in_path = InputPath()
case_argument = click.argument("case", type=in_path)
out_path = click.Path(path_type=Path, dir_okay=False)
out_folder = click.Path(path_type=Path, file_okay=False)
rel_gap_option = click.option(
    "--rel-gap", type=float, default=1e-4, show_default=True, help="stop when (UB - LB)/|UB| is at most this"
)
time_limit_option = click.option("--time-limit", type=float, help="wall-clock limit in s; the incumbent is kept")
seed_option = click.option("--seed", type=int, default=0, show_default=True, help="seed of all random draws")
json_option = click.option("--json", "as_json", is_flag=True, help="print JSON instead of tables")


constraints_option = click.option(
    "--constraints",
    type=click.Path(path_type=Path),
    help="constraints of your own, an edgealloc-constraints/1 file",
)


def constraints_of(path: Path | None) -> tuple[Constraint, ...]:
    """The constraints of a file; none without one.

    Raises
    ------
    InputError
        Lists every fault of the file's structure.
    """
    if path is None:
        return ()
    from edgealloc.files.constraints import load_constraints

    return load_constraints(path)


def writable(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file that cannot be written before hours of work go into it."""
    from edgealloc.files.disk import output_fault

    if value is not None and (fault := output_fault(value)) is not None:
        raise click.BadParameter(fault, ctx, param)
    return value


def storable(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """As :func:`writable`, for a file whose folder is made if need be."""
    if value is None or os.path.isdir(value.parent):
        return writable(ctx, param, value)
    makeable(ctx, param, value.parent)
    return value


def makeable(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a folder for outputs that cannot be made or written to, before the work."""
    from edgealloc.files.disk import folder_fault

    if value is not None and (fault := folder_fault(value)) is not None:
        raise click.BadParameter(fault, ctx, param)
    return value


def refuse_overwriting(inputs: Mapping[str, Path | None], outputs: Iterable[tuple[str, Path | None]]) -> None:
    """Make sure that no output goes where an input or another output is, by whatever spelling or link.

    Parameters
    ----------
    inputs
        What the command reads, by argument or option.
    outputs
        What it will write, with the option that asks for it.

    Raises
    ------
    InputError
        Lists every output that would destroy something.
    """
    from edgealloc.files.disk import STDIN, same_file

    taken = [(name, path) for name, path in inputs.items() if path is not None]
    faults = []
    if sum(path == STDIN for _, path in taken) > 1:
        names = ", ".join(name for name, path in taken if path == STDIN)
        faults.append(Fault("command line", names, "'-'", "standard input for one of them"))
    for name, path in outputs:
        if path is None:
            continue
        others = [other for other, place in taken if same_file(path, place)]
        if others:
            faults.append(Fault("command line", name, repr(str(path)), f"a file other than that of {others[0]}"))
        taken.append((name, path))
    if faults:
        raise InputError("command line", faults)


def say(text: object = "", *, err: bool = False) -> None:
    """Print lines on standard output, or standard error; what is not printable as escapes."""
    click.echo(printable(text, lines=True), file=sys.stderr if err else sys.stdout)


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
                say(f"Warning: {message}", err=True)

        warnings.showwarning = show
        yield
