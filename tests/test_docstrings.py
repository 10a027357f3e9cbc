"""Every example in the documentation runs, and every public name is documented."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

import labelsmooth
from labelsmooth import functional

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
PUBLIC = [(name, getattr(labelsmooth, name)) for name in labelsmooth.__all__ if name != "functional"]
PUBLIC += [(name, getattr(functional, name)) for name in functional.__all__]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if name.startswith(STUDY) and error.name in STUDY_EXTRA:
            pytest.skip(f"needs {error.name}")
        raise
    # An example that writes does so in ``folder``.
    monkeypatch.chdir(tmp_path)
    names = {"folder": tmp_path}
    assert doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_no_module_is_missed() -> None:
    assert {"labelsmooth", "labelsmooth.functional", "labelsmooth.engines.reference"} <= set(MODULES)


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_public_names_are_documented(name: str, value: object) -> None:
    doc = inspect.getdoc(value) or ""
    for section in ("Args", "Example", "Reference"):
        assert re.search(rf"^{section}:$", doc, re.MULTILINE), f"{name} has no section {section}"
    assert ">>>" in doc
    parameters = inspect.signature(value).parameters  # pyright: ignore[reportArgumentType]
    for parameter in parameters:
        assert re.search(rf"^    (\*\*)?{parameter}: ", doc, re.MULTILINE), (
            f"{name} does not explain {parameter}"
        )
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    assert any(re.search(rf"\b{name}\b", page.read_text(encoding="utf-8")) for page in pages)


def test_public_names_are_complete() -> None:
    """Every public loss of functional is tested above."""
    own = {
        name
        for name, value in vars(functional).items()
        if inspect.isfunction(value) and value.__module__ == functional.__name__ and not name.startswith("_")
    }
    assert own <= set(functional.__all__)
