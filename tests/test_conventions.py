"""Each call on the page of conventions gives the number and the gradient of the framework in its row."""

import re
from dataclasses import fields, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.conventions import CONVENTIONS, Loss
from tests.conventions_batch import batch

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "conventions.md"
TEXT = PAGE.read_text(encoding="utf-8")
HEAD = ["framework", "its loss", "labelsmooth", "remark"]
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| framework ")
]
CALLS = {name: call for name, _, call, _ in ROWS}


@cache
def names_of_the_page() -> dict[str, Any]:
    """What the calls are made of, as the page has it."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    namespace: dict[str, Any] = {}
    with torch.random.fork_rng():
        exec(compile(block, PAGE, "exec"), namespace)
    return namespace


def called(call: str, names: dict[str, Any]) -> Loss:
    """The value of the code in a cell: lines, of which the last is the loss."""
    assert re.fullmatch(r"`[^`]+`(<br>`[^`]+`)*", call), call
    *lines, last = re.findall(r"`([^`]+)`", call)
    exec("\n".join(lines), names)
    return eval(last, names)


def gradient(loss: Loss, z: Tensor) -> Tensor:
    first = loss[0] if isinstance(loss, tuple) else loss
    cotangent = torch.linspace(0.5, 2.0, first.numel(), dtype=z.dtype).reshape(first.shape)
    return torch.autograd.grad(first, z, cotangent)[0]


def check(name: str, call: str, K: int, seed: int) -> None:
    loss, ignored, _ = CONVENTIONS[name]
    b = batch(K, ignored, seed)
    theirs, ours = b.z.clone().requires_grad_(), b.z.clone().requires_grad_()
    expected = loss(replace(b, z=theirs))
    names = names_of_the_page() | {field.name: getattr(b, field.name) for field in fields(b)}
    got = called(call, names | {"z": ours})
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(got, ours), gradient(expected, theirs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_call_gives_the_loss_of_its_framework(name: str):
    for K, seed in product(CONVENTIONS[name].classes, range(3)):
        check(name, CALLS[name], K, seed)


def test_every_row_has_a_formula_and_every_formula_a_row():
    assert sorted(name for name, *_ in ROWS) == sorted(CONVENTIONS)


def test_every_table_has_the_same_head():
    heads = re.findall(r"^\| (framework .*) \|\n\|---\|---\|---\|---\|$", TEXT, re.MULTILINE)
    assert {tuple(head.split(" | ")) for head in heads} == {tuple(HEAD)}
    assert len(heads) == TEXT.count("\n|---")
    assert {len(row) for row in ROWS} == {len(HEAD)}


def test_the_names_of_the_page_are_those_of_the_batch():
    """Otherwise a call would mix what the page shows with what is tested."""
    shown = {
        name for name, value in names_of_the_page().items() if isinstance(value, Tensor | int | float)
    }  # fmt: skip
    assert shown == {field.name for field in fields(batch(2, None, 0))} - {"L"}


@pytest.mark.parametrize(
    ("name", "argument", "other"),
    [
        ("fairseq `label_smoothed_cross_entropy`", 'off_target="others"', 'off_target="all"'),
        ("JoeyNMT `XentLoss(smoothing=e)`", "K - 2", "K - 1"),
        ("Liger, with `lse_square_scale=c` and `weight=w`", "c * z[y != -100]", "c * z"),
        ("Paddle, with `weight=w`", "e * w.mean()", "e * w[y]"),
        ('AllenNLP, `average="batch"`', "mask / length", "mask"),
        ("timm `BinaryCrossEntropy(smoothing=e)`, class indices", "prior=1 / K", "prior=1 / 2"),
    ],
)
def test_another_convention_differs(name: str, argument: str, other: str):
    assert argument in CALLS[name]
    with pytest.raises(AssertionError, match="not close"):
        check(name, CALLS[name].replace(argument, other), 7, 0)


def test_no_argument_gives_ligers_z_loss_with_class_weights():
    with pytest.raises(AssertionError, match="not close"):
        check(
            "Liger, with `lse_square_scale=c` and `weight=w`",
            "`cross_entropy(z, y, w, label_smoothing=e, z_loss=c)`",
            7,
            0,
        )
