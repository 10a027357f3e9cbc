"""What a fit may return in the place of tensors, and what the study makes of it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelsmooth.study import Criterion
from labelsmooth.study.fits.checks import as_result

from .made_up import LinearFit, altered, hard, study

WHOLE: dict[str, Any] = {**LinearFit()(hard(), 0)}


def arrays(result: dict[str, Any]) -> dict[str, Any]:
    """As NumPy would have it."""

    def array(value: Any, dtype: str | None = None) -> np.ndarray:
        return value.detach().numpy() if dtype is None else value.numpy().astype(dtype)

    pairs = {split: (array(result[split][0]), array(result[split][1], "int32")) for split in ("val", "test")}
    train = [array(result["train"][0]), array(result["train"][1], "uint8")]
    extras = {key: array(result[key]) for key in ("clean", "features", "head")}
    history = {name: np.array(curve) for name, curve in result["history"].items()}
    return {**result, **pairs, "train": train, **extras, "history": history}


def lists(result: dict[str, Any]) -> dict[str, Any]:
    pairs = {split: tuple(part.tolist() for part in result[split]) for split in ("val", "test", "train")}
    return {**result, **pairs, **{key: result[key].tolist() for key in ("clean", "features", "head")}}


@pytest.mark.parametrize("form", [arrays, lists])
def test_arrays_and_lists_are_read_as_tensors(form: Any):
    read: dict[str, Any] = {**as_result("my fit", form(WHOLE))}
    assert read.keys() == WHOLE.keys()
    for split in ("val", "test", "train"):
        assert all(
            map(torch.equal, map(torch.Tensor.double, read[split]), map(torch.Tensor.double, WHOLE[split]))
        )
        assert read[split][1].dtype == torch.int64
    for key in ("clean", "features", "head"):
        torch.testing.assert_close(read[key], WHOLE[key], check_dtype=False)
    assert read["history"] == WHOLE["history"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_a_study_of_arrays_is_the_study_of_their_tensors(tmp_path: Path):
    def fit(criterion: Criterion, seed: int) -> dict[str, Any]:
        return arrays({**LinearFit()(criterion, seed)})

    (first,) = study({"a": fit}, tmp_path / "arrays").settings
    (second,) = study({"a": altered()}, tmp_path / "tensors").settings
    assert first == second


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_column_is_the_logit_of_class_1(shape: tuple[int, ...]):
    z, labels = torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([0, 1, 1])
    one = (z.reshape(shape), labels)
    read = as_result("my fit", {"val": one, "test": one, "head": torch.ones(1, 3)})
    assert torch.equal(read["val"][0], torch.tensor([[0, -1.0], [0, 2.0], [0, 0.5]]))
    torch.testing.assert_close(read["test"][0].softmax(1)[:, 1], z.sigmoid())
    assert read.get("head") is not None
    assert torch.equal(read.get("head", z), torch.tensor([[0.0, 0, 0], [1, 1, 1]]))
    probabilities = (z.sigmoid().reshape(shape), labels)
    declared = as_result("my fit", {"val": probabilities, "test": probabilities, "probabilities": True})
    torch.testing.assert_close(declared["val"][0].diff(dim=1)[:, 0], z)


def test_probabilities_that_are_declared_become_their_logarithms():
    p, labels = torch.tensor([[0.25, 0.75], [0.0, 1.0]]), torch.tensor([0, 0])
    read: dict[str, Any] = {
        **as_result("my fit", {"val": (p, labels), "test": (p, labels), "probabilities": True})
    }
    assert read.keys() == {"val", "test", "history"}
    logits = read["val"][0]
    torch.testing.assert_close(logits.softmax(1), p)
    assert logits[1, 0] == math.log(torch.finfo(torch.float32).tiny)  # wrong, but by no infinite amount
    # A forest's, in NumPy.
    given = (p.double().numpy(), labels.numpy())
    again = as_result("my fit", {"val": given, "test": given, "probabilities": True})
    torch.testing.assert_close(again["val"][0].float(), logits)


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_classes_that_are_ruled_out_have_no_say(tmp_path: Path):
    def masked(seed: int, pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        logits, labels = pair
        other = torch.nn.functional.one_hot((labels + 1) % 4, 4).bool()
        return logits.masked_fill(other, -math.inf), labels

    def low(seed: int, pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        logits, labels = masked(seed, pair)
        return logits.clamp_min(-1e4), labels

    (first,) = study({"a": altered(val=masked, test=masked)}, tmp_path / "masked").settings
    (second,) = study({"a": altered(val=low, test=low)}, tmp_path / "low").settings
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("names", [["a", "b"], "abcd", ["a", "b", "c", 3], 4])
def test_names_of_classes_are_one_string_for_each(names: Any, tmp_path: Path):
    fit: Any = altered()
    fit.class_names = names
    with pytest.raises(ValueError, match="class_names must be 4 strings, one for each class, got"):
        study({"a": fit}, tmp_path, seeds=3)


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_names_of_classes_are_kept(tmp_path: Path):
    fit: Any = altered()
    fit.class_names = ("ant", "bee", "cat", "dog")
    (setting,) = study({"a": fit}, tmp_path, seeds=3).settings
    assert setting.class_names == ["ant", "bee", "cat", "dog"]
    assert setting.hard.recall[0] is not None
