"""The documentation: its examples run as printed, its links and names lead somewhere, the site has no warning."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgealloc.errors import MissingPackageError
from tests.places import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/**/*.md")]
)
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]+)?\)")
# `solvers/exact.py`, `run.py`, `solvers/ofdma/`: a file by its path or by its name alone, a folder by its path
_NAMED = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.py|(?:[\w.-]+/)+[\w.-]+\.(?:md|json|toml)|(?:[\w.-]+/){2,})`")
_FOLDERS = ("edgealloc", "solvers", "models", "benchmarks", "docs", "examples", "tests")
_OUTPUT = ("out/", "docs/_build/")  # what commands write
_DOTTED = re.compile(r"\bedgealloc(?:\.[A-Za-z_]\w*)+")
GUIDES = sorted([ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _python(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if _python(page)], ids=_name)
def test_examples_of_a_page_run_one_after_the_other(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in _python(page):
        exec(compile(block, str(page), "exec"), names)


def test_the_way_from_own_files_to_a_proof_and_figures_is_short() -> None:
    (way,) = [block for block in _python(ROOT / "docs" / "own_data.md") if "draw(" in block]
    assert sum(bool(line.strip()) for line in way.splitlines()) <= 12


@pytest.mark.parametrize(("sign", "most"), [("SubcarrierCap(4)", 3), ("own_suite(", 6)])
def test_the_ways_to_a_cap_and_to_a_bench_of_ones_own_are_short(sign: str, most: int) -> None:
    (way,) = [block for block in _python(ROOT / "docs" / "constraints.md") if sign in block]
    assert sum(bool(line.strip()) for line in way.splitlines()) <= most


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files(page: Path) -> None:
    targets = [target for target, _ in _LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", GUIDES, ids=_name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    """A path is one from the root of the repository; a file's name alone is that of some file in it."""
    files = {path.name for folder in _FOLDERS for path in ROOT.glob(f"{folder}/**/*.py")}
    named = sorted({name for name in _NAMED.findall(page.read_text()) if not name.startswith(_OUTPUT)})
    assert [n for n in named if not ((ROOT / n).exists() if "/" in n else n in files)] == []


@pytest.mark.parametrize("page", [page for page in GUIDES if _DOTTED.search(page.read_text())], ids=_name)
def test_python_names_of_a_page_exist(page: Path) -> None:
    absent = []
    for name in sorted(set(_DOTTED.findall(page.read_text()))):
        try:
            pkgutil.resolve_name(name)
        except MissingPackageError:
            continue  # of an extra that is not installed
        except (ImportError, AttributeError):
            absent.append(name)
    assert absent == []


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    listed = {line for block in re.findall(r"```{toctree}(.*?)```", index, re.DOTALL) for line in block.split()}
    pages = {page.stem for page in ROOT.glob("docs/*.md")} - {"index"}
    assert pages <= listed


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    build = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", tmp_path / "doctrees"]
    done = subprocess.run(
        [*build, ROOT / "docs", tmp_path / "html"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "api.html").read_text()
    assert "edgealloc.solve" in page
    assert "time_limit" in page
