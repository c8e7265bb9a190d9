"""Labelled texts as people keep them: tsv, csv, jsonl, Hugging Face data sets on disk or, with a network, the hub.

What cannot be what was meant (an empty text, an encoding that is not UTF-8, a test on what was trained on) is
refused by file and row. Needs numpy only (``datasets`` for Hugging Face sources).
"""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.errors import PlausibilityWarning, needs, shown
from edgealloc.units import IntArray

_NAMED = 5  # rows or labels that a message lists
_OVERLAP = 0.01  # share of test texts that may be training texts too without a word: short texts repeat


@dataclass(frozen=True, slots=True)
class TextData:
    """Sentences, or tuples of sentences, with class labels.

    Parameters
    ----------
    texts
        Tuples of one or two sentences. Length N.
    labels
        Class indices into ``label_names``. Shape [N].
    label_names
        The classes, sorted.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: IntArray
    label_names: tuple[str, ...]

    def take(self, index: ArrayLike) -> TextData:
        """Return the examples with these indices, shape [n], in this order."""
        chosen = np.asarray(index, dtype=np.int64)
        return TextData(tuple(self.texts[i] for i in chosen), self.labels[chosen], self.label_names)


def load_text(
    source: str | Path,
    *,
    text_fields: Sequence[str] | None = None,
    label_field: str = "label",
    label_names: Sequence[str] | None = None,
    split: str | None = "train",
) -> TextData:
    """Read a text classification set.

    Parameters
    ----------
    source
        A .tsv, .csv or .jsonl file in UTF-8 with a header or keys; a folder written by ``datasets``; or a hub
        name.
    text_fields
        One or two columns that hold the sentences; by default every text column that is not the label.
    label_field
        The column that holds the class.
    label_names
        The classes and their order, from the training set; by default the sorted values found.
    split
        Which split of a Hugging Face data set.

    Returns
    -------
    TextData
        N examples and their classes.

    Raises
    ------
    ValueError
        If the file is not UTF-8, columns are missing, ambiguous or there twice, a row is short, long or has an
        empty text or label, a label is neither text nor a number, or is not among ``label_names``.
    FileNotFoundError
        If there is no such file.
    MissingPackageError
        Without ``datasets``, where the source is no file.
    """
    try:
        rows = list(_rows(source, split))
    except csv.Error as error:  # a field that is never closed
        raise ValueError(f"{source}: cannot be read as {Path(source).suffix} ({error})") from None
    if not rows:
        raise ValueError(f"{source}: no rows")
    columns = list(rows[0])
    if label_field not in columns:
        raise ValueError(f"{source}: no column {label_field!r}; it has {', '.join(map(str, columns))}")
    if text_fields is None:  # a column of numbers counts or rates the rows
        held = [c for c in columns if c != label_field and isinstance(rows[0][c], str)]
        text_fields = [c for c in held if not all(map(_is_number, (row.get(c) for row in rows)))] or held
        if not 1 <= len(text_fields) <= 2:
            raise ValueError(f"{source}: text columns {text_fields}; name one or two of them in text_fields")
    wanted = (*text_fields, label_field)
    for number, row in enumerate(rows, start=1):
        if any(row.get(column) is None for column in wanted):
            raise ValueError(f"{source}: row {number} lacks a value in {', '.join(wanted)}")
        if None in row:  # where csv puts what the header has no name for
            raise ValueError(
                f"{source}: row {number} has more values than the header; quote what holds separators"
            )
    for column in wanted:
        empty = [number for number, row in enumerate(rows, start=1) if not str(row[column]).strip()]
        if empty:
            raise ValueError(f"{source}: {column} is empty in {_some('row', empty)}: fill or remove them")
        if torn := [number for number, row in enumerate(rows, start=1) if _is_torn(row[column])]:
            raise ValueError(
                f"{source}: {column} is no text in {_some('row', torn)}: half of a character (\\ud800)"
            )
    found = [_class_name(source, number, row[label_field]) for number, row in enumerate(rows, start=1)]
    names = tuple(sorted(set(found)) if label_names is None else label_names)
    index = {name: i for i, name in enumerate(names)}
    if unknown := sorted(set(found) - set(names)):
        raise ValueError(
            f"{source}: {_some('label', [repr(name) for name in unknown])}: not among those of the training set, "
            f"{', '.join(names)}"
        )
    texts = tuple(tuple(str(row[field]) for field in text_fields) for row in rows)
    return TextData(texts, np.array([index[name] for name in found], dtype=np.int64), names)


def load_sources(train: str | Path, test: str | Path | None) -> tuple[TextData, TextData | None]:
    """Read training and test set, and look whether one can be learned from the first and judged by the second.

    Parameters
    ----------
    train, test
        As for :func:`load_text`; without a test set the test examples are taken from the training set later.

    Returns
    -------
    tuple of TextData and TextData or None
        Both; None where no test set was named.

    Raises
    ------
    ValueError
        If there is one class only, if the test set has a class that training has not, or if every test text is a
        training text too. Also as :func:`load_text`.
    FileNotFoundError, MissingPackageError
        As :func:`load_text`.
    """
    learned = load_text(train)
    if len(learned.label_names) < 2:
        raise ValueError(f"{train}: every label is {learned.label_names[0]!r}; with one class nothing is learned")
    if test is None:
        return learned, None
    held = load_text(test, label_names=learned.label_names, split="test")
    known = set(learned.texts)
    shared = sum(text in known for text in held.texts)
    if shared == len(held.texts):
        raise ValueError(
            f"{test}: every text of it is also in {train}; a test needs texts that were not trained on"
        )
    if shared > _OVERLAP * len(held.texts):
        warnings.warn(
            f"{shared} of the {len(held.texts)} texts of {test} are also in {train}: test losses look better than "
            "they are",
            PlausibilityWarning,
            stacklevel=2,
        )
    return learned, held


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_torn(value: Any) -> bool:
    """Whether a text holds half of a character, which JSON can say and UTF-8, and so a tokenizer, cannot."""
    return isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value)


def _class_name(source: str | Path, number: int, value: Any) -> str:
    """The class that a label names: 1 and 1.0 are one, and space around a name is none of it."""  # noqa: DOC501
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"{source}: the label of row {number} is {shown(value)}: a text or a number is wanted")
    return str(int(value)) if value == int(value) and not isinstance(value, bool) else str(value)


def _some(noun: str, values: Sequence[object]) -> str:
    more = ", ..." if len(values) > _NAMED else ""
    return f"{noun}{'s' * (len(values) > 1)} {', '.join(map(str, values[:_NAMED]))}{more}"


def _rows(source: str | Path, split: str | None) -> Iterable[Mapping[str, Any]]:
    """Yield the rows of a file, of a data set on disk (a folder), or of one on the hub (any other name).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    MissingPackageError
        Without ``datasets``, where the source is no file.
    ValueError
        For an unknown ending, text that is not UTF-8, or a split that is not there.
    """
    path = Path(source)
    if path.is_file():
        if path.suffix not in (".tsv", ".csv", ".jsonl", ".json"):
            raise ValueError(f"{path}: ending {path.suffix!r} is none of .tsv, .csv, .jsonl")
        text = _text(path)
        if path.suffix in (".tsv", ".csv"):
            lines = StringIO(text, newline="")
            if path.suffix == ".csv":
                table = csv.DictReader(lines)
            else:  # quotes are text: sentences hold unbalanced ones
                table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            titles = table.fieldnames or ()
            if twice := sorted({title for title in titles if titles.count(title) > 1}):
                raise ValueError(f"{path}: {_some('column', [repr(title) for title in twice])} twice: one of each")
            yield from table
        else:
            yield from _objects(path, text)
        return
    if path.suffix in (".tsv", ".csv", ".jsonl", ".json"):
        raise FileNotFoundError(f"{path}: no such file")
    needs("datasets", "train", f"reading the Hugging Face data set {str(source)!r}")
    import datasets

    found = datasets.load_from_disk(str(path)) if path.is_dir() else datasets.load_dataset(str(source))
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise ValueError(f"{source}: no split {split!r}; it has {', '.join(found)}")
        found = found[split]
    yield from found


def _text(path: Path) -> str:
    """The text of a file in UTF-8, without the mark that some editors put before it.

    Raises
    ------
    ValueError
        Names the line that is in another encoding.
    """
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line} is not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _objects(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a jsonl file.

    Raises
    ------
    ValueError
        Names the line that holds none.
    """
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: texts may hold other line ends
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}: line {number} is not JSON ({error})") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}: line {number} is a JSON {type(row).__name__}, must be an object")
            yield row
