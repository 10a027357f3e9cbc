"""Run by torchrun: every case on every process."""

import json
import sys
import traceback
import zlib
from datetime import timedelta

import torch
import torch.distributed as dist

from . import dtensors as dtensors
from . import errors as errors
from . import heads as heads
from . import shards as shards
from .harness import CASES


def main() -> None:
    torch.set_num_threads(1)
    # A process that waits for one that has failed must not wait for long.
    dist.init_process_group("gloo", timeout=timedelta(seconds=20))
    errors: dict[str, str | None] = {}
    for name, test in CASES.items():
        try:
            test(torch.Generator().manual_seed(zlib.crc32(name.encode())))
            errors[name] = None
        except Exception:
            errors[name] = traceback.format_exc(limit=-3)
            # The others may be waiting within this case, and then nothing else comes of it.
            print(f"{name}, rank {dist.get_rank()}: {errors[name]}", file=sys.stderr, flush=True)
    told: list[dict[str, str | None]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(told, errors)
    if dist.get_rank() == 0:
        for name in CASES:
            print(json.dumps({"case": name, "errors": [errors[name] for errors in told]}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
