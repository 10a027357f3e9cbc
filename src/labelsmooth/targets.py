"""What we smooth toward (the prior) and how much (the strength)."""

from typing import Literal

from torch import Tensor, nn

from labelsmooth.checks import check_strength, check_tensor

OffTarget = Literal["all", "others"]
Weighting = Literal["torch", "sample"]


class ByClass(nn.Module):
    """A strength for each class; made by :func:`by_class`."""

    eps: Tensor

    def __init__(self, eps: Tensor) -> None:
        super().__init__()
        check_tensor("by_class: eps", eps)
        if eps.dim() != 1:
            raise ValueError(f"by_class: eps must have shape (K,), got {tuple(eps.shape)}")
        check_strength("by_class: eps", eps)
        self.register_buffer("eps", eps)

    def extra_repr(self) -> str:
        return f"K={self.eps.numel()}"


def by_class(eps: Tensor) -> ByClass:
    r"""Smooth each class by its own strength: a sample of class y by ``eps[y]``.

    Args:
        eps: One strength per class, shape ``(K,)``, each in ``[0, 1]``.

    Returns:
        A value for ``label_smoothing=``. As a module it moves and is saved with the loss that holds it.

    Raises:
        ValueError: if ``eps`` is not a vector, or one of its values lies outside ``[0, 1]``.

    Example:
        >>> import torch, labelsmooth
        >>> rare_classes_less = labelsmooth.by_class(torch.tensor([0.2, 0.1, 0.0]))
        >>> loss = labelsmooth.CrossEntropyLoss(label_smoothing=rare_classes_less)
        >>> loss(torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor(1.0986)

    Reference:
        Zhong et al., *Improving Calibration for Long-Tailed Recognition*, CVPR 2021.
    """
    return ByClass(eps)


Strength = float | Tensor | ByClass
