"""``python -m benchmarks`` measures the losses and their peers side by side, in one run.

A step is the cost of a loss in training: the forward pass, the backward pass to new gradients of the logits
(of the features and the weight for linear heads), and freeing them. Each entrant is first checked against the
float64 result; then the entrants run in turns, round by round, so that noise affects all of them alike. A
figure is the median over the rounds, a ratio the median of the ratios within each round. The peak is the
largest amount of memory that torch's allocator holds during a step, beyond what it held before.

Memory that is new to the process costs time, and how much of it is new depends on the allocator.
``--allocator jemalloc`` measures in a process with jemalloc, which keeps the freed memory of all entrants.

The goals in ``cases.py`` are printed as met or missed. The benchmarks do not cover the sharded losses, which
the tests compare with one process, nor the study.

They need the development install (``pip install -e ".[dev]"``), and two idle cores for about seven minutes.
Peers that are not installed are left out, and so is torch.compile without a C++ compiler.
"""

import os

# Silences the memory profiler on stderr. torch reads it at import, so it is set first.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
