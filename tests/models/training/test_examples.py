"""Reading examples and spreading them over devices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgealloc.models.training.examples import (
    device_sizes,
    flip_labels,
    load_text,
    skewed_weights,
    split_dirichlet,
    split_iid,
)

ROWS = [('a quote " inside', "yes"), ("plain", "no"), ("comma, inside", "yes")]


def write(folder: Path, kind: str) -> Path:
    path = folder / f"data.{kind}"
    if kind == "tsv":
        path.write_text("text\tlabel\n" + "".join(f"{t}\t{y}\n" for t, y in ROWS))
    elif kind == "csv":
        quoted = (t.replace('"', '""') for t, _ in ROWS)
        path.write_text("text,label\n" + "".join(f'"{t}",{y}\n' for t, (_, y) in zip(quoted, ROWS, strict=True)))
    else:
        path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in ROWS))
    return path


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_every_format_reads_the_same(tmp_path: Path, kind: str) -> None:
    data = load_text(write(tmp_path, kind))
    assert data.texts == tuple((t,) for t, _ in ROWS)
    assert data.label_names == ("no", "yes")
    assert data.labels.tolist() == [1, 0, 1]
    assert data.take([2, 0]).texts == (("comma, inside",), ('a quote " inside',))


def test_hugging_face_data_on_disk_reads_the_same(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    rows = {"text": [t for t, _ in ROWS], "label": [y for _, y in ROWS]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}).save_to_disk(str(tmp_path / "set"))
    assert load_text(tmp_path / "set").texts == tuple((t,) for t, _ in ROWS)
    with pytest.raises(ValueError, match="no split 'dev'"):
        load_text(tmp_path / "set", split="dev")


def test_faulty_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = write(tmp_path, "tsv")
    with pytest.raises(ValueError, match="no column 'class'"):
        load_text(path, label_field="class")
    with pytest.raises(ValueError, match=r"labels \['yes'\] are not among no"):
        load_text(path, label_names=("no",))
    path.write_text("text\tlabel\nshort row\n")
    with pytest.raises(ValueError, match="row 1 lacks"):
        load_text(path)
    path.write_text("a\tb\tc\tlabel\n1\t2\t3\ty\n")
    with pytest.raises(ValueError, match="text_fields"):
        load_text(path)
    assert load_text(path, text_fields=("a", "c")).texts == (("1", "3"),)
    path.write_text("text\tlabel\n")
    with pytest.raises(ValueError, match="no rows"):
        load_text(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_text(tmp_path / "absent.tsv")
    odd = tmp_path / "data.xml"
    odd.write_text("x")
    with pytest.raises(ValueError, match="none of"):
        load_text(odd)


def test_splits_use_every_example_once() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    sizes = device_sizes(300, skewed_weights(7, 1.0, rng))
    assert sizes.sum() == 300
    assert sizes.min() >= 1
    for parts in (split_iid(sizes, rng), split_dirichlet(labels, sizes, 0.2, rng)):
        assert [len(p) for p in parts] == sizes.tolist()
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(300))


def test_sizes_follow_the_weights() -> None:
    np.testing.assert_array_equal(device_sizes(103, [1, 1, 1]) - 34, [1, 0, 0])
    sizes = device_sizes(10_000, [1, 2, 5])
    np.testing.assert_allclose(sizes / 10_000, np.array([1, 2, 5]) / 8, atol=3e-4)
    with pytest.raises(ValueError, match="cannot give"):
        device_sizes(2, [1, 1, 1])
    with pytest.raises(ValueError, match="positive weight"):
        device_sizes(9, [1, 0, 1])


def test_the_concentration_sets_how_uneven_the_classes_are() -> None:
    labels = np.repeat(np.arange(5), 200)
    sizes = np.full(10, 100)

    def unevenness(concentration: float) -> float:
        parts = split_dirichlet(labels, sizes, concentration, np.random.default_rng(1))
        shares = np.array([np.bincount(labels[p], minlength=5) / len(p) for p in parts])
        return float(np.abs(shares - 0.2).mean())

    assert unevenness(0.1) > unevenness(1.0) > unevenness(1000.0)
    assert unevenness(1000.0) < 0.05
    with pytest.raises(ValueError, match="concentration 0"):
        split_dirichlet(labels, sizes, 0.0, np.random.default_rng(1))


def test_flipped_labels_are_counted_and_never_the_old_ones() -> None:
    labels = np.random.default_rng(0).integers(0, 6, 500)
    flipped = flip_labels(labels, 0.2, 6, np.random.default_rng(1))
    assert (flipped != labels).sum() == 100
    assert set(flipped) <= set(range(6))
    np.testing.assert_array_equal(flip_labels(labels, 0.0, 6, np.random.default_rng(1)), labels)
