"""Finished runs on disk: what is damaged costs nothing but itself, and nobody writes beside us."""

from __future__ import annotations

import json
import math
import multiprocessing
from pathlib import Path

import pytest

from edgealloc.errors import InputError
from edgealloc.models.trials.store import opened, read_records, scores


def fill(path: Path, count: int = 4) -> list[bytes]:
    with opened(path) as store:
        for i in range(count):
            store.add({"key": f"k{i}", "loss": 0.1 * i, "rounds": [{"loss": None}]})
    return path.read_bytes().splitlines()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"key": "k1"}',
        b'{"key": "k1", "loss": NaN, "digest": "x"}',
        b"null",
        None,
    ],
    ids=["empty", "text", "bytes", "deep", "old", "nan", "null", "changed"],
)
def test_one_bad_line_hides_and_deletes_nothing_else(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "runs.jsonl"
    lines = fill(path)
    lines[1] = lines[1].replace(b"0.1", b"0.2") if damage is None else damage
    before = b"\n".join(lines) + b"\n"
    path.write_bytes(before)
    assert [r["key"] for r in read_records(path)] == ["k0", "k2", "k3"]
    with opened(path) as store:
        assert set(store.known) == {"k0", "k2", "k3"}
        store.add({"key": "k1", "loss": 0.1})
    assert path.read_bytes().startswith(before)
    assert [r["key"] for r in read_records(path)] == ["k0", "k2", "k3", "k1"]


def test_a_line_that_was_cut_off_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    lines = fill(path)
    path.write_bytes(b"\n".join(lines[:3])[:-20])
    with opened(path) as store:
        store.add({"key": "k2", "loss": 0.0})
    assert [r["key"] for r in read_records(path)] == ["k0", "k1", "k2"]


def test_scores_of_runs_that_diverged_are_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    with opened(path) as store:
        store.add({"key": "k", "test_loss": math.nan, "ending": "diverged"})
        kept = store.known["k"]
    (line,) = path.read_text().splitlines()
    json.loads(line, parse_constant=lambda literal: pytest.fail(literal))
    assert read_records(path) == [kept]
    assert math.isnan(scores(kept)["test_loss"])


def _refused(path: Path, answer: multiprocessing.Queue[str]) -> None:
    try:
        with opened(path):
            answer.put("")
    except InputError as error:
        answer.put(str(error))


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    context = multiprocessing.get_context("fork")
    with opened(path):
        answer: multiprocessing.Queue[str] = context.Queue()
        other = context.Process(target=_refused, args=(path, answer))
        other.start()
        assert "another process" in answer.get(timeout=60)
        other.join()
    with opened(path):
        pass
