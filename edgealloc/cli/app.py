"""The command line: new, solve, verify, compare, schema, demo, bench, warmup.

Exit status: 0 an allocation (or: verified), 1 an unexpected error (or: not verified), 2 bad input, 3 proved
infeasible, 4 a limit was reached before anything was found. Everything heavy is imported by the command
that needs it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgealloc.cli.bench import bench_command
from edgealloc.cli.least import least_command
from edgealloc.cli.options import LazyOptions, options_of
from edgealloc.cli.shared import (
    EXIT_BAD_INPUT,
    EXIT_INVALID,
    case_argument,
    console,
    json_option,
    out_path,
    rel_gap_option,
    seed_option,
    time_limit_option,
    writable,
)
from edgealloc.cli.simulate import simulate_command
from edgealloc.cli.training_options import calibrate_command, validate_command
from edgealloc.cli.warmup import warmup_command
from edgealloc.errors import EdgeallocError, Fault, InputError, MissingPackageError, StatusError

if TYPE_CHECKING:
    from edgealloc.formulation.result import Result

__all__ = ["main"]

# Every status of a result, so that a new one cannot pass for success unnoticed.
EXIT_CODES = {
    "optimal": 0,
    "locally_solved": 0,
    "feasible": 0,
    "error": 1,
    "infeasible": 3,
    "no_solution": 4,
}


def _new_options() -> list[click.Option]:
    from edgealloc.scenario.cell import CellOptions

    return options_of(CellOptions)


@click.command("new", cls=LazyOptions, more=_new_options, short_help="draw a random, realistic instance")
@seed_option
@click.option("--out", type=out_path, callback=writable, help="instance file; standard output when not given")
@click.option(
    "--positions", type=out_path, callback=writable, help="also write where the devices are (for --plot)"
)
def new_command(seed: int, out: Path | None, positions: Path | None, **options: Any) -> None:
    """Draw a random, realistic instance: devices dropped in a cell, their channels, processors and budgets.

    The spectrum is bought for `reference-keep`, so the cell is tight and feasible unless a bandwidth is given.
    """
    import numpy as np

    from edgealloc.files.disk import write_json
    from edgealloc.files.instance import dict_from_instance, save_instance
    from edgealloc.report.tables import cell_text
    from edgealloc.scenario.cell import CellOptions, make_cell

    cell = make_cell(CellOptions(**options), np.random.default_rng(seed))
    if positions is not None:
        place = {"position_m": cell.position_m.tolist(), "line_of_sight": cell.line_of_sight.tolist()}
        write_json(place, positions)
    if out is None:
        click.echo(json.dumps(dict_from_instance(cell.instance), indent=1))
    else:
        path = save_instance(cell.instance, out)
        click.echo(f"{cell.instance.name}: {cell_text(cell.instance)}\nwritten       {path}", err=True)


@click.command("solve", short_help="solve an instance")
@case_argument
@click.option("--method", default="auto", show_default=True, help="a method, or auto for the first exact one")
@rel_gap_option
@time_limit_option
@seed_option
@click.option("--warm-start", type=click.Path(path_type=Path), help="solution file to start from")
@click.option("--out", type=out_path, callback=writable, help="write the solution to this file")
@click.option("--certificate", type=out_path, callback=writable, help="write the proof of the bound to this file")
@click.option("--plot", type=click.Path(path_type=Path, file_okay=False), help="write pictures into this folder")
@click.option("--positions", type=click.Path(path_type=Path), help="positions from `new`, for the map of the cell")
@click.option("--log", is_flag=True, help="one line per iteration on standard error")
@json_option
def solve_command(
    case: Path,
    method: str,
    rel_gap: float,
    time_limit: float | None,
    seed: int,
    warm_start: Path | None,
    out: Path | None,
    certificate: Path | None,
    plot: Path | None,
    positions: Path | None,
    log: bool,
    as_json: bool,
) -> None:
    """Solve an instance file; print the allocation and how good it is proven to be.

    Ctrl-C ends the search and keeps the best allocation so far; a second Ctrl-C gives up.
    """
    from edgealloc.api import load, solve
    from edgealloc.files.solution import dict_from_solution
    from edgealloc.report.progress import Progress
    from edgealloc.report.tables import allocation_table, proof_text

    if positions is not None and plot is None:
        raise click.UsageError("--positions is for the map that --plot draws; give --plot too")
    instance = load(case)
    place = () if positions is None else _read_positions(positions)
    start = None
    if warm_start is not None:
        from edgealloc.files.solution import load_solution

        start = load_solution(warm_start).for_instance(instance)
    if log:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    with Progress(instance.name, shown=not as_json) as progress:
        result = solve(
            instance,
            method,
            rel_gap=rel_gap,
            time_limit=time_limit,
            seed=seed,
            warm_start=start,
            callback=progress.update,
            log=log,
        )
    saved: list[Path] = []
    if certificate is not None:
        result, saved = _certify(result, rel_gap, certificate)
    if out is not None:
        saved.append(result.save(out))
    if plot is not None and result.status.has_allocation:
        from edgealloc.report.allocation_picture import draw

        saved += draw(result, plot, *place)
    if as_json:
        click.echo(json.dumps(dict_from_solution(result.solution()), indent=1))
    else:
        if result.status.has_allocation:
            console().print(allocation_table(result))
        click.echo(proof_text(result))
        for path in saved:
            click.echo(f"written       {path}")
    sys.exit(EXIT_CODES[result.status.value])


def _certify(result: Result, rel_gap: float, path: Path) -> tuple[Result, list[Path]]:
    """The result with its bound as far as it is certified, and the file written; none when there is no proof."""
    from edgealloc.certificate.prices import save_certificate
    from edgealloc.solvers.certify.write import certified

    try:
        result, proof = certified(result, rel_gap)
    except EdgeallocError as error:
        click.echo(f"no certificate: {error}", err=True)
        return result, []
    return result, [save_certificate(proof, path)]


def _read_positions(path: Path) -> tuple[Any, Any]:
    from edgealloc.files.disk import read_json

    data = read_json(path)
    missing = [key for key in ("position_m", "line_of_sight") if key not in data]
    if missing:
        raise InputError(
            str(path), [Fault("file", key, "(missing)", "written by `new --positions`") for key in missing]
        )
    return data["position_m"], data["line_of_sight"]


@click.command("verify", short_help="check a solution file against its instance, with no solver")
@case_argument
@click.argument("solution", type=click.Path(path_type=Path))
@click.option("--certificate", type=click.Path(path_type=Path), help="proof of the lower bound, from `solve`")
@click.option("--rel-gap", type=float, default=1e-4, show_default=True, help="largest gap that `optimal` may have")
@click.option("--max-mb", type=float, default=64.0, show_default=True, help="refuse files that are larger")
@json_option
def verify_command(
    case: Path, solution: Path, certificate: Path | None, rel_gap: float, max_mb: float, as_json: bool
) -> None:
    """Recompute everything from the files alone; exit status 1 and a list when anything is broken."""
    from edgealloc.verify.solution import verify_files

    report = verify_files(case, solution, certificate, rel_gap=rel_gap, max_mb=max_mb)
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps({"ok": report.ok, **asdict(report)}, indent=1))
    else:
        click.echo(str(report))
    sys.exit(0 if report.ok else EXIT_INVALID)


@click.command("compare", short_help="solve one instance by several methods")
@case_argument
@click.option("--methods", help="names, separated by commas; all that take the instance when not given")
@rel_gap_option
@time_limit_option
@seed_option
@json_option
def compare_command(
    case: Path, methods: str | None, rel_gap: float, time_limit: float | None, seed: int, as_json: bool
) -> None:
    """Solve one instance by several methods and list them, best bound first."""
    from edgealloc.api import compare, load
    from edgealloc.files.solution import dict_from_solution
    from edgealloc.report.progress import Progress
    from edgealloc.report.tables import comparison_table

    names = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    instance = load(case)
    with Progress(f"{instance.name}: {methods or 'every method'}", shown=not as_json):
        results = compare(instance, names, rel_gap=rel_gap, time_limit=time_limit, seed=seed)
    if as_json:
        rows = [dict_from_solution(result.solution()) for result in results]
        click.echo(json.dumps([{k: v for k, v in row.items() if k != "devices"} for row in rows], indent=1))
    else:
        console().print(comparison_table(results))
    # the most successful method decides: an instance is infeasible only if no method found an allocation
    sys.exit(min((EXIT_CODES[result.status.value] for result in results), default=0))


@click.command("schema", short_help="print the JSON Schema of a file format")
@click.argument("kind", type=click.Choice(["instance", "solution"]))
def schema_command(kind: Any) -> None:
    """Print the JSON Schema of instance or solution files."""
    from edgealloc.files.schema import json_schema

    click.echo(json.dumps(json_schema(kind), indent=1))


@click.command("demo", short_help="from a random cell to a proven, verified, drawn allocation")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out"), show_default=True)
@click.option("--devices", type=int, default=20, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
def demo_command(out: Path, devices: int, seed: int) -> None:
    """Draw a realistic cell, solve it with proof, verify the files, write the pictures."""
    from edgealloc.demo import run

    run(out, devices, seed, console())


class _Group(click.Group):
    """Turns the errors that edgealloc raises on purpose into messages; anything else keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (MissingPackageError, StatusError) as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except EdgeallocError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(EXIT_BAD_INPUT)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="edgealloc")
def main() -> None:
    """Provably optimal dropout, spectrum, power and processor allocation for federated LoRA fine-tuning.

    Exit status: 0 allocation or verified, 1 error or not verified, 2 bad input, 3 infeasible, 4 limit reached
    with nothing found.
    """


for command in (
    new_command,
    solve_command,
    verify_command,
    compare_command,
    schema_command,
    demo_command,
    bench_command,
    least_command,
    simulate_command,
    calibrate_command,
    validate_command,
    warmup_command,
):
    main.add_command(command)
