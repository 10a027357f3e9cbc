"""Methods of the literature that are one another, each written from its own paper's formula."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import functional, priors
from labelsmooth.engines import available
from labelsmooth.formulas import (
    BackwardCorrection,
    Focal,
    Formula,
    ForwardCorrection,
    LabelRelaxation,
    LabelSmoothing,
    MarginSmoothing,
    MaxSup,
    NegativeSmoothing,
)

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

ENGINES = ["reference", *(["dense"] if available()["dense"].present else [])]
N, K, D = 12, 6, 4


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


Z = 3 * random(N, K)
HARD = torch.arange(N) % K
ONE_HOT = F.one_hot(HARD, K).double()
PRIOR = random(K).softmax(-1)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def both(loss: Any, z: Tensor = Z) -> tuple[Tensor, Tensor]:
    """The loss of each row, and its gradient by the logits."""
    leaf = z.clone().requires_grad_()
    rows = loss(leaf)
    return rows.detach(), torch.autograd.grad(rows.sum(), leaf)[0]


def ours(
    formula: Formula, eps: float | Tensor, engine: str, z: Tensor = Z, target: Tensor = HARD, **options: Any
) -> tuple[Tensor, Tensor]:
    options = {"label_smoothing": eps, "formula": formula, "reduction": "none", "engine": engine, **options}
    return both(lambda z: cross_entropy(z, target, **options), z)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["uniform", "vector"])
def test_maxsup_is_a_margin_of_0(engine: str, prior: Tensor | None) -> None:
    assert_close(
        ours(MaxSup(), 0.7, engine, prior=prior), ours(MarginSmoothing(margin=0), 0.7, engine, prior=prior)
    )


def test_maxsup_is_label_smoothing_on_rows_that_are_right(engine: str) -> None:
    right = Z.argmax(-1)
    smoothed = ours(LabelSmoothing(), 0.2, engine, target=right)
    assert_close(ours(MaxSup(), 0.2, engine, target=right), smoothed)
    # And elsewhere it is more by the distance of the label from the largest.
    loss, _ = ours(MaxSup(), 0.2, engine)
    more = 0.2 * (Z.amax(-1) - Z[torch.arange(N), HARD])
    assert (more > 0).sum() > N / 2
    assert_close(loss, ours(LabelSmoothing(), 0.2, engine)[0] + more)


def teacher_free(z: Tensor, target: Tensor, alpha: float, temperature: float, multiplier: float) -> Tensor:
    """The regularisation of Yuan et al., CVPR 2020, whose virtual teacher is right with probability 0.99.

    As published, its probabilities, and not their logarithms, are divided by the temperature; and the
    divergence is a mean over all rows and classes.
    """
    classes = z.size(1)
    correct = 0.99
    teacher = torch.full_like(z, (1 - correct) / (classes - 1))
    teacher[torch.arange(len(z)), target] = correct
    teacher = F.softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(F.log_softmax(z, dim=1), teacher, reduction="sum") / z.numel()
    return (1 - alpha) * F.cross_entropy(z, target) + alpha * multiplier * divergence


def smoothing_of_teacher_free(
    alpha: float, temperature: float, multiplier: float, K: int
) -> tuple[float, float]:
    """The strength and the scale of the label smoothing that it is."""
    label, other = math.exp(0.99 / temperature), math.exp(0.01 / (K - 1) / temperature)
    total = label + (K - 1) * other
    on_teacher = alpha * multiplier / K  # as a mean over classes is 1/K of a divergence
    scale = 1 - alpha + on_teacher
    return on_teacher * K * (other / total) / scale, scale


@pytest.mark.parametrize(
    ("alpha", "temperature", "multiplier", "eps", "scale"),
    [(0.1, 20.0, 100.0, 0.0999, 1.0), (0.95, 40.0, 1.0, 0.1596, 0.0595)],
    ids=["ResNet-18", "MobileNetV2"],
)
def test_teacher_free_distillation_is_label_smoothing(
    alpha: float, temperature: float, multiplier: float, eps: float, scale: float, engine: str
) -> None:
    classes = 100
    exact, exact_scale = smoothing_of_teacher_free(alpha, temperature, multiplier, classes)
    assert (round(exact, 4), round(exact_scale, 4)) == (eps, scale)
    z, target = 3 * random(5, classes), torch.tensor([3, 99, 0, 50, 7])
    published = both(lambda z: teacher_free(z, target, alpha, temperature, multiplier), z)[1]
    _, smoothed = ours(LabelSmoothing(), exact, engine, z, target, reduction="mean")
    assert_close(published, exact_scale * smoothed)


@pytest.mark.parametrize("rho", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["symmetric", "vector"])
def test_backward_correction_is_negative_smoothing(rho: float, prior: Tensor | None, engine: str) -> None:
    negative = NegativeSmoothing(clip=math.inf)
    assert_close(
        ours(BackwardCorrection(), rho, engine, prior=prior),
        ours(negative, -rho / (1 - rho), engine, prior=prior),
    )


def noise(rho: float, prior: Tensor) -> Tensor:
    """T[i, j], the probability that class i is labelled j."""
    return (1 - rho) * torch.eye(K, dtype=torch.float64) + rho * prior.expand(K, K)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["symmetric", "vector"])
def test_corrections_are_those_of_the_matrix_of_the_noise(prior: Tensor | None, engine: str) -> None:
    """Patrini et al., CVPR 2017, theorems 1 and 2."""
    rho = 0.4
    T = noise(rho, torch.full((K,), 1 / K, dtype=torch.float64) if prior is None else prior)

    def backward(z: Tensor) -> Tensor:
        return (-z.log_softmax(-1) @ torch.linalg.inv(T).T)[torch.arange(N), HARD]

    def forward(z: Tensor) -> Tensor:
        return -(z.softmax(-1) @ T).log()[torch.arange(N), HARD]

    assert_close(ours(BackwardCorrection(), rho, engine, prior=prior), both(backward))
    assert_close(ours(ForwardCorrection(), rho, engine, prior=prior), both(forward))


def test_backward_correction_is_right_on_average(engine: str) -> None:
    rho = 0.4
    T = noise(rho, PRIOR)
    expected = [torch.zeros(N, dtype=torch.float64), torch.zeros(N, K, dtype=torch.float64)]
    for label in range(K):
        loss, grad = ours(BackwardCorrection(), rho, engine, target=torch.full((N,), label), prior=PRIOR)
        seen = T[HARD, label]
        expected[0] += seen * loss
        expected[1] += seen[:, None] * grad
    assert_close(tuple(expected), ours(LabelSmoothing(), 0.0, engine))


@pytest.mark.parametrize("rho", [0.0, 0.2, 0.9])
def test_forward_correction_for_symmetric_noise(rho: float, engine: str) -> None:
    def corrected(z: Tensor) -> Tensor:
        return -((1 - rho) * z.softmax(-1)[torch.arange(N), HARD] + rho / K).log()

    assert_close(ours(ForwardCorrection(), rho, engine), both(corrected))


@pytest.mark.parametrize("e", [0.0, 0.1, 0.3])
def test_preference_losses_are_smoothing_of_two_classes(e: float, engine: str) -> None:
    """The preferred answer is class 0: a row's logits are the two rewards."""
    z, preferred = 2 * random(N, 2), torch.zeros(N, dtype=torch.long)

    def conservative(z: Tensor) -> Tensor:
        margin = z[:, 0] - z[:, 1]
        return -(1 - e) * F.logsigmoid(margin) - e * F.logsigmoid(-margin)

    def robust(z: Tensor) -> Tensor:
        margin = z[:, 0] - z[:, 1]
        return (-(1 - e) * F.logsigmoid(margin) + e * F.logsigmoid(-margin)) / (1 - 2 * e)

    assert_close(ours(LabelSmoothing(), 2 * e, engine, z, preferred), both(conservative, z))
    # What a label flipped with probability e needs: the noise is symmetric, and 2 e of it is replaced.
    assert_close(ours(BackwardCorrection(), 2 * e, engine, z, preferred), both(robust, z))
    negative = NegativeSmoothing(clip=math.inf)
    assert_close(ours(negative, -2 * e / (1 - 2 * e), engine, z, preferred), both(robust, z))


