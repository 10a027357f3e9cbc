"""Run by torchrun: what two processes train on together, against float64 in one."""

import json
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from labelsmooth.integrations.transformers import SmoothedLoss, SmoothingCallback, smooth

from . import models, oracle
from .training import arguments, error, trained

EPS, STEPS = 0.1, 2
CASES = [
    *((kind, way, unused) for kind in ("llama", "t5", "bert token", "mixtral")
      for way in ("SmoothedLoss", "smooth") for unused in (False, True)),
    *((kind, way, None) for kind in ("llama", "llama tied") for way in ("SmoothedLoss", "smooth")),
]  # fmt: skip


def name(case: tuple[str, str, bool | None]) -> str:
    kind, way, unused = case
    how = {None: "fully_shard", False: "DDP", True: "DDP, unused parameters are looked for"}[unused]
    return f"{kind}, {way}, {how}"


def expected(kind: str, rows: list[Any]) -> tuple[float, Any]:
    model = models.make(kind).train()
    model = model if kind in models.ROUTED else model.double()
    loss = oracle.step(model, kind, [models.collate([row]) for row in rows], EPS)
    loss.backward()
    return loss.item(), oracle.gradient(model)


def in_trainer(kind: str, way: str, unused: bool) -> tuple[float, float]:
    """Errors of loss and gradient. Each process takes every second row."""
    rows, model = models.samples(kind, STEPS * dist.get_world_size()), models.make(kind)
    loss: Any = SmoothedLoss(model, EPS) if way == "SmoothedLoss" else smooth(model, EPS)
    options: dict[str, Any] = {"ddp_find_unused_parameters": unused, "max_steps": 1}
    args = arguments(Path(tempfile.mkdtemp()), gradient_accumulation_steps=STEPS, **options)
    callback = SmoothingCallback(loss)
    func = loss if way == "SmoothedLoss" else None
    trainer, (gradient,) = trained(model, rows, args, callbacks=[callback], compute_loss_func=func)
    right, of_it = expected(kind, rows)
    log = trainer.state.log_history[0]
    plain = models.make(kind).train().double() if kind not in models.ROUTED else models.make(kind).train()
    nll = oracle.step(plain, kind, [models.collate([row]) for row in rows], 0.0).item()
    if kind not in models.ROUTED:  # whose NLL has no router loss
        assert abs(log["nll"] / nll - 1) < 1e-6, (log["nll"], nll)
    return abs(log["loss"] / right - 1), error(gradient, of_it)


def in_a_loop(kind: str, way: str) -> tuple[float, float]:
    """FSDP2, whose gradients are means over the processes."""
    world, rows, model = dist.get_world_size(), models.samples(kind, dist.get_world_size()), models.make(kind)
    smoothed: Any = SmoothedLoss(model, EPS) if way == "SmoothedLoss" else smooth(model, EPS)
    model.train()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    count = sum(int((row["labels"][1:] != -100).sum()) for row in rows)
    batch = models.collate([rows[dist.get_rank()]])
    if way == "SmoothedLoss":
        loss = smoothed(model(**{k: v for k, v in batch.items() if k != "labels"}), batch["labels"], count)
    else:
        loss = model(**batch, num_items_in_batch=count).loss
    (loss * world).backward()
    parts = [p.grad.full_tensor() for p in model.parameters() if isinstance(p.grad, DTensor)]
    right, of_it = expected(kind, rows)
    total = loss.detach().clone()
    dist.all_reduce(total)
    return abs(total.item() / right - 1), error(torch.cat([p.double().flatten() for p in parts]), of_it)


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=30))
    for case in CASES:
        kind, way, unused = case
        try:
            of_loss, of_gradient = in_a_loop(kind, way) if unused is None else in_trainer(kind, way, unused)
            said = None if max(of_loss, of_gradient) < 1e-6 else f"errors {of_loss:.1e}, {of_gradient:.1e}"
            told = f"{of_loss:.1e} {of_gradient:.1e}"
        except Exception:
            said, told = traceback.format_exc(limit=-4), ""
            print(f"{name(case)}: {said}", file=sys.stderr, flush=True)
        found: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(found, said)
        if dist.get_rank() == 0:
            print(json.dumps({"case": name(case), "errors": found, "measured": told}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
