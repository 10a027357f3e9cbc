"""Every example in the documentation runs, and every public name is documented."""

import doctest
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import labelsmooth
from labelsmooth import formulas, functional, priors, schedules
from labelsmooth._targets.options import CrossEntropyOptions, ModuleOptions

ROOT = Path(__file__).parent.parent
SOURCE = Path(labelsmooth.__file__).parent
# labelsmooth.__main__ is the command itself.
MODULES = sorted(
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if path.name != "__main__.py"
)
STUDY = ("labelsmooth.study", "labelsmooth.calibration")
STUDY_EXTRA = {"jinja2", "joblib", "matplotlib", "optuna", "rich", "safetensors", "sklearn", "tyro"}
STUDY_EXTRA |= {"PIL", "polars", "scipy"}  # to read data
FRAMEWORKS = {"accelerate", "lightning", "transformers", "trl"}
MADE_OF = (formulas, priors, schedules)


def public(module: ModuleType) -> dict[str, Any]:
    """What a module offers: what it says, or what is defined in it."""
    own = [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    ]
    names = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    return {
        name: getattr(module, name) for name in names if not isinstance(getattr(module, name), ModuleType)
    }


OFFERED: dict[str, Any] = {
    name: value for module in (labelsmooth, functional, *MADE_OF) for name, value in public(module).items()
}
# Methods, which have a source and an example; and what they and one's own are made of, or give back.
PARTS = {
    *("Formula", "Interval", "RowStatistics"),
    *("Factors", "nll", "smoothed_nll", "model_entropy", "log_likelihood", "times"),
    *("Prior", "PerSample", "ByClass", "Schedule", "Predictions"),
}
TYPES = {"Distance", "Shape", "Tree"}  # of arguments
METHODS = {name: value for name, value in OFFERED.items() if name not in PARTS | TYPES}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if name.startswith(STUDY) and error.name in STUDY_EXTRA:
            pytest.skip(f"needs {error.name}")
        if name.startswith("labelsmooth.integrations") and error.name in FRAMEWORKS:
            pytest.skip(f"needs {error.name}")
        raise
    # An example that writes does so in ``folder``.
    monkeypatch.chdir(tmp_path)
    names = {"folder": tmp_path}
    assert doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_no_module_is_missed() -> None:
    assert {"labelsmooth", "labelsmooth.functional", "labelsmooth._engines.reference"} <= set(MODULES)


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_documented(name: str) -> None:
    value = METHODS[name]
    doc = inspect.getdoc(value) or ""
    parameters = inspect.signature(value).parameters
    for section in ("Args", "Example", "Reference") if parameters else ("Example", "Reference"):
        assert re.search(rf"^{section}:$", doc, re.MULTILINE), f"{name} has no section {section}"
    assert ">>>" in doc
    # Options in common are explained where the docstring says.
    refers = re.search(
        r"^    (\*\*)?(options|others): .*(cross_entropy|CrossEntropyLoss)`", doc, re.MULTILINE
    )
    common = ModuleOptions.__annotations__ | CrossEntropyOptions.__annotations__ if refers else {}
    for parameter in parameters:
        assert parameter in common or re.search(rf"^    {parameter}: ", doc, re.MULTILINE), (
            f"{name} does not explain {parameter}"
        )


@pytest.mark.parametrize("name", sorted(PARTS))
def test_parts_are_documented(name: str) -> None:
    assert OFFERED[name].__doc__


@pytest.mark.parametrize("name", OFFERED)
def test_public_names_are_on_a_page(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", page.read_text(encoding="utf-8")) for page in PAGES)


def test_parts_and_types_are_offered() -> None:
    assert set(OFFERED) >= PARTS | TYPES


def test_public_names_are_complete() -> None:
    """Every public loss of functional is tested above."""
    own = {
        name
        for name, value in vars(functional).items()
        if inspect.isfunction(value)
        and value.__module__.startswith(functional.__name__)
        and not name.startswith("_")
    }
    assert own <= set(functional.__all__)