def test_sparse_smoothing_has_the_gradient_of_label_relaxation(engine: str) -> None:
    """Raymond, 2022: the redistributed loss is constant in how the rest is shared out."""
    eps = 0.2

    def sparse(z: Tensor) -> Tensor:
        q = z.softmax(-1)[torch.arange(N), HARD]
        return -(1 - eps) * q.log() - eps * ((1 - q) / (K - 1)).log()

    loss, grad = ours(LabelRelaxation(), eps, engine)
    published, by_z = both(sparse)
    beyond = Z.softmax(-1)[torch.arange(N), HARD] < 1 - eps
    assert beyond.any()
    assert_close(grad[beyond], by_z[beyond])
    entropy = -(1 - eps) * math.log(1 - eps) - eps * math.log(eps)
    assert_close((published - loss)[beyond], torch.full_like(loss, entropy + eps * math.log(K - 1))[beyond])


def test_label_relaxation_ends_where_the_label_has_enough(engine: str) -> None:
    eps = 0.2
    right = Z.argmax(-1)
    loss, grad = ours(LabelRelaxation(), eps, engine, target=right)
    q = Z.softmax(-1)
    enough = q.amax(-1) >= 1 - eps
    assert 0 < enough.sum() < N
    assert not loss[enough].any()
    assert not grad[enough].any()
    # Elsewhere it is a divergence, from the nearest of the distributions that give the label enough.
    nearest = eps * q / (1 - q.amax(-1, keepdim=True))
    nearest[torch.arange(N), right] = 1 - eps
    divergence = (nearest * (nearest.log() - q.log())).sum(-1)
    assert_close(loss[~enough], divergence[~enough])
    assert_close(grad[~enough], (q - nearest)[~enough])


