"""``edgealloc solve`` and ``edgealloc compare``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgealloc.cli.shared import (
    case_argument,
    console,
    constraints_of,
    constraints_option,
    json_option,
    makeable,
    out_folder,
    out_path,
    refuse_overwriting,
    rel_gap_option,
    say,
    seed_option,
    time_limit_option,
    writable,
)
from edgealloc.errors import EdgeallocError, Fault, InputError, MissingPackageError, RefusedError, needs

if TYPE_CHECKING:
    from edgealloc.formulation.result import Result


# Every status of a result, so that a new one cannot pass for success unnoticed.
EXIT_CODES = {
    "optimal": 0,
    "locally_solved": 0,
    "feasible": 0,
    "error": 1,
    "infeasible": 3,
    "no_solution": 4,
}


@click.command("solve", short_help="solve an instance")
@case_argument
@click.option("--method", default="auto", show_default=True, help="a method, or auto for the first exact one")
@rel_gap_option
@time_limit_option
@seed_option
@click.option("--warm-start", type=click.Path(path_type=Path), help="solution file to start from")
@click.option("--out", type=out_path, callback=writable, help="write the solution to this file")
@click.option("--certificate", type=out_path, callback=writable, help="write the proof of the bound to this file")
@click.option(
    "--plot",
    type=out_folder,
    callback=makeable,
    help="write pictures into this folder",
)
@constraints_option
@click.option(
    "--plot-format", type=click.Choice(["png", "pdf", "svg"]), default="png", show_default=True, help="of pictures"
)
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
    constraints: Path | None,
    out: Path | None,
    certificate: Path | None,
    plot: Path | None,
    plot_format: str,
    positions: Path | None,
    log: bool,
    as_json: bool,
) -> None:
    """Solve an instance file; print the allocation and how good it is proven to be.

    Ctrl-C ends the search and keeps the best allocation so far; a second Ctrl-C gives up.
    """
    from edgealloc.api import load, solve
    from edgealloc.files.solution import dict_from_solution
    from edgealloc.formulation.listing import device_listing
    from edgealloc.report.draw import PICTURES, draw
    from edgealloc.report.progress import Progress
    from edgealloc.report.tables import print_listing, proof_text

    if positions is not None and plot is None:
        raise click.UsageError("--positions is for the map that --plot draws; give --plot too")
    pictures = [] if plot is None else [("--plot", plot / f"{name}.{plot_format}") for name in PICTURES]
    refuse_overwriting(
        {"CASE": case, "--warm-start": warm_start, "--positions": positions, "--constraints": constraints},
        [("--out", out), ("--certificate", certificate), *pictures],
    )
    if plot is not None:
        needs("matplotlib", "plot", "--plot")
    instance, rows = load(case), constraints_of(constraints)
    place, sight = (None, None) if positions is None else _read_positions(positions, instance.num_devices)
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
            constraints=rows,
            rel_gap=rel_gap,
            time_limit=time_limit,
            seed=seed,
            warm_start=start,
            callback=progress.update,
            log=log,
        )
    saved: list[Path] = []
    try:
        try:
            if certificate is not None:
                result, saved = _certify(result, rel_gap, time_limit, certificate)
        finally:  # one file that cannot be written costs no other
            if out is not None:
                saved.append(result.save(out))
        if plot is not None and result.status.has_allocation:
            saved += draw(result, plot, place, sight, ending=plot_format)
    finally:  # what was found is shown even where it cannot be written
        if as_json:
            say(json.dumps(dict_from_solution(result.solution()), indent=1))
        else:
            if result.allocation is not None:
                print_listing(console(), device_listing(result.problem, result.allocation))
            say(proof_text(result))
            for path in saved:
                say(f"written       {path}")
    sys.exit(EXIT_CODES[result.status.value])


def _certify(result: Result, rel_gap: float, time_limit: float | None, path: Path) -> tuple[Result, list[Path]]:
    """The result with its bound as far as it is certified, and the file written; none when there is no proof."""
    from edgealloc.certificate.file import save_certificate
    from edgealloc.solvers.certify.write import WRITE_S, certified

    try:
        result, proof = certified(result, rel_gap, time_limit or WRITE_S)
    except EdgeallocError as error:
        say(f"no certificate: {error}", err=True)
        return result, []
    return result, [save_certificate(proof, path)]


def _read_positions(path: Path, devices: int) -> tuple[Any, Any]:
    from edgealloc.files.disk import read_json

    data = read_json(path)
    missing = [key for key in ("position_m", "line_of_sight") if key not in data]
    if missing:
        raise InputError(
            str(path), [Fault("file", key, "(missing)", "written by `new --positions`") for key in missing]
        )
    counts = {key: len(data[key]) if isinstance(data[key], list) else 0 for key in data}
    wrong = [key for key in ("position_m", "line_of_sight") if counts[key] != devices]
    if wrong:
        raise InputError(
            str(path), [Fault("file", k, f"{counts[k]} entries", f"one a device ({devices})") for k in wrong]
        )
    return data["position_m"], data["line_of_sight"]


@click.command("compare", short_help="solve instances by several methods")
@click.argument("cases", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CASE...")
@click.option("--methods", help="names, separated by commas; all that take the instance when not given")
@constraints_option
@rel_gap_option
@time_limit_option
@seed_option
@json_option
def compare_command(
    cases: tuple[Path, ...],
    methods: str | None,
    constraints: Path | None,
    rel_gap: float,
    time_limit: float | None,
    seed: int,
    as_json: bool,
) -> None:
    """Solve instances by several methods and list these, best bound first; a table for each instance.

    A method that does not take an instance is listed below the table with its reason.
    """
    from edgealloc.api import compare, load
    from edgealloc.files.solution import dict_from_solution
    from edgealloc.formulation.comparison import Comparison, comparison_listing
    from edgealloc.report.progress import Progress
    from edgealloc.report.tables import print_listing
    from edgealloc.solvers.base import Control, Options

    names = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    rows, told, codes = constraints_of(constraints), list[dict[str, Any]](), list[int]()
    instances = [load(case) for case in cases]
    with Control(Options()) as control:
        for instance in instances:
            if control.stopped():  # Ctrl-C: the method at work gave what it had, no other is started
                break
            with Progress(f"{instance.name}: {methods or 'every method'}", shown=not as_json):
                try:
                    results = compare(
                        instance, names, constraints=rows, rel_gap=rel_gap, time_limit=time_limit, seed=seed
                    )
                except (RefusedError, MissingPackageError) as error:
                    if len(cases) == 1:
                        raise
                    results = Comparison((), (((names or ["auto"])[0], error),))
            refused = results.refused
            if refused and not results and len(cases) == 1:
                raise refused[0][1]
            if not as_json:
                if results:
                    print_listing(console(), comparison_listing(results))
                for told_by, why in refused:
                    say(f"{told_by}: refused: {why}")
            for result in results:
                told.append({k: v for k, v in dict_from_solution(result.solution()).items() if k != "devices"})
            told += [
                {"instance": instance.name, "method": told_by, "status": "refused", "message": str(why)}
                for told_by, why in refused
            ]
            # the most successful method decides: an instance is infeasible only if no method found an allocation
            codes.append(min((EXIT_CODES[result.status.value] for result in results), default=2 if refused else 0))
    if as_json:
        say(json.dumps(told, indent=1))
    sys.exit(max(codes, default=1))


@click.command("methods", short_help="the methods: what they take, what they prove, whether they are installed")
@json_option
def methods_command(as_json: bool) -> None:
    """List the methods that `--method` takes, those of other packages included, and the baselines."""
    from importlib.util import find_spec

    from edgealloc.methods import METHODS, known_names
    from edgealloc.report.tables import print_listing
    from edgealloc.solvers.baselines import BASELINES
    from edgealloc.tables.listing import Column, Listing

    rows = []
    for name in known_names():
        method = METHODS[name]
        there = "yes" if not method.package or find_spec(method.package) else f"edgealloc[{method.extra}]"
        rows.append((name, method.summary, method.needs, there))
    rows += [(f"baseline:{name}", scheme.summary, "any problem", "yes") for name, scheme in BASELINES.items()]
    heads = ("method", "summary", "takes", "installed")
    if as_json:
        say(json.dumps([dict(zip(heads, row, strict=True)) for row in rows], indent=1))
        return
    columns = tuple(Column(head, number=False, fold=head in ("summary", "takes")) for head in heads)
    print_listing(console(), Listing("", columns, tuple(rows)))
