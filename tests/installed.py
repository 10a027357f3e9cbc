"""What a wheel has to do where it is installed, without a compiler: load its kernel, and be right.

Run by itself, it needs labelsmooth and torch only.
"""

import sys

import torch
from torch.nn import functional as F

from labelsmooth import engines
from labelsmooth.functional import cross_entropy

torch.manual_seed(0)
z, y = torch.randn(64, 1000), torch.randint(1000, (64,))
expected, found = z.clone().requires_grad_(), z.clone().requires_grad_()
F.cross_entropy(expected, y, label_smoothing=0.1).backward()
loss = cross_entropy(found, y, label_smoothing=0.1, engine="dense")  # an error where there is no kernel
loss.backward()
torch.testing.assert_close(loss, F.cross_entropy(z, y, label_smoothing=0.1))
torch.testing.assert_close(found.grad, expected.grad)
print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, dense: {engines.available()['dense']}")
