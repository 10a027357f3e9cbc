"""The functional losses as modules, which hold their options."""

from typing import TYPE_CHECKING, Any, Final, Literal, Unpack, overload

from torch import Tensor

from labelsmooth._core.checks import (
    check_class_weight,
    check_dim,
    check_one,
    check_prior_shape,
    check_tensor,
)
from labelsmooth._core.exact import Exact, keep, shown
from labelsmooth._core.keywords import takes
from labelsmooth._core.modes import trains
from labelsmooth._targets.criterion import DEFAULTS, check_options
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import (
    BatchOptions,
    CrossEntropyOptions,
    LossOptions,
    ModuleOptions,
    Strength,
)
from labelsmooth.formulas._smoothing import LABEL_SMOOTHING
from labelsmooth.functional import cross_entropy, label_smoothing_loss
from labelsmooth.priors import PerSample, Prior
from labelsmooth.schedules import ByClass, Schedule
from labelsmooth.schedules._time import check_strengths, step

SMOOTHING: Final = ("label_smoothing", "formula", "z_loss")
"""What ``train_only`` leaves out of an evaluation."""


class LabelSmoothingLoss(Exact):
    r"""The Kullback-Leibler divergence from the smoothed target to the model, averaged over the batch.

    .. math::
        \frac{1}{N} \sum_i \mathrm{KL}(p_i \,\|\, q_\theta), \qquad p = (1 - s)\, e_y + s / K

    The derivative by s is -inf at s = 0. See :func:`labelsmooth.functional.label_smoothing_loss`. With
    ``return_nll=True`` in the call, it returns a pair (loss, nll).

    Args:
        smoothing: s, in ``[0, 1]``; a number, a 0-d tensor, or one of :mod:`labelsmooth.schedules`.
        dim: The class dimension of the predictions.

    Raises:
        ValueError: if ``smoothing`` lies outside ``[0, 1]``.

    Example:
        >>> import torch
        >>> criterion = LabelSmoothingLoss(smoothing=0.1)
        >>> criterion(torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]]), torch.tensor([0, 1]))
        tensor(0.0246)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """

    smoothing: float | Tensor | Schedule

    @takes()
    def __init__(self, smoothing: float | Tensor | Schedule = 0.1, dim: int = -1) -> None:
        super().__init__()
        # Other packages have a class of this name that takes (num_classes, smoothing).
        hint = "; the arguments are (smoothing, dim), and the number of classes is that of input"
        if isinstance(smoothing, int) and smoothing > 1:
            raise ValueError(f"smoothing must lie in [0, 1], got {smoothing}{hint}")
        check_dim(dim, hint)
        check_strengths("smoothing", smoothing)
        check_one("smoothing", smoothing)
        keep(self, "smoothing", smoothing)
        self.dim: int = int(dim)

    @overload
    def forward(self, pred: Tensor, target: Tensor, *, return_nll: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(
        self, pred: Tensor, target: Tensor, *, return_nll: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self, pred: Tensor, target: Tensor, *, return_nll: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        loss: Any = label_smoothing_loss
        return loss(pred, target, self.smoothing, self.dim, return_nll=return_nll)

    if TYPE_CHECKING:
        __call__ = forward

    def end_epoch(self) -> None:
        """Advance a scheduled smoothing by one epoch."""
        step(self.smoothing)

    def extra_repr(self) -> str:
        return shown({"smoothing": self.smoothing, "dim": self.dim})


class CrossEntropyLoss(Exact):
    r"""Cross entropy to a smoothed target; a superset of :class:`torch.nn.CrossEntropyLoss`.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad p = (1 - \epsilon)\, e_y + \epsilon\, \pi

    The arguments are those of :func:`labelsmooth.functional.cross_entropy` and ``train_only``.
    ``sample_weight``, ``denominator`` and a prior per sample belong to a batch and are arguments of the call,
    as is ``return_nll``, which makes it return a pair (loss, nll). Tensors move with the module and are in
    its ``state_dict``. :meth:`end_epoch` advances a schedule.

    Args:
        weight: A weight for each class, ``(K,)``.
        ignore_index: The class index of rows to ignore.
        reduction: "none", "mean" or "sum".
        label_smoothing: eps, in ``[0, 1]`` or what the formula takes: a number, a tensor,
            :func:`labelsmooth.by_class`, or one of :mod:`labelsmooth.schedules`.
        formula: One of :mod:`labelsmooth.formulas`.
        prior: pi, ``(K,)`` or ``(K, K)``, or one of :mod:`labelsmooth.priors`. None is uniform.
        off_target: Where eps goes: to "all" classes or to the "others".
        weighting: "torch" weights the classes inside the smoothed sum, "sample" each row by its class.
        z_loss: The coefficient of the squared log-sum-exp of the logits.
        dim: The class dimension of the logits and of class probabilities; -1 for the logits of a language
            model, ``(B, L, K)``. None is torch's: 1, or 0 for a single dimension.
        train_only: Whether the module returns the plain NLL after ``eval()``, and where gradients are off, as
            nothing calls ``eval()`` of a loss in many training loops.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> import torch
        >>> criterion = CrossEntropyLoss(label_smoothing=0.1)
        >>> criterion(torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]]), torch.tensor([0, 1]))
        tensor(0.3157)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """

    weight: Tensor | None
    label_smoothing: Strength
    prior: Prior | None
    if TYPE_CHECKING:  # the other options

        def __getattr__(self, name: str) -> Any: ...

    @takes(ModuleOptions, DEFAULTS)
    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        dim: int | None = None,
        train_only: bool = False,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__()
        check_options(weight, options)
        if dim is not None:
            check_dim(dim)
        given = {name: options.get(name, DEFAULTS[name]) for name in LossOptions.__annotations__}
        eps, prior = given["label_smoothing"], given["prior"]
        strengths = eps.eps if isinstance(eps, ByClass) else eps
        check_strengths("label_smoothing", strengths, given["formula"].strengths)
        if weight is not None:
            check_tensor("weight", weight)
        if isinstance(prior, PerSample):
            raise ValueError("prior of each sample must be given in the call, with its batch")
        given["prior"] = prior if prior is None or isinstance(prior, Prior) else Prior(prior)
        for name, value in {"weight": weight, **given}.items():
            keep(self, name, value)
        self.dim: int | None = dim
        self.train_only: bool = train_only
        self._given = tuple(name for name in given if given[name] is not DEFAULTS[name])

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in LossOptions.__annotations__ and name not in self.__dict__.get("_given", (name,)):
            self._given = (*self._given, name)

    @overload
    def forward(
        self,
        input: Tensor,
        target: Tensor | Mixed,
        *,
        return_nll: Literal[False] = False,
        **batch: Unpack[BatchOptions],
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        input: Tensor,
        target: Tensor | Mixed,
        *,
        return_nll: Literal[True],
        **batch: Unpack[BatchOptions],
    ) -> tuple[Tensor, Tensor]: ...

    def forward(  # with each option by its name, as torch.fx traces no other signature of a whole model
        self,
        input: Tensor,
        target: Tensor | Mixed,
        *,
        return_nll: bool = False,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        prior: PerSample | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        options: Any = self.options(sample_weight=sample_weight, denominator=denominator, prior=prior)
        return cross_entropy(input, target, self.weight, dim=self.dim, return_nll=return_nll, **options)

    if TYPE_CHECKING:
        __call__ = forward

    def end_epoch(self) -> None:
        """Advance a scheduled smoothing by one epoch."""
        step(self.label_smoothing)

    def options(self, **batch: Unpack[BatchOptions]) -> CrossEntropyOptions:
        """The options of the functional form that differ from its defaults, in this mode of the module."""
        given: Any = {name: getattr(self, name) for name in self._given}
        if self.train_only and not trains(self):
            for name in SMOOTHING:
                given.pop(name, None)
        return given | {name: value for name, value in batch.items() if value is not None}

    def _check_classes(self, num_classes: int) -> None:
        """Check that the options of the module fit this number of classes."""
        if self.weight is not None:
            check_class_weight(self.weight, num_classes)
        if self.prior is not None:
            check_prior_shape(self.prior.probabilities, num_classes)
        if isinstance(self.label_smoothing, ByClass):
            self.label_smoothing.check_classes("label_smoothing", num_classes)

    def extra_repr(self) -> str:
        options = {
            "label_smoothing": self.label_smoothing,
            "formula": None if self.formula == LABEL_SMOOTHING else self.formula,
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "reduction": repr(self.reduction),
            "off_target": repr(self.off_target),
            "weighting": repr(self.weighting),
            "z_loss": self.z_loss or None,
            "dim": self.dim,
            "train_only": self.train_only,
        }
        return shown(options)
