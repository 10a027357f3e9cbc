"""What a fit returns instead, and arguments out of range: each is named, with the rule it breaks."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from labelsmooth.study import Criterion, DigitsFit, FitResult
from labelsmooth.study.fits.checks import as_result

from .made_up import altered, bare, study

FLAT, LABELS = torch.zeros(6, 4), torch.arange(6) % 4
PAIR = (FLAT, LABELS)
FORM = r'fit must return \{"val": \(logits, labels\), "test": \(logits, labels\)\}, got '
BAD_RETURNS: dict[str, tuple[Any, str]] = {
    "nothing": (None, FORM + "NoneType"),
    "a pair": (PAIR, FORM + "tuple"),
    "no test": ({"val": PAIR}, FORM + "no test"),
    "no val": ({"test": PAIR}, FORM + "no val"),
    "neither": ({}, FORM + "no test and no val"),
    "logits alone": ({"val": PAIR, "test": FLAT}, FORM + "Tensor for 'test'"),
    "three of them": ({"val": (FLAT, FLAT, LABELS), "test": PAIR}, FORM + "tuple for 'val'"),
    "names": (
        {"val": PAIR, "test": (["a", "b"], LABELS)},
        r"fit's 'test': logits must be a tensor, an array or a nested list of numbers, got list",
    ),
    "None for labels": ({"val": (FLAT, None), "test": PAIR}, FORM + "tuple for 'val'"),
    "logits of 3 dimensions": (
        {"val": PAIR, "test": (FLAT[None], LABELS)},
        r"fit's 'test': labels must be integers of shape \(1, 6\), got torch.int64 \(6,\)",
    ),
    "rows of 2 dimensions": (
        {"val": PAIR, "test": (FLAT[None], LABELS[None])},
        r"fit's 'test': logits must be of shape \(N, K\), or \(N,\) of two classes, got \(1, 6, 4\)",
    ),
    "one number": (
        {"val": PAIR, "test": (FLAT[0, 0], LABELS)},
        r"fit's 'test': logits must be floating point .* got torch.float32 \(\)",
    ),
    "a class that is ruled out and right": (
        {"val": (FLAT.index_fill(1, torch.tensor([2]), -math.inf), LABELS), "test": PAIR},
        r"fit's 'val': labels must name classes with logits above -inf, .* class 2 in row 2",
    ),
    "one column of three classes": (
        {"val": PAIR, "test": (FLAT[:, 0], LABELS)},
        r"fit's 'test': labels must lie in \[0, 2\), got 0 to 3",
    ),
    "logits that are declared": (
        {"val": PAIR, "test": PAIR, "probabilities": True},
        r"fit's 'val|test': probabilities must be at least 0 and sum to 1 in every row, got \[0.0, .* row 0",
    ),
    "a word that declares": (
        {"val": PAIR, "test": PAIR, "probabilities": "yes"},
        r"fit's 'probabilities' must be True or False, got str",
    ),
    "integer logits": (
        {"val": (FLAT.long(), LABELS), "test": PAIR},
        r"fit's 'val': logits .* got torch.int64",
    ),
    "no rows": (
        {"val": (FLAT[:0], LABELS[:0]), "test": PAIR},
        r"fit's 'val': logits must have at least one row",
    ),
    "labels of another length": (
        {"val": PAIR, "test": (FLAT, LABELS[:5])},
        r"fit's 'test': labels must be integers of shape \(6,\), got torch.int64 \(5,\)",
    ),
    "swapped": ({"val": (LABELS, FLAT), "test": PAIR}, r"fit's 'val': logits must be floating point"),
    "labels out of range": (
        {"val": PAIR, "test": (FLAT, LABELS + 1)},
        r"fit's 'test': labels must lie in \[0, 4\), got 1 to 4",
    ),
    "padded labels": (
        {"val": PAIR, "test": (FLAT, LABELS - 100)},
        r"fit's 'test': labels must lie in \[0, 4\), got -100 to -97",
    ),
    "logits that are NaN": (
        {"val": (FLAT + math.nan, LABELS), "test": PAIR},
        r"fit's 'val': logits must be finite, or -inf for some of a row's classes, got nan",
    ),
    "logits that are infinite": (
        {"val": PAIR, "test": (FLAT - math.inf, LABELS)},
        r"fit's 'test': logits must be finite, or -inf for some of a row's classes, got -inf",
    ),
    "probabilities": (
        {"val": PAIR, "test": (FLAT + 0.25, LABELS)},
        "fit's 'test': must be logits, got probabilities: every row is at least 0 and sums to 1; "
        'return "probabilities": True beside them if that is what they are$',
    ),
    "short probabilities": (
        {"val": ((FLAT + LABELS[:, None] * torch.arange(4)).softmax(1).bfloat16(), LABELS), "test": PAIR},
        "fit's 'val': must be logits, got probabilities",
    ),
    "classes that differ": (
        {"val": PAIR, "test": (FLAT[:, :3], LABELS % 3)},
        r"fit must return logits of the same K classes in every call, got \[3, 4\]",
    ),
    "bad training rows": (
        {"val": PAIR, "test": PAIR, "train": (FLAT, LABELS + 1)},
        r"fit's 'train': labels must lie in",
    ),
    "clean labels of other rows": (
        {"val": PAIR, "test": PAIR, "train": PAIR, "clean": LABELS[:3]},
        r"fit's 'clean' must be of shape \(6,\), got \(3,\)",
    ),
    "features of other rows": (
        {"val": PAIR, "test": PAIR, "features": FLAT[:3]},
        r"fit's 'features' must be of shape \(6, D\), got \(3, 4\)",
    ),
    "a head of other classes": (
        {"val": PAIR, "test": PAIR, "head": FLAT},
        r"fit's 'head' must be of shape \(4, D\), got \(6, 4\)",
    ),
    "features that are a name": (
        {"val": PAIR, "test": PAIR, "features": "last"},
        r"fit's 'features' must be a tensor, an array or a nested list of numbers, got str",
    ),
    "features and a head that do not fit": (
        {"val": PAIR, "test": PAIR, "features": FLAT[:, :2], "head": FLAT[:4]},
        r"fit's 'features' and 'head' must agree in D, got 2 and 4",
    ),
    "a history of tensors": (
        {"val": PAIR, "test": PAIR, "history": {"loss": [torch.tensor(1.0)]}},
        r"fit's 'history' must hold lists of numbers by name",
    ),
    "a history of numbers": (
        {"val": PAIR, "test": PAIR, "history": {"loss": 1.0}},
        r"fit's 'history' must hold lists of numbers by name",
    ),
    "a whole model": (
        {"val": PAIR, "test": PAIR, "state": torch.nn.Linear(2, 2)},
        r"fit's 'state' must hold tensors by name",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For studies that never come to results; a database takes longer to make than they take."""
    return tmp_path_factory.mktemp("bad")


