r"""Label smoothing on the fused head of TRL's SFTTrainer.

.. math::
    -\log p_y + \epsilon\, (z_y - \langle \pi, z \rangle)
"""

import functools
from types import MethodType
from typing import Any

try:
    import trl
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f"labelsmooth.integrations.trl needs {_error.name}: pip install 'labelsmooth[trl]'", name=_error.name
    ) from _error

import torch
from torch import Tensor

from labelsmooth import CrossEntropyLoss
from labelsmooth.functional import smoothing_term
from labelsmooth.integrations.transformers._lazy import LazyLogits, lazily
from labelsmooth.integrations.transformers._models import base_of, name_of, plain_head
from labelsmooth.integrations.transformers._trainers import check_factor

INSTEAD = "; take transformers.Trainer with SmoothedLoss or smooth of labelsmooth.integrations.transformers"


class SmoothedSFTTrainer(trl.SFTTrainer):  # pyright: ignore[reportPrivateImportUsage]
    r"""TRL's SFTTrainer with label smoothing, on its fused head that stores no logits.

    .. math::
        \ell = -\log q_y + \epsilon\, s\, [z_y - \langle \pi, z \rangle], \qquad z = W h + b

    The term that smoothing adds to a row, :func:`labelsmooth.functional.smoothing_term`, needs no logits; s
    is the factor by which the model scales them. The loss is exact and has TRL's divisor. Metrics are TRL's,
    and evaluation reports the plain loss.

    Args:
        *args: The arguments of SFTTrainer.
        label_smoothing: eps, in ``[0, 1]``.
        prior: pi, ``(K,)``. None is uniform.
        **kwargs: The keyword arguments of SFTTrainer.

    Raises:
        ValueError: for a model that caps its logits, or whose head is no plain ``nn.Linear``; for a loss_type
            other than "nll", a compute_loss_func, or a label_smoothing_factor.

    Example:
        >>> from labelsmooth.integrations.trl import SmoothedSFTTrainer
        >>> issubclass(SmoothedSFTTrainer, trl.SFTTrainer)
        True

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """

    def __init__(
        self, *args: Any, label_smoothing: float = 0.1, prior: Tensor | None = None, **kwargs: Any
    ) -> None:
        CrossEntropyLoss(label_smoothing=label_smoothing, prior=prior)  # which checks them
        super().__init__(*args, **kwargs)
        options: Any = self.args
        check_factor(options)
        if options.loss_type != "nll":
            raise ValueError(f"loss_type must be 'nll', which alone is smoothed, got {options.loss_type!r}")
        if self.compute_loss_func is not None:
            raise ValueError("compute_loss_func must not be given: SmoothedSFTTrainer has a loss of its own")
        self.label_smoothing: float = label_smoothing
        self.prior: Tensor | None = prior
        self.logit_scale: float
        self.logit_bias: Tensor | None
        base = base_of(self.model)  # pyright: ignore[reportArgumentType]
        self.logit_scale, self.logit_bias = _head(base)
        _smooth(base, self)


def _head(model: Any) -> tuple[float, Tensor | None]:
    """The factor of the logits and the bias of the head, from a forward pass of one token."""
    head = plain_head(model)
    if head is None:
        raise ValueError(
            f"the output head of {name_of(model)} must be a plain nn.Linear without hooks" + INSTEAD
        )
    token = torch.zeros(1, 1, dtype=torch.long, device=head.weight.device)
    with torch.no_grad(), lazily(head):
        logits = model(input_ids=token).logits
    if not isinstance(logits, LazyLogits):
        raise ValueError(
            f"{name_of(model)} changes its logits by more than a factor and a bias, which TRL's fused head "
            "leaves out" + INSTEAD
        )
    if logits.after is not None:
        raise ValueError(
            f"{name_of(model)} caps its logits, which the smoothing term does not know" + INSTEAD
        )
    return logits.before, logits.bias


def _smooth(model: Any, trainer: SmoothedSFTTrainer) -> None:
    """Add the term to the output of the fused head, inside the forward, where FSDP gathers the weights."""
    inner = model.forward
    inner = getattr(inner, "__func__", inner)

    @functools.wraps(inner)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not (kwargs.get("fused_lm_head") and self.training and torch.is_grad_enabled()):
            return inner(self, *args, **kwargs)
        found: list[Any] = []
        handle = self.base_model.register_forward_hook(lambda module, inputs, output: found.append(output))
        try:
            output = inner(self, *args, **kwargs)
        finally:
            handle.remove()
        term = _term(self, trainer, found[0].last_hidden_state, kwargs)
        added = trainer.label_smoothing * term
        count = kwargs.get("num_items_in_batch")
        output.loss = output.loss + added.sum() / (
            output.label_mask.sum().clamp(min=1) if count is None else count
        )
        output.log_probs = output.log_probs - added
        return output

    model.forward = MethodType(forward, model)


def _term(model: Any, trainer: SmoothedSFTTrainer, hidden: Tensor, given: dict[str, Any]) -> Tensor:
    head, labels = model.get_output_embeddings(), given.get("shift_labels")
    if labels is None:
        hidden, labels = hidden[:, :-1], given["labels"][:, 1:]
    prior = None if trainer.prior is None else trainer.prior.to(hidden.device)
    term = smoothing_term(hidden, head.weight, labels, linear_bias=head.bias, prior=prior)
    return trainer.logit_scale * term
