"""What is said where smoothing would not happen, or cannot, in the first training step at the latest."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

hf = pytest.importorskip("transformers", reason="needs labelsmooth[transformers]")
pytest.importorskip("accelerate", reason="needs labelsmooth[transformers]")

import labelsmooth as ls
from labelsmooth import schedules
from labelsmooth.integrations.transformers import SmoothedLoss, SmoothingCallback, smooth

from . import models
from .training import arguments, trained

FALLING = lambda: schedules.linear(0.2, 0.0, steps=3)  # noqa: E731


class OwnLoss(hf.Trainer):
    """Finds its loss in the logits, as many do."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        labels = inputs.pop("labels")
        return nn.functional.cross_entropy(model(**inputs).logits.flatten(0, 1), labels.flatten())


class AroundForward(hf.Trainer):
    """Calls the backbone, as a fused head does."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return model.base_model(inputs["input_ids"]).last_hidden_state.sum()


def forgotten(model: Any, folder: Path) -> None:
    SmoothingCallback(smoothed := SmoothedLoss(model))
    run(model, folder, callbacks=[smoothed.callback])


def liger(model: Any, folder: Path) -> None:
    """A kernel that puts another forward in the place of ours as training starts."""
    smooth(model)
    model.forward = type(model).forward.__get__(model)
    run(model, folder, label_names=None)


def run(model: Any, folder: Path, **options: Any) -> None:
    args = {k: options.pop(k) for k in ("label_smoothing_factor", "label_names") if k in options}
    trained(model, models.samples("llama", 2), arguments(folder, max_steps=1, **args), **options)


Training = Callable[[Any, Path], object]
SILENT: dict[str, tuple[Training, str]] = {
    "label_smoothing_factor beside SmoothedLoss": (
        lambda m, f: run(m, f, compute_loss_func=SmoothedLoss(m), label_smoothing_factor=0.2),
        "label_smoothing_factor=0.2 of the training arguments is ignored beside SmoothedLoss, ",
    ),
    "label_smoothing_factor beside smooth": (
        lambda m, f: run(smooth(m), f, label_smoothing_factor=0.2),
        "label_smoothing_factor=0.2 of the training arguments is ignored beside SmoothedLoss, and removes "
        "the labels that smooth needs: leave it at 0",
    ),
    "a compute_loss_func beside smooth": (
        lambda m, f: run(smooth(m), f, compute_loss_func=lambda out, *_, **__: out.logits.sum()),
        "smooth has no effect, as LlamaForCausalLM is given no labels: Trainer has a compute_loss_func, ",
    ),
    "a Trainer that takes the labels": (
        lambda m, f: run(smooth(m), f, kind=OwnLoss),
        "smooth has no effect, as LlamaForCausalLM is given no labels: OwnLoss computes its own loss: ",
    ),
    "a Trainer that goes round the forward": (
        lambda m, f: run(smooth(m), f, kind=AroundForward),
        "smooth has no effect, as the forward of LlamaForCausalLM is not called: AroundForward computes its",
    ),
    "another forward in the place of ours": (
        liger,
        "smooth has no effect, as the forward of LlamaForCausalLM is not called: Trainer computes its own ",
    ),
    "a schedule that nobody moves": (
        lambda m, f: run(m, f, compute_loss_func=SmoothedLoss(m, FALLING())),
        "nothing calls end_epoch() of CrossEntropyLoss, so its strength never changes: give Trainer "
        "callbacks=[SmoothingCallback(...)]",
    ),
    "a schedule of a smoothed model that nobody moves": (
        lambda m, f: run(smooth(m, ls.LabelSmoothingLoss(FALLING())), f),
        "nothing calls end_epoch() of LabelSmoothingLoss, so its strength never changes",
    ),
    "online smoothing that nobody moves": (
        lambda m, f: run(m, f, compute_loss_func=SmoothedLoss(m, ls.OnlineLabelSmoothing(models.V))),
        "nothing calls end_epoch() of OnlineLabelSmoothing, so its prior never changes",
    ),
    "a loss that is not given to Trainer": (
        forgotten,
        "this step trained LlamaForCausalLM without asking for the smoothed loss: give Trainer compute_loss",
    ),
    "a loss that lost its place": (
        lambda m, f: run(m, f, compute_loss_func=(SmoothedLoss(m), SmoothedLoss(m))[0]),
        "another SmoothedLoss or smooth has replaced this one on LlamaForCausalLM",
    ),
}


@pytest.mark.parametrize("name", SILENT)
def test_smoothing_that_would_not_happen(name: str, tmp_path: Path) -> None:
    training, message = SILENT[name]
    model = models.make("llama")
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        training(model, tmp_path)
    assert all(map(torch.equal, before, model.parameters()))


def test_what_is_constant_needs_no_callback(tmp_path: Path) -> None:
    model = models.make("llama")
    run(model, tmp_path, compute_loss_func=SmoothedLoss(model, schedules.constant(0.1)))


def test_somebody_else_may_move_it(tmp_path: Path) -> None:
    model = models.make("llama")
    smoothed = SmoothedLoss(model, falling := FALLING())
    run(model, tmp_path, compute_loss_func=smoothed, callbacks=[SmoothingCallback(smoothed, each=None)])
    assert falling.time == 0


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_seq2seq_without_the_decoders_input(kind: str, tmp_path: Path) -> None:
    model = models.make(kind)
    options = {
        "compute_loss_func": SmoothedLoss(model),
        "kind": hf.Seq2SeqTrainer,
        "collator": models.collate,
    }
    with pytest.raises(
        ValueError, match=r"^\w+ was given no decoder_input_ids, .*DataCollatorForSeq2Seq\(tokenizer, model="
    ):
        trained(model, models.samples(kind, 2), hf.Seq2SeqTrainingArguments(**plain(tmp_path)), **options)


def plain(folder: Path) -> dict[str, Any]:
    return {"output_dir": str(folder), "report_to": [], "disable_tqdm": True, "use_cpu": True, "max_steps": 1}


def test_labels_under_another_key(tmp_path: Path) -> None:
    model = models.make("bert token")
    rows = [
        {"tags" if k == "labels" else k: v for k, v in row.items()} for row in models.samples("bert token", 2)
    ]

    def collate(samples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {k: v for k, v in models.collate(samples).items() if k != "tags"}

    with pytest.raises(
        ValueError,
        match=r"^labels are missing: .* under the key 'labels' \(the model was given input_ids, attention_",
    ):
        trained(
            model, rows, arguments(tmp_path, max_steps=1, remove_unused_columns=False), collator=collate,
            compute_loss_func=SmoothedLoss(model),
        )  # fmt: skip


def switch() -> Any:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_experts": 2}
    layers = {
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
    }
    return hf.SwitchTransformersForConditionalGeneration(
        hf.SwitchTransformersConfig(vocab_size=models.V, **sizes, **layers, decoder_start_token_id=0)
    )


def regression() -> Any:
    return hf.BertForSequenceClassification(hf.BertConfig(**models.ENCODER, problem_type="regression"))


def one_output() -> Any:
    return hf.BertForSequenceClassification(hf.BertConfig(**{**models.ENCODER, "num_labels": 1}))


def swallowed() -> Any:
    model = models.make("llama")
    model.loss_function = nn.CrossEntropyLoss()
    return model


def speech() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return hf.Wav2Vec2ForCTC(
        hf.Wav2Vec2Config(**sizes, vocab_size=9, conv_dim=(8,), conv_kernel=(3,), conv_stride=(2,))
    )


BERT, LLAMA = (lambda: models.make("bert sequence")), (lambda: models.make("llama"))
REFUSED: list[tuple[Callable[[], Any], Any, str]] = [
    (
        lambda: nn.Linear(2, 3),
        0.1,
        "model must be a PreTrainedModel of Transformers, got Linear; for other models",
    ),
    (swallowed, 0.1, "loss_function of LlamaForCausalLM is a module, which torch files under its submodules"),
    (speech, 0.1, "Wav2Vec2ForCTC trains on loss_type='ForCTC', which is no cross entropy of classes"),
    (regression, 0.1, "BertForSequenceClassification has problem_type='regression', which has no classes"),
    (LLAMA, 1.5, "label_smoothing must lie in [0, 1], got 1.5"),
    (
        LLAMA,
        nn.CrossEntropyLoss(),
        "criterion must be a strength or one of CrossEntropyLoss, LabelSmoothingLoss",
    ),
    (
        LLAMA,
        ls.LinearCrossEntropyLoss(2, 3),
        "criterion must not be a LinearCrossEntropyLoss, which has a head",
    ),
    (LLAMA, ls.CrossEntropyLoss(reduction="sum"), "criterion must have reduction=\"mean\", got 'sum'"),
    (
        LLAMA,
        ls.CrossEntropyLoss(ignore_index=0),
        "criterion must have ignore_index=-100, which Trainer counts",
    ),
]


@pytest.mark.parametrize(("make", "criterion", "message"), REFUSED)
@pytest.mark.parametrize("way", [SmoothedLoss, smooth])
def test_refused_at_once(way: Any, make: Callable[[], Any], criterion: Any, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        way(make(), criterion)


OTHERS = torch.full((5,), 0.2)
LATER: list[tuple[Callable[[], Any], Any, dict[str, Any], str]] = [
    (one_output, 0.1, {"labels": torch.zeros(2)}, "BertForSequenceClassification has one output, and so no"),
    (
        BERT,
        0.1,
        {"labels": torch.zeros(2, 5)},
        "labels must hold class indices, got torch.float32: of a multilabel",
    ),
    (BERT, 0.1, {"labels": torch.zeros(2, 3).long()}, "labels of shape (2, 3) do not fit the logits of Bert"),
    (LLAMA, ls.CrossEntropyLoss(OTHERS), {}, "weight must have shape (K,) with K=97 classes, got (5,)"),
    (LLAMA, ls.CrossEntropyLoss(prior=OTHERS), {}, "prior must have shape (K,) or (K, K) with K=97"),
    (LLAMA, ls.OnlineLabelSmoothing(5), {}, "input must have num_classes=5 classes, got 97"),
    (
        switch,
        0.1,
        {"output_router_logits": True},
        "SwitchTransformersForConditionalGeneration adds router losses that would be lost, ",
    ),
]


@pytest.mark.parametrize(("make", "criterion", "changed", "message"), LATER)
@pytest.mark.parametrize("way", ["SmoothedLoss", "smooth"])
def test_refused_in_the_first_step(
    way: str, make: Callable[[], Any], criterion: Any, changed: dict[str, Any], message: str
) -> None:
    model = make().train()
    batch = {**models.collate(models.samples("t5" if make is switch else "llama", 2)), **changed}
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        loss_of(model, way, criterion, batch)


def loss_of(model: Any, way: str, criterion: Any, batch: dict[str, Any]) -> Tensor:
    if way == "smooth":
        return smooth(model, criterion)(**batch).loss
    smoothed, labels = SmoothedLoss(model, criterion), batch.pop("labels")
    if model.config.is_encoder_decoder:
        batch["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels=labels)
    return smoothed(model(**batch), labels)


def test_no_output_head() -> None:
    model = hf.BertModel(hf.BertConfig(**models.ENCODER)).train()
    smoothed, batch = SmoothedLoss(model), models.collate(models.samples("bert sequence", 2))
    labels = batch.pop("labels")
    with pytest.raises(
        ValueError, match=r"^BertModel returns no logits, but last_hidden_state, pooler_output: "
    ):
        smoothed(model(**batch), labels)


@pytest.mark.parametrize("way", ["SmoothedLoss", "smooth"])
def test_a_router_loss_and_a_count_without_a_trainer(way: str) -> None:
    """Nobody could tell what the router loss is the mean of."""
    model, batch = models.make("mixtral").train(), models.collate(models.samples("mixtral", 2))

    def loss(**options: Any) -> Tensor:
        if way == "smooth":
            return smooth(model, 0.1, **options)(**batch, num_items_in_batch=30).loss
        labels = {"labels": batch["labels"]}
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        return SmoothedLoss(model, 0.1, **options)(model(**inputs), labels["labels"], num_items_in_batch=30)

    with pytest.raises(ValueError, match=r"^MixtralForCausalLM has a router loss, .*as micro_batches="):
        loss()
    # The router's part is half as large with twice as many micro-batches.
    twice, once = loss(micro_batches=2), loss(micro_batches=1)
    aux = 0.5 * model(**{k: v for k, v in batch.items() if k != "labels"}).aux_loss
    torch.testing.assert_close(once - twice, aux / 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: SmoothingCallback(m),
            "smoothed must be a SmoothedLoss, or a model that was given to smooth, got",
        ),
        (lambda m: SmoothingCallback(ls.CrossEntropyLoss()), "smoothed must be a SmoothedLoss, or a model"),
        (
            lambda m: SmoothingCallback(smooth(m), each="batch"),  # pyright: ignore
            "each must be 'epoch', 'step' or None, got 'batch'",
        ),
    ],
)
def test_callback(call: Callable[[Any], object], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call(models.make("llama"))
