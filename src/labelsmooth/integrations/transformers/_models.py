"""Properties of a model: its loss, whether it shifts labels, how its labels are counted, its output head."""

import inspect
from typing import Any, Final

from torch import Tensor, nn
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

# Of the losses by name, those that are one cross entropy of class indices.
CROSS_ENTROPIES: Final = {
    *("ForCausalLM", "ForMaskedLM", "ForConditionalGeneration", "CsmForConditionalGeneration"),
    *("ForQuestionAnswering", "ForSequenceClassification", "ForTokenClassification"),
    *("ForImageClassification", "ForVideoClassification", "ForAudioClassification"),
}


def base_of(model: nn.Module) -> Any:
    """The model of Transformers inside a PEFT wrapper."""
    unwrapped: Any = model
    return unwrapped.get_base_model() if hasattr(model, "get_base_model") else unwrapped


def name_of(model: nn.Module) -> str:
    return type(model).__name__


def check_model(model: Any) -> None:
    """Raise an error for a model whose loss is not a cross entropy."""
    if not hasattr(model, "config") or not hasattr(model, "get_output_embeddings"):
        raise ValueError(
            f"model must be a PreTrainedModel of Transformers, got {name_of(model)}; "
            "for other models call labelsmooth.CrossEntropyLoss on the logits"
        )
    if "loss_function" in model._modules:
        raise ValueError(
            f"loss_function of {name_of(model)} is a module, which torch files under its submodules and the "
            "model never calls: del model.loss_function, and pass the module to SmoothedLoss or smooth"
        )
    loss_type = getattr(model, "loss_type", None)
    if loss_type in LOSS_MAPPING and loss_type not in CROSS_ENTROPIES:
        raise ValueError(
            f"{name_of(model)} trains on loss_type={loss_type!r}, which is no cross entropy of classes"
        )
    if getattr(model.config, "problem_type", None) == "regression":
        raise ValueError(f"{name_of(model)} has problem_type='regression', which has no classes to smooth")


def shifts(model: Any) -> bool:
    """Whether the label of a position is the next token, as in the loss of the model's own forward."""
    forward = inspect.unwrap(_own_class(model).forward)
    asks = "loss_function" in forward.__code__.co_names
    causal = LOSS_MAPPING.get(model.loss_type, ForCausalLMLoss) is ForCausalLMLoss
    return asks and causal and not model.config.is_encoder_decoder


def count_alike(model: Any) -> None:
    """Let Trainer count the labels that the loss counts.

    Trainer leaves out the first label of a row where ``loss_type`` is a causal one. GPT-2 shifts without
    saying so, and BartForCausalLM says so and does not shift.
    """
    said = LOSS_MAPPING.get(model.loss_type) is ForCausalLMLoss and not model.config.is_encoder_decoder
    if said != shifts(model):
        model.loss_type = None if said else "ForCausalLM"


def _own_class(model: Any) -> Any:
    """The class of the model in Transformers, below the one that FSDP2 adds."""
    return next(c for c in type(model).__mro__ if "forward" in vars(c))


def is_seq2seq(model: Any) -> bool:
    """Whether the decoder's input is the labels, shifted right."""
    return bool(model.config.is_encoder_decoder) and model.get_output_embeddings() is not None


def plain_head(model: Any) -> nn.Linear | None:
    """The output head, if it is an ``nn.Linear`` without hooks, adapters or sharding."""
    head = model.get_output_embeddings()
    plain = (
        type(head) is nn.Linear
        and type(head.weight) in (nn.Parameter, Tensor)
        and "forward" not in vars(head)
        and not head._forward_hooks
        and not head._forward_pre_hooks
    )
    return head if plain else None


def router_coefficient(model: Any) -> float:
    """The coefficient of the router loss of a mixture of experts."""
    config = model.config.get_text_config()
    return float(getattr(model, "router_aux_loss_coef", getattr(config, "router_aux_loss_coef", 0.0)) or 0.0)
