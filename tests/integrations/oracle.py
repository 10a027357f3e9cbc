"""The smoothed loss of a step written out: whole logits, float64, nothing of the package."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .models import CAUSAL, ROUTED, SEQ2SEQ


def rows(
    model: Any, kind: str, batch: dict[str, Tensor]
) -> tuple[list[tuple[Tensor, Tensor]], Tensor | None]:
    """Logits and labels of the rows that count, by output; and the router loss."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    if kind in SEQ2SEQ:
        inputs["labels"] = batch["labels"]
    out = model(**inputs)
    if kind == "bert questions":
        pairs = [(out.start_logits, batch["start_positions"]), (out.end_logits, batch["end_positions"])]
        pairs = [(z, torch.where(y < z.size(-1), y, -100)) for z, y in pairs]
    elif kind in CAUSAL:
        pairs = [(out.logits[:, :-1], batch["labels"][:, 1:])]
    else:
        pairs = [(out.logits, batch["labels"])]
    flat = [(z.reshape(-1, z.size(-1)).double(), y.reshape(-1)) for z, y in pairs]
    aux = out.aux_loss if kind in ROUTED else None
    return [(z[y != -100], y[y != -100]) for z, y in flat], aux


def smoothed(z: Tensor, y: Tensor, eps: float) -> Tensor:
    """The losses of the rows."""
    q = z - torch.logsumexp(z, -1, keepdim=True)
    return -(1 - eps) * q[torch.arange(len(y)), y] - eps * q.mean(-1)


def step(model: Any, kind: str, batches: Sequence[dict[str, Tensor]], eps: float) -> Tensor:
    """The loss of all micro-batches together: by the number of labels, router losses by that of batches."""
    total, count, router = torch.zeros((), dtype=torch.float64), 0, torch.zeros((), dtype=torch.float64)
    for batch in batches:
        if kind == "bert several":
            x, t = model(**{k: v for k, v in batch.items() if k != "labels"}).logits.double(), batch["labels"]
            p = (1 - eps) * t.double() + eps / 2
            total = total - (p * x.sigmoid().log() + (1 - p) * (1 - x.sigmoid()).log()).sum()
            count += t.numel()
            continue
        pairs, aux = rows(model, kind, batch)
        if kind == "bert questions":  # micro-batches count alike
            total = total + sum(smoothed(z, y, eps).mean() for z, y in pairs) / 2
            count += 1
            continue
        ((z, y),) = pairs
        total, count = total + smoothed(z, y, eps).sum(), count + len(y)
        if aux is not None:
            router = router + 0.5 * aux.double()
    return total / count + router / len(batches)


def gradient(model: Any) -> Tensor:
    """All of it, as one vector."""
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])
