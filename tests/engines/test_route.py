"""One place picks an engine, and says why one that is asked for cannot serve."""

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torch.testing._internal.logging_tensor import LoggingTensor

from labelsmooth import functional
from labelsmooth.engines import available

cross_entropy: Any = functional.cross_entropy  # which takes options from dictionaries here

DENSE = available()["dense"]
built = pytest.mark.skipif(not DENSE.present, reason=str(DENSE))

Z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
HARD = torch.tensor([0, 1, 2, 0])
SOFT = Z.softmax(-1)


CANNOT: dict[str, tuple[Tensor, Tensor, dict[str, Any], str]] = {
    "subclass": (LoggingTensor(Z), HARD, {}, "a tensor is of a subclass with a dispatch"),
    "subclass of target": (
        Z,
        LoggingTensor(HARD),
        {},
        "a tensor is of a subclass with a dispatch of its own",
    ),
    "prior": (
        Z,
        HARD,
        {"prior": torch.full((3,), 1 / 3, requires_grad=True)},
        "a gradient is asked for by the target, the prior or the",
    ),
    "weight": (
        Z,
        HARD,
        {"weight": torch.ones(3, requires_grad=True)},
        "a gradient is asked for by the target, the prior or the",
    ),
    "target": (
        Z,
        SOFT.clone().requires_grad_(),
        {},
        "a gradient is asked for by the target, the prior or the",
    ),
    "soft and matrix": (
        Z,
        SOFT,
        {"prior": torch.eye(3)},
        "it does not mix priors by class",
    ),
    "soft and others": (
        Z,
        SOFT,
        {"off_target": "others"},
        "it does not mix priors by class",
    ),
    "meta": (Z.to("meta"), HARD.to("meta"), {}, "it runs on a CPU, and input is on meta"),
    "type": (Z.to(torch.float8_e5m2), HARD, {}, "it has no torch.float8_e5m2"),
}


@built
@pytest.mark.parametrize("case", CANNOT)
def test_what_the_kernel_cannot_do(case: str) -> None:
    z, target, options, reason = CANNOT[case]
    with pytest.raises(ValueError, match=f"^engine='dense' cannot serve: {reason}"):
        cross_entropy(z, target, label_smoothing=0.1, engine="dense", **options)
    if case != "type":  # of which torch itself does nearly nothing
        cross_entropy(z, target, label_smoothing=0.1, **options)


@built
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")
def test_what_the_kernel_cannot_be_seen_through() -> None:
    def loss(z: Tensor) -> Tensor:
        return cross_entropy(z, HARD, label_smoothing=0.1, engine="dense")

    for transform in (torch.func.grad(loss), torch.func.jacrev(loss), torch.func.hessian(loss)):
        with pytest.raises(ValueError, match=r"a transform of torch\.func is at work"):
            transform(Z)
    with pytest.raises(ValueError, match=r"a transform of torch\.func is at work"):
        torch.func.jvp(loss, (Z,), (Z,))
    with pytest.raises(ValueError, match=r"a transform of torch\.func is at work"):
        torch.vmap(loss)(Z[None])
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(ValueError, match="forward-mode differentiation is on"),
    ):
        loss(torch.autograd.forward_ad.make_dual(Z, Z))


def test_unknown_engine() -> None:
    engine: Any = "fast"
    for options in ({}, {"weight": torch.ones(3)}):
        with pytest.raises(ValueError, match=r"^engine must be one of .*'reference', 'dense'.*, got 'fast'"):
            cross_entropy(Z, HARD, engine=engine, **options)


@built
def test_without_a_gradient_a_prior_may_want_one() -> None:
    prior = torch.full((3,), 1 / 3, requires_grad=True)
    with torch.no_grad():
        loss = cross_entropy(Z, HARD, label_smoothing=0.1, prior=prior, engine="dense")
    assert_close(loss, F.cross_entropy(Z, HARD, label_smoothing=0.1))


@built
@pytest.mark.parametrize("options", [{}, {"prior": torch.eye(3)}, {"weight": torch.ones(3)}], ids=str)
def test_engines_agree(options: dict[str, Any]) -> None:
    found = [cross_entropy(Z, HARD, label_smoothing=0.1, engine=e, **options) for e in ("reference", "dense")]
    assert_close(found[0], found[1])


# Everything still works where the kernel is switched off.
SWITCHED_OFF = """
import torch, torch.nn.functional as F
from labelsmooth import CrossEntropyLoss, LabelSmoothingLoss
from labelsmooth.engines import Availability, available
from labelsmooth.functional import cross_entropy

assert available()["reference"].present
assert available()["dense"] == Availability(False, "switched off by LABELSMOOTH_NATIVE=0")
z, y = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, -100, 2])
for options in ({}, {"weight": torch.ones(3)}, {"reduction": "none"}):
    for eps in (0.0, 0.1, torch.tensor(0.3)):
        loss = cross_entropy(z, y, label_smoothing=eps, **options)
        expected = F.cross_entropy(z, y, label_smoothing=float(eps), **options)
        torch.testing.assert_close(loss, expected)
        pair = (torch.autograd.grad(x.sum(), z)[0] for x in (loss, expected))
        torch.testing.assert_close(*pair)
LabelSmoothingLoss()(z, y.clamp(min=0)).backward()
CrossEntropyLoss(label_smoothing=0.1)(z, z.softmax(-1)).backward()
for options in ({}, {"weight": torch.ones(3)}):
    try:
        cross_entropy(z, y, engine="dense", **options)
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELSMOOTH_NATIVE", "0")
    run = subprocess.run([sys.executable, "-c", SWITCHED_OFF], capture_output=True, text=True)
    reason = "engine='dense' cannot serve: switched off by LABELSMOOTH_NATIVE=0; engine='reference' can\n"
    assert run.stdout == 2 * reason, run.stderr
