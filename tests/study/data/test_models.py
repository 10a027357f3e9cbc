"""Models by name, and from a module of the user's."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from labelsmooth.study.models.factories import factory, made

MODULE = """
import torch

def net(*, num_classes, inputs):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))

def nothing(*, num_classes, inputs):
    return 7

def other(classes):
    return torch.nn.Linear(2, classes)

width = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder, which Python does not look in by itself."""
    name = f"module_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", ".")])
    return name


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", (5,)),
        ("mlp", (3, 8, 9)),
        ("linear", (5,)),
        ("linear", (1, 8, 8)),
        ("cnn", (1, 8, 8)),
        ("cnn", (3, 32, 17)),
    ],
)
def test_every_model_gives_logits_of_its_classes(name: str, shape: tuple[int, ...]) -> None:
    model = made(name, factory(name), 4, shape).eval()
    assert model(torch.randn(2, *shape)).shape == (2, 4)


def test_a_cnn_is_for_images() -> None:
    with pytest.raises(
        ValueError, match=re.escape("model cnn requires images, (C, H, W), got rows of shape (5,)")
    ):
        made("cnn", factory("cnn"), 4, (5,))


def test_a_function_in_the_current_folder_makes_the_model(module: str) -> None:
    model = made(f"{module}:net", factory(f"{module}:net"), 3, (2, 4))
    assert isinstance(model, nn.Sequential)
    assert model(torch.zeros(1, 2, 4)).shape == (1, 3)


@pytest.mark.parametrize("name", ["resnet", "resnet:", ":net", "", "MLP"])
def test_a_name_of_no_model_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"model must be mlp, cnn, linear or module:function, got '{name}'"):
        factory(name)


def test_a_wrong_module_or_function_is_refused(module: str) -> None:
    with pytest.raises(ValueError, match=r"module nowhere\.at cannot be imported: No module named 'nowhere'"):
        factory("nowhere.at:net")
    said = f"model '{module}:nett' must be a function in its module, {module} has none: did you mean net?"
    with pytest.raises(ValueError, match=re.escape(said)):
        factory(f"{module}:nett")
    with pytest.raises(ValueError, match="must be a function in its module"):
        factory(f"{module}:width")


def test_a_function_that_makes_no_model_is_refused(module: str) -> None:
    said = f"model must be a torch.nn.Module, got int from {module}:nothing(num_classes=3, inputs=(2,))"
    with pytest.raises(ValueError, match=re.escape(said)):
        made(f"{module}:nothing", factory(f"{module}:nothing"), 3, (2,))
    said = f"model must be made by {module}:other(num_classes=3, inputs=(2,)), which fails: "
    with pytest.raises(ValueError, match=re.escape(said)):
        made(f"{module}:other", factory(f"{module}:other"), 3, (2,))
