"""Smoothing beside what else is done to a model: short types, checkpoints, adapters, copies, compilation."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

hf = pytest.importorskip("transformers", reason="needs labelsmooth[transformers]")
pytest.importorskip("accelerate", reason="needs labelsmooth[transformers]")

from labelsmooth.integrations.transformers import SmoothedLoss, smooth
from labelsmooth.integrations.transformers._lazy import LazyLogits

from . import models
from .training import arguments, error, trained

OF_PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
WAYS = pytest.mark.parametrize("way", ["SmoothedLoss", "smooth"])


def step(model: Any, way: str, folder: Path, rows: int = 3, **options: Any) -> tuple[float, Tensor]:
    loss: Any = SmoothedLoss(model, 0.1) if way == "SmoothedLoss" else None
    if way == "smooth":
        smooth(model, 0.1)
    args = arguments(folder, gradient_accumulation_steps=rows, max_steps=1, **options)
    trainer, (gradient,) = trained(model, models.samples("llama", rows), args, compute_loss_func=loss)
    return trainer.state.log_history[0]["loss"], gradient


@WAYS
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpoints(way: str, reentrant: bool, tmp_path: Path) -> None:
    loss, gradient = step(models.make("llama"), way, tmp_path)
    options = {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"use_reentrant": reentrant},
    }
    again, of_it = step(models.make("llama"), way, tmp_path, **options)
    assert again == loss
    assert error(of_it, gradient) < 1e-6


@WAYS
def test_bfloat16(way: str, tmp_path: Path) -> None:
    """Autocast rounds the products alike, whether the logits exist or not."""
    plain, _ = step(models.make("llama"), way, tmp_path)
    loss, gradient = step(models.make("llama"), "SmoothedLoss", tmp_path, bf16=True)
    found, of_it = step(models.make("llama"), way, tmp_path, bf16=True)
    assert found != plain
    assert found == pytest.approx(loss, rel=1e-4)
    assert error(of_it, gradient) < 2e-2


@OF_PEFT
@WAYS
@pytest.mark.parametrize("where", ["q_proj", "lm_head"])
def test_adapters(way: str, where: str, tmp_path: Path) -> None:
    """On the head itself, too: it is then no plain head, and its logits are made."""
    peft = pytest.importorskip("peft", reason="needs peft")
    kind = {"SmoothedLoss": Tensor, "smooth": Tensor if where == "lm_head" else LazyLogits}[way]

    def adapted() -> Any:
        torch.manual_seed(1)
        model = peft.get_peft_model(
            models.make("llama"), peft.LoraConfig(target_modules=[where], init_lora_weights=False)
        )
        return model.train()

    batch = models.collate(models.samples("llama", 2))
    reference = adapted()
    z, y = reference(**batch).logits[:, :-1].double(), batch["labels"][:, 1:]
    keep = y != -100
    right = torch.nn.functional.cross_entropy(z[keep], y[keep], label_smoothing=0.1)
    right.backward()
    model = adapted()
    if way == "smooth":
        out = smooth(model, 0.1)(**batch)
        loss = out.loss
    else:
        smoothed = SmoothedLoss(model, 0.1)
        out = model(**batch)
        loss = smoothed(out, batch["labels"])
    loss.backward()
    assert type(out.logits) is kind
    assert loss.item() == pytest.approx(right.item(), rel=1e-6)
    for found, expected in zip(model.parameters(), reference.parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-7)


@OF_PEFT
def test_an_adapter_put_around_a_smoothed_model() -> None:
    peft = pytest.importorskip("peft", reason="needs peft")
    model = smooth(models.make("llama"), 0.1)
    batch = models.collate(models.samples("llama", 2))
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).train()
    torch.testing.assert_close(adapted(**batch).loss, smooth(models.make("llama"), 0.1).train()(**batch).loss)


@WAYS
def test_a_copy_has_its_own_forward(way: str) -> None:
    model = models.make("llama").train()
    batch = models.collate(models.samples("llama", 2))
    if way == "smooth":
        smooth(model, 0.1)
    else:
        SmoothedLoss(model, 0.1)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert other(**batch).loss.item() == pytest.approx(torch.tensor(models.V).log().item(), rel=1e-6)
    (other(**batch).loss * torch.ones((), requires_grad=True)).backward()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_saved_generating_and_evaluated_it_is_the_model_that_it_was(tmp_path: Path) -> None:
    plain, model = models.make("llama").eval(), smooth(models.make("llama"), 0.1).eval()
    batch = models.collate(models.samples("llama", 2))
    torch.testing.assert_close(model(**batch).logits, plain(**batch).logits)
    torch.testing.assert_close(model(**batch).loss, plain(**batch).loss)
    prompt = batch["input_ids"][:1, :3]
    options = {"max_new_tokens": 4, "do_sample": False}
    assert model.generate(prompt, **options).tolist() == plain.generate(prompt, **options).tolist()
    assert list(model.state_dict()) == list(plain.state_dict())
    model.save_pretrained(tmp_path)
    loaded = hf.LlamaForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, plain(**batch).logits)


def test_without_a_dictionary() -> None:
    model, batch = smooth(models.make("llama"), 0.1).train(), models.collate(models.samples("llama", 2))
    loss, logits, *_ = model(**batch, return_dict=False)
    assert isinstance(logits, LazyLogits)
    torch.testing.assert_close(loss, model(**batch).loss)
    positional = model(batch["input_ids"], batch["attention_mask"], labels=batch["labels"])
    torch.testing.assert_close(positional.loss, model(**batch).loss)


def test_compiled_in_trainer(tmp_path: Path) -> None:
    torch.compiler.reset()
    options = {"torch_compile": True, "torch_compile_backend": "eager"}
    loss, gradient = step(models.make("llama"), "SmoothedLoss", tmp_path, 1)
    found, of_it = step(models.make("llama"), "SmoothedLoss", tmp_path, 1, **options)
    assert found == pytest.approx(loss, rel=1e-6)
    assert error(of_it, gradient) < 1e-6


@pytest.mark.parametrize("how", ["in Trainer", "around it", "in place"])
@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace:UserWarning")
def test_smooth_refuses_to_be_compiled(how: str, tmp_path: Path) -> None:
    torch.compiler.reset()
    with pytest.raises(ValueError, match=r"^LlamaForCausalLM is compiled, .*SmoothedLoss\(model"):
        compiled_step(models.make("llama").train(), how, tmp_path)


def compiled_step(model: Any, how: str, folder: Path) -> None:
    batch = models.collate(models.samples("llama", 2))
    match how:
        case "in Trainer":
            step(model, "smooth", folder, torch_compile=True, torch_compile_backend="eager")
        case "around it":
            torch.compile(smooth(model), backend="eager")(**batch)
        case _:
            smooth(model).compile(backend="eager")
            model(**batch)


def test_a_head_with_hooks_is_called() -> None:
    model, batch = models.make("llama").train(), models.collate(models.samples("llama", 2))
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits / 2)
    z, y = model(**batch).logits[:, :-1], batch["labels"][:, 1:]
    right = torch.nn.functional.cross_entropy(z[y != -100], y[y != -100], label_smoothing=0.1)
    out = smooth(model, 0.1)(**batch)
    assert type(out.logits) is Tensor
    torch.testing.assert_close(out.loss, right)