@pytest.mark.parametrize("case", BAD_RETURNS)
def test_what_a_fit_returns_instead_is_named(case: str, folder: Path):
    returned, message = BAD_RETURNS[case]
    with pytest.raises(ValueError, match="^my fit: " + message):
        study({"my fit": lambda criterion, seed: returned}, folder, settings={"case": case})
    assert not (folder / "results.json").exists()


def test_logits_may_look_like_probabilities_here_and_there():
    logits = FLAT + LABELS[:, None] * torch.arange(4)
    but_one = logits.softmax(1).index_copy(0, torch.tensor([5]), torch.tensor([[0.5, 0.6, 0.0, 0.0]]))
    for rows in (but_one, but_one - torch.tensor([1.0, 0.0, 0.0, 0.0]), logits.log_softmax(1)):
        as_result("my fit", {"val": (rows, LABELS), "test": PAIR})


def test_a_fit_that_never_calls_the_criterion_is_told_to(folder: Path):
    def fit(criterion: Criterion, seed: int) -> FitResult:
        return bare(Criterion(torch.nn.CrossEntropyLoss()), seed)

    with pytest.raises(ValueError, match=r"^my fit: fit must call criterion\(logits, labels\), got no call$"):
        study({"my fit": fit}, folder)


@pytest.mark.parametrize("split", ["val", "test"])
def test_rows_that_differ_between_calls_are_named(split: str, folder: Path):
    message = "^my fit: fit must return the same 'val' and 'test' labels, and K, in every call"
    moved = altered(**{split: lambda seed, pair: (pair[0].roll(seed, 0), pair[1].roll(seed))})
    fewer = altered(**{split: lambda seed, pair: (pair[0][seed:], pair[1][seed:]), "features": None})
    for name, fit in (("moved", moved), ("fewer", fewer)):
        with pytest.raises(ValueError, match=message):
            study({"my fit": fit}, folder, settings={"case": (name, split)})


BAD_ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "eps too large": ({"eps": [0.1, 1.5]}, r"eps must lie in \[0, 1\], got 1.5"),
    "eps negative": ({"eps": [-0.1]}, r"eps must lie in \[0, 1\], got -0.1"),
    "eps NaN": ({"eps": [math.nan]}, r"eps must lie in \[0, 1\], got nan"),
    "eps a matrix": (
        {"eps": torch.tensor([[0.1, 0.2]])},
        r"eps must hold numbers, got tensor\(\[0.1000, 0.2000\]\)",
    ),
    "eps a string": ({"eps": ["0.1"]}, r"eps must hold numbers, got '0.1'"),
    "no eps": ({"eps": []}, r"eps must hold at least one smoothing above 0, got \[\]"),
    "no smoothing": ({"eps": [0, 0.0]}, r"eps must hold at least one smoothing above 0, got \[0, 0.0\]"),
    "one seed": ({"seeds": 1}, r"seeds must be an integer in \[2, 1000\], got 1"),
    "no worker": ({"workers": 0}, r"workers must be an integer of at least 1, got 0"),
    "no fit": ({"fit": {}}, r"fit must hold at least one fit, got an empty mapping"),
    "names alike": ({"fit": {"a b": bare, "A-b": bare}}, r"fit must have names that differ .*, got a b, A-b"),
    "names without a letter": ({"fit": {"?!": bare}}, r"fit must have names that differ .*, got \?!"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_are_named_and_nothing_is_written(case: str, tmp_path: Path):
    options, message = BAD_ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        study(**{"fit": bare, "folder": tmp_path / "new", **options})
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"rows": 0},
        {"rows": 801},
        {"flipped": -0.1},
        {"flipped": 1.1},
        {"epochs": 0},
        {"batch_size": 0},
        {"hidden": 0},
    ],
)
def test_digits_that_cannot_be_are_named(fields: dict[str, Any]):
    (name,) = fields
    with pytest.raises(ValueError, match=rf"{name}.* must .* got .*{fields[name]}"):
        DigitsFit(**fields)
