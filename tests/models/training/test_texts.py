"""Reading labelled texts: every format, and what is refused by file and row."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from edgealloc.errors import PlausibilityWarning
from edgealloc.models.training.texts import load_sources, load_text

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
    with pytest.raises(ValueError, match=r"label 'yes': not among those of the training set, no"):
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


def lines(*rows: str) -> str:
    return "\n".join(("text\tlabel", *rows)) + "\n"


def test_the_mark_of_some_editors_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    for kind in ("tsv", "csv", "jsonl"):
        path = write(tmp_path, kind)
        plain = load_text(path)
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        marked = load_text(path)
        assert marked.texts == plain.texts
        np.testing.assert_array_equal(marked.labels, plain.labels)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lines("good\ta", "caf\u00e9\tb").encode("latin-1"), "line 3 is not UTF-8"),
        (lines("good\ta").encode("utf-16"), "line 1 is not UTF-8"),
        (lines("good\ta", "  \tb", "fine\ta", "\tb").encode(), "text is empty in rows 2, 4"),
        (lines("good\ta", "fine\t ").encode(), "label is empty in row 2"),
        (lines("good\ta", "tab\tinside\tb").encode(), "row 2 has more values"),
        (b"text\ttext\tlabel\na\tb\tc\n", "column 'text' twice"),
    ],
)
def test_what_cannot_be_meant_is_named_by_row(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "data.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_text(path)


def test_lines_that_are_no_objects_are_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = {
        "{": "line 2 is not JSON",
        "[1]": "line 2 is a JSON list",
        "[" * 100_000: "line 2 is not JSON",
        '{"text": "a", "label": NaN}': "label of row 2 is nan",
        '{"text": "a", "label": [1]}': r"label of row 2 is \[1\]",
        '{"text": "\\ud800", "label": 1}': "text is no text in row 2",
    }
    for line, words in rows.items():
        path.write_text('{"text": "a", "label": "b"}\n' + line + "\n")
        with pytest.raises(ValueError, match=words):
            load_text(path)


def test_what_counts_the_rows_is_no_sentence(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("id,text,score,label\n1,good film,0.5,pos\n2,bad film,0.1,neg\n")
    assert load_text(path).texts == (("good film",), ("bad film",))


def test_one_class_has_one_name(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,label\na,pos\nb,neg\nc, pos \n")
    assert load_text(path).label_names == ("neg", "pos")
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": 1.0}\n{"text": "c", "label": 1.5}\n')
    assert load_text(path).label_names == ("1", "1.5")


def test_sets_that_nothing_can_be_learned_from_or_judged_by(tmp_path: Path) -> None:
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    train.write_text(lines("one\ta", "two\ta"))
    with pytest.raises(ValueError, match="every label is 'a'"):
        load_sources(train, None)
    train.write_text(lines(*(f"text {i}\t{i % 2}" for i in range(50))))
    test.write_text(lines("new\t2"))
    with pytest.raises(ValueError, match=r"test\.tsv: label '2': not among those of the training set, 0, 1"):
        load_sources(train, test)
    with pytest.raises(ValueError, match="every text of it is also in"):
        load_sources(train, train)
    test.write_text(lines("text 3\t1", *(f"new {i}\t1" for i in range(9))))
    with pytest.warns(PlausibilityWarning, match="1 of the 10 texts"):
        load_sources(train, test)
    test.write_text(lines(*(f"new {i}\t1" for i in range(9))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned, held = load_sources(train, test)
    assert held is not None
    assert held.label_names == learned.label_names
