"""Tiny models of each kind with random weights, samples of different lengths for each, and their collator."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

hf: Any = transformers  # whose configurations have more arguments than they say

V, LABELS = 97, 5
DECODER: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODER: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "num_labels": LABELS,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
IMAGES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
ROUTER: dict[str, Any] = {"output_router_logits": True, "router_aux_loss_coef": 0.5, "num_experts_per_tok": 2}
BART: dict[str, Any] = {
    "vocab_size": V,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "pad_token_id": 0,
    "decoder_start_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def bart() -> Any:
    model = hf.BartForConditionalGeneration(hf.BartConfig(**BART))
    model.final_logits_bias.normal_()
    return model


def phi() -> Any:
    model = hf.PhiForCausalLM(hf.PhiConfig(**DECODER))
    torch.nn.init.normal_(model.lm_head.bias)
    return model


def llava() -> Any:
    vision = hf.CLIPVisionConfig(**IMAGES, projection_dim=32)
    text = hf.LlamaConfig(**DECODER)
    return hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(vision_config=vision, text_config=text, image_token_id=V - 1, vision_feature_layer=-1)
    )


MADE: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**DECODER)),
    "llama tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**DECODER, tie_word_embeddings=True)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    ),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**DECODER)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**DECODER, head_dim=8)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**DECODER, head_dim=8, final_logit_softcapping=3.0, attn_implementation="eager")
    ),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(**DECODER, head_dim=8, final_logit_softcapping=3.0)
    ),
    "cohere": lambda: hf.CohereForCausalLM(hf.CohereConfig(**DECODER, logit_scale=0.0625)),
    "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**DECODER, logits_scaling=8.0)),
    "phi": phi,
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**DECODER, **ROUTER, num_local_experts=4)),
    "qwen3 moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**DECODER, **ROUTER, head_dim=8, num_experts=4, moe_intermediate_size=16)
    ),
    "bart decoder": lambda: hf.BartForCausalLM(hf.BartConfig(**BART)),
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=V, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
            decoder_start_token_id=0, pad_token_id=0,
        )
    ),
    "bart": bart,
    "bert masked": lambda: hf.BertForMaskedLM(hf.BertConfig(**ENCODER)),
    "bert sequence": lambda: hf.BertForSequenceClassification(hf.BertConfig(**ENCODER)),
    "bert token": lambda: hf.BertForTokenClassification(hf.BertConfig(**ENCODER)),
    "llama sequence": lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(**DECODER, num_labels=LABELS)),
    "vit": lambda: hf.ViTForImageClassification(
        hf.ViTConfig(**IMAGES, num_labels=LABELS, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ),
    "llava": llava,
    "bert questions": lambda: hf.BertForQuestionAnswering(hf.BertConfig(**{**ENCODER, "num_labels": 2})),
    "bert several": lambda: hf.BertForSequenceClassification(
        hf.BertConfig(**ENCODER, problem_type="multi_label_classification")
    ),
}  # fmt: skip
SEQ2SEQ = {"t5", "bart"}
ROUTED = {"mixtral", "qwen3 moe"}
# Those whose label of a position is the next token.
CAUSAL = {
    *(
        "llama",
        "llama tied",
        "gpt2",
        "qwen2",
        "qwen3",
        "gemma2",
        "gemma3",
        "cohere",
        "granite",
        "phi",
        "llava",
    ),
    *ROUTED,
}


def make(kind: str) -> Any:
    torch.manual_seed(0)
    return MADE[kind]()


def samples(kind: str, number: int, seed: int = 1) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def integers(high: int, *size: int, low: int = 0) -> Tensor:
        return torch.randint(low, high, size, generator=generator)

    def sample(i: int) -> dict[str, Tensor]:
        length = int(integers(20, low=6))
        x = integers(V - 1, length, low=3)
        match kind:
            case "t5" | "bart":
                return {"input_ids": x, "labels": integers(V - 1, int(integers(12, low=3)), low=3)}
            case "bert masked":
                y = torch.full((length,), -100)
                y[i % 4 :: 3] = x[i % 4 :: 3]
                return {"input_ids": x, "labels": y}
            case "bert token":
                y = integers(LABELS, length)
                y[0] = -100
                return {"input_ids": x, "labels": y}
            case "bert sequence" | "llama sequence":
                return {"input_ids": x, "labels": integers(LABELS)}
            case "bert several":
                return {"input_ids": x, "labels": integers(2, LABELS).float()}
            case "bert questions":
                return {"input_ids": x, "start_positions": integers(6), "end_positions": integers(6)}
            case "vit":
                pixels = torch.randn(3, 16, 16, generator=generator)
                return {"pixel_values": pixels, "labels": integers(LABELS)}
            case "llava":
                x = torch.cat([torch.full((4,), V - 1), x])
                pixels = torch.randn(3, 16, 16, generator=generator)
                y = x.masked_fill(x == V - 1, -100)
                return {"input_ids": x, "pixel_values": pixels, "labels": y}
            case _:  # prompts of different lengths, one of them empty
                y = x.clone()
                y[: (length // 3 + i % 3) * (i % 4 > 0)] = -100
                return {"input_ids": x, "labels": y}

    return [sample(i) for i in range(number)]


def collate(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    batch: dict[str, Tensor] = {}
    for key, first in rows[0].items():
        values = [row[key] for row in rows]
        padded = first.dim() == 1 and not first.is_floating_point()
        batch[key] = (
            pad_sequence(values, True, -100 if key == "labels" else 0) if padded else torch.stack(values)
        )
    if "input_ids" in batch:
        batch["attention_mask"] = (batch["input_ids"] != 0).long()
    return batch


def collator(model: Any) -> Callable[[list[dict[str, Tensor]]], dict[str, Tensor]]:
    """As DataCollatorForSeq2Seq(tokenizer, model=model) does for models that decode."""

    def collated(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        batch = collate(rows)
        if hasattr(model, "prepare_decoder_input_ids_from_labels"):
            batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return batch

    return collated
