"""The linear engine works in chunks of rows: how many, of what size, and what each costs."""

import copy
import dataclasses
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from labelsmooth import LinearCrossEntropyLoss, functional
from tests.cases import REDUCTIONS, Head, chunks, kernel, needs_chunks, random

linear_cross_entropy: Any = functional.linear_cross_entropy  # which takes options from dictionaries here

N, D, K = 7, 3, 5
HEAD = Head(random(N, D), random(K, D), random(K))
TARGET = torch.arange(N) % K


class EnoughError(Exception):
    pass


class Products(TorchDispatchMode):
    """The rows of each that is made, until there are enough."""

    def __init__(self, enough: int | None = None) -> None:
        super().__init__()
        self.rows: list[int] = []
        self.enough = enough

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self.rows.append(len(args[func.overloadpacket is not torch.ops.aten.mm]))
            if len(self.rows) == self.enough:
                raise EnoughError
        return func(*args, **(kwargs or {}))


def of_nothing(
    rows: int, features: int, classes: int, enough: int | None = None, **options: Any
) -> list[int]:
    """The rows of each chunk of logits, that cost neither memory nor time."""
    products = Products(enough)
    with suppress(EnoughError), torch.device("meta"), torch.no_grad(), products:
        hidden, weight = torch.zeros(rows, features), torch.zeros(classes, features)
        target = torch.zeros(rows, dtype=torch.long)
        linear_cross_entropy(hidden, weight, target, engine="linear", **options)
    return products.rows


# An accidental fourth costs a third of the time.
@needs_chunks
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_reduced_loss_takes_three_products_a_chunk(reduction: str) -> None:
    leaves = HEAD.leaves()
    given = {"reduction": reduction, "label_smoothing": 0.1, **chunks(2)}
    with Products() as products:
        loss = linear_cross_entropy(*leaves[:2], TARGET, linear_bias=leaves[2], **given)
        torch.autograd.grad(loss, leaves)
    assert len(products.rows) == 3 * 4


@pytest.mark.parametrize(
    ("rows", "classes", "expected"),
    [
        (300, 1000, [300]),
        (300, 2**24 // 300, [300]),
        (300, 2**24 // 299, [150, 150]),  # the first that are more than 64 MiB
        (300, 100_000, [150, 150]),
        (300, 200_000, [100, 100, 100]),
        (129, 300_000, [65, 64]),  # where 64 MiB have fewer than 128
        (128, 10**7, [128]),
        (1, 10**8, [1]),
        (0, 1000, []),
    ],
)
def test_chunks_are_even_and_keep_to_64_mib_or_128_rows(rows: int, classes: int, expected: list[int]) -> None:
    assert of_nothing(rows, 1, classes) == expected


@needs_chunks
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({"batch_chunk_size": 2}, [2, 2, 2, 1]),
        ({"acc_policy": "compact", "acc_dtype": torch.float32, "allow_retain_graph": True}, [7]),
        ({"batch_chunk_size": 2, "chunking_method": None}, [2, 2, 2, 1]),
        ({"batch_chunk_size": 99}, [7]),
        ({"chunking_method": None}, [7]),
        ({"chunking_method": "aspect_ratio"}, [4, 3]),
        ({"chunking_method": "aspect_ratio:2"}, [2, 2, 2, 1]),
        ({"chunking_method": "aspect_ratio:99"}, [1] * 7),
        ({"chunking_method": "aspect_ratio", "batch_chunk_size": 4}, [4, 3]),
    ],
    ids=str,
)
def test_options_of_torch_set_the_chunks(given: dict[str, Any], sizes: list[int], reduction: Any) -> None:
    options = nn.LinearCrossEntropyOptions(**given)
    hidden, weight, bias = leaves = HEAD.leaves()
    settings = {"label_smoothing": 0.1, "reduction": reduction}
    with Products() as products:
        loss = linear_cross_entropy(hidden, weight, TARGET, linear_bias=bias, options=options, **settings)
    expected = F.cross_entropy(F.linear(*leaves), TARGET, **settings)
    assert_close(loss, expected)
    both = (torch.autograd.grad(x.sum(), leaves, retain_graph=True) for x in (loss, expected))
    assert_close(*both)
    made = products.rows if reduction == "none" else products.rows[::3]  # a sum has its gradients at once
    assert made == sizes
    head = LinearCrossEntropyLoss(D, K, options=options, reduction=reduction, dtype=torch.float64)
    with torch.no_grad(), Products() as products:
        found = head(hidden, TARGET)
    assert_close(found, F.cross_entropy(head.linear(hidden), TARGET, reduction=reduction).detach())
    assert products.rows == sizes
    assert f"options={options}, label_smoothing" in repr(head)
    assert copy.deepcopy(head).chunking == options


