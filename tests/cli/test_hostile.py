"""Hostile names, paths, files and streams, on every command: one message, the right exit status, nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgealloc.cli.app import main
from edgealloc.files.instance import load_instance, save_instance
from tests.cli.conftest import SMALL, answered, run

STEER = "\x1b[31mred\u202e\r\x07"  # colours the terminal, turns the direction of writing, overwrites the line
FOLDER = f"a{STEER} [b]$x^{{2$|"  # also markup, mathematics and a cell's end


EVERY: dict[str, tuple[tuple[object, ...], ...]] = {  # {d}: a folder of a hostile name
    "new": (
        ("new", "--out", "{d}/new.json", "--positions", "{d}/places.json"),
        ("new", "--out", "{d}"),
        ("new", "--from", "{d}/odd.csv", "--ignore", STEER),
        ("new", "--from", "{d}/odd.csv", "--gains", "{d}/none.npy", "--set", f"{STEER}=1"),
    ),
    "solve": (
        ("solve", "{d}/cell.json", "--out", "{d}/s.json", "--certificate", "{d}/c.json", "--plot", "{d}/pictures"),
        ("solve", "{d}/cell.json", "--method", STEER),
        ("solve", "{d}/none.json"),
        ("solve", "{d}/cell.json", STEER),
    ),
    "compare": (("compare", "{d}/cell.json", "--methods", "psca"), ("compare", "{d}", "--methods", STEER)),
    "verify": (
        ("verify", "{d}/cell.json", "{d}/solution.json", "--certificate", "{d}/proof.json"),
        ("verify", "{d}/cell.json", "{d}/odd.json"),
        ("verify", "{d}/none", "{d}/none", "--certificate", "{d}"),
    ),
    "least": (("least", "{d}/cell.json", "--resource", "deadline", "--target", "1e-9", "--out", "{d}/l.json"),),
    "plan": (
        (
            "plan",
            "{d}/cell.json",
            "--time",
            "60",
            "--rounds",
            "2:2",
            "--out",
            "{d}/p.json",
            "--certificate",
            "{d}/r.json",
        ),
        ("plan", "{d}/cell.json", "--method", STEER),
        ("plan", "{d}/none.json"),
    ),
    "simulate": (("simulate", *SMALL, "--out", "{d}/r.csv", "--plot", "{d}/r.png"), ("simulate", "--plot", "{d}")),
    "export": (
        ("export", "{d}/cell.json", "--to", "lp", "--out", "{d}/model.lp"),
        ("export", "{d}/none.json", "--to", STEER, "--out", "{d}/x"),
    ),
    "schema": (("schema", "instance"), ("schema", STEER)),
    "methods": (("methods",), ("methods", STEER)),
    "bench": (
        ("bench", "smoke", "--limit", "1", "--methods", "psca", "--out", "{d}/bench", "--results", "{d}/kept"),
        ("bench", STEER),
        ("bench", "smoke", "--methods", STEER, "--out", "{d}/bench"),
        ("bench", "smoke", "--check", "{d}/cell.json", "--out", "{d}/bench"),
    ),
    "calibrate": (("calibrate", "{d}/none.json"), ("calibrate", "{d}/cell.json", "--dropouts", STEER)),
    "validate": (("validate", "{d}/none.json"), ("validate", "{d}/cell.json", "--out", "{d}/cell.json")),
    "demo": (("demo", "--out", "{d}/cell.json/demo"), ("demo", "--devices", STEER)),
    "warmup": (("warmup", STEER),),
}


@pytest.mark.parametrize("command", sorted(main.commands))
def test_no_command_prints_a_name_that_steers(command: str, folder: Path) -> None:
    odd = folder / FOLDER
    odd.mkdir()
    for name in ("cell.json", "solution.json", "proof.json"):
        (odd / name).write_bytes((folder / name).read_bytes())
    claimed = json.loads((odd / "solution.json").read_text())
    claimed |= {"instance": STEER, "method": STEER}
    claimed["devices"][0]["name"] = STEER
    (odd / "odd.json").write_text(json.dumps(claimed))
    (odd / "odd.csv").write_text(f"name,gain,{STEER}\n{STEER},1e-9,{STEER}\n", newline="")
    for words in EVERY[command]:
        answered(run(*(str(word).replace("{d}", str(odd)) for word in words)), 0, 1, 2, 3)


@pytest.mark.parametrize("name", ["\x1b[31m", "a\nb", "\u202eb", "a\u200bb", "\ud800", "\0", "a\u2028b", "\x85"])
def test_names_that_steer_are_refused_at_load(folder: Path, name: str) -> None:
    data = json.loads((folder / "cell.json").read_text())
    option = {"payload_lora_bits": 1e5, "cycles_lora": 1e6, "underfit_factor": 1.0, "label": name}
    data["devices"][0]["adapter_options"] = [option]
    data["devices"][1]["name"] = data["name"] = name
    (folder / "odd.json").write_text(json.dumps(data))
    for words in (("solve", "odd.json"), ("verify", "odd.json", "solution.json"), ("compare", "odd.json")):
        done = run(*words)
        answered(done, 2)
        assert "instance: name" in done.output
    data["name"] = "\N{SNOWMAN} Zürich 東\u3000京 =1+1 $[b]$"  # strange, and nobody's harm
    (folder / "odd.json").write_text(json.dumps(data))
    done = run("solve", "odd.json")
    answered(done, 2)
    assert ": name = " in done.output
    assert "label" in done.output


def test_names_of_every_script_and_every_mark_are_shown_as_they_are(folder: Path) -> None:
    names = ("[bold]東京[/]", "$a_b$ $", "=cmd|' /C calc'!A0")
    cell = load_instance(folder / "cell.json").with_changes(name="\N{SNOWMAN} [b] $x$ $", device_names=names)
    save_instance(cell, folder / "cell.json")
    done = run("solve", "cell.json", "--method", "psca", "--plot", "pictures")
    answered(done, 0)
    assert all(name in done.output for name in (*names, cell.name))
    assert {path.name for path in (folder / "pictures").iterdir()} == {"allocation.png", "convergence.png"}


# ---- paths ----


def _links(folder: Path) -> dict[str, Path]:
    (folder / "soft.json").symlink_to("cell.json")
    (folder / "hard.json").hardlink_to(folder / "cell.json")
    (folder / "deep").mkdir()
    return {
        "itself": Path("cell.json"),
        "another spelling": folder / "deep" / ".." / "cell.json",
        "a symbolic link": Path("soft.json"),
        "a hard link": Path("hard.json"),
    }


def test_no_output_goes_onto_an_input_or_another_output(folder: Path) -> None:
    onto_case = _links(folder)
    (folder / "places.json").write_text("{}")
    (folder / "allocation.png").hardlink_to(folder / "cell.json")
    (folder / "smoke").mkdir()
    committed = folder / "smoke" / "smoke.csv"
    committed.write_text("case,method\n")
    least = ("least", "cell.json", "--resource", "deadline", "--target", "0.2", "--out")
    bench = ("bench", "smoke", "--limit", "1", "--methods", "psca", "--out", ".")
    wrong: list[tuple[object, ...]] = [
        *(("solve", "cell.json", "--out", path) for path in onto_case.values()),
        *(("solve", "cell.json", "--certificate", path) for path in onto_case.values()),
        *((*least, path) for path in onto_case.values()),
        ("solve", "cell.json", "--out", "both.json", "--certificate", "deep/../both.json"),
        ("solve", "cell.json", "--warm-start", "solution.json", "--out", "solution.json"),
        ("solve", "cell.json", "--positions", "places.json", "--plot", "p", "--out", "places.json"),
        ("solve", "solution.json", "--plot", ".", "--out", "subcarriers.png"),
        ("solve", "cell.json", "--plot", "."),
        ("new", "--out", "both.json", "--positions", folder / "both.json"),
        ("new", "--from", "cell.json", "--out", "hard.json"),
        ("new", "--from", "cell.json", "--gains", "solution.json", "--out", "solution.json"),
        ("simulate", "--out", "both.csv", "--plot", "./both.csv"),
        ("calibrate", "cell.json", "--store", "cell.json"),
        ("calibrate", "cell.json", "--out", "both.json", "--store", "both.json"),
        (*bench, "--check", committed),
        ("bench", "smoke", "--out", "deep", "--check", committed, "--results", "smoke"),
        (*bench, "--results", "deep/../smoke"),
    ]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for words in wrong:
        done = run(*words)
        answered(done, 2)
        assert "command line has 1 fault" in done.output, (words, done.output)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ("solve", "cell.json", "--out", "none/s.json"),
        ("solve", "cell.json", "--plot", "cell.json/p"),
        ("least", "cell.json", "--resource", "energy", "--target", "0.2", "--out", "none/l.json"),
        ("simulate", "--plot", "x" * 300),
        ("calibrate", "cell.json", "--store", "cell.json/runs.jsonl"),
        ("validate", "cell.json", "--out", "cell.json/seen"),
        ("bench", "smoke", "--results", "cell.json/kept"),
    ):
        done = run(*words)
        answered(done, 2)
        assert "Invalid value for '--" in done.output
    monkeypatch.setattr(os, "access", lambda *_: False)
    for words in (("solve", "cell.json", "--out", "s.json"), ("demo",), ("solve", "cell.json", "--plot", "p")):
        done = run(*words)
        answered(done, 2)
        assert "may not be written" in done.output


def test_what_was_found_is_shown_even_where_it_cannot_be_written(folder: Path) -> None:
    done = run("solve", "cell.json", "--out", "/dev/full")
    answered(done, 2)
    assert "bound G" in done.output
    assert "No space left" in done.output


# ---- contents ----


def _spoiled(whole: str) -> dict[str, bytes]:
    late = '"latency_s": 30.0'
    assert late in whole
    return {
        "not UTF-8": b'{"name": "\xe9"}',
        "NUL": b"\0" * 64,
        "deep": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "deep inside": whole.replace(late, f'"latency_s": {"[" * 900}{"]" * 900}').encode(),
        "twice": b'{"format": 1, "format": 2}',
        "NaN": whole.replace(late, '"latency_s": NaN').encode(),
        "Infinity": whole.replace(late, '"latency_s": -Infinity').encode(),
        "beyond doubles": whole.replace(late, f'"latency_s": 1{"0" * 400}').encode(),
        "many digits": whole.replace(late, f'"latency_s": 1{"0" * 5000}').encode(),
        "an exponent": whole.replace(late, '"latency_s": 1e400').encode(),
        "a key that steers": whole.replace(late, f"{late}, {json.dumps(STEER)}: 1").encode(),
        "empty": b"",
        "a list": b"[]",
    }


def test_every_reader_takes_every_file_for_what_it_is(folder: Path) -> None:
    files: list[object] = ["/dev/zero", "/dev/null", ".", "none/x.json", "x" * 300, "cell.json/x", "loop", "fifo"]
    Path("loop").symlink_to("loop")
    os.mkfifo("fifo")
    for suffix in ("csv", "npy", "mat"):  # by their endings these would be read
        os.mkfifo(f"fifo.{suffix}")
        Path(f"bytes.{suffix}").write_bytes(b"\xff\0\x1b[31m" * 9)
        files += [f"fifo.{suffix}", f"bytes.{suffix}"]
    Path("devices.csv").write_text("name,gain\na,1e-9\n")
    for number, content in enumerate(_spoiled(Path("cell.json").read_text()).values()):
        files.append(Path(f"{number}.json"))
        Path(f"{number}.json").write_bytes(content)
    for file in files:
        for words in (
            ("solve", file),
            ("least", file, "--resource", "energy", "--target", "0.2"),
            ("compare", file),
            ("verify", file, "solution.json"),
            ("solve", "cell.json", "--warm-start", file),
            ("solve", "cell.json", "--plot", "pictures", "--positions", file),
            ("calibrate", file),
            ("validate", file),
            ("bench", "smoke", "--check", file),
            ("new", "--from", file),
            ("new", "--from", "devices.csv", "--gains", file),
        ):
            done = run(*words)
            answered(done, 2)
            assert "fault" in done.output or words[0] == "bench", done.output
        answered(run("verify", "cell.json", file), 1, 2)  # a solution or a proof that is none is rejected
        answered(run("verify", "cell.json", "solution.json", "--certificate", file), 1, 2)


def test_a_byte_order_mark_is_no_fault(folder: Path) -> None:
    whole = Path("cell.json").read_bytes()
    Path("marked.json").write_bytes(b"\xef\xbb\xbf" + whole)
    assert load_instance("marked.json") == load_instance("cell.json")


# ---- streams ----
