"""smooth: the smoothed loss inside a model's forward, without logits."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from labelsmooth.integrations.transformers._lazy import lazily
from labelsmooth.integrations.transformers._measures import Criterion
from labelsmooth.integrations.transformers._models import is_seq2seq, name_of, plain_head
from labelsmooth.integrations.transformers._smoothing import Smoothing, Strength, Targets
from labelsmooth.integrations.transformers._trainers import compiled, running, who_took_the_labels

Model = TypeVar("Model", bound=nn.Module)


def smooth(
    model: Model,
    criterion: Strength | Criterion = 0.1,
    *,
    smooth_evaluation: bool = False,
    micro_batches: int | None = None,
) -> Model:
    r"""Make a model's forward return the smoothed loss in training, without storing the logits.

    .. math::
        \mathcal{L} = \frac{1}{N} \sum_i H(p_i, q_\theta) + \frac{c}{M} \sum_m A_m, \qquad
        q_\theta = \mathrm{softmax}(W h + b)

    ``model(..., labels=labels).loss`` is then the loss of :class:`SmoothedLoss`, for Trainer and every other
    training loop. The output head returns lazy logits, which are computed only when they are used; the scale,
    soft cap and bias that a model applies to them are part of the loss. Logits are computed for heads that
    are not a plain ``nn.Linear`` (adapters, quantised or sharded weights), and in evaluation, whose loss is
    the plain one.

    Args:
        model: A model of Transformers with an output head, or PEFT's wrapper of one. Its ``forward`` and
            ``accepts_loss_kwargs`` are replaced.
        criterion: As for :class:`SmoothedLoss`.
        smooth_evaluation: Whether evaluation is smoothed too.
        micro_batches: As for :class:`SmoothedLoss`.

    Returns:
        The model itself.

    Raises:
        ValueError: as :class:`SmoothedLoss`; in the first training step under Trainer too, if the loss of the
            forward is not what is trained on.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> model = smooth(LlamaForCausalLM(LlamaConfig(
        ...     vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        ... )), 0.1)
        >>> tokens = torch.tensor([[1, 2, 3, 4]])
        >>> model.train()(tokens, labels=tokens).logits
        LazyLogits(shape=(1, 4, 11), dtype=torch.float32)

    Reference:
        Wijmans et al., *Cut Your Losses in Large-Vocabulary Language Models*, ICLR 2025.
    """
    _Forward(model, criterion, smooth_evaluation, micro_batches)
    return model


class _Forward(Smoothing):
    """Computes the loss inside the forward."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.within = False  # the forward
        self.model.accepts_loss_kwargs = True  # so that Trainer counts, and does not divide by the steps
        backbone = self.model.base_model
        if backbone is not self.model:
            backbone.register_forward_pre_hook(self.watch)

    def watch(self, backbone: nn.Module, _: Any) -> None:
        """Raise an error if the backbone is trained without a call of the forward."""
        current = self.model._label_smoothing is self
        if (
            current
            and not self.within
            and backbone.training
            and torch.is_grad_enabled()
            and (found := running())
        ):
            raise ValueError(
                f"smooth has no effect, as the forward of {name_of(self.model)} is not called: "
                + who_took_the_labels(found.trainer)
            )

    def forward(self, inner: Any, kwargs: dict[str, Any]) -> Any:
        count = kwargs.pop("num_items_in_batch", None)
        smooths = self.model.training and torch.is_grad_enabled()
        targets = Targets(*(kwargs.get(name) for name in Targets._fields))
        found = running()
        if smooths:
            self.check(found)
            if compiled(self.model):
                raise ValueError(
                    f"{name_of(self.model)} is compiled, which smooth is not made for: take "
                    "Trainer(compute_loss_func=SmoothedLoss(model, ...)), or compile its layers only"
                )
        if targets.labels is None and targets.shift_labels is None and targets.end_positions is None:
            if smooths and found is not None:
                raise ValueError(
                    f"smooth has no effect, as {name_of(self.model)} is given no labels: "
                    + who_took_the_labels(found.trainer)
                )
            with self._inside():
                return inner(**kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name not in Targets._fields}
        if is_seq2seq(self.model):
            self._decode(kwargs, targets.labels)
        with self._inside(), lazily(plain_head(self.model) if smooths else None):
            outputs = inner(**kwargs)
        loss = self.loss(outputs, targets, count, smooths, 1, found)
        if isinstance(outputs, Mapping):
            kind: Any = type(outputs)
            return kind(**{**outputs, "loss": loss})
        return (loss, *outputs)

    def _decode(self, kwargs: dict[str, Any], labels: Tensor | None) -> None:
        """Make the decoder's input from the labels, as the model does."""
        if all(kwargs.get(name) is None for name in ("decoder_input_ids", "decoder_inputs_embeds")):
            if not hasattr(self.model, "prepare_decoder_input_ids_from_labels"):
                raise ValueError(
                    f"{name_of(self.model)} was given no decoder_input_ids, and does not tell how it makes "
                    "them of the labels: let the collator make them"
                )
            kwargs["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels=labels)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self.within = True
        try:
            yield
        finally:
            self.within = False
