"""``python -m benchmarks`` measures the losses and their peers side by side, in one run.

One step is what training pays for a loss: forward, backward to fresh gradients of the logits (for linear
heads of the features and the weight), and freeing them. All that take part are first held to the answer in
float64; then they take turns in rounds, so that noise hits all alike. A figure is the median over the rounds,
a ratio the median of the ratios within each round. The peak is what torch's allocator holds at most during a
step, beyond what it held before.

The goals, in ``cases.py``, are printed with met or missed. Not here, as they are no race: the sharded losses,
which the tests hold to one process, and the study.

It needs the development install (``pip install -e ".[dev]"``), and two quiet cores for some seven minutes.
Peers that are not installed are left out, and so is torch.compile without a C++ compiler.
"""

import os

# Or else the memory profiler announces itself on stderr; read when torch is loaded, so it comes first.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
