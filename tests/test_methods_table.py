"""The tables of the pages are those that the code gives, and have everything in them."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

import labelsmooth
from labelsmooth import formulas, priors, schedules
from labelsmooth._core.statistics import RowStatistics

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("methods_table", DOCS / "methods_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    """The rows of the tables of methods, by the name in their first cell."""
    found = (re.fullmatch(r"\| `(\w+)` \| (.*) \|", line) for line in text.splitlines())
    cells = {row[1]: row[2].split(" | ") for row in found if row is not None}
    return {name: row for name, row in cells.items() if len(row) == 5}


def made_by(module: ModuleType) -> list[str]:
    """The public functions of a module, and its classes of formulas."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "").startswith(module.__name__)
        and (inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, formulas.Formula)))
    ]


@pytest.mark.parametrize("page", ["explanation/methods.md", "how_to/extending.md", "explanation/engines.md"])
def test_a_page_is_up_to_date(generator: ModuleType, page: str) -> None:
    text = text_of(page)
    assert generator.rendered(page, text) == text, "run python docs/methods_table.py"


def test_a_page_without_a_place_for_its_table_is_refused(generator: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"extending\.md must have a place for the table 'lengths'"):
        generator.rendered("how_to/extending.md", "no markers")


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in made_by(formulas) if inspect.isclass(vars(formulas)[name]) and name != "Formula"),
        *made_by(priors),
        *made_by(schedules),
        *(name for name in labelsmooth.__all__ if callable(vars(labelsmooth)[name])),
    ],
)
def test_every_method_is_in_the_table(name: str) -> None:
    # Both are label smoothing, in a row of its own.
    if name in ("CrossEntropyLoss", "LinearCrossEntropyLoss"):
        name = "LabelSmoothing"
    formula, _, engines, source, grade = rows(text_of("explanation/methods.md"))[name]
    assert re.fullmatch(r"(\$[^$]+\$(<br>)?)+", formula)
    assert engines
    assert re.search(r" \d{4}", source)
    assert grade in "ABCD–"


@pytest.mark.parametrize(
    "named",
    [
        *(name for module in (formulas, priors, schedules) for name in vars(module).get("__all__", ())),
        *("Schedule", "ByClass", "Shape"),
    ],
)
def test_every_public_name_is_on_a_page(named: str) -> None:
    pages = [text_of(page) for page in ("reference/api.md", "explanation/methods.md", "how_to/extending.md")]
    assert any(re.search(rf"\b{named}\b", page) for page in pages)


@pytest.mark.parametrize(
    ("name", "statistics", "engines"),
    [
        ("LabelSmoothing", "lse target_z prior_z", "all"),
        ("MaxSup", "lse target_z hinge", "all but sharded"),
        ("ConfidencePenalty", "lse target_z model_z", "all"),
        ("LabelRelaxation", "lse target_z", "all"),
        ("ForwardCorrection", "lse target_z overlap", "all"),
        ("LabelSmoothingLoss", "lse target_z prior_z", "reference dense triton"),
    ],
)
def test_what_the_table_says_of_some(name: str, statistics: str, engines: str) -> None:
    _, used, where, *_ = rows(text_of("explanation/methods.md"))[name]
    assert used.replace("`", "") == statistics
    assert where.replace("`", "") == engines


def test_statistics_that_are_asked_for_are_seen(generator: ModuleType) -> None:
    class Odd(formulas.Formula):
        def __call__(self, s: RowStatistics, eps: torch.Tensor) -> torch.Tensor:
            return s.prior_z * s.target_mass if bool((eps > 0).all()) else s.model_z

    _, asked = generator.observed(generator._smoothed(formula=Odd()))
    assert asked == ["prior_z"]  # a mass is a constant, and the other branch was not taken


def test_an_equation_fits_a_table(generator: ModuleType) -> None:
    r"""A docstring with all that would break one.

    .. math::
        \ell = |a\,b| \quad\text{or}\quad \begin{cases} 0 & \{x\} \\ 1 \end{cases}, \qquad
        \epsilon \in [0, 1]

    And more.
    """
    found = generator.equations(test_an_equation_fits_a_table)
    assert "|" not in found
    assert r"\\" not in found
    assert re.findall(r"\$([^$]+)\$", found)[-1] == r"\epsilon \in [0, 1]"
    assert "And more" not in found


@pytest.mark.parametrize("field", RowStatistics._fields)
def test_every_statistic_is_explained(field: str) -> None:
    assert re.search(rf"^\| `{field}` \| .{{5,}} \|", text_of("how_to/extending.md"), re.MULTILINE)
