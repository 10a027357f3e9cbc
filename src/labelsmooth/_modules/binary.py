"""Binary (multilabel) cross entropy as a module."""

from typing import TYPE_CHECKING, Any, Literal, overload

from torch import Tensor

from labelsmooth._core.checks import check_strength, check_tensor
from labelsmooth._core.exact import Exact, keep, shown
from labelsmooth._core.keywords import takes
from labelsmooth._core.modes import trains
from labelsmooth._core.reduction import Reduction
from labelsmooth._targets.options import OffTarget
from labelsmooth.functional._binary import BinaryStrength, binary_cross_entropy_with_logits, check_options
from labelsmooth.schedules._time import check_strengths, step


class BCEWithLogitsLoss(Exact):
    r"""Binary (multilabel) cross entropy to smoothed labels; a superset of torch's ``BCEWithLogitsLoss``.

    .. math::
        \ell = -w \left[ w_+\, p \log \sigma(x) + (1 - p) \log (1 - \sigma(x)) \right], \qquad
        p = (1 - \epsilon)\, t + \epsilon\, \pi

    The arguments are those of :func:`labelsmooth.functional.binary_cross_entropy_with_logits` and
    ``train_only``. ``denominator`` belongs to a batch and is an argument of the call, as is ``return_nll``,
    which makes it return a pair (loss, nll). Tensors move with the module and are in its ``state_dict``.

    Args:
        weight: A factor of each loss that broadcasts against the input.
        pos_weight: A factor of the positive part that broadcasts against the input, usually ``(C,)``.
        reduction: "none", "mean" or "sum".
        label_smoothing: eps, in ``[0, 1]``: a number, a tensor that broadcasts against the input, or one of
            :mod:`labelsmooth.schedules`.
        prior: pi, the probability of a positive, in ``[0, 1]``: a number, or a tensor that broadcasts against
            the input. None is 1/2.
        off_target: Where eps goes: "all" spreads it over positive and negative, "others" gives it to the
            opposite label.
        train_only: Whether the module returns the plain loss after ``eval()``, and where gradients are off.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> import torch
        >>> criterion = BCEWithLogitsLoss(label_smoothing=0.1)
        >>> criterion(torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor(0.4278)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """

    weight: Tensor | None
    pos_weight: Tensor | None
    label_smoothing: BinaryStrength
    prior: float | Tensor | None

    @takes()
    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        pos_weight: Tensor | None = None,
        reduction: Reduction = "mean",
        label_smoothing: BinaryStrength = 0.0,
        prior: float | Tensor | None = None,
        off_target: OffTarget = "all",
        train_only: bool = False,
    ) -> None:
        super().__init__()
        check_options(reduction, off_target, prior)
        check_strengths("label_smoothing", label_smoothing)
        if prior is not None:
            check_strength("prior", prior)
        for name, factor in {"weight": weight, "pos_weight": pos_weight}.items():
            if factor is not None:
                check_tensor(name, factor)
        keep(self, "weight", weight)
        keep(self, "pos_weight", pos_weight)
        keep(self, "label_smoothing", label_smoothing)
        keep(self, "prior", prior)
        self.reduction: Reduction = reduction
        self.off_target: OffTarget = off_target
        self.train_only: bool = train_only

    @overload
    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        denominator: float | Tensor | None = None,
        return_nll: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        denominator: float | Tensor | None = None,
        return_nll: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        *,
        denominator: float | Tensor | None = None,
        return_nll: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        loss: Any = binary_cross_entropy_with_logits
        return loss(
            input,
            target,
            self.weight,
            return_nll=return_nll,
            pos_weight=self.pos_weight,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing if not self.train_only or trains(self) else 0.0,
            prior=self.prior,
            off_target=self.off_target,
            denominator=denominator,
        )

    if TYPE_CHECKING:
        __call__ = forward

    def end_epoch(self) -> None:
        """Advance a scheduled smoothing by one epoch."""
        step(self.label_smoothing)

    def extra_repr(self) -> str:
        options = {
            "label_smoothing": self.label_smoothing,
            "weight": self.weight,
            "pos_weight": self.pos_weight,
            "prior": self.prior,
            "reduction": repr(self.reduction),
            "off_target": repr(self.off_target),
            "train_only": self.train_only,
        }
        return shown(options)
