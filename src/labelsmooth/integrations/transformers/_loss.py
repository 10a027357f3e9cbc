"""SmoothedLoss, a ``compute_loss_func`` for Trainer."""

from typing import Any

import torch
from torch import Tensor, nn

from labelsmooth.integrations.transformers._measures import Count, Criterion
from labelsmooth.integrations.transformers._models import is_seq2seq, name_of
from labelsmooth.integrations.transformers._smoothing import Smoothing, Strength, Targets
from labelsmooth.integrations.transformers._trainers import running


class SmoothedLoss(Smoothing):
    r"""The smoothed loss of a model that trains on a cross entropy, for ``Trainer(compute_loss_func=...)``.

    .. math::
        \mathcal{L} = \frac{1}{N} \sum_i H(p_i, q_\theta) + \frac{c}{M} \sum_m A_m, \qquad
        p = (1 - \epsilon)\, e_y + \epsilon\, \pi

    N is the number of labels of all micro-batches and processes of a step, as Trainer counts them. The router
    loss A of a mixture of experts is kept, as the mean over the M micro-batches. Labels are shifted where the
    model shifts them. In evaluation the loss is the plain one.

    Trainer does not count the two labels of question answering: there each micro-batch has the same weight.

    Args:
        model: A model of Transformers with an output head, or PEFT's wrapper of one. Its ``forward`` is
            wrapped, to see the labels that Trainer does not pass on.
        criterion: A strength, for :class:`labelsmooth.CrossEntropyLoss` (for a multilabel problem
            :class:`labelsmooth.BCEWithLogitsLoss`); or a module of these classes,
            :class:`labelsmooth.LabelSmoothingLoss` or :class:`labelsmooth.OnlineLabelSmoothing`.
        smooth_evaluation: Whether evaluation is smoothed too.
        micro_batches: M, for a mixture of experts that is trained without Trainer.

    Raises:
        ValueError: if the model has no such loss, or the criterion does not fit; in the first training step,
            if smoothing would not happen.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> model = LlamaForCausalLM(LlamaConfig(
        ...     vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        ... ))
        >>> loss = SmoothedLoss(model, 0.1)
        >>> tokens = torch.tensor([[1, 2, 3, 4]])
        >>> loss(model(tokens), tokens).shape
        torch.Size([])

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Strength | Criterion = 0.1,
        *,
        smooth_evaluation: bool = False,
        micro_batches: int | None = None,
    ) -> None:
        super().__init__(model, criterion, smooth_evaluation, micro_batches)
        self.seen: Targets = Targets()  # the labels that the model was given last
        self.names: str = ""  # of all that it was given
        vars(self.model).pop("accepts_loss_kwargs", None)  # of smooth

    def forward(self, inner: Any, kwargs: dict[str, Any]) -> Any:
        """Record the labels that the model is given."""
        self.seen = Targets(None, *(kwargs.get(name) for name in Targets._fields[1:]))
        self.names = ", ".join(kwargs)
        decoded = ("labels", "decoder_input_ids", "decoder_inputs_embeds", "encoder_outputs")
        if is_seq2seq(self.model) and all(kwargs.get(name) is None for name in decoded) and running():
            raise ValueError(
                f"{name_of(self.model)} was given no decoder_input_ids, and makes none as Trainer keeps the "
                "labels: pass data_collator=DataCollatorForSeq2Seq(tokenizer, model=model)"
            )
        return inner(**kwargs)

    def __call__(self, outputs: Any, labels: Tensor | None, num_items_in_batch: Count = None) -> Tensor:
        """The loss of a micro-batch, called by Trainer.

        Args:
            outputs: The outputs of the model.
            labels: The labels of the micro-batch; -100 is ignored.
            num_items_in_batch: The number of labels of the whole step. None counts this micro-batch.
        """
        if self.model._label_smoothing is not self:
            raise ValueError(
                f"another SmoothedLoss or smooth has replaced this one on {name_of(self.model)}: "
                "make a new one"
            )
        targets, self.seen = self.seen._replace(labels=labels), Targets()
        if all(value is None for value in targets):
            got = f" (the model was given {self.names})" if self.names else ""
            raise ValueError(
                f"labels are missing: Trainer passes on those under the key 'labels'{got}; rename the column "
                "or take a collator that makes labels"
            )
        smooths = self.model.training and torch.is_grad_enabled()
        found = running()
        if smooths:
            self.check(found)
        # With a compute_loss_func, Trainer divides by nothing.
        steps = found.trainer.current_gradient_accumulation_steps if smooths and found else 1
        return self.loss(
            outputs, targets, num_items_in_batch, smooths, steps if num_items_in_batch is None else 1, found
        )
