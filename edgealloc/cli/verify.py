"""``edgealloc verify`` and ``edgealloc schema``."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import click

from edgealloc.cli.shared import (
    EXIT_INVALID,
    case_argument,
    constraints_of,
    constraints_option,
    in_path,
    json_option,
    refuse_overwriting,
    say,
)
from edgealloc.errors import Fault, InputError


@click.command("verify", short_help="check a solution file against its instance, with no solver")
@case_argument
@click.argument("solution", type=in_path)
@click.option("--certificate", type=in_path, help="proof of the lower bound, from `solve`")
@constraints_option
@click.option("--rel-gap", type=float, default=1e-4, show_default=True, help="largest gap that `optimal` may have")
@click.option("--max-mb", type=float, default=64.0, show_default=True, help="refuse files that are larger")
@json_option
def verify_command(
    case: Path,
    solution: Path,
    certificate: Path | None,
    constraints: Path | None,
    rel_gap: float,
    max_mb: float,
    as_json: bool,
) -> None:
    """Recompute everything from the files alone; exit status 1 and a list when anything is broken.

    SOLUTION is a solution, or a plan of a whole run with its own certificate.

    Constraints that the solution states are checked with those of --constraints.
    """
    from edgealloc.files.disk import read_json
    from edgealloc.files.instance import load_instance

    read = {"CASE": case, "SOLUTION": solution, "--certificate": certificate, "--constraints": constraints}
    refuse_overwriting(read, [])
    rows = constraints_of(constraints)
    instance, claimed = load_instance(case, max_mb=max_mb), read_json(solution, max_mb)
    proof = None if certificate is None else read_json(certificate, max_mb)
    if claimed.get("format") == "edgealloc-runplan/1":
        from edgealloc.verify.run import verify_run_data

        if rows:
            raise InputError(
                "command line", [Fault("command line", "--constraints", str(constraints), "none for plans")]
            )
        report = verify_run_data(instance, claimed, proof, rel_gap=rel_gap)
    else:
        from edgealloc.verify.solution import verify_data

        report = verify_data(instance, claimed, proof, constraints=rows, rel_gap=rel_gap)
    if as_json:
        from dataclasses import asdict

        row = {"ok": report.ok, **asdict(report)}
        if report.objective is not None and not math.isfinite(report.objective):
            row["objective"] = None  # JSON knows no infinity
        say(json.dumps(row, indent=1, allow_nan=False))
    else:
        say(str(report))
    sys.exit(0 if report.ok else EXIT_INVALID)


@click.command("schema", short_help="print the JSON Schema of a file format")
@click.argument("kind", type=click.Choice(["instance", "solution", "constraints", "plan", "runplan"]))
def schema_command(kind: Any) -> None:
    """Print the JSON Schema of files of instances, solutions or constraints, or of plans of a round or a run."""
    from edgealloc.files.schema import json_schema

    say(json.dumps(json_schema(kind), indent=1))
