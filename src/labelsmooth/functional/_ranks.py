"""Check that the processes of a group make the same call."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from labelsmooth._engines.sharded import Span
from labelsmooth._targets.mixed import Mixed
from labelsmooth.schedules import ByClass, Schedule


def check_same(found: Span | str, summary: dict[str, str], group: "dist.ProcessGroup | None") -> None:
    """Raise the same error on every process if one has found an error, or if their calls do not match."""
    calls: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(calls, (found, summary), group=group)
    for rank, (span, _) in enumerate(calls):
        if isinstance(span, str):
            raise ValueError(f"{span} (on rank {rank} of the group)")
    spans, summaries = zip(*calls, strict=True)
    for rank, summary in enumerate(summaries):
        for name in {**summaries[0], **summary}:
            first, other = summaries[0].get(name), summary.get(name)
            if first != other:
                raise ValueError(
                    f"{name} must be the same on every rank of the group, got {first} on rank 0 and {other} "
                    f"on rank {rank}"
                )
    totals = {span.num_classes for span in spans}
    ends = [0, *(span.stop for span in spans)]
    if len(totals) > 1 or ends[:-1] != [span.start for span in spans] or ends[-1:] != list(totals):
        parts = ", ".join(f"[{span.start}, {span.stop}) of {span.num_classes}" for span in spans)
        raise ValueError(
            f"the shards' classes must follow one another and be num_classes in all, got by rank {parts}"
        )


def told(target: Tensor | Mixed) -> str:
    if isinstance(target, Mixed):
        lam = told(target.lam) if isinstance(target.lam, Tensor) else target.lam
        return f"mixed({told(target.first)}; {told(target.second)}; {lam})"
    return f"{described(target)}, checksum {_checksum(target)}"


def described(x: object) -> str:
    if isinstance(x, ByClass):
        return f"by_class({described(x.eps)})"
    if isinstance(x, Schedule):
        return f"{x.description} at time {x.time.item()}"
    return f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else repr(x)


def _checksum(x: Tensor) -> str:
    values = x.detach().flatten().double()
    return repr((values * torch.arange(1, values.numel() + 1, device=x.device)).sum().item())
