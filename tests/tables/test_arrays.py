"""Arrays and tables from files: which array is meant, names of rows, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from edgealloc.errors import InputError
from edgealloc.tables.arrays import read_array, read_csv
from edgealloc.tables.columns import columns_of

GAIN = 1e-11 * np.random.default_rng(5).exponential(size=(3, 4))


def _words(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        read_array(path)
    return str(caught.value)


def test_every_kind_of_file_gives_back_the_same_doubles(tmp_path: Path) -> None:
    np.save(tmp_path / "g.npy", GAIN)
    np.savez(tmp_path / "g.npz", GAIN)
    savemat(tmp_path / "g.mat", {"H": GAIN, "K": 3.0})
    np.savetxt(tmp_path / "g.csv", GAIN, delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "spaces.csv", GAIN, fmt="%.17g", header="gains")
    pd.DataFrame(GAIN).to_csv(tmp_path / "index.csv")
    pd.DataFrame(GAIN).to_csv(tmp_path / "bare.csv", index=False)
    pd.DataFrame(GAIN, columns=list("abcd")).to_csv(tmp_path / "titles.csv", index=False, sep=";")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 8
    for path in paths:
        stored = read_array(path)
        assert np.array_equal(stored.values, GAIN), path
        assert stored.names is None


def test_rows_of_a_csv_may_have_names(tmp_path: Path) -> None:
    pd.DataFrame(GAIN, index=["a", "b", "c"]).to_csv(tmp_path / "index.csv")
    pd.DataFrame({"device": ["a", "b", "c"], "gain": GAIN[:, 0]}).to_csv(tmp_path / "one.csv", index=False)
    assert read_array(tmp_path / "index.csv").names == ["a", "b", "c"]
    one = read_array(tmp_path / "one.csv")
    assert one.names == ["a", "b", "c"]
    assert np.array_equal(one.values, GAIN[:, 0])


def test_one_of_several_arrays_is_named_or_called_gain(tmp_path: Path) -> None:
    savemat(tmp_path / "two.mat", {"H": GAIN, "D": GAIN + 1.0})
    np.savez(tmp_path / "two.npz", gain=GAIN, noise=GAIN + 1.0)
    assert np.array_equal(read_array(f"{tmp_path / 'two.mat'}:D").values, GAIN + 1.0)
    assert np.array_equal(read_array(tmp_path / "two.npz").values, GAIN)
    assert "arrays: H (3, 4), D (3, 4)" in _words(tmp_path / "two.mat")
    assert "no array 'Q'" in _words(f"{tmp_path / 'two.mat'}:Q")


def test_what_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    for suffix in (".npy", ".npz", ".mat"):
        bad = tmp_path / f"bad{suffix}"
        bad.write_bytes(b"\x93NUMPY nothing like it")
        assert "unreadable" in _words(bad)
        assert "no such file" in _words(tmp_path / f"absent{suffix}")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    assert "unreadable" in _words(tmp_path / "objects.npy")  # pickles run code
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 256)
    assert "save(..., '-v7')" in _words(tmp_path / "new.mat")
    assert "a file of .npy, .npz, .mat, .csv" in _words("gains.xlsx")
    assert "No such file" in _words(tmp_path / "absent.csv")


def test_cells_of_a_csv_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_text("a;b\n1e-11;2e-11\n0,5;x\n")
    assert "row 2: a = '0,5'; allowed: a number, with a decimal point" in _words(path)
    assert "row 2: b = 'x'" in _words(path)
    path.write_text("1,2\n3\n")
    assert "row 2: cells = 1; allowed: 2, as the first row has" in _words(path)
    path.write_text("\n")
    assert "empty" in _words(path)
    path.write_bytes("näme\n1\n".encode("latin-1"))
    assert "not UTF-8" in _words(path)


def test_a_byte_order_mark_and_quotes_are_no_part_of_a_title(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('\ufeff"name","energy_j"\n"a, the first",2\n', encoding="utf-8")
    assert read_csv(path) == [["name", "energy_j"], ["a, the first", "2"]]
    assert columns_of(path) == ({"energy_j": [2.0]}, ["a, the first"])


def test_a_line_end_in_a_name_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text('name,energy_j\r\n"a,\nleft",2\r\n"b\u2028c",3\r\n')
    assert columns_of(path) == ({"energy_j": [2.0, 3.0]}, ["a,\nleft", "b\u2028c"])


def test_columns_of_whatever_has_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"device": ["a", "b"], "energy_j": [1.0, 2.0]})
    table = np.array([("a", 1.0), ("b", 2.0)], dtype=[("device", "U3"), ("energy_j", float)])
    sources = [frame, frame.set_index("device"), frame.to_dict("list"), table]
    for name, index in (("index.csv", True), ("bare.csv", False)):
        frame.to_csv(tmp_path / name, index=index)
        sources += [tmp_path / name, pd.read_csv(tmp_path / name)]
    frame.set_index("device").to_csv(tmp_path / "named.csv")
    pyarrow = pytest.importorskip("pyarrow")
    sources += [str(tmp_path / "named.csv"), pyarrow.Table.from_pandas(frame)]
    assert len(sources) == 10
    for source in sources:
        columns, names = columns_of(source)
        assert names == ["a", "b"]
        assert {title: np.asarray(column).tolist() for title, column in columns.items()} == {
            "energy_j": [1.0, 2.0]
        }


def test_what_has_no_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    for frame in ([1.0, 2.0], np.ones(3), pd.DataFrame(np.ones((2, 2))), 5, {}, tmp_path / "twice.csv", "d.xlsx"):
        with pytest.raises(InputError):
            columns_of(frame)
