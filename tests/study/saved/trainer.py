"""A training program of no time, with the faults that such programs have."""

import sys
import time

import numpy as np
import torch

import labelsmooth

loss, seed, out, *fault = sys.argv[1:]
print("starting")
if "exit" in fault:
    print("first of all\nno such data", file=sys.stderr)
    sys.exit(3)
criterion = labelsmooth.load_criterion(loss)
random = np.random.default_rng(0)
labels = np.arange(60) % 3
logits = random.normal(size=(60, 3)) + np.eye(3)[labels] * (1 + int(seed))
if "deaf" not in fault:
    for _ in range(2):
        assert criterion(torch.tensor(logits), torch.tensor(labels)).isfinite()
        criterion.end_epoch()
arrays = {"logits": logits[:40], "labels": labels[:40], "val_logits": logits[40:], "val_labels": labels[40:]}
if "mute" in fault:
    pass
elif out.endswith(".csv"):
    rows = [",".join(map(str, [label, *z])) for label, z in zip(labels, logits.tolist(), strict=True)]
    with open(out, "w") as file:
        file.write("\n".join(["label,logit_0,logit_1,logit_2", *rows]))
else:
    np.savez(out, **arrays)
if "slow" in fault:
    time.sleep(60)
