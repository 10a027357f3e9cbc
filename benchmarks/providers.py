"""The losses that can be measured: each is a small function from the leaves and the target to the mean loss.

The leaves are the logits, or the features and the weight of a linear head. The formulas of timm and
transformers are copied from the named sources, so that neither has to be installed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.exact import (
    MARGIN,
    Exact,
    confidence_penalized,
    max_suppressed,
    smoothed,
    within_a_margin,
)
from labelsmooth import CrossEntropyLoss, formulas, functional, mixed

EPS = 0.1
OURS = "labelsmooth"
OURS_PLAIN = "labelsmooth plain"
OURS_COMPILED = "labelsmooth compiled"
TORCH = "torch"
PLAIN = "torch plain"
CHUNKED = "torch plain, chunked"
COMPILED = "torch compiled"
PLAIN_COMPILED = "torch plain, compiled"
SEED = "one-hot KLDivLoss"
TIMM = "timm's formula"
HF = "HF's formula"
LIGER = "Liger"
FLASH = "flash-attn"
CCE_PLAIN = "CCE plain"
COPY = "device copy"
READ = "one read"
FLOOR = "a read and a copy"
PRODUCTS = "three products"

Loss = Callable[..., Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A loss that takes part in the benchmarks."""

    name: str
    build: Callable[[], Loss]  # raises if a dependency is missing
    eps: float = EPS
    exact: Exact = smoothed
    is_divergence: bool = False  # the loss minus the entropy of the target
    is_loss: bool = True
    cuda_only: bool = False
    writes_leaves: bool = False  # overwrites the leaves, so it gets its own copy


def one_hot_divergence(z: Tensor, target: Tensor) -> Tensor:
    """Label smoothing as tutorials write it."""
    p = F.one_hot(target, num_classes=z.size(-1)).float()
    p = (1 - EPS) * p + EPS / z.size(-1)
    return F.kl_div(F.log_softmax(z, dim=-1), p, reduction="batchmean")


def timm(z: Tensor, target: Tensor) -> Tensor:
    """timm.loss.LabelSmoothingCrossEntropy."""
    log_q = F.log_softmax(z, dim=-1)
    nll = -log_q.gather(-1, target.unsqueeze(1)).squeeze(1)
    return ((1 - EPS) * nll - EPS * log_q.mean(-1)).mean()


def hf(z: Tensor, target: Tensor) -> Tensor:
    """transformers.trainer_pt_utils.LabelSmoother."""
    surprise = -F.log_softmax(z, dim=-1)
    index = target.unsqueeze(-1)
    ignored = index == -100
    nll = surprise.gather(-1, index.clamp(min=0)).masked_fill(ignored, 0.0)
    spread = surprise.sum(-1, keepdim=True, dtype=torch.float32).masked_fill(ignored, 0.0)
    num_counted = ignored.numel() - ignored.long().sum()
    return (1 - EPS) * nll.sum() / num_counted + EPS * spread.sum() / (num_counted * z.size(-1))


def _read_and_copy() -> Loss:
    """The traffic of a loss and its gradient: a read of the logits, and a write to memory already in use."""
    kept: list[Tensor] = []

    def run(z: Tensor, _: Tensor) -> Tensor:
        if not kept:
            kept.append(torch.empty_like(z.detach()))
        z.detach().amax(-1)
        return kept[0].copy_(z.detach())

    return run


def _three_products() -> Loss:
    """The products of a head: logits, and the gradients of features and weight, in memory already in use."""
    kept: list[Tensor] = []

    def run(h: Tensor, weight: Tensor, _: Tensor) -> Tensor:
        h, weight = h.detach(), weight.detach()
        if not kept:
            kept.extend((h.new_empty(len(h), len(weight)), torch.empty_like(h), torch.empty_like(weight)))
        z, by_h, by_weight = kept
        torch.mm(h, weight.T, out=z)
        torch.mm(z, weight, out=by_h)
        return torch.mm(z.T, h, out=by_weight)

    return run


def _torch_linear(h: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(h, weight), target, label_smoothing=EPS)


def _torch_chunked() -> Loss:
    return partial(F.linear_cross_entropy, options=torch.nn.LinearCrossEntropyOptions())


def _compiled(loss: Loss) -> Loss:
    return torch.compile(loss, dynamic=False)


def _liger() -> Loss:
    from liger_kernel.transformers.functional import liger_cross_entropy  # type: ignore[reportMissingImports]

    return partial(liger_cross_entropy, label_smoothing=EPS)


def _liger_linear() -> Loss:
    from liger_kernel.transformers.functional import (  # type: ignore[reportMissingImports]
        liger_fused_linear_cross_entropy,
    )

    return partial(liger_fused_linear_cross_entropy, label_smoothing=EPS)


def _flash() -> Loss:
    from flash_attn.ops.triton.cross_entropy import cross_entropy_loss  # type: ignore[reportMissingImports]

    return lambda z, target: cross_entropy_loss(z, target, label_smoothing=EPS)[0].mean()


def _cce() -> Loss:
    from cut_cross_entropy import linear_cross_entropy  # type: ignore[reportMissingImports]

    return partial(linear_cross_entropy, impl="cce_exact")  # the default skips small gradients


