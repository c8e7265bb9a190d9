"""The command ``edgealloc warmup``."""

from __future__ import annotations

import time

import click

from edgealloc.cli.shared import say

__all__ = ["warmup_command"]


@click.command("warmup", short_help="compile everything for this machine, once")
def warmup_command() -> None:
    """Compile everything for this machine on all cores, so that no solve has to wait for it.

    Exit status 1 when no folder can be written to keep the compiled code, NUMBA_CACHE_DIR names one, and where
    NUMBA_DISABLE_JIT switches compiling off.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from edgealloc.solvers.compiling.cache import config, folder_for_writing
    from edgealloc.solvers.compiling.warmup import warm_up

    if config.DISABLE_JIT:
        say("Error: NUMBA_DISABLE_JIT is set, so nothing is compiled; unset it", err=True)
        raise click.exceptions.Exit(1)
    folder = folder_for_writing()
    if folder is None:
        say("Error: no folder for compiled code can be written; name one by NUMBA_CACHE_DIR", err=True)
        raise click.exceptions.Exit(1)
    started = time.perf_counter()
    columns = (TextColumn("compiling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        compiled, listed = warm_up(lambda done, total: bar.update(task, completed=done, total=total))
    seconds = time.perf_counter() - started
    say(f"compiled      {compiled} of {listed} kernels in {seconds:.1f} s; the others were there")
    say(f"kept in       {folder}")
