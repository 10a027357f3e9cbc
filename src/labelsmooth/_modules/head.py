"""A linear head and its cross entropy as one module."""

import math
from typing import TYPE_CHECKING, Any, Final, Literal, Self, Unpack, overload

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from labelsmooth._core.checks import check_integer
from labelsmooth._core.exact import own, shown
from labelsmooth._core.keywords import takes
from labelsmooth._core.modes import is_dtensor
from labelsmooth._core.overrides import as_node
from labelsmooth._core.statistics import Measures
from labelsmooth._engines.linear import Predictions, bent, check_bend, check_chunking, predicted
from labelsmooth._engines.route import row_statistics
from labelsmooth._modules.losses import CrossEntropyLoss
from labelsmooth._targets.criterion import DEFAULTS
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import BatchOptions, ModuleOptions
from labelsmooth._targets.rows import as_rows, as_targets
from labelsmooth.functional import cross_entropy, linear_cross_entropy
from labelsmooth.functional._linear import check_predictions
from labelsmooth.priors import PerSample


class LinearCrossEntropyLoss(CrossEntropyLoss):
    r"""A linear head with cross entropy to a smoothed target, computed without storing all logits.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad z = s\, (W h + b), \qquad
        p = (1 - \epsilon)\, e_y + \epsilon\, \pi

    A superset of torch's ``LinearCrossEntropyLoss``, with the same parameters under the same names; see
    :func:`labelsmooth.functional.linear_cross_entropy`. :meth:`from_linear` takes the head of a model.
    ``return_predictions=True`` in the call makes it return a pair (loss,
    :class:`labelsmooth.functional.Predictions`).

    Any module may replace ``linear``, such as an adapter or a quantised layer. The loss then calls it and
    computes all logits at once, as it does for an ``nn.Linear`` with hooks or its own forward.

    Args:
        in_features: D.
        num_classes: K.
        out_features: (d1, ...), of a head that predicts K classes at each of these positions.
        bias: Whether the head has a bias.
        device: Of the parameters.
        dtype: Of the parameters.
        scale: s, more than 0, a factor of the logits, applied before the softcap. None is 1.
        softcap: Bends the logits to ``softcap * tanh(z / softcap)``; more than 0.
        options: The rows of a chunk; see :func:`labelsmooth.functional.linear_cross_entropy`.
        **others: The options of :class:`CrossEntropyLoss`, except ``dim``.

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
        scale: float | None = None,
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
        check_bend(scale, softcap)
        check_chunking(options)
        self.shape: tuple[int, ...] = (num_classes, *out_features)
        size = math.prod(self.shape)
        self.linear: nn.Linear = nn.Linear(in_features, size, bias=bias, device=device, dtype=dtype)
        self.scale: float | None = own(scale)
        self.softcap: float | None = own(softcap)
        self.chunking = options  # its name in torch is that of a method here

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Any) -> Self:
        """The loss of a head that exists; it shares the module, and so its parameters.

        Args:
            linear: The head, such as ``model.lm_head``; tied to an embedding or not.
            **options: Those of the class, except ``in_features``, ``num_classes``, ``out_features``,
                ``bias``, ``device`` and ``dtype``.

        Raises:
            ValueError: if ``linear`` is no ``nn.Linear``, or an option is out of range.

        Example:
            >>> head = nn.Linear(4, 3)
            >>> LinearCrossEntropyLoss.from_linear(head, label_smoothing=0.1).linear is head
            True
        """
        if not isinstance(linear, nn.Linear):
            raise ValueError(
                f"linear must be an nn.Linear, got {type(linear).__name__}: for another module make a "
                "LinearCrossEntropyLoss and set its linear"
            )
        made = cls(linear.in_features, linear.out_features, bias=False, device="meta", **options)
        made.linear = linear
        return made

    if TYPE_CHECKING:

        @overload
        def __call__(
            self,
            input: Tensor,
            target: Tensor | Mixed,
            *,
            return_nll: Literal[False] = False,
            **batch: Unpack[BatchOptions],
        ) -> Tensor: ...

        @overload
        def __call__(
            self,
            input: Tensor,
            target: Tensor | Mixed,
            *,
            return_nll: Literal[True],
            **batch: Unpack[BatchOptions],
        ) -> tuple[Tensor, Tensor]: ...

        @overload
        def __call__(
            self,
            input: Tensor,
            target: Tensor,
            *,
            return_predictions: Literal[True],
            **batch: Unpack[BatchOptions],
        ) -> tuple[Tensor, Predictions]: ...

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input: Tensor,
        target: Tensor | Mixed,
        *,
        return_nll: bool = False,
        return_predictions: bool = False,
        sample_weight: Tensor | None = None,
        denominator: float | Tensor | None = None,
        prior: PerSample | None = None,
    ) -> Any:
        batch: BatchOptions = {"sample_weight": sample_weight, "denominator": denominator, "prior": prior}
        asked = {"return_nll": return_nll, "return_predictions": return_predictions}
        if (node := as_node(self, input, target, **asked, **batch)) is not None:
            return node
        options: Any = self.options(**batch) | asked
        if not _is_its_parameters(self.linear):
            return self._of_logits(self._logits(input), target, options)
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
            scale=self.scale,
            softcap=self.softcap,
            options=self.chunking,
            **options,
        )

    def _of_logits(self, z: Tensor, target: Tensor | Mixed, options: Any) -> Any:
        dim, asked = z.dim() - len(self.shape), options.pop("return_predictions")
        loss = cross_entropy(z, target, self.weight, dim=dim, **options)
        if not asked:
            return loss
        check_predictions(target, options["return_nll"])
        assert isinstance(target, Tensor)
        given = {name: options[name] for name in ("ignore_index", "sample_weight") if name in options}
        with torch.no_grad():
            labels, counted = as_targets(target, z.shape, dim, soft=False, **given)
            z, measures = as_rows(z, dim), Measures(labels, counted, spread=True)
            return loss, predicted(z, row_statistics(z, measures), measures)

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
        return bent(z, self.scale, self.softcap)

    def extra_repr(self) -> str:
        own = {"scale": self.scale, "softcap": self.softcap, "options": self.chunking}
        return ", ".join([shown(own), super().extra_repr()]).removeprefix(", ")


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
