"""What the calls of docs/reference/conventions.md are made of, at random."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What the calls of the page are made of, under the names that they have there."""

    z: Tensor  # logits, (N, K)
    y: Tensor  # labels
    t: Tensor  # class probabilities
    on: Tensor  # labels of 0 and 1, (N, K)
    one_hot: Tensor  # of y, if no row is ignored
    w: Tensor  # class weights
    valid: Tensor  # the classes that a row may have
    pad: int
    prior: Tensor
    S: Tensor  # the prior of each class
    mask: Tensor  # 1 for the tokens that count
    length: Tensor  # the number of them in the sentence of each
    B: int
    L: int
    N: int
    K: int
    e: float = 0.1
    a: float = 0.3
    c: float = 0.02
    m: float = 0.5
    lam: float = 0.7
    scale: float = 0.25
    threshold: float = 0.3
    num_items: int = 11
    avg_factor: float = 4.5

    @property
    def log_q(self) -> Tensor:
        return self.z.log_softmax(-1)


def batch(K: int, ignored: int | None, seed: int) -> Batch:
    """Random logits and labels; two rows are labelled ``ignored``, as no other row is."""
    generator = torch.Generator().manual_seed(seed)
    B, L = 3, 4
    N = B * L

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    y = torch.randint(K, (N,), generator=generator)
    if ignored is not None:
        y = torch.where(y == ignored, (ignored + 1) % K, y)
        y[[2, 5]] = ignored
    label = torch.arange(K) == y[:, None]
    mask = torch.arange(L) < torch.tensor([[4], [1], [3]])
    return Batch(
        z=3 * random(N, K),
        y=y,
        t=random(N, K).softmax(-1),
        on=(random(N, K) > 0.5).double(),
        one_hot=label.double(),
        w=random(K).exp(),
        valid=(random(N, K) > 0) | label,
        pad=1,
        prior=random(K).softmax(-1),
        S=random(K, K).softmax(-1),
        mask=mask.flatten().double(),
        length=mask.sum(-1, keepdim=True).expand(B, L).flatten(),
        B=B,
        L=L,
        N=N,
        K=K,
    )
