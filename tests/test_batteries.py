"""What holds of every case of the table, on every engine."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, LinearCrossEntropyLoss
from labelsmooth.priors import PerSample
from tests import oracle, small
from tests.cases import DENSE, ENGINES, PRECISE, Case, gradients
from tests.small import KINDS, SMALL
from tests.table import CASES, HEADS, SERVED

pytestmark = [
    # torch's own forward-mode differentiation does that when first used.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning"),
    # A batch of gradients goes through an operator one at a time.
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
]


@pytest.mark.parametrize("case", SERVED, ids=str)
def test_value_and_gradient(case: Case) -> None:
    leaf = case.z.clone().requires_grad_()
    loss, nll = oracle.cross_entropy(leaf, case.target, **case.options)
    expected = gradients(loss, [leaf])
    for engine in (None, "reference", *([] if case.refused_by_dense else DENSE)):
        leaf = case.z.clone().requires_grad_()
        found, hard = case.loss(leaf, engine=engine, return_nll=True)
        assert_close((found, hard), (loss, nll), equal_nan=True, **PRECISE)
        assert not hard.requires_grad
        assert_close(gradients(found, [leaf]), expected, equal_nan=True, **PRECISE)
    if case.head is None:
        return
    # The head's logits are those.
    leaves = case.head.leaves()
    loss, _ = oracle.cross_entropy(case.head.logits(*leaves), case.target, **case.options)
    expected = gradients(loss, leaves)
    for engine in ("linear", None):
        leaves = case.head.leaves()
        found, hard = case.of_head(*leaves, engine=engine, return_nll=True)
        assert_close((found, hard), (loss, nll), equal_nan=True, **PRECISE)
        assert not hard.requires_grad
        assert_close(gradients(found, leaves), expected, equal_nan=True, **PRECISE)


@pytest.mark.parametrize("case", [case for case in CASES if case.refused], ids=str)
def test_refused_by_every_engine(case: Case) -> None:
    for engine in (None, *ENGINES):
        with pytest.raises(ValueError, match=case.refused):
            case.loss(case.z, engine=engine)
    if case.head is not None:
        with pytest.raises(ValueError, match=case.refused):
            case.of_head(*case.head.leaves())


@pytest.mark.skipif(not DENSE, reason="there is no kernel")
@pytest.mark.parametrize("case", [case for case in SERVED if case.refused_by_dense], ids=str)
def test_refused_by_the_kernel(case: Case) -> None:
    with pytest.raises(ValueError, match=f"^engine='dense' cannot serve: {case.refused_by_dense}"):
        case.loss(case.z, engine="dense")


@pytest.mark.parametrize("case", HEADS, ids=str)
def test_a_module_is_the_function(case: Case) -> None:
    options = dict(case.options)
    call = {name: options.pop(name) for name in ("sample_weight", "denominator") if name in options}
    if isinstance(options.get("prior"), PerSample):
        call["prior"] = options.pop("prior")
    expected, nll = case.loss(case.z, return_nll=True)
    assert_close(CrossEntropyLoss(**options)(case.z, case.target, **call), expected, equal_nan=True)
    plain = CrossEntropyLoss(**options, train_only=True).eval()
    hard = nll if not options.get("z_loss") else case.loss(case.z, label_smoothing=0.0, z_loss=0.0)
    assert_close(plain(case.z, case.target, **call), hard, equal_nan=True)
    head = case.head
    assert head is not None
    K, D = head.weight.shape
    given = {
        "bias": head.bias is not None,
        "scale": head.scale,
        "softcap": head.softcap,
        "dtype": torch.float64,
        **options,
    }
    module = LinearCrossEntropyLoss(D, K, **given)
    state = {"linear.weight": head.weight, "linear.bias": head.bias}
    module.load_state_dict({k: x for k, x in state.items() if x is not None}, strict=False)
    assert_close(module(head.input, case.target, **call), expected, equal_nan=True)


@pytest.mark.parametrize("engine", [*ENGINES, "head"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_gradcheck(case: Case, engine: str) -> None:
    """First and second derivatives, by the logits or the head, and by strengths."""
    if case.refused_by_dense if engine == "dense" else engine == "head" and case.head is None:
        return
    eps = case.options["label_smoothing"]
    plain = case in KINDS
    by = [] if isinstance(eps, float) and plain else [(torch.as_tensor(eps) * torch.ones(small.N)).double()]
    if by and not plain:  # away from the ends of a range, and from one another
        by = [(by[0] if eps else by[0] + 0.1) * torch.linspace(0.8, 1, small.N, dtype=torch.float64)]

    def loss(*leaves: Tensor) -> Tensor:
        strength = {"label_smoothing": leaves[-1]} if by else {}
        leaves = leaves[:-1] if by else leaves
        if engine == "head":
            return case.of_head(*leaves, **strength)
        return case.loss(*leaves, engine=engine, **strength)

    leaves = case.head.leaves() if engine == "head" and case.head else [case.z.clone()]
    leaves = [x.requires_grad_() for x in (*leaves, *by)]
    forward = engine == "reference" or (engine == "head" and plain)  # what other derivatives go through
    assert gradcheck(loss, leaves, check_forward_ad=forward, check_batched_grad=plain)
    assert gradgradcheck(loss, leaves, check_fwd_over_rev=forward and plain, fast_mode=not plain)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_transforms(case: Case) -> None:
    """Go another way than autograd, to the same derivatives."""
    z, loss = case.z, case.loss
    expected = torch.autograd.functional.jacobian(loss, z)
    assert isinstance(expected, Tensor)
    assert_close(torch.func.jacrev(loss)(z), expected)
    assert_close(torch.func.jacfwd(loss)(z), expected)
    direction = torch.linspace(-1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)
    pushed = (expected * direction).sum((-2, -1))
    assert_close(torch.func.jvp(loss, (z,), (direction,)), (loss(z), pushed))
    with forward_ad.dual_level():
        dual = loss(forward_ad.make_dual(z, direction))
        assert_close(forward_ad.unpack_dual(dual).tangent, pushed)
    several = torch.stack([z, 2 * z])
    assert_close(torch.vmap(loss)(several), torch.stack([loss(x) for x in several]))
    if case in KINDS and expected.shape == z.shape:
        assert_close(torch.func.grad(loss)(z), expected)
        assert_close(torch.func.hessian(loss)(z), torch.autograd.functional.hessian(loss, z))


@pytest.mark.parametrize("case", [case for case in KINDS if case.head], ids=str)
def test_transforms_of_a_head(case: Case) -> None:
    assert case.head is not None
    leaves = (case.head.input, case.head.weight)

    def ours(hidden: Tensor, weight: Tensor) -> Tensor:
        return case.of_head(hidden, weight).sum()

    def theirs(hidden: Tensor, weight: Tensor) -> Tensor:
        assert case.head is not None
        return case.loss(case.head.logits(hidden, weight)).sum()

    expected = torch.func.grad(theirs, argnums=(0, 1))(*leaves)
    assert_close(torch.func.grad(ours, argnums=(0, 1))(*leaves), expected)
    assert_close(torch.func.jacrev(ours)(*leaves), expected[0])
    assert_close(torch.func.jacfwd(ours, argnums=1)(*leaves), expected[1])
    tangents = tuple(map(torch.ones_like, leaves))
    assert_close(*(torch.func.jvp(f, leaves, tangents) for f in (ours, theirs)))
    assert_close(*(torch.func.hessian(f, argnums=1)(*leaves) for f in (ours, theirs)))
    assert_close(*(torch.autograd.functional.hvp(f, leaves, tangents) for f in (ours, theirs)))
    weights = torch.stack([leaves[1], 2 * leaves[1]])
    mapped = torch.vmap(ours, in_dims=(None, 0))(leaves[0], weights)
    assert_close(mapped, torch.stack([theirs(leaves[0], w) for w in weights]))


# The whole of the compiler takes two seconds each time: one of each kind of target, prior and statistic.
COMPILED = {
    False: "hard|soft vector|soft matrix|weight|sample|masked|at once|mixed matrix|few|"
    "maxsup hard|confidence hard|relaxation soft|forward hard",
    True: "z_loss|soft vector|cap|mixed few|own hard|margin-squared hard",
}


@pytest.mark.parametrize(
    ("case", "head"),
    [
        pytest.param(c, h, id=f"{c}{' of a head' * h}")
        for h in COMPILED
        for c in SMALL
        if c.name in COMPILED[h].split("|")
    ],
)
def test_one_graph(case: Case, head: bool) -> None:
    """Forward and backward, for all strengths that are tensors."""
    torch.compiler.reset()
    counters.clear()
    function: Callable[..., Any] = case.of_head if head else case.loss
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for factor in (1.0, 0.5, 0.0):
        eps = factor * case.options["label_smoothing"] * torch.ones(small.N, dtype=torch.float64)
        found = []
        for run in (function, compiled):
            leaves = case.head.leaves() if head and case.head else [case.z.clone().requires_grad_()]
            loss, nll = run(*leaves, label_smoothing=eps, return_nll=True)
            found.append([loss, nll, *gradients(loss, leaves)])
        assert_close(found[1], found[0])
    assert counters["stats"]["unique_graphs"] == 1
