"""The functional losses as modules, which hold their options."""

import math
from numbers import Integral
from typing import TYPE_CHECKING, Any, Final, Unpack

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from labelsmooth._core.checks import (
    check_class_weight,
    check_integer,
    check_number,
    check_one,
    check_prior_shape,
    check_tensor,
)
from labelsmooth._core.exact import Exact, keep, own, shown
from labelsmooth._core.keywords import takes
from labelsmooth._core.modes import is_dtensor
from labelsmooth._core.overrides import as_node
from labelsmooth._core.precision import compute_dtype
from labelsmooth._engines.linear import check_chunking
from labelsmooth._targets.criterion import DEFAULTS, check_options
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import (
    CrossEntropyOptions,
    LossOptions,
    ModuleOptions,
    Strength,
)
from labelsmooth.formulas._smoothing import LABEL_SMOOTHING
from labelsmooth.functional import cross_entropy, label_smoothing_loss, linear_cross_entropy
from labelsmooth.functional._logits import logits_cross_entropy
from labelsmooth.priors import PerSample, Prior
from labelsmooth.schedules import ByClass, Schedule
from labelsmooth.schedules._time import check_strengths, step

SMOOTHING: Final = ("label_smoothing", "formula", "z_loss")
"""What ``train_only`` leaves out of an evaluation."""


