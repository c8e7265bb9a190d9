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


# In README.md's table, and where it is from: a file, what stands before the number, in what unit it is shown.
FDMA_SPEED, OFDMA_SPEED = "benchmarks/results/fdma_speed.md", "benchmarks/results/ofdma_speed.md"
GAPS, AGREEMENT, AGREEMENT_OFDMA = "benchmarks/results/gap.md", "docs/agreement.md", "docs/agreement_ofdma.md"
FIGURES = {
    "1.2 ms": (FDMA_SPEED, "| 100 | fdma-100-s1 .* edgealloc convex .* | 0 | ", 1e3),
    "1.3 s": (FDMA_SPEED, "| 100 | fdma-100-s1 .* SCIP .* | gaplimit | .*? | ", 1.0),
    "20 ms": (FDMA_SPEED, "| 100 | fdma-100-s1 .* IPOPT .* | Solve_Succeeded | .*? | ", 1e3),
    "6.2 ms": (FDMA_SPEED, "| 1000 | fdma-1000-s1 .* edgealloc convex .* | 0 | ", 1e3),
    "0.16 s": (FDMA_SPEED, "| 1000 | fdma-1000-s1 .* IPOPT .* | Solve_Succeeded | .*? | ", 1.0),
    "gap of 3e-06": (AGREEMENT, "| fdma-20-perturbation-s1 | .*? | .*? |  | 2e-06 / ", 1.0),
    "gap of 20 %": (AGREEMENT, "| fdma-20-perturbation-s1 .* | 0e+00 / ", 1e2),
    "1.3 % too high": (AGREEMENT, "fdma-20-perturbation-s1, pyomo:ipopt: ", 1e2),
    "0.12 s to 1e-6": (OFDMA_SPEED, "| (4, 16) | 5 | 5 | .*? | .*? | .*? | ", 1.0),
    "gap of 1.4": (OFDMA_SPEED, "| 4x16 seed 5 | .*? | ", 1e2),
    "to 5.2 %": (OFDMA_SPEED, "| 4x16 seed 2 | .*? | ", 1e2),
    "2.1 s to 1e-6": (OFDMA_SPEED, "| (16, 128) | 5 | 5 | .*? | .*? | .*? | ", 1.0),
    "66 and": (AGREEMENT_OFDMA, "ofdma-16x128-s1, scip: ", 1e2),
    "72 % too high": (AGREEMENT_OFDMA, "ofdma-16x128-s2, scip: ", 1e2),
    "0.0003 %,": (GAPS, "| ofdma | auto | 160 | .*? | .*? | ", 1.0),
    "0.008 %": (GAPS, "| ofdma | auto | 160 | .*? | .*? | .*? | ", 1.0),
    "10 %,": (GAPS, "| ofdma | baseline:alternating | 160 | .*? | .*? | ", 1.0),
    "69 %": (GAPS, "| ofdma | baseline:alternating | 160 | .*? | .*? | .*? | ", 1.0),
    "0.0002 %,": (GAPS, "| fdma | auto | 36 | .*? | .*? | ", 1.0),
    "0.003 %": (GAPS, "| fdma | auto | 36 | .*? | .*? | .*? | ", 1.0),
    "0.001 %,": (GAPS, "| fdma | baseline:alternating | 36 | .*? | .*? | ", 1.0),
    "72 %": (GAPS, "| fdma | baseline:alternating | 36 | .*? | .*? | .*? | ", 1.0),
}


def test_the_readme_shows_what_the_committed_results_say() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("## Beside SCIP") : readme.index("Figures are from")]
    wrong = {}
    for shown, (file, before, unit) in FIGURES.items():
        after = re.escape(before).replace(re.escape(".*?"), "[^|]*").replace(re.escape(".*"), ".*?")
        (number,) = re.findall(after + r"([\d.e+-]+)", (ROOT / file).read_text())[:1] or [""]
        digits = shown.replace("gap of", "").replace("to ", "", 1 if shown.startswith("to") else 0).split()[0]
        precise = len(digits.split("e")[0].replace(".", "").lstrip("0"))
        if shown not in table or not number or float(f"{unit * float(number):.{precise}g}") != float(digits):
            wrong[shown] = number
    assert wrong == {}
    agreement = (ROOT / AGREEMENT).read_text()
    assert "--time-limit 60" in agreement
    assert "fdma-1000-s1, scip: no point; stopped at the time limit" in agreement


def test_no_two_pages_have_one_title() -> None:
    titles = [page.read_text().splitlines()[0] for page in ROOT.glob("docs/*.md")]
    assert sorted(set(titles)) == sorted(titles)


def test_formulas_are_typeset() -> None:
    """No page prints mathematics as an indented block; what is left of those are commands and code."""
    signs = re.compile(r"^    .*(sum_[km]|>=  | <= [A-Z]|gap\(|pi_m|sqrt\()", re.MULTILINE)
    prose = {page: re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M) for page in GUIDES}
    shown = {_name(page): signs.findall(text) for page, text in prose.items()}
    assert {page: found for page, found in shown.items() if found} == {}


def test_pictures_of_the_gallery_are_there() -> None:
    drawn = set(re.findall(r'folder / "(\w+\.png)"', (ROOT / "docs" / "pictures.py").read_text()))
    shown = set(re.findall(r"\(pictures/(\w+\.png)\)", (ROOT / "docs" / "gallery.md").read_text()))
    assert drawn == shown == {path.name for path in ROOT.glob("docs/pictures/*")}


@pytest.mark.slow
def test_the_command_draws_all_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    subprocess.run([sys.executable, ROOT / "docs" / "pictures.py", tmp_path], check=True, timeout=600)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in ROOT.glob("docs/pictures/*")}


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    listed = {line for block in re.findall(r"```{toctree}(.*?)```", index, re.DOTALL) for line in block.split()}
    pages = {page.stem for page in ROOT.glob("docs/*.md")} - {"index"}
    assert pages <= listed


def build(folder: Path, *options: str) -> None:
    """The site, in a process of its own; a warning is an error."""
    pytest.importorskip("sphinx")
    pytest.importorskip("latex2mathml")
    words = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", folder / "doctrees", *options]
    done = subprocess.run(
        [*words, ROOT / "docs", folder / "html"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "<math " in (folder / "html" / "ofdma.html").read_text()


def test_pages_build_without_a_warning(tmp_path: Path) -> None:
    """All pages and their formulas; the one that is made of docstrings takes most of the time of the site."""
    plain = {
        "exclude_patterns": "_build,api.md",
        "suppress_warnings": "myst.xref_missing,toc.not_readable",
        "extensions": "myst_parser",
        "html_theme": "basic",
    }
    build(tmp_path, *(word for name, value in plain.items() for word in ("-D", f"{name}={value}")))


@pytest.mark.slow  # `make docs` builds it too
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    build(tmp_path)
    page = (tmp_path / "html" / "api.html").read_text()
    assert "edgealloc.solve" in page
    assert "time_limit" in page
