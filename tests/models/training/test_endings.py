"""How runs end: diverged, stopped early, cut off; and what they depend on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

from edgealloc.errors import InputError  # noqa: E402
from edgealloc.models.exchange.aggregation import Aggregation  # noqa: E402
from edgealloc.models.training.backbone import LoraSpec  # noqa: E402
from edgealloc.models.training.client import FederatedOptions  # noqa: E402
from edgealloc.models.training.federated import Ending, History, fingerprint, run  # noqa: E402
from edgealloc.models.training.identity import setup_identity, task_digest  # noqa: E402
from edgealloc.models.training.task import Setup, Task  # noqa: E402

SHORT = FederatedOptions(rounds=2, local_epochs=1, batch_size=16, learning_rate=1e-2)


@pytest.fixture(scope="module")
def shared() -> dict[str, Task]:
    return {}


@pytest.fixture
def task(make_task: Callable[..., Task], shared: dict[str, Task]) -> Task:
    """One task for all tests: a run starts from ``initial``, whatever ran before."""
    return shared.setdefault("task", make_task())


def diverged(history: History) -> None:
    assert history.ending is Ending.DIVERGED
    assert all(math.isnan(history.summary()[f"{kind}_loss"]) for kind in ("train", "test"))
    assert all(np.all(np.isfinite(value)) for value in history.state.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 1e30}, "round 1, device 0: training loss"),
        ({"learning_rate": 1e30, "aggregation": Aggregation(correction="exact")}, "round 1"),
        # one step of AdamW moves every weight by the rate: finite, and too large for the wire
        ({"learning_rate": 1e5, "batch_size": 99, "wire_dtype": "float16"}, "more than float16 holds"),
    ],
)
def test_divergence_is_how_a_run_ends(task: Task, changes: dict[str, object], words: str) -> None:
    history = run(task, 0.5, replace(SHORT, **changes))
    diverged(history)
    assert words in history.reason
    assert history.rounds == ()
    assert history.best_round is None


def test_numbers_that_are_none_in_a_checkpoint(task: Task, tmp_path: Path) -> None:
    place = tmp_path / "run.npz"
    run(task, 0.5, SHORT, checkpoint=place)
    with np.load(place) as file:
        arrays = dict(file)
    name = next(key for key in arrays if key.startswith("now/state"))
    arrays[name] = np.full_like(arrays[name], np.nan)
    np.savez(place, **arrays)
    history = run(task, 0.5, SHORT, checkpoint=place)
    assert history.ending is Ending.DIVERGED
    assert "checkpoint" in history.reason
    assert math.isfinite(history.best_test.loss)  # the best round was sound


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"\x80\x04 a pickle", b"PK\x03\x04 half of a zip"])
def test_damaged_checkpoints_say_what_to_do(task: Task, tmp_path: Path, damage: bytes) -> None:
    place = tmp_path / "run.npz"
    place.write_bytes(damage)
    with pytest.raises(InputError, match="remove the file to train from the start") as refused:
        run(task, 0.5, SHORT, checkpoint=place)
    assert "pickle" not in str(refused.value)


def test_early_stopping_ends_at_the_best_round_and_resumes(task: Task, tmp_path: Path) -> None:
    options = replace(SHORT, rounds=8, learning_rate=0.3, patience=1)
    place = tmp_path / "run.npz"
    history = run(task, 1.0, options, checkpoint=place)
    losses = [r["validation_loss"] for r in history.rounds]
    assert history.ending is Ending.STOPPED
    assert len(losses) < 8
    assert history.best_round == len(losses) - 2 == int(np.argmin(losses))
    assert history.test == history.best_test
    again = run(task, 1.0, options, checkpoint=place, progress=lambda r: pytest.fail("trained on"))
    assert (again.test, again.ending) == (history.test, history.ending)
    whole = run(task, 1.0, replace(options, rounds=len(losses), patience=0))
    assert [r["validation_loss"] for r in whole.rounds] == losses
    assert whole.ending is Ending.COMPLETED
    assert whole.test != history.test


def test_what_a_run_depends_on_is_in_its_fingerprint(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    rates, present = np.ones((2, 3)), np.ones((2, 3), bool)

    def mark() -> str:
        return fingerprint(task, rates, present, SHORT)

    seen = {mark()}
    assert mark() in seen
    token = task.feed.inputs["input_ids"][7]
    token[0] += 1
    seen.add(mark())
    token[0] -= 1
    weight = next(p for p in task.handle.model.parameters() if not p.requires_grad)
    with torch.no_grad():
        weight.view(-1)[0] += 1.0
        seen.add(mark())
        weight.view(-1)[0] -= 1.0
    before = task_digest(task)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    seen.add(mark())
    assert task_digest(task) == before
    assert len(seen) == 4


def test_the_key_of_a_setup_knows_contents_and_no_paths(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    rows = [f"text {i}\t{i % 2}" for i in range(6)]

    def setup(folder: str, lines: list[str]) -> Setup:
        place = tmp_path / folder / "sst2"
        place.mkdir(parents=True, exist_ok=True)
        (place / "train.tsv").write_text("\n".join(["text\tlabel", *lines]))
        return Setup("sst2", str(place / "train.tsv"), backbone=str(model))

    first = setup("a", rows)
    same = setup_identity(first, "cpu")
    assert setup_identity(setup("b", rows), "cpu") == same
    assert setup_identity(replace(first, name="other"), "cpu") == same
    assert setup_identity(replace(first, lora=LoraSpec()), "cpu") == same  # said, and the same
    others = [
        setup("c", [*rows[:5], "text 5\t0"]),  # a label
        setup("d", [*rows[:5], "text 6\t1"]),  # a text
        replace(first, lora=LoraSpec(rank=4)),
        replace(first, train_size=3),
    ]
    seen = [setup_identity(other, "cpu") for other in others]
    (model / "weights").write_bytes(b"2")
    seen.append(setup_identity(first, "cpu"))
    assert all(identity != same for identity in seen)
    assert {"threads", "device", "torch"} <= set(same)


def test_options_are_refused_all_at_once() -> None:
    with pytest.raises(InputError) as refused:
        FederatedOptions(rounds=0, learning_rate=math.nan, weight_decay=-1.0, batch_size=2.5, wire_dtype="int8")  # type: ignore[arg-type]
    fields = {fault.field for fault in refused.value.faults}
    assert fields == {"rounds", "learning_rate", "weight_decay", "batch_size", "wire_dtype"}
    with pytest.raises(InputError) as refused:
        Setup(devices=0, concentration=-1.0, label_noise=math.inf)
    assert len(refused.value.faults) == 3
    with pytest.raises(InputError, match="rank = 0"):
        LoraSpec(rank=0)
