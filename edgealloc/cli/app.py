"""The command line: new, solve, verify, compare, schema, demo, bench, warmup.

Exit status: 0 an allocation (or: verified), 1 an unexpected error (or: not verified), 2 bad input, 3 proved
infeasible, 4 a limit was reached before anything was found, 141 who read standard output has stopped reading.
Everything heavy is imported by the command that needs it.
"""

from __future__ import annotations

import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import click

from edgealloc.cli.bench import bench_command
from edgealloc.cli.calibrate import calibrate_command
from edgealloc.cli.least import least_command
from edgealloc.cli.new import export_command, new_command
from edgealloc.cli.plan import plan_command
from edgealloc.cli.shared import EXIT_BAD_INPUT, console, makeable, out_folder, plain_warnings, say
from edgealloc.cli.simulate import simulate_command
from edgealloc.cli.solve import compare_command, methods_command, solve_command
from edgealloc.cli.validate import validate_command
from edgealloc.cli.verify import schema_command, verify_command
from edgealloc.errors import EdgeallocError, MissingPackageError, StatusError
from edgealloc.report.terminal import OutputError, guarded

__all__ = ["main"]

EXIT_CUT_OFF = 141  # 128 + SIGPIPE, as shells count


@click.command("demo", short_help="from a random cell to a proven, verified, drawn allocation")
@click.option(
    "--out",
    type=out_folder,
    callback=makeable,
    default=Path("out"),
    show_default=True,
)
@click.option("--devices", type=int, default=20, show_default=True)
@click.option("--seed", type=int, default=7, show_default=True)
def demo_command(out: Path, devices: int, seed: int) -> None:
    """Draw a realistic cell, solve it with proof, verify the files, write the pictures."""
    from edgealloc.demo import run

    run(out, devices, seed, console())


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


class _Group(click.Group):
    """Turns the errors that edgealloc raises on purpose into messages; anything else keeps its traceback."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command and end the process, whatever the standard streams are."""
        if not extra.get("standalone_mode", True):
            return super().main(*args, **extra)
        with guarded():
            sys.exit(self._status(*args, **extra | {"standalone_mode": False}))

    def _status(self, *args: Any, **extra: Any) -> Any:
        """The exit status of a command, all that it had to say being said."""
        try:
            try:
                status = super().main(*args, **extra)
            except SystemExit as asked:
                status = asked.code
            sys.stdout.flush()
        except OutputError as error:
            if error.cut_off:
                return EXIT_CUT_OFF
            say(f"Error: {error}", err=True)
            return 1
        except click.Abort:
            say("Aborted!", err=True)
            return 1
        except click.ClickException as error:
            words = StringIO()
            error.show(words)
            say(words.getvalue().rstrip("\n"), err=True)
            return error.exit_code
        return status or 0

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with plain_warnings():
                return super().invoke(ctx)
        except OutputError:
            raise
        except (MissingPackageError, StatusError) as error:
            say(f"Error: {error}", err=True)
            ctx.exit(1)
        except EdgeallocError as error:
            say(f"Error: {error}", err=True)
            ctx.exit(EXIT_BAD_INPUT)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="edgealloc")
def main() -> None:
    """Provably optimal dropout, spectrum, power and processor allocation for federated LoRA fine-tuning.

    Exit status: 0 allocation or verified, 1 error or not verified, 2 bad input, 3 infeasible, 4 limit reached
    with nothing found, 141 standard output cut off.
    """


for command in (
    new_command,
    export_command,
    solve_command,
    verify_command,
    compare_command,
    methods_command,
    schema_command,
    demo_command,
    bench_command,
    least_command,
    plan_command,
    simulate_command,
    calibrate_command,
    validate_command,
    warmup_command,
):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="edgealloc")
