"""Every formula has its textbook value and gradient, on every engine, with whatever else a loss is given."""

import math
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, by_class, functional, mixed, priors, schedules
from labelsmooth._engines import linear
from labelsmooth._targets.mixed import Mixed
from labelsmooth.engines import available
from labelsmooth.formulas import Formula, MarginSmoothing, MaxSup
from tests.formulas import oracle
from tests.formulas.oracle import CASES, distribution
from tests.oracle import Answer

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

DENSE = ["dense"] if available()["dense"].present else []
N, K, D = 7, 5, 4
MASKED = 2  # the class that no target here is


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


HIDDEN = random(N, D)
HEAD = 1.5 * random(K, D)
BIAS = random(K)
HARD = torch.tensor([0, 1, 3, 4, 0, 1, 3])
IGNORING = torch.tensor([0, 1, -100, 4, 0, -100, 3])
FIRST, SECOND = HARD, HARD.flip(0)
LAM = torch.tensor([0.0, 0.25, 0.5, 0.7, 0.9, 1.0, 0.3], dtype=torch.float64)
ONE_HOT = torch.eye(K, dtype=torch.float64)
MIXTURE = LAM[:, None] * ONE_HOT[FIRST] + (1 - LAM)[:, None] * ONE_HOT[SECOND]
SOFT = random(N, K).softmax(-1).masked_fill(torch.arange(K) == MASKED, 0.0)
SOFT = SOFT / SOFT.sum(-1, keepdim=True)
TARGETS: dict[str, tuple[Tensor | Mixed, Tensor]] = {  # for us, and for the oracle
    "hard": (HARD, HARD),
    "ignoring": (IGNORING, IGNORING),
    "soft": (SOFT, SOFT),
    "mixed": (mixed(FIRST, SECOND, LAM), MIXTURE),
}

VECTOR, MATRIX, ROWS = distribution(random(K)), distribution(random(K, K)), distribution(random(N, K))
CLASSES = torch.randint(K, (N, 3), generator=torch.Generator().manual_seed(0))  # some twice in a row
SHARES = random(N, 3).softmax(-1)
FEW = torch.zeros(N, K, dtype=torch.float64).scatter_add(-1, CLASSES, SHARES)
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.25, 3.0], dtype=torch.float64)
SAMPLE_WEIGHT = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0, 0.25, 3.0], dtype=torch.float64)

# Each kind of prior, of weight and of reduction, and those that meet in one sum.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "none": ({"reduction": "none"}, {"reduction": "none"}),
    "vector": ({"prior": VECTOR, "reduction": "sum"}, {"prior": VECTOR, "reduction": "sum"}),
    "matrix": ({"prior": MATRIX}, {"prior": MATRIX}),
    "rows": ({"prior": priors.per_sample(ROWS)}, {"prior": ROWS, "prior_by_row": True}),
    "few": (
        {"prior": priors.per_sample(SHARES, CLASSES), "weight": WEIGHT},
        {"prior": FEW, "prior_by_row": True, "weight": WEIGHT},
    ),
    "others": ({"off_target": "others"}, {"others": True}),
    "others-matrix": (
        {"off_target": "others", "prior": MATRIX, "weight": WEIGHT},
        {"others": True, "prior": MATRIX, "weight": WEIGHT},
    ),
    "others-few": (
        {"off_target": "others", "prior": priors.per_sample(SHARES, CLASSES)},
        {"others": True, "prior": FEW, "prior_by_row": True},
    ),
    "weight": ({"weight": WEIGHT}, {"weight": WEIGHT}),
    "weight-sample": (
        {"weight": WEIGHT, "weighting": "sample", "sample_weight": SAMPLE_WEIGHT, "prior": VECTOR},
        {"weight": WEIGHT, "weighting": "sample", "sample_weight": SAMPLE_WEIGHT, "prior": VECTOR},
    ),
    "sample-weight": (
        {"sample_weight": SAMPLE_WEIGHT, "weight": WEIGHT},
        {"sample_weight": SAMPLE_WEIGHT, "weight": WEIGHT},
    ),
}
MIXING = ("matrix", "others", "others-matrix")  # whose prior depends on the class


