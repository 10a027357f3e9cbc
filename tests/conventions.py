"""What other frameworks compute, each as its own code has it: the rows of the page of conventions by name.

In plain torch and float64, for autograd; nothing is shared with the package.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conventions_batch import Batch

Loss = Tensor | tuple[Tensor, Tensor]


class Convention(NamedTuple):
    loss: Callable[[Batch], Loss]
    ignored: int | None
    classes: tuple[int, ...]


CONVENTIONS: dict[str, Convention] = {}


def of(
    *names: str, ignored: int | None = None, least: int = 2
) -> Callable[[Callable[[Batch], Loss]], object]:
    """Enters the loss of some rows, with the label of ignored rows and the least number of classes."""

    def enter(loss: Callable[[Batch], Loss]) -> None:
        for name in names:
            assert name not in CONVENTIONS
            CONVENTIONS[name] = Convention(loss, ignored, (least, 7))

    return enter


def nll_of(log_q: Tensor, y: Tensor) -> Tensor:
    return -log_q.gather(-1, y.clamp(min=0)[:, None]).squeeze(-1)


def filled(b: Batch, off: float, on: float) -> Tensor:
    """Targets of ``on`` for the label and ``off`` for every other class."""
    return torch.full_like(b.z, off).scatter(1, b.y.clamp(min=0)[:, None], on)


def smooth_labels(labels: Tensor, e: float) -> Tensor:
    return labels * (1 - e) + e / labels.size(-1)


def bce(z: Tensor, target: Tensor) -> Tensor:
    return -(target * z.sigmoid().log() + (1 - target) * (1 - z.sigmoid()).log())


# Smoothing over all classes


@of("PyTorch `cross_entropy(label_smoothing=e)`", ignored=-100)
def _(b: Batch) -> Loss:
    counts = b.y != -100
    nll, smooth = nll_of(b.log_q, b.y)[counts], -b.log_q.sum(-1)[counts]
    return (1 - b.e) * nll.mean() + b.e / b.K * smooth.mean()


@of("Hugging Face `label_smoothing_factor=e`", ignored=-100)
def _(b: Batch) -> Loss:
    padding = b.y == -100
    nll = nll_of(b.log_q, b.y).masked_fill(padding, 0.0)
    smooth = -b.log_q.sum(-1).masked_fill(padding, 0.0)
    return (1 - b.e) * nll.sum() / b.num_items + b.e * smooth.sum() / (b.num_items * b.K)


@of("timm `LabelSmoothingCrossEntropy(smoothing=e)`, MbLS, wangleiofficial")
def _(b: Batch) -> Loss:
    return ((1 - b.e) * nll_of(b.log_q, b.y) + b.e * -b.log_q.mean(-1)).mean()


@of("Keras `CategoricalCrossentropy(label_smoothing=e)`")
def _(b: Batch) -> Loss:
    return -(smooth_labels(b.t, b.e) * b.log_q).sum(-1).mean()


@of(
    "Composer `LabelSmoothing(e)`",
    "MMPretrain `LabelSmoothLoss(e)`",
    "Paddle `cross_entropy(label_smoothing=e)`",
)
def _(b: Batch) -> Loss:
    return -(smooth_labels(b.one_hot, b.e) * b.log_q).sum() / b.N


@of("Optax `softmax_cross_entropy` of `smooth_labels(labels, e)`")
def _(b: Batch) -> Loss:
    return -(smooth_labels(b.one_hot, b.e) * b.log_q).sum(-1)


@of("Optax, both with `where=valid`")
def _(b: Batch) -> Loss:
    smoothed = (1 - b.e) * b.one_hot + b.e / b.valid.double().sum(-1, keepdim=True)
    exp = torch.where(b.valid, b.z.exp(), 0.0)
    log_q = b.z - exp.sum(-1, keepdim=True).log()
    return -torch.where(b.valid, smoothed * log_q, 0.0).sum(-1)


@of("flash-attention, fla, with `logit_scale=scale, lse_square_scale=c`", ignored=-100)
def _(b: Batch) -> Loss:
    x = b.z * b.scale
    lse = x.logsumexp(-1)
    x_y = x.gather(1, b.y.clamp(min=0)[:, None]).squeeze(1)
    losses = lse - b.e * x.mean(-1) - (1 - b.e) * x_y + b.c * lse.square()
    counts = b.y != -100
    return (losses * counts).sum() / counts.sum()


@of("Liger `LigerCrossEntropyLoss(label_smoothing=e, lse_square_scale=c)`", ignored=-100)
def _(b: Batch) -> Loss:
    lse, counts = b.z.logsumexp(-1), b.y != -100
    smooth = b.e * lse - b.e / b.K * b.z.sum(-1)
    losses = (1 - b.e) * nll_of(b.log_q, b.y) + smooth + b.c * lse * lse
    return losses[counts].sum() / counts.sum()


@of("TransformerEngine `parallel_cross_entropy(label_smoothing=e)`", ignored=-100)
def _(b: Batch) -> Loss:
    counts = b.y != -100
    losses = (1 - b.e) * nll_of(b.log_q, b.y) + -b.e / b.K * b.log_q.sum(-1)
    return (losses * counts).sum() / max(int(counts.sum()), 1)


@of("apex `SoftmaxCrossEntropyLoss.apply(z, y, e)`", ignored=0)
def _(b: Batch) -> Loss:
    lse = b.z.logsumexp(-1)
    z_y = b.z.gather(1, b.y[:, None]).squeeze(1)
    losses = b.e * (lse - b.z.mean(-1)) + (1 - b.e) * (lse - z_y)
    return losses.masked_fill(b.y == 0, 0.0)


@of("OpenNMT-py 3, fairseq before `eps / (K - 1)`", ignored=1)
def _(b: Batch) -> Loss:
    padding = b.y == b.pad
    nll = nll_of(b.log_q, b.y).masked_fill(padding, 0.0).sum()
    smooth = -b.log_q.sum(-1).masked_fill(padding, 0.0).sum()
    return (1 - b.e) * nll + b.e / b.K * smooth


@of("SpeechBrain `nll_loss(label_smoothing=e)`")
def _(b: Batch) -> Loss:
    nll = (nll_of(b.log_q, b.y) * b.mask).sum() / b.mask.sum()
    regulariser = (b.log_q.mean(-1) * b.mask).sum() / b.mask.sum()
    return -b.e * regulariser + (1 - b.e) * nll


# Smoothing over the other classes


@of("fairseq `label_smoothed_cross_entropy`", ignored=1)
def _(b: Batch) -> Loss:
    padding = b.y == b.pad
    nll = nll_of(b.log_q, b.y).masked_fill(padding, 0.0).sum()
    smooth = -b.log_q.sum(-1).masked_fill(padding, 0.0).sum()
    eps_i = b.e / (b.K - 1)
    return (1 - b.e - eps_i) * nll + eps_i * smooth, nll.detach()


@of("Megatron-LM `vocab_parallel_cross_entropy(label_smoothing=e)`, NeMo")
def _(b: Batch) -> Loss:
    smoothing = b.e * b.K / (b.K - 1)
    return (1.0 - smoothing) * nll_of(b.log_q, b.y) - smoothing * b.log_q.mean(-1)


@of("Catalyst `get_one_hot(smoothing=e)`, ankandrew `LabelSmoothingLoss`")
def _(b: Batch) -> Loss:
    return -(filled(b, b.e / (b.K - 1), 1 - b.e) * b.log_q).sum(-1).mean()


def sum_over_others(b: Batch, ignored: int) -> Tensor:
    kl = F.kl_div(b.log_q, filled(b, b.e / (b.K - 1), 1 - b.e), reduction="none")
    return kl.masked_fill((b.y == ignored)[:, None], 0).sum()


@of("ESPnet `LabelSmoothingLoss(smoothing=e)`", ignored=-1)
def _(b: Batch) -> Loss:
    return sum_over_others(b, -1) / b.B


@of("ESPnet, with `normalize_length=True`", ignored=-1)
def _(b: Batch) -> Loss:
    return sum_over_others(b, -1) / (len(b.y) - int((b.y == -1).sum()))


@of("SpeechBrain `kldiv_loss(label_smoothing=e)`", ignored=0)
def _(b: Batch) -> Loss:
    return sum_over_others(b, 0).mean()


# Smoothing over the other classes but the padding


def sum_without_padding(b: Batch) -> Tensor:
    target = filled(b, b.e / (b.K - 2), 1.0 - b.e)
    target[:, b.pad] = 0
    target.index_fill_(0, (b.y == b.pad).nonzero().squeeze(), 0.0)
    return F.kl_div(b.log_q, target, reduction="sum")


@of("JoeyNMT `XentLoss(smoothing=e)`", ignored=1, least=3)
def _(b: Batch) -> Loss:
    return sum_without_padding(b)


@of("OpenNMT-py before 3, `LabelSmoothingLoss(e)`, by tokens", ignored=1, least=3)
def _(b: Batch) -> Loss:
    return sum_without_padding(b) / float(b.y.ne(b.pad).sum())


@of("OpenNMT-py before 3, by sentences", ignored=1, least=3)
def _(b: Batch) -> Loss:
    return sum_without_padding(b) / float(b.B)


# Other targets


@of('MMPretrain `LabelSmoothLoss(e, mode="classy_vision")`, ClassyVision')
def _(b: Batch) -> Loss:
    target = (b.one_hot + b.e / b.K) / (1 + b.e)
    return -(target * b.log_q).sum(-1).mean()


@of("CoinCheung `LabelSmoothSoftmaxCEV1(lb_smooth=e)`", ignored=-100)
def _(b: Batch) -> Loss:
    ignore = b.y == -100
    losses = -(b.log_q * filled(b, b.e / b.K, 1.0 - b.e)).sum(1)
    return losses.masked_fill(ignore, 0).sum() / (~ignore).sum()


@of("Paddle `cross_entropy` of `label_smooth(labels, prior_dist=prior, epsilon=e)`")
def _(b: Batch) -> Loss:
    return -(((1 - b.e) * b.one_hot + b.e * b.prior) * b.log_q).sum(-1).mean()


@of("ankandrew `OnlineLabelSmoothing(alpha=a)`")
def _(b: Batch) -> Loss:
    hard, supervise = nll_of(b.log_q, b.y).mean(), b.S.T
    soft = -(supervise.index_select(1, b.y).swapaxes(-1, -2) * b.log_q).sum(-1).mean()
    return b.a * hard + (1 - b.a) * soft


@of("MbLS `LogitMarginL1(margin=m, alpha=e)`")
def _(b: Batch) -> Loss:
    distances = b.z.max(1, keepdim=True).values - b.z
    return nll_of(b.log_q, b.y).mean() + b.e * (distances - b.m).clamp(min=0).mean()


@of("timm `Mixup(label_smoothing=e)`, its targets with `lam`")
def _(b: Batch) -> Loss:
    off, on = b.e / b.K, 1.0 - b.e + b.e / b.K
    first, second = (torch.full_like(b.z, off).scatter(1, y[:, None], on) for y in (b.y, b.y.flip(0)))
    return (-(first * b.lam + second * (1.0 - b.lam)) * b.log_q).sum(-1).mean()


@of('PyTorch `kl_div(reduction="batchmean")` to smoothed labels')
def _(b: Batch) -> Loss:
    return F.kl_div(b.log_q, smooth_labels(b.one_hot, b.e), reduction="batchmean")


# Other means


@of("pytorch-toolbelt and SMP `SoftCrossEntropyLoss(smooth_factor=e)`", ignored=-100)
def _(b: Batch) -> Loss:
    padding = b.y == -100
    nll = nll_of(b.log_q, b.y).masked_fill(padding, 0.0).mean()
    smooth = -b.log_q.sum(-1).masked_fill(padding, 0.0).mean()
    return (1.0 - b.e) * nll + b.e / b.K * smooth


@of('AllenNLP `sequence_cross_entropy_with_logits(label_smoothing=e)`, `average="token"`')
def _(b: Batch) -> Loss:
    losses = -(b.log_q * filled(b, b.e / b.K, 1.0 - b.e + b.e / b.K)).sum(-1) * b.mask
    return losses.sum() / (b.mask.sum() + 1e-13)


@of('AllenNLP, `average="batch"`')
def _(b: Batch) -> Loss:
    losses = -(b.log_q * filled(b, b.e / b.K, 1.0 - b.e + b.e / b.K)).sum(-1) * b.mask
    weights = b.mask.reshape(b.B, b.L).sum(1)
    of_sentence = losses.reshape(b.B, b.L).sum(1) / (weights + 1e-13)
    return of_sentence.sum() / ((weights > 0).double().sum() + 1e-13)


# Class weights and the z-loss


@of("PyTorch, with `weight=w`", ignored=-100)
def _(b: Batch) -> Loss:
    counts = b.y != -100
    w_y = b.w[b.y.clamp(min=0)] * counts
    smooth = -(b.log_q * b.w).sum(-1) * counts
    return ((1 - b.e) * nll_of(b.log_q, b.y) * w_y + b.e / b.K * smooth).sum() / w_y.sum()


@of("PyTorch, with `weight=w` and class probabilities")
def _(b: Batch) -> Loss:
    return -(b.w * smooth_labels(b.t, b.e) * b.log_q).sum() / b.N


@of("MMPretrain `soft_cross_entropy(class_weight=w, avg_factor=avg_factor)` of smoothed labels")
def _(b: Batch) -> Loss:
    losses = -smooth_labels(b.one_hot, b.e) * b.log_q * b.w
    return losses.sum(-1).sum() / b.avg_factor


@of("Paddle, with `weight=w`")
def _(b: Batch) -> Loss:
    smoothed = smooth_labels(b.one_hot, b.e)
    weight = smoothed @ b.w
    return (weight * -(smoothed * b.log_q).sum(-1)).sum() / weight.sum()


@of("Keras, `fit(class_weight=w)`")
def _(b: Batch) -> Loss:
    losses = -(smooth_labels(b.one_hot, b.e) * b.log_q).sum(-1)
    return (losses * b.w[b.y]).sum() / len(losses)


@of("Liger, with `lse_square_scale=c` and `weight=w`", ignored=-100)
def _(b: Batch) -> Loss:
    counts = b.y != -100
    y, lse = b.y[counts], b.z[counts].logsumexp(-1)
    smooth = b.e / b.K * (-(b.w * b.z[counts]).sum(-1) + lse * b.w.sum())
    losses = (1 - b.e) * b.w[y] * nll_of(b.log_q[counts], y) + smooth
    return losses.sum() / b.w[y].sum() + b.c * (lse * lse).sum() / counts.sum()


# Binary and multilabel targets


@of("Keras `BinaryCrossentropy(label_smoothing=e)`")
def _(b: Batch) -> Loss:
    return bce(b.z, b.on * (1.0 - b.e) + 0.5 * b.e).mean(-1).mean()


@of(
    "pytorch-toolbelt `SoftBCELoss(smooth_factor=e)`, SMP `SoftBCEWithLogitsLoss`",
    'MMPretrain `LabelSmoothLoss(e, mode="multi_label")`',
)
def _(b: Batch) -> Loss:
    return bce(b.z, (1 - b.on) * b.e + b.on * (1 - b.e)).mean()


@of("timm `BinaryCrossEntropy(smoothing=e)`, class indices")
def _(b: Batch) -> Loss:
    return bce(b.z, filled(b, b.e / b.K, 1.0 - b.e + b.e / b.K)).mean()


@of("timm, with `sum_classes=True`")
def _(b: Batch) -> Loss:
    return bce(b.z, filled(b, b.e / b.K, 1.0 - b.e + b.e / b.K)).sum(-1).mean()


@of("timm, with `target_threshold=threshold`")
def _(b: Batch) -> Loss:
    smoothed = filled(b, b.e / b.K, 1.0 - b.e + b.e / b.K)
    return bce(b.z, smoothed.gt(b.threshold).double()).mean()


@of("timm, dense targets")
def _(b: Batch) -> Loss:
    return bce(b.z, b.on).mean()