@needs_chunks
@pytest.mark.parametrize("method", ["aspect_ratio", "aspect_ratio:2", "aspect_ratio:3", None])
@pytest.mark.parametrize("size", [None, 1, 5, 400])
def test_chunks_are_as_large_as_torchs(method: str | None, size: int | None) -> None:
    options = nn.LinearCrossEntropyOptions(chunking_method=method, batch_chunk_size=size)
    for rows in (1, 2, 7, 64, 300):
        for features, classes in ((1, 1), (4, 1), (3, 5), (4, 64), (64, 1000)):
            asked = rows, features, classes
            try:
                theirs = options._adjust(*asked, torch.float32).batch_chunk_size
            except ValueError:
                by_method = dataclasses.replace(options, batch_chunk_size=None)
                if size == 1 == of_nothing(*asked, 1, options=by_method)[0]:
                    continue  # torch compares it with 0
                with pytest.raises(ValueError, match=r"^options must have a batch_chunk"):
                    of_nothing(*asked, options=options)
            else:
                assert of_nothing(*asked, 1, options=options)[0] == theirs, asked


@pytest.mark.slow
@needs_chunks
def test_compiled_with_options() -> None:
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.compiler.reset()
    for given in (chunks(2), {"options": nn.LinearCrossEntropyOptions(chunking_method="aspect_ratio")}):
        hidden, weight, bias = leaves = HEAD.leaves()
        loss = compiled(hidden, weight, TARGET, linear_bias=bias, **given)
        expected = F.cross_entropy(F.linear(*leaves), TARGET)
        assert_close(loss, expected)
        assert_close(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves))


OPERATORS: dict[str, dict[str, Any]] = {
    "plain": {},
    "softcap": {"softcap": 2.0},
    "scale": {"scale": 0.5},
    "prior": {"prior": torch.full((K,), 1 / K, dtype=torch.float64), "exclude_target": True},
    "weight": {"weight": torch.ones(K, dtype=torch.float64)},
    "soft": {"target": torch.full((N, K), 1 / K, dtype=torch.float64)},
}


@pytest.mark.slow
@kernel
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # torch 2.14's check
def test_operators_are_as_torch_wants_them(name: str) -> None:
    absent = dict.fromkeys(("scale", "softcap", "prior", "weight"))
    given: dict[str, Any] = absent | {"target": TARGET} | OPERATORS[name]
    counted = torch.arange(N) != 1
    measures = (given["target"], counted, given["prior"], given["weight"], "exclude_target" in given)
    bend = given["scale"], given["softcap"]
    arguments: tuple[Any, ...] = (*HEAD.leaves(), *bend, torch.float64, None, None, *measures)
    found = torch.ops.labelsmooth.linear.default(*arguments)
    torch.library.opcheck(torch.ops.labelsmooth.linear.default, arguments)
    grad = random(5, N)
    arguments = tuple(x.detach() if isinstance(x, Tensor) else x for x in arguments)
    assert found.shape == (10, N)
    for needs in ([True, True, True], [True, False, False], [False, True, False], [False, False, True]):
        torch.library.opcheck(torch.ops.labelsmooth.linear_backward.default, (grad, needs, *arguments))
        grads = torch.ops.labelsmooth.linear_backward(grad, needs, *arguments)
        asked = zip(arguments, needs, strict=False)
        assert [x.shape for x in grads] == [x.shape for x, need in asked if need]
