"""Where a benchmark's figures go: a page and tables below ``benchmarks/results``."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "machine", "save_page", "save_rows"]

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """The machine and the Python that the figures belong to."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def save_page(name: str, text: str) -> Path:
    """Write a Markdown page ``results/NAME.md``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.md"
    path.write_text(text, encoding="utf-8")
    return path


def save_rows(name: str, rows: Sequence[Any]) -> Path | None:
    """Write dataclass records of one kind as ``results/NAME.csv``; nothing without any."""
    if not rows:
        return None
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return path
