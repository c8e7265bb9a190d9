"""Tables of a benchmark frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.errors import printable
from edgealloc.report.tables import markdown_cell
from edgealloc.tables.listing import latex_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["case_table", "summary", "time_table", "to_latex", "to_markdown"]

LOCAL = ("psca", "psca+")


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per access scheme and method: how often feasible and verified, gaps in percent, median time.

    ``ample`` cells have no excess gap; theirs is given relative to G.
    """
    rows = []
    for (access, method), part in frame.groupby(["access", "method"], sort=False):
        gaps = 100.0 * part["excess_gap"].dropna().to_numpy(dtype=np.float64)
        ample = part[part["ample"] & part["gap"].notna()]
        rows.append({
            "access": access,
            "method": method,
            "cells": len(part),
            "feasible": int(part["objective"].notna().sum()),
            "with bound": len(gaps),
            "median gap %": float(np.median(gaps)) if len(gaps) else np.nan,
            "95th %": float(np.percentile(gaps, 95)) if len(gaps) else np.nan,
            "worst %": float(gaps.max()) if len(gaps) else np.nan,
            "ample": len(ample),
            "worst there, % of G": 100.0 * float(ample["gap"].max()) if len(ample) else np.nan,
            "median s": float(part["seconds"].median()),
        })  # fmt: skip
    import pandas as pd

    return pd.DataFrame(rows)


def case_table(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per case and method: how it ended, the gap to its own bound and to the best of any, and why not.

    Gaps are relative to G; seconds are without compiling.
    """
    import pandas as pd

    message = frame["message"] if "message" in frame else pd.Series([""] * len(frame), index=frame.index)
    without = ~frame["status"].isin(["optimal", "locally_solved", "feasible"])
    return pd.DataFrame({
        "case": frame["case"],
        "method": frame["method"],
        "status": frame["status"],
        "G": frame["objective"],
        "own gap": frame["own_gap"],
        "gap to best bound": frame["gap"],
        "seconds": frame["seconds"],
        "why": message.where(without, "").fillna(""),
    })  # fmt: skip


def time_table(frame: pd.DataFrame, exact: str = "auto") -> pd.DataFrame:
    """One row per size: median seconds of P-SCA, and of an exact method to the same quality and to its end.

    A cell on which the exact method never got so far counts with all its seconds and in ``not reached``: then its
    median is a lower bound. ``psca faster`` is the median over cells of how many times sooner P-SCA was as good.
    """
    import pandas as pd

    rows = []
    for _size, part in frame.groupby(["num_devices", "num_subcarriers"], sort=True):
        local, more, proof = (part[part["method"] == m].set_index("case") for m in ("psca", "psca+", exact))
        whole = proof["seconds"]
        same = proof["seconds_to_psca"].fillna(whole)
        rows.append({
            "K": int(part["num_devices"].iloc[0]),
            "M": int(part["num_subcarriers"].iloc[0]),
            "cells": len(local),
            "psca s": float(local["seconds"].median()),
            "psca+ s": float(more["seconds"].median()),
            "exact, as good as psca s": float(same.median()),
            "not reached": int(proof["seconds_to_psca"].isna().sum()),
            "exact, within 1 % s": float(proof["seconds_to_1_percent"].fillna(whole).median()),
            "exact, end s": float(whole.median()),
            "proven": int((proof["status"] == "optimal").sum()),
            "psca faster": float((same / local["seconds"]).median()),
            "psca worst gap %": 100.0 * float(local["excess_gap"].max()),
            "exact worst gap %": 100.0 * float(proof["excess_gap"].max()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{value:.3g}"
    return printable(value)


def to_markdown(table: pd.DataFrame, times: bool = True) -> str:
    """The table in Markdown; without times it is the same on every run."""
    table = table if times else table.drop(columns=[c for c in table.columns if c.endswith(" s")])
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += [
        "| " + " | ".join(markdown_cell(_text(v)) for v in row) + " |" for row in table.itertuples(index=False)
    ]
    return "\n".join(lines) + "\n"


def to_latex(table: pd.DataFrame) -> str:
    """The table in LaTeX (booktabs)."""
    numeric = [table[c].dtype.kind in "fi" for c in table.columns]
    lines = [r"\begin{tabular}{" + "".join("r" if n else "l" for n in numeric) + "}", r"\toprule"]
    lines += [" & ".join(latex_text(c) for c in table.columns) + r" \\", r"\midrule"]
    lines += [" & ".join(latex_text(_text(v)) for v in row) + r" \\" for row in table.itertuples(index=False)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