class Problem(NamedTuple):
    """A head, its logits, and a loss of them."""

    bias: Tensor
    target: Tensor | Mixed
    options: dict[str, Any]

    @property
    def z(self) -> Tensor:
        return HIDDEN @ HEAD.T + self.bias

    def check(self, truth: Answer, engines: list[str]) -> None:
        for engine in engines:
            if engine == "linear":
                self.check_head(truth)
                continue
            leaf = self.z.requires_grad_()
            loss, nll = cross_entropy(leaf, self.target, return_nll=True, engine=engine, **self.options)
            loss.sum().backward()
            assert_close((loss, nll, leaf.grad), tuple(truth))

    def check_head(self, truth: Answer) -> None:
        leaves = [x.clone().requires_grad_() for x in (HIDDEN, HEAD, self.bias)]
        hidden, head, bias = leaves
        given = {"linear_bias": bias, "engine": "linear", **self.options}
        loss, nll = linear_cross_entropy(hidden, head, self.target, return_nll=True, **given)
        loss.sum().backward()
        grads = [truth.grad @ HEAD, truth.grad.T @ HIDDEN, truth.grad.sum(0)]
        assert_close([loss, nll, *[x.grad for x in leaves]], [truth.loss, truth.nll, *grads])


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "BUDGET", 0)
    monkeypatch.setattr(linear, "LEAST", 4)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Formula, float]:
    return CASES[request.param]


def served(formula: Formula, several: bool, option: str) -> list[str]:
    """The engines that take this; what the dense one leaves, the others leave to plain torch."""
    mixture = several and option in MIXING
    hinge_of_few = formula.hinge is not None and "few" in option
    return ["reference", "linear", *([] if mixture or hinge_of_few else DENSE)]


def combinations() -> list[tuple[str, str, bool]]:
    """Every target with every option, but for mixtures of what few classes leave, which are refused; and with
    a masked class, where the prior is one of the label and where it is one of a mixture."""
    found = [("ignoring", option, False) for option in ("plain", "none", "weight")]
    for kind, option in product(("hard", "soft", "mixed"), OPTIONS):
        if kind == "hard" or option != "others-few":
            found.append((kind, option, False))
    found += [("hard", option, True) for option in OPTIONS if "sample" not in option]
    return found + [("soft", option, True) for option in ("plain", "vector", "others-matrix")]


def served_combinations() -> list[tuple[str, str, str, bool]]:
    """Of each formula; wrong labels that are drawn from a prior of their own class are refused."""
    return [
        (name, *combination)
        for name, combination in product(CASES, combinations())
        if not (CASES[name][0].draws and combination[1] in (*MIXING, "others-few"))
    ]


@pytest.mark.parametrize(("name", "kind", "option", "mask"), served_combinations())
def test_value_and_gradient(name: str, kind: str, option: str, mask: bool) -> None:
    formula, eps = CASES[name]
    several = kind in ("soft", "mixed")
    target, known = TARGETS[kind]
    options, given = OPTIONS[option]
    bias = BIAS.masked_fill(torch.arange(K) == MASKED, -math.inf) if mask else BIAS
    problem = Problem(bias, target, {"label_smoothing": eps, "formula": formula, **options})
    if formula.overlap and (option, kind) == ("few", "soft"):
        with pytest.raises(ValueError, match="this formula takes one label for each row with such a prior"):
            cross_entropy(problem.z, target, **problem.options)
        return
    truth = oracle.cross_entropy(formula, problem.z, known, lambda i: eps, **given)
    problem.check(truth, served(formula, several, option))