def test_focal_without_a_power_is_label_smoothing(engine: str) -> None:
    assert_close(ours(Focal(gamma=0), 0.1, engine), ours(LabelSmoothing(), 0.1, engine))


@pytest.mark.parametrize("eps", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("clip", [0.1, math.inf])
def test_negative_smoothing_that_is_positive_is_label_smoothing(eps: float, clip: float, engine: str) -> None:
    options = {"prior": PRIOR, "weight": random(K).abs()}
    assert_close(
        ours(NegativeSmoothing(clip), eps, engine, **options), ours(LabelSmoothing(), eps, engine, **options)
    )


def fairseq(z: Tensor, target: Tensor, eps: float) -> Tensor:
    """``label_smoothed_nll_loss`` of fairseq: eps / (K - 1) for each of the others."""
    log_q = z.log_softmax(-1)
    nll = -log_q.gather(-1, target[:, None])[:, 0]
    off = eps / (z.size(-1) - 1)
    return (1 - eps - off) * nll - off * log_q.sum(-1)


def test_conventions_of_the_mass_off_the_target(engine: str) -> None:
    eps = 0.1
    published = both(lambda z: fairseq(z, HARD, eps))
    assert_close(ours(LabelSmoothing(), eps * K / (K - 1), engine), published)
    assert_close(ours(LabelSmoothing(), eps, engine, off_target="others"), published)
    leaf = Z.clone().requires_grad_()
    torch_loss = F.cross_entropy(leaf, HARD, label_smoothing=eps * K / (K - 1), reduction="none")
    assert_close((torch_loss, torch.autograd.grad(torch_loss.sum(), leaf)[0]), published)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["uniform", "vector"])
def test_smoothing_of_a_linear_head_needs_no_logits(prior: Tensor | None) -> None:
    hidden, head, bias = random(N, D), random(K, D), random(K)
    pi = torch.full((K,), 1 / K, dtype=torch.float64) if prior is None else prior
    eps = 0.3
    results = []
    for smooth in (True, False):
        h, W, b = leaves = [x.clone().requires_grad_() for x in (hidden, head, bias)]
        if smooth:
            loss = linear_cross_entropy(
                h, W, HARD, linear_bias=b, label_smoothing=eps, prior=prior, reduction="sum", engine="linear"
            )
        else:
            plain = F.cross_entropy(F.linear(h, W, b), HARD, reduction="sum")
            loss = plain + eps * ((h * (W[HARD] - pi @ W)).sum() + (b[HARD] - pi @ b).sum())
        results.append((loss, *torch.autograd.grad(loss, leaves)))
    assert_close(results[0], results[1])


def test_soft_bootstrapping_has_the_gradient_of_a_prior_of_the_models_own(engine: str) -> None:
    """Reed et al., 2014: the target is mixed with the model's prediction, which is held fixed."""
    beta = 0.95

    def bootstrap(z: Tensor) -> Tensor:
        target = beta * ONE_HOT + (1 - beta) * z.detach().softmax(-1)
        return -(target * z.log_softmax(-1)).sum(-1)

    own = priors.per_sample(Z.softmax(-1))
    assert_close(ours(LabelSmoothing(), 1 - beta, engine, prior=own), both(bootstrap))


def test_distillation_at_temperature_1_is_smoothing_toward_the_teacher(engine: str) -> None:
    """Hinton et al., 2015: cross entropy and a divergence, which is less by the teacher's entropy."""
    eps, teacher = 0.7, random(N, K).softmax(-1)

    def distilled(z: Tensor) -> Tensor:
        divergence = (teacher * (teacher.log() - z.log_softmax(-1))).sum(-1)
        return (1 - eps) * F.cross_entropy(z, HARD, reduction="none") + eps * divergence

    loss, grad = ours(LabelSmoothing(), eps, engine, prior=priors.per_sample(teacher))
    published, by_z = both(distilled)
    assert_close(grad, by_z)
    assert_close(loss - published, eps * torch.special.entr(teacher).sum(-1))
