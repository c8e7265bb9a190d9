"""The command ``edgealloc bench``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgealloc.cli.shared import constraints_of, constraints_option, makeable, out_folder, refuse_overwriting, say

if TYPE_CHECKING:
    from edgealloc.bench.suites import Suite
    from edgealloc.bench.sweep import BenchOptions

__all__ = ["bench_command"]


@click.command("bench", short_help="run a suite of cells, or your own instances, with many methods")
@click.argument("targets", nargs=-1, metavar="[SUITE | FOLDER | FILES]")
@click.option("--methods", help="names, separated by commas; those of the suite when not given")
@click.option(
    "--out",
    type=out_folder,
    callback=makeable,
    default=Path("out/bench"),
    show_default=True,
)
@click.option("--jobs", type=int, default=1, show_default=True, help="cells at a time; -1 for all cores")
@click.option("--backend", default="loky", show_default=True, help="of joblib: loky, sequential, dask, ray, ...")
@click.option("--dask", "scheduler", help="address of a Dask scheduler; 'local' starts one here")
@click.option("--rel-gap", type=float, default=1e-4, show_default=True, help="gap that exact methods stop at")
@click.option("--time-limit", type=float, default=60.0, show_default=True, help="seconds per cell")
@click.option("--seed", type=int, default=0, show_default=True, help="seed of methods that draw at random")
@constraints_option
@click.option("--limit", type=int, help="only the first so many cases, for a quick look")
@click.option(
    "--check",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="a committed CSV that this run must reproduce, apart from times",
)
@click.option(
    "--results",
    type=out_folder,
    callback=makeable,
    help="folder that also gets the CSV, tables and figures, as benchmarks/results",
)
@click.option("--figures/--no-figures", default=True, show_default=True)
def bench_command(
    targets: tuple[str, ...],
    methods: str | None,
    out: Path,
    jobs: int,
    backend: str,
    scheduler: str | None,
    rel_gap: float,
    time_limit: float,
    seed: int,
    constraints: Path | None,
    limit: int | None,
    check: Path | None,
    results: Path | None,
    figures: bool,
) -> None:
    """Run a suite and write its frame, tables and figures; lists the suites when none is named.

    In place of a suite's name, folders and files: every instance in them is a case.

    Each finished cell is on disk: run the same command again to continue a sweep that was stopped. Cells that were
    changed there, or come from another user, are solved anew.
    """
    from edgealloc.bench.charts import draw_bench
    from edgealloc.bench.reproduction import differences, read_frame
    from edgealloc.bench.suites import SUITES
    from edgealloc.bench.sweep import BenchOptions, save_frame
    from edgealloc.bench.tables import LOCAL, case_table, summary, time_table, to_latex, to_markdown
    from edgealloc.errors import Fault, InputError
    from edgealloc.files.disk import make_folder, write_file

    if not targets:
        for name, build in SUITES.items():
            listed = build()
            say(f"{name:14} {len(listed.cases):4} cases  {listed.summary}; {', '.join(listed.methods)}")
        return
    chosen, rows = _chosen(targets), constraints_of(constraints)
    chosen = replace(chosen, cases=tuple(replace(case, constraints=rows) for case in chosen.cases))
    suite = chosen.name
    folder, committed = out / suite, None
    if results is not None and results.resolve() == folder.resolve():
        raise InputError(
            "command line", [Fault("command line", "--results", repr(str(results)), "not that of --out")]
        )
    if check is not None:
        places = [("--out", folder), *([] if results is None else [("--results", results)])]
        refuse_overwriting({"--check": check}, [(name, place / f"{suite}.csv") for name, place in places])
        committed = read_frame(check)
    names = () if methods is None else tuple(name.strip() for name in methods.split(",") if name.strip())
    if scheduler is not None:
        backend = _connect(scheduler, jobs)
    options = BenchOptions(jobs, backend, rel_gap, time_limit, seed)
    frame = _run(chosen, names, folder, options, limit)
    tables = {suite: summary(frame)}
    if chosen.cases[0].given is not None:
        tables[f"{suite}-cases"] = case_table(frame)
    if suite == "size" and {"auto", *LOCAL} <= set(frame["method"]):
        tables[f"{suite}-times"] = time_table(frame)
    paths = save_frame(frame, folder, suite)
    for name, table in tables.items():
        for suffix, text in (("md", to_markdown(table)), ("tex", to_latex(table))):
            paths.append(write_file(text, folder / f"{name}.{suffix}"))
    if figures:
        paths += draw_bench(frame, folder, suite)
    unverified = frame[
        frame["status"].isin(["optimal", "locally_solved", "feasible"]) & ~frame["verified"].astype(bool)
    ]
    changes = [] if committed is None else differences(frame, committed)
    if results is not None:
        make_folder(results)
        for path in paths:
            if path.suffix != ".parquet":
                write_file(path.read_bytes(), results / path.name)
    for table in tables.values():
        say(to_markdown(table))
    for row in unverified.itertuples():
        say(f"NOT VERIFIED: {row.method} on {row.case}", err=True)
    for path in paths:
        say(f"written  {path}", err=True)
    for line in changes:
        say(f"DIFFERS: {line}", err=True)
    if check is not None and not changes:
        say(f"the same as {check}, apart from times: {len(frame)} rows", err=True)
    sys.exit(1 if len(unverified) or changes else 0)


def _chosen(targets: tuple[str, ...]) -> Suite:
    """The suite of a name, or of one's own files and folders.

    Raises
    ------
    InputError
        For neither a suite nor a path that is there.
    """
    from edgealloc.bench.own import own_suite
    from edgealloc.bench.suites import SUITES
    from edgealloc.errors import Fault, InputError

    if len(targets) == 1 and targets[0] in SUITES:
        return SUITES[targets[0]]()
    absent = [target for target in targets if not Path(target).exists()]
    if absent:
        allowed = f"a file, a folder, or one of {', '.join(SUITES)}"
        raise InputError("bench", [Fault("bench", "suite", repr(target), allowed) for target in absent])
    suite = own_suite(targets)
    return replace(suite, name=f"own-{suite.name}") if suite.name in SUITES else suite


def _run(chosen: Suite, methods: tuple[str, ...], folder: Path, options: BenchOptions, limit: int | None):  # type: ignore[no-untyped-def]
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from edgealloc.bench.sweep import run_suite

    if limit is not None:
        chosen = replace(chosen, cases=chosen.cases[:limit])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)  # in a file or a pipe the bar would leave blank lines
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(chosen.name, total=None)
        return run_suite(
            chosen, folder, methods, options, lambda done, total: bar.update(task, completed=done, total=total)
        )


def _connect(scheduler: str, jobs: int) -> str:
    """Connect to Dask, which makes itself known to joblib; its client lives until the process ends."""
    from importlib import import_module

    from edgealloc.errors import needs

    needs("distributed", "cluster", "bench --dask")
    distributed = import_module("distributed")
    workers = {"n_workers": max(jobs, 1), "threads_per_worker": 1, "dashboard_address": None}
    distributed.Client(**workers) if scheduler == "local" else distributed.Client(scheduler)
    return "dask"
