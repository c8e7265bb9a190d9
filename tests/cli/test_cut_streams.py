"""Streams that are full, closed, cut off or lack a letter: one message, the right exit status, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from edgealloc.files.instance import load_instance, save_instance
from tests.cli.conftest import SMALL
from tests.places import ROOT

FORKED = """
import json, os, sys
from edgealloc.cli.app import main
for module in json.loads(sys.argv[2]):  # once, and not in every child
    __import__(module)
if "edgealloc.api" in sys.modules:
    for method in ("convex", "psca"):
        sys.modules["edgealloc.api"].solve("cell.json", method)
for descriptors, encoding, words in json.loads(sys.argv[1]):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        report = os.dup(1)
        # closed last, or the file for another would get the number
        for number, path in sorted(descriptors.items(), key=lambda item: item[1] is None):
            if path is None:
                os.close(int(number))
            elif path == "cut":
                end, start = os.pipe()
                os.close(end)
                os.dup2(start, int(number))
            else:
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), int(number))
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding=encoding)
        try:
            main(words)
        except SystemExit as asked:
            os.write(report, f"{asked.code}\\n".encode())
            sys.stdout.flush()  # as at the end of a process: what is left would be a second error
        except BaseException as error:
            os.write(report, f"{type(error).__name__}: {error}\\n".encode())
        os._exit(0)
    os.waitpid(child, 0)
"""


def statuses(*cases: tuple[dict[int, str | None], str, list[str]], first: tuple[str, ...] = ()) -> list[str]:
    """Exit status of each command line with these descriptors (None: closed, cut: nobody reads) and encoding.

    ``first`` are modules that are imported once, before the process forks for each.
    """
    modules = ["edgealloc.scenario.cell", "edgealloc.files.schema", "edgealloc.verify.solution"]
    modules += first
    done = subprocess.run(
        [sys.executable, "-c", FORKED, json.dumps(cases), json.dumps(modules)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.stdout.split("\n")[: len(cases)]


def test_streams_that_cannot_be_written(folder: Path) -> None:
    new, bad = ["new", "--devices", "2"], ["verify", "none.json", "none.json"]
    schema, listed = ["schema", "instance"], ["bench"]
    every = (new, schema, listed, ["--help"], ["solve", "--help"], ["--version"])
    verified = ["verify", "cell.json", "solution.json"]
    cases: list[tuple[dict[int, str | None], str, list[str]]] = [
        *(({1: "/dev/full"}, "utf-8", words) for words in every),
        *(({1: None}, "utf-8", words) for words in every),
        *(({1: "cut"}, "utf-8", words) for words in every),
        ({2: "/dev/full"}, "utf-8", [*new, "--out", "a.json"]),
        ({2: None}, "utf-8", [*new, "--out", "b.json"]),
        ({2: "cut"}, "utf-8", [*new, "--out", "c.json"]),
        ({0: None, 1: None, 2: None}, "utf-8", [*new, "--out", "d.json"]),
        ({2: "/dev/full"}, "utf-8", bad),
        ({1: None, 2: None}, "utf-8", bad),
        ({1: "cut", 2: "cut"}, "utf-8", verified),
        ({1: "/dev/full", 2: "/dev/full"}, "utf-8", verified),
        *(({1: out, 2: "said"}, "utf-8", listed) for out in ("/dev/full", None, "cut")),
    ]
    expected = ["1"] * 6 + ["1"] * 6 + ["141"] * 6 + ["0"] * 4 + ["2", "2", "141", "1"] + ["1", "1", "141"]
    assert statuses(*cases) == expected
    assert Path("said").read_text().splitlines() == [
        "Error: standard output cannot be written (No space left on device)",
        "Error: standard output cannot be written (Bad file descriptor)",
    ]
    assert (
        len({load_instance(f"{name}.json").name for name in "abcd"}) == 1
    )  # whole, with nothing printed into them


def test_encodings_without_a_letter(folder: Path) -> None:
    names = ("東京", "Zürich", "\N{SNOWMAN}")
    save_instance(load_instance("cell.json").with_changes(name="東", device_names=names), "cell.json")
    solve, unknown = ["solve", "cell.json", "--method", "psca"], ["solve", "東京.json"]
    verify = ["verify", "cell.json", "solution.json"]
    cases: list[tuple[dict[int, str | None], str, list[str]]] = [
        ({1: f"said-{encoding}", 2: f"said-{encoding}"}, encoding, words)
        for encoding, words in (
            *(("ascii", words) for words in (solve, unknown, verify)),
            *(("latin-1", words) for words in (unknown, verify)),
            *(("utf-8", words) for words in (solve, unknown)),
        )
    ]
    assert statuses(*cases, first=("edgealloc.api",)) == ["0", "2", "1", "2", "1", "0", "2"]
    said = {encoding: Path(f"said-{encoding}").read_text(encoding=encoding) for encoding in ("ascii", "utf-8")}
    assert all(name in said["utf-8"] for name in names)
    assert r"Z\xfcrich" in said["ascii"]
    assert r"\u2603" in said["ascii"]


def test_files_come_first_so_that_a_cut_stream_loses_none(folder: Path) -> None:
    """Who reads the first line only still has every file that was asked for."""
    simulate = ["simulate", *SMALL, "--out", "rounds.csv", "--plot", "rounds.png"]
    bench = ["bench", "smoke", "--limit", "1", "--methods", "baseline:equal", "--out", ".", "--results", "kept"]
    least = ["least", "cell.json", "--resource", "bandwidth", "--target", "0.6", "--out", "least.json"]
    solve = ["solve", "cell.json", "--out", "s.json", "--plot", "p"]
    first = ("edgealloc.api", "pandas", "joblib", "matplotlib.backends.backend_agg")
    found = statuses(*(({1: "cut"}, "utf-8", words) for words in (simulate, bench, least, solve)), first=first)
    assert found == ["141"] * 4
    for name in ("rounds.csv", "rounds.png", "smoke/smoke.csv", "kept/smoke.csv", "least.json", "s.json"):
        assert Path(name).stat().st_size > 0
    assert Path("p/allocation.png").stat().st_size > 0


def test_the_package_and_its_module_run() -> None:
    for module in ("edgealloc", "edgealloc.cli.app"):
        done = subprocess.run(
            [sys.executable, "-m", module, "schema", "instance"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["$id"] == "urn:edgealloc-instance:1"