_torch_smoothed = partial(F.cross_entropy, label_smoothing=EPS)
_ours = partial(functional.cross_entropy, label_smoothing=EPS)

DENSE = {
    provider.name: provider
    for provider in (
        Provider(name=OURS, build=lambda: _ours),
        Provider(name=OURS_COMPILED, build=lambda: _compiled(_ours)),
        Provider(name=TORCH, build=lambda: _torch_smoothed),
        Provider(name=PLAIN, build=lambda: F.cross_entropy, eps=0.0),
        Provider(name=COMPILED, build=lambda: _compiled(_torch_smoothed)),
        Provider(name=PLAIN_COMPILED, build=lambda: _compiled(partial(F.cross_entropy)), eps=0.0),
        Provider(name=SEED, build=lambda: one_hot_divergence, is_divergence=True),
        Provider(name=TIMM, build=lambda: timm),
        Provider(name=HF, build=lambda: hf),
        Provider(name=LIGER, build=_liger, cuda_only=True, writes_leaves=True),
        Provider(name=FLASH, build=_flash, cuda_only=True),
        Provider(name=COPY, build=lambda: lambda z, _: z.detach().clone(), cuda_only=True, is_loss=False),
        Provider(name=READ, build=lambda: lambda z, _: z.detach().amax(-1), is_loss=False),
        Provider(name=FLOOR, build=_read_and_copy, is_loss=False),
    )
}

CALL = "the plain call"


class Written(formulas.Formula):
    """Label smoothing by a formula's own code, whose gradient autograd finds."""

    def __call__(self, s: formulas.RowStatistics, eps: Tensor) -> Tensor:
        return formulas.smoothed_nll(s, eps)


class Summed(formulas.Formula):
    """Label smoothing by a formula's factors."""

    def factors(self, eps: float | Tensor) -> formulas.Factors:
        return formulas.Factors(nll=1 - eps, prior=eps)


def _general(make: Callable[[Tensor, Tensor], dict[str, Any]]) -> Callable[[], Loss]:
    """The module with an option of the general path, made for the first batch."""

    def build() -> Loss:
        kept: dict[str, Any] = {}

        def loss(z: Tensor, target: Tensor) -> Tensor:
            if not kept:
                options = {"label_smoothing": EPS, **make(z, target)}
                kept["target"] = options.pop("target", target)
                kept["loss"] = CrossEntropyLoss(**options)
            return kept["loss"](z, kept["target"])

        return loss

    return build


GENERAL = {
    provider.name: provider
    for provider in (
        Provider(name=CALL, build=_general(lambda z, y: {})),
        Provider(name=TORCH, build=lambda: _torch_smoothed),
        Provider(
            name="a prior", build=_general(lambda z, y: {"prior": z.new_full((z.size(1),), 1 / z.size(1))})
        ),
        Provider(name="class weights", build=_general(lambda z, y: {"weight": z.new_ones(z.size(1))})),
        Provider(name="a formula", build=_general(lambda z, y: {"formula": Summed()})),
        Provider(name="a formula's own code", build=_general(lambda z, y: {"formula": Written()})),
        Provider(
            name="eps of each sample",
            build=_general(lambda z, y: {"label_smoothing": z.new_full((len(z),), EPS)}),
        ),
        Provider(name="mixup labels", build=_general(lambda z, y: {"target": mixed(y, y, 0.7)})),
        Provider(
            name="MaxSup",
            build=_general(lambda z, y: {"formula": formulas.MaxSup()}),
            exact=max_suppressed,
        ),
        Provider(
            name="a margin",
            build=_general(lambda z, y: {"formula": formulas.MarginSmoothing(MARGIN)}),
            exact=within_a_margin,
        ),
        Provider(
            name="a confidence penalty",
            build=_general(lambda z, y: {"formula": formulas.ConfidencePenalty()}),
            exact=confidence_penalized,
        ),
    )
}

GENERAL_LINEAR = {
    provider.name: provider
    for provider in (
        Provider(name=CALL, build=lambda: lambda h, weight, y: _ours(F.linear(h, weight), y)),
        Provider(name=TORCH, build=lambda: _torch_linear),
        Provider(
            name="a linear head", build=lambda: partial(functional.linear_cross_entropy, label_smoothing=EPS)
        ),
    )
}

LINEAR = {
    provider.name: provider
    for provider in (
        Provider(name=OURS, build=lambda: partial(functional.linear_cross_entropy, label_smoothing=EPS)),
        Provider(name=OURS_PLAIN, build=lambda: functional.linear_cross_entropy, eps=0.0),
        Provider(name=TORCH, build=lambda: partial(F.linear_cross_entropy, label_smoothing=EPS)),
        Provider(name=PLAIN, build=lambda: F.linear_cross_entropy, eps=0.0),
        Provider(name=CHUNKED, build=_torch_chunked, eps=0.0),
        Provider(name=COMPILED, build=lambda: _compiled(_torch_linear)),
        Provider(name=LIGER, build=_liger_linear, cuda_only=True),
        Provider(name=CCE_PLAIN, build=_cce, cuda_only=True, eps=0.0),
        Provider(name=PRODUCTS, build=_three_products, is_loss=False),
    )
}