class LabelSmoothingLoss(Exact):
    r"""The Kullback-Leibler divergence from the smoothed target to the model, averaged over the batch.

    .. math::
        \frac{1}{N} \sum_i \mathrm{KL}(p_i \,\|\, q_\theta), \qquad p = (1 - s)\, e_y + s / K

    The derivative by s is -inf at s = 0. See :func:`labelsmooth.functional.label_smoothing_loss`.

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
        if not isinstance(dim, Integral):
            raise ValueError(f"dim must be an integer, got {dim!r}{hint}")
        check_strengths("smoothing", smoothing)
        check_one("smoothing", smoothing)
        keep(self, "smoothing", smoothing)
        self.dim = int(dim)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return label_smoothing_loss(pred, target, self.smoothing, self.dim)

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
    ``sample_weight``, ``denominator`` and a prior per sample belong to a batch and are arguments of the call.
    Tensors move with the module and are in its ``state_dict``. :meth:`end_epoch` advances a schedule.

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
        train_only: Whether ``eval()`` turns smoothing off, so that the module returns the plain NLL.

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
        self, weight: Tensor | None = None, *, train_only: bool = False, **options: Unpack[LossOptions]
    ) -> None:
        super().__init__()
        check_options(weight, options)
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
        self.train_only = train_only
        self._given = tuple(name for name in given if given[name] is not DEFAULTS[name])

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in LossOptions.__annotations__ and name not in self.__dict__.get("_given", (name,)):
            self._given = (*self._given, name)

    def forward(
        self,
        input: Tensor,
        target: Tensor | Mixed,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        prior: PerSample | None = None,
    ) -> Tensor:
        options = self.options(sample_weight, denominator, prior)
        return cross_entropy(input, target, self.weight, **options)

    def end_epoch(self) -> None:
        """Advance a scheduled smoothing by one epoch."""
        step(self.label_smoothing)

    def options(
        self,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        prior: PerSample | None = None,
    ) -> CrossEntropyOptions:
        """The options of the functional form that differ from its defaults, in this mode of the module."""
        given: Any = {name: getattr(self, name) for name in self._given}
        if self.train_only and not self.training:
            for name in SMOOTHING:
                given.pop(name, None)
        in_call = {"sample_weight": sample_weight, "denominator": denominator, "prior": prior}
        return given | {name: value for name, value in in_call.items() if value is not None}

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
            "train_only": self.train_only,
        }
        return shown(options)


class LinearCrossEntropyLoss(CrossEntropyLoss):
    r"""A linear head with cross entropy to a smoothed target, computed without storing all logits.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad z = W h + b, \qquad
        p = (1 - \epsilon)\, e_y + \epsilon\, \pi

    A superset of torch's ``LinearCrossEntropyLoss``, with the same parameters under the same names; see
    :func:`labelsmooth.functional.linear_cross_entropy`. For tied embeddings, set ``linear.weight``.

    Any module may replace ``linear``, such as an adapter or a quantised layer. The loss then calls it and
    computes all logits at once, as it does for an ``nn.Linear`` with hooks or its own forward.

    Args:
        in_features: D.
        num_classes: K.
        out_features: (d1, ...), of a head that predicts K classes at each of these positions.
        bias: Whether the head has a bias.
        device: Of the parameters.
        dtype: Of the parameters.
        softcap: Bends the logits to ``softcap * tanh(z / softcap)``; more than 0.
        options: The rows of a chunk; see :func:`labelsmooth.functional.linear_cross_entropy`.
        **others: The options of :class:`CrossEntropyLoss`.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> import torch
        >>> head = LinearCrossEntropyLoss(4, 3, label_smoothing=0.1)
        >>> loss = head(torch.zeros(2, 4), torch.tensor([0, 2]))
        >>> loss
        tensor(1.0986, grad_fn=<_ReducedBackward>)

    Reference:
        Wijmans et al., *Cut Your Losses in Large-Vocabulary Language Models*, ICLR 2025.
    """

    @takes(ModuleOptions, DEFAULTS)
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        softcap: float | None = None,
        options: "torch.nn.LinearCrossEntropyOptions | None" = None,
        **others: Unpack[ModuleOptions],
    ) -> None:
        super().__init__(**others)
        check_integer("in_features", in_features, 0)
        check_integer("num_classes", num_classes, 1)
        if not isinstance(out_features, (tuple, list)):
            raise ValueError(f"out_features must be a tuple of integers, got {type(out_features).__name__}")
        for size in out_features:
            check_integer("out_features", size, 0)
        self._check_classes(num_classes)
        if softcap is not None:
            check_number("softcap", softcap, above_zero=True)
        check_chunking(options)
        self.shape = (num_classes, *out_features)
        self.linear = nn.Linear(in_features, math.prod(self.shape), bias=bias, device=device, dtype=dtype)
        self.softcap = own(softcap)
        self.chunking = options  # its name in torch is that of a method here

    def forward(
        self,
        input: Tensor,
        target: Tensor | Mixed,
        *,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        prior: PerSample | None = None,
    ) -> Tensor:
        given = {"sample_weight": sample_weight, "denominator": denominator, "prior": prior}
        if (node := as_node(self, input, target, **given)) is not None:
            return node
        options = self.options(sample_weight, denominator, prior)
        if not _is_its_parameters(self.linear):
            z = self._logits(input)
            loss, _ = logits_cross_entropy(
                z, target, self.weight, class_dim=z.dim() - len(self.shape), **options
            )
            return loss
        head_weight, bias = self.linear.weight, self.linear.bias
        if len(self.shape) > 1:
            head_weight = head_weight.unflatten(0, self.shape)
            bias = None if bias is None else bias.unflatten(0, self.shape)
        return linear_cross_entropy(
            input,
            head_weight,
            target,
            linear_bias=bias,
            weight=self.weight,
            softcap=self.softcap,
            options=self.chunking,
            **options,
        )

    def _logits(self, input: Tensor) -> Tensor:
        """All logits, ``(..., K, d1, ...)``, by calling ``linear``."""
        z = self.linear(input)
        classes = math.prod(self.shape)
        if not isinstance(z, Tensor) or z.shape != (*input.shape[:-1], classes):
            got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(
                f"linear must return logits of shape {(*input.shape[:-1], classes)} for input of shape "
                f"{tuple(input.shape)}, got {got}"
            )
        z = z.unflatten(-1, self.shape) if len(self.shape) > 1 else z
        if self.softcap is None:
            return z
        z = z.to(compute_dtype(z))
        return self.softcap * (z / self.softcap).tanh()

    def extra_repr(self) -> str:
        return ", ".join(
            [shown({"softcap": self.softcap, "options": self.chunking}), super().extra_repr()]
        ).removeprefix(", ")


OWN: Final = (Tensor, nn.Parameter)


def _is_its_parameters(linear: nn.Module) -> bool:
    """Whether calling it is exactly the product with its weight, plus its bias."""
    own = type(linear)
    return (
        isinstance(linear, nn.Linear)
        and own.forward is nn.Linear.forward
        and own.__call__ is nn.Module.__call__
        and "forward" not in linear.__dict__
        and not linear._forward_hooks
        and not linear._forward_pre_hooks
        and not linear._backward_hooks
        and not linear._backward_pre_hooks
        and not modules._global_forward_hooks
        and not modules._global_forward_pre_hooks
        and not modules._global_backward_hooks
        and not modules._global_backward_pre_hooks
        and (torch.compiler.is_compiling() or is_dtensor(linear.weight) or type(linear.weight) in OWN)
    )
