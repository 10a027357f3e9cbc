"""TRL's fused head with smoothing, against float64 with whole logits."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="needs labelsmooth[trl]")
trl = pytest.importorskip("trl", reason="needs labelsmooth[trl]")
datasets = pytest.importorskip("datasets", reason="needs labelsmooth[trl]")
pyarrow = pytest.importorskip("pyarrow", reason="needs labelsmooth[trl]")
tokenizers = pytest.importorskip("tokenizers", reason="needs labelsmooth[trl]")

import transformers

from labelsmooth.integrations.transformers import SmoothedLoss, smooth
from labelsmooth.integrations.trl import SmoothedSFTTrainer

from . import models, oracle
from .training import Caught, error

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:Cannot (locate|pickle)"
)


def tokenizer() -> Any:
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, models.V)}}
    whole = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<pad>"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=whole, pad_token="<pad>", eos_token="</s>")


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return models.collate([{k: torch.tensor(v) for k, v in row.items()} for row in rows])


def trainer(
    model: Any, folder: Path, kind: Any = SmoothedSFTTrainer, rows: Any = None, **options: Any
) -> Any:
    settings = {k: options.pop(k) for k in ("loss_type", "label_smoothing_factor") if k in options}
    quiet = {
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
    }
    steps = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3, "max_steps": 1}
    steady = {"learning_rate": 0.0, "max_grad_norm": 0.0, "train_sampling_strategy": "sequential"}
    args = trl.SFTConfig(
        str(folder), **quiet, **steps, **steady, bf16=False, activation_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True}, **settings,
    )  # fmt: skip
    rows = rows or models.samples("llama", 3)
    table = pyarrow.Table.from_pylist([{k: v.tolist() for k, v in row.items()} for row in rows])
    data = datasets.Dataset(table, fingerprint="rows")  # datasets 5.2 cannot hash a table of pyarrow 26
    caught = Caught()
    made = kind(
        model, args, train_dataset=data, eval_dataset=data, processing_class=tokenizer(),
        data_collator=collate, callbacks=[caught], **options,
    )  # fmt: skip
    made.caught = caught
    return made


@pytest.mark.parametrize("kind", ["llama", "llama tied", "phi", "cohere", "granite"])
def test_a_step_is_that_of_float64(kind: str, tmp_path: Path) -> None:
    rows, model = models.samples(kind, 3), models.make(kind)
    made = trainer(model, tmp_path, rows=rows, label_smoothing=0.1)
    made.train()
    reference = models.make(kind).train().double()
    loss = oracle.step(reference, kind, [models.collate([row]) for row in rows], 0.1)
    loss.backward()
    assert made.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert error(made.caught.gradients[0], oracle.gradient(reference)) < 1e-6


def test_evaluation_is_plain(tmp_path: Path) -> None:
    rows, model = models.samples("llama", 3), models.make("llama")
    found = trainer(model, tmp_path, rows=rows, label_smoothing=0.5).evaluate()
    plain = trainer(models.make("llama"), tmp_path, trl.SFTTrainer, rows=rows).evaluate()
    assert found["eval_loss"] == pytest.approx(plain["eval_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("gemma2", {}, "Gemma2ForCausalLM caps its logits, which the smoothing term does not know; take"),
        ("llama", {"loss_type": "dft"}, "loss_type must be 'nll', which alone is smoothed, got 'dft'"),
        ("llama", {"label_smoothing_factor": 0.2}, "label_smoothing_factor=0.2 of the training arguments"),
        ("llama", {"compute_loss_func": lambda *_: None}, "compute_loss_func must not be given: "),
        ("llama", {"label_smoothing": 1.2}, "label_smoothing must lie in [0, 1], got 1.2"),
    ],
)
def test_refused(kind: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        trainer(models.make(kind), tmp_path, **options)


@pytest.mark.parametrize("loss_type", ["nll", "dft"])
def test_smooth_is_gone_round(loss_type: str, tmp_path: Path) -> None:
    made = trainer(smooth(models.make("llama")), tmp_path, trl.SFTTrainer, loss_type=loss_type)
    message = (
        f"smooth has no effect, as the .* SFTTrainer computes its own loss \\(loss_type='{loss_type}'\\)"
    )
    message = message if loss_type == "nll" else "smooth has no effect, as the forward of LlamaForCausalLM"
    with pytest.raises(ValueError, match=message):
        made.train()


def test_smoothed_loss(tmp_path: Path) -> None:
    rows, model = models.samples("llama", 3), models.make("llama")
    made = trainer(model, tmp_path, trl.SFTTrainer, rows=rows, compute_loss_func=SmoothedLoss(model, 0.1))
    made.train()
    reference = models.make("llama").train().double()
    oracle.step(reference, "llama", [models.collate([row]) for row in rows], 0.1).backward()
    assert error(made.caught.gradients[0], oracle.gradient(reference)) < 1e-6