def test_strengths_of_samples_classes_and_time(case: tuple[Formula, float]) -> None:
    formula, eps = case
    factors = torch.linspace(0.5, 1.0, N, dtype=torch.float64)
    schedule = schedules.linear(eps, eps / 2, steps=2)
    schedule.step()
    strengths: list[tuple[Any, list[float]]] = [
        (eps * factors, (eps * factors).tolist()),
        (by_class(eps * factors[:K]), [eps * factors[y].item() for y in HARD]),
        (schedule, [torch.tensor(0.75 * eps).item()] * N),
        (0.0, [0.0] * N),
    ]
    for strength, values in strengths:
        problem = Problem(BIAS, HARD, {"label_smoothing": strength, "formula": formula, "prior": VECTOR})
        truth = oracle.cross_entropy(formula, problem.z, HARD, values.__getitem__, prior=VECTOR)
        problem.check(truth, served(formula, False, "vector"))


@pytest.mark.parametrize("classes", [1, 2, 1024, 1025, 2100])
def test_any_number_of_classes(case: tuple[Formula, float], classes: int) -> None:
    """The kernel works in blocks of 1024 classes."""
    formula, eps = case
    z = 3 * random(2, classes)
    z[1, classes // 2] += 20
    target = torch.tensor([classes - 1, classes // 2])
    for prior in (None, distribution(random(classes))):
        truth = oracle.cross_entropy(formula, z, target, lambda i: eps, prior=prior)
        for engine in ("reference", *DENSE):
            leaf = z.clone().requires_grad_()
            loss = cross_entropy(
                leaf, target, label_smoothing=eps, formula=formula, prior=prior, engine=engine
            )
            loss.backward()
            assert_close((loss, leaf.grad), (truth.loss, truth.grad))


def test_classes_in_the_middle(case: tuple[Formula, float]) -> None:
    formula, eps = case
    z = 2 * random(2, K, 3)
    target = torch.tensor([[0, 4, -100], [1, 3, 2]])
    rows = z.movedim(1, -1).reshape(-1, K)
    truth = oracle.cross_entropy(formula, rows, target.flatten(), lambda i: eps)
    leaf = z.clone().requires_grad_()
    loss = cross_entropy(leaf, target, label_smoothing=eps, formula=formula)
    loss.backward()
    assert leaf.grad is not None
    assert_close((loss, leaf.grad.movedim(1, -1).reshape(-1, K)), (truth.loss, truth.grad))


@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_a_common_offset_costs_no_precision(case: tuple[Formula, float], offset: float) -> None:
    formula, eps = case
    z = (8 * random(N, K)).round() / 4  # exact with the offset, in float32 too
    truth = oracle.cross_entropy(formula, z, HARD, lambda i: eps)
    leaf = (z + offset).float().requires_grad_()
    loss = cross_entropy(leaf, HARD, label_smoothing=eps, formula=formula)
    loss.backward()
    assert leaf.grad is not None
    assert_close((loss.double(), leaf.grad.double()), (truth.loss, truth.grad), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("formula", [MaxSup(), MarginSmoothing(margin=1), MarginSmoothing(1.0, squared=True)])
def test_of_equal_maxima_the_first_is_pulled_down(formula: Formula) -> None:
    z = torch.tensor([[1.0, 3.0, 3.0, -2.0, 3.0]] * 2, dtype=torch.float64)
    target = torch.tensor([0, 2])
    truth = oracle.cross_entropy(formula, z, target, lambda i: 0.5)
    plain = cross_entropy(leaf := z.clone().requires_grad_(), target)
    plain.backward()
    assert leaf.grad is not None
    pull = truth.grad - leaf.grad
    assert (pull[:, 1] > 0.1).all()
    assert_close(pull[:, [2, 4]], torch.zeros(2, 2, dtype=torch.float64))
    for engine in ("reference", *DENSE):
        leaf = z.clone().requires_grad_()
        cross_entropy(leaf, target, label_smoothing=0.5, formula=formula, engine=engine).backward()
        assert_close(leaf.grad, truth.grad)


def test_eval_of_a_module_is_the_plain_loss(case: tuple[Formula, float]) -> None:
    formula, eps = case
    z = 2 * random(N, K)
    criterion = CrossEntropyLoss(label_smoothing=eps, formula=formula, train_only=True)
    smoothed = oracle.cross_entropy(formula, z, HARD, lambda i: eps)
    assert_close(criterion(z, HARD), smoothed.loss)
    assert_close(criterion.eval()(z, HARD), smoothed.nll)
