"""The fuzzing command: ``python -m tests.fuzz.run``, or ``make fuzz SEEDS=100000 START=0 WORKERS=2``.

Seeds are taken in blocks, spread over processes. A block that is done is written to the state file, so that a run
that was stopped (Ctrl-C) goes on where it was. Every failure leaves its instance and what was seen in the folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from edgealloc.errors import PlausibilityWarning
from edgealloc.files.disk import write_json
from edgealloc.files.instance import save_instance
from tests.fuzz.checks import KINDS, Finding, examine
from tests.fuzz.covers import forged
from tests.fuzz.regimes import REGIMES, instance_of
from tests.fuzz.relations import larger_of, related

BLOCK = 40
ALL = (*REGIMES, "relations", "covers")
# From these numbers on the regimes that were added take their turns too; older numbers stay what they were.
ADDED = {"experts": 10_000_000, "magnitudes": 20_000_000}
Row = dict[str, float]


def case_of(number: int) -> tuple[str, int]:
    """Regime and seed of a number: regimes in turn."""
    turns = [name for name in ALL if number >= ADDED.get(name, 0)]
    return turns[number % len(turns)], number // len(turns)


def case(number: int) -> tuple[str, list[Finding], Counter[str]]:
    """Regime, findings and endings of the case of a number."""
    regime, seed = case_of(number)
    if regime == "relations":
        return regime, *related(seed)
    if regime == "covers":
        return regime, *forged(seed)
    return regime, *examine(instance_of(regime, seed), seed)


def block(work: tuple[int, int, str]) -> dict[str, Any]:
    """All cases of a block: counts per regime, endings; failures are kept as files."""
    start, stop, folder = work
    warnings.simplefilter("ignore", PlausibilityWarning)  # hostile on purpose
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(start, stop):
        before = time.process_time()
        (regime, seed), found, ended = case_of(number), [], Counter[str]()
        try:
            regime, found, ended = case(number)
        except Exception as error:  # a run of days does not end because of one case
            found = [Finding("harness", "", f"{type(error).__name__}: {error}")]
        counts[regime] += Counter({"cases": 1, "seconds": 0}) + ended
        counts[regime]["seconds"] += time.process_time() - before  # type: ignore[assignment]
        for finding in found:
            counts[regime][f"! {finding.kind}"] += 1
        if found:
            _keep(Path(folder), regime, seed, number, found)
    return {"start": start, "stop": stop, "counts": {name: dict(row) for name, row in counts.items()}}


def _keep(folder: Path, regime: str, seed: int, number: int, found: list[Finding]) -> None:
    if regime != "covers":
        instance = larger_of(seed) if regime == "relations" else instance_of(regime, seed)
        save_instance(instance, folder / f"{regime}-{seed}.json")
    told = [{"kind": f.kind, "method": f.method, "text": f.text} for f in found]
    write_json({"number": number, "findings": told}, folder / f"{regime}-{seed}.found.json")


def report(blocks: list[dict[str, Any]]) -> str:
    """The table of docs/reliability.md: one line per regime."""
    total: dict[str, Counter[str]] = defaultdict(Counter)
    for done in blocks:
        for regime, row in done["counts"].items():
            for key, value in row.items():
                total[regime][key] += value
                total["all"][key] += value
    kinds = [*KINDS, "relation", "oracle", "harness"]
    lines = ["| regime | cases | " + " | ".join(kinds) + " | proved | s/case |", "|---" * (len(kinds) + 4) + "|"]
    for regime in (*ALL, "all"):
        row = total[regime]
        cells = [str(row[f"! {kind}"]) for kind in kinds]
        proved = sum(
            row[f"{method} {status}"] for method in ("auto", "bnb") for status in ("optimal", "infeasible")
        )
        pace = row["seconds"] / max(row["cases"], 1)
        lines.append(f"| {regime} | {row['cases']} | " + " | ".join(cells) + f" | {proved} | {pace:.2f} |")
    endings = Counter({k: v for k, v in total["all"].items() if " " in k and not k.startswith("!")})
    return "\n".join([*lines, "", "endings: " + ", ".join(f"{k} {v}" for k, v in sorted(endings.items()))])


def main() -> int:
    """Run blocks until all are done or Ctrl-C; print the report; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=100_000, help="how many cases")
    parser.add_argument("--start", type=int, default=0, help="number of the first one")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--folder", default="out/fuzz", help="for the state and for failures")
    parser.add_argument("--one", type=int, default=None, help="examine the case of this number only, and print")
    options = parser.parse_args()
    if options.one is not None:
        regime, found, ended = case(options.one)
        print(regime, case_of(options.one)[1], dict(ended), *found, sep="\n")
        return 1 if found else 0
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.jsonl"
    lines = state.read_text(encoding="utf-8").splitlines() if state.exists() else []
    done = [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be cut off
    have = {(entry["start"], entry["stop"]) for entry in done}
    last = options.start + options.seeds
    todo = [(a, min(a + BLOCK, last), str(folder)) for a in range(options.start, last, BLOCK)]
    todo = [work for work in todo if work[:2] not in have]
    print(f"{len(todo)} blocks of {BLOCK} to do, {len(done)} done before", flush=True)
    if not todo:
        print(report(done))
        return _failed(done)
    pool = multiprocessing.get_context("spawn").Pool(options.workers, initializer=os.setsid)
    # a session of their own: Ctrl-C is for this process, and stops no solve in the middle
    try:
        with state.open("a", encoding="utf-8") as file:
            for count, entry in enumerate(pool.imap_unordered(block, todo), 1):
                file.write(json.dumps(entry) + "\n")
                file.flush()
                done.append(entry)
                if count % 10 == 0:
                    print(report(done), flush=True)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on")
    finally:
        pool.terminate()
    print(report(done))
    return _failed(done)


def _failed(done: list[dict[str, Any]]) -> int:
    return int(any(key.startswith("!") for entry in done for row in entry["counts"].values() for key in row))


if __name__ == "__main__":
    raise SystemExit(main())
