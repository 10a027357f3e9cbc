"""What all priors share: what they say of themselves, state, devices, types, and what they refuse."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from labelsmooth import priors

NAN, INF = torch.nan, torch.inf
FUNCTIONS = {name: value for name in priors.__all__ if inspect.isfunction(value := getattr(priors, name))}


def t(*values: Any) -> Tensor:
    return torch.tensor(values)


EYE = torch.eye(3, dtype=torch.float64)
THIRD = torch.full((3,), 1 / 3, dtype=torch.float64)
MAP = torch.zeros(2, 4, 5, dtype=torch.long)

REPRS: list[tuple[Callable[[], object], str]] = [
    (lambda: priors.uniform(4), "Prior(uniform, shape (4,))"),
    (lambda: priors.unigram(t(1, 2), 2), "Prior(unigram, temperature=2, shape (2,))"),
    (lambda: priors.masked(t(True, False, True)), "Prior(uniform, masked to 2 of the classes, shape (3,))"),
    (
        lambda: priors.masked(t(True, False, True), priors.sord(3)),
        "Prior(ordinal: sord, absolute distance, alpha=1, masked to 2 of the classes, shape (3, 3))",
    ),
    (
        lambda: priors.masked(t(True, True, True), THIRD),
        "Prior(given, masked to 3 of the classes, shape (3,))",
    ),
    (
        lambda: priors.sord(5, "log", 0.5),
        "Prior(ordinal: sord, log distance, alpha=0.5, shape (5, 5))",
    ),
    (lambda: priors.exponential(5), "Prior(ordinal: exponential, power=1, tau=1, shape (5, 5))"),
    (lambda: priors.triangular(5), "Prior(ordinal: triangular, alpha2=0.01, shape (5, 5))"),
    (lambda: priors.binomial(5), "Prior(ordinal: binomial, shape (5, 5))"),
    (lambda: priors.beta(5), "Prior(ordinal: beta, shape (5, 5))"),
    (
        lambda: priors.beta(2, torch.ones(2, 2)),
        "Prior(ordinal: beta, given parameters, shape (2, 2))",
    ),
    (lambda: priors.hierarchy(["a", "b"]), "Prior(hierarchy, beta=10, shape (2, 2))"),
    (lambda: priors.similarity(EYE), "Prior(similarity, temperature=1, shape (3, 3))"),
    (lambda: priors.embedding(EYE), "Prior(embedding, temperature=0.1, shape (3, 3))"),
    (lambda: priors.confusion(EYE, 1), "Prior(confusion, pseudo_count=1, shape (3, 3))"),
    (lambda: priors.per_sample(EYE), "PerSample(whole, shape (3, 3))"),
    (
        lambda: priors.per_sample(EYE[:, :1] + 1, MAP[0, :3, :1]),
        "PerSample(1 classes each, shape (3, 1))",
    ),
    (lambda: priors.teacher(EYE, 2), "PerSample(whole, shape (3, 3))"),
    (lambda: priors.teacher(EYE, k=2), "PerSample(2 classes each, shape (3, 2))"),
    (
        lambda: priors.neighbourhood(MAP),
        "PerSample(8 classes each, shape (2, 4, 5, 8))",
    ),
    (
        lambda: priors.neighbourhood(MAP[:, 0], 5, 1),
        "PerSample(4 classes each, shape (2, 5, 4))",
    ),
]


@pytest.mark.parametrize(("make", "expected"), REPRS, ids=[text for _, text in REPRS])
def test_repr(make: Callable[[], object], expected: str):
    assert repr(make()) == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_documented(name: str):
    doc = inspect.getdoc(FUNCTIONS[name]) or ""
    assert ".. math::" in doc
    assert ">>>" in doc
    for section in ("Args", "Returns", "Raises", "Example", "Reference"):
        assert re.search(rf"^{section}:$", doc, re.MULTILINE), section
    for parameter in inspect.signature(FUNCTIONS[name]).parameters:
        assert re.search(rf"^    {parameter}: ", doc, re.MULTILINE), parameter


PRIORS: dict[str, Callable[[int], priors.Prior]] = {
    "uniform": priors.uniform,
    "unigram": lambda K: priors.unigram(torch.arange(1, K + 1)),
    "masked": lambda K: priors.masked(torch.arange(K) > 0, priors.sord(K)),
    "sord": priors.sord,
    "exponential": lambda K: priors.exponential(K, 2),
    "triangular": priors.triangular,
    "binomial": priors.binomial,
    "beta": priors.beta,
    "hierarchy": lambda K: priors.hierarchy([[str(k), f"{k}'"] for k in range(K // 2)]),
    "similarity": lambda K: priors.similarity(torch.eye(K)),
    "embedding": lambda K: priors.embedding(torch.eye(K)),
    "confusion": lambda K: priors.confusion(torch.eye(K, dtype=torch.long), 1),
}


def test_every_prior_is_in_these_tests():
    assert set(PRIORS) | {"per_sample", "teacher", "neighbourhood"} == set(FUNCTIONS)


@pytest.mark.parametrize("name", PRIORS)
def test_state(name: str):
    """It loads into a prior for as many classes, and is refused by one for others."""
    prior = PRIORS[name](4)
    assert list(prior.state_dict()) == ["probabilities"]
    shape = prior.probabilities.shape
    other = priors.Prior(torch.full(shape, 0.25), "other")
    assert not torch.equal(other.probabilities, prior.probabilities) or name == "uniform"
    other.load_state_dict(prior.state_dict())
    assert torch.equal(other.probabilities, prior.probabilities)
    with pytest.raises(RuntimeError, match="size mismatch for probabilities"):
        PRIORS[name](6).load_state_dict(prior.state_dict())


@pytest.mark.parametrize("name", PRIORS)
def test_moves(name: str):
    prior = PRIORS[name](4)
    assert prior.probabilities.dtype == torch.float64
    assert prior.to("meta", torch.float32).probabilities.device.type == "meta"
    assert prior.probabilities.dtype == torch.float32


@pytest.mark.parametrize("name", PRIORS)
def test_default_type(name: str):
    torch.set_default_dtype(torch.float32)
    prior = PRIORS[name](4)
    assert prior.probabilities.dtype == torch.float32
    assert float((prior.probabilities.sum(-1) - 1).abs().max()) < 1e-6


MADE_OF: dict[str, Callable[[Tensor], object]] = {
    "unigram": lambda x: priors.unigram(x[0]),
    "masked": lambda x: priors.masked(t(True, True, False), x.softmax(-1)),
    "beta": lambda x: priors.beta(2, x[:2, :2]),
    "hierarchy": lambda x: priors.hierarchy(x - x.diag().diag()),
    "similarity": priors.similarity,
    "embedding": priors.embedding,
    "confusion": priors.confusion,
    "per_sample": lambda x: priors.per_sample(x, torch.arange(3).expand(3, 3)),
    "teacher": priors.teacher,
    "few of teacher": lambda x: priors.teacher(x, k=2),
}


@pytest.mark.parametrize("name", MADE_OF)
def test_double_stays_double(name: str):
    torch.set_default_dtype(torch.float32)
    for dtype in (torch.float32, torch.float64):
        prior: Any = MADE_OF[name](torch.ones(3, 3, dtype=dtype))
        assert prior.probabilities.dtype == dtype


TREE = ["a", ["b", "c"]]
BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: priors.uniform(0), "num_classes must be an integer of at least 1, got 0"),
    (lambda: priors.uniform(2.0), "num_classes must be an integer of at least 1, got 2.0"),  # pyright: ignore
    (lambda: priors.uniform(True), "num_classes must be an integer of at least 1, got True"),
    (lambda: priors.unigram([1, 2]), "counts must be a tensor, got list"),  # pyright: ignore
    (lambda: priors.unigram(t(True)), "counts must hold real numbers, got torch.bool"),
    (lambda: priors.unigram(t(1j)), "counts must hold real numbers, got torch.complex128"),
    (lambda: priors.unigram(EYE), "counts must have shape (K,), got (3, 3)"),
    (lambda: priors.unigram(t()), "counts must have shape (K,), got (0,)"),
    (lambda: priors.unigram(t(1.0, -2.0)), "counts must be finite and at least 0, got -2.0"),
    (lambda: priors.unigram(t(1.0, NAN)), "counts must be finite and at least 0, got nan"),
    (lambda: priors.unigram(t(1.0, INF)), "counts must be finite and at least 0, got inf"),
    (lambda: priors.unigram(t(0, 0)), "counts must not all be 0, got 2 zeros"),
    (lambda: priors.unigram(t(1, 2), 0), "temperature must be finite and above 0, got 0"),
    (lambda: priors.unigram(t(1, 2), NAN), "temperature must be finite and above 0, got nan"),
    (lambda: priors.masked([True]), "valid must be a tensor, got list"),  # pyright: ignore
    (lambda: priors.masked(t(1, 0)), "valid must be bool of shape (K,), got torch.int64 of shape (2,)"),
    (
        lambda: priors.masked(EYE.bool()),
        "valid must be bool of shape (K,), got torch.bool of shape (3, 3)",
    ),
    (lambda: priors.masked(t(False, False)), "valid must be True for at least one class, got 2 times False"),
    (
        lambda: priors.masked(t(True, False), THIRD),
        "prior must have shape (K,) or (K, K) with K=2 classes, got (3,)",
    ),
    (
        lambda: priors.masked(t(True, False), priors.sord(3)),
        "prior must have shape (K,) or (K, K) with K=2 classes, got (3, 3); see priors.per_sample for one of "
        "each sample",
    ),
    (lambda: priors.masked(t(True, False), t(0.5, 0.25)), "prior must sum to 1, got 0.75"),
    (
        lambda: priors.masked(t(True, False), t(0.0, 1.0)),
        "prior must have probability on a valid class, got 0 for all of them",
    ),
    (
        lambda: priors.masked(t(True, False, True), EYE[[0, 1, 1]]),
        "each row of prior must have probability on a valid class, got 0 for class 2",
    ),
    (lambda: priors.sord(1), "num_classes must be an integer of at least 2, got 1"),
    (lambda: priors.sord(3, "cubed"), "distance must be one of 'absolute', 'squared', 'log', got 'cubed'"),  # pyright: ignore
    (lambda: priors.sord(3, alpha=-1), "alpha must be finite and at least 0, got -1"),
    (lambda: priors.exponential(1), "num_classes must be an integer of at least 2, got 1"),
    (lambda: priors.exponential(3, 0), "power must be finite and above 0, got 0"),
    (lambda: priors.exponential(3, 1, 0), "tau must be finite and above 0, got 0"),
    (lambda: priors.triangular(1), "num_classes must be an integer of at least 2, got 1"),
    (lambda: priors.triangular(3, -0.1), "alpha2 must be finite and at least 0, got -0.1"),
    (lambda: priors.triangular(3, 0.25), "alpha2 must lie in [0, 2/9], got 0.25"),
    (lambda: priors.binomial(1), "num_classes must be an integer of at least 2, got 1"),
    (lambda: priors.beta(1), "num_classes must be an integer of at least 2, got 1"),
    (lambda: priors.beta(3, EYE), "parameters must have shape (K, 2) with K=3 classes, got (3, 3)"),
    (lambda: priors.beta(2, EYE[:2, :2]), "parameters must be above 0 and at most 1e6, got 0.0"),
    (
        lambda: priors.beta(1 + 1, torch.full((2, 2), 2e6)),
        "parameters must be above 0 and at most 1e6, got 2000000.0",
    ),
    (lambda: priors.hierarchy(EYE[:2]), "distances must have shape (K, K), got (2, 3)"),
    (lambda: priors.hierarchy(EYE[0]), "distances must have shape (K, K), got (3,)"),
    (lambda: priors.hierarchy(-EYE), "distances must be finite and at least 0, got -1.0"),
    (lambda: priors.hierarchy(INF * (1 - EYE)), "distances must be finite and at least 0, got nan"),
    (lambda: priors.hierarchy(2 * EYE), "distances must be 0 on the diagonal, got 2.0"),
    (
        lambda: priors.hierarchy(t([0.0, 1.0], [2.0, 0.0])),
        "distances must be symmetric, got 1.0 at (0, 1) and 2.0 at (1, 0)",
    ),
    (lambda: priors.hierarchy(0 * EYE), "distances must not all be 0, got zeros for all 3 classes"),
    (lambda: priors.hierarchy("a"), "distances must not all be 0, got zeros for all 1 classes"),
    (lambda: priors.hierarchy(TREE, -1), "beta must be finite and at least 0, got -1"),
    (
        lambda: priors.hierarchy(1 - EYE, classes=["a"]),
        "classes requires a tree, got a matrix of distances; leave classes out",
    ),
    (
        lambda: priors.hierarchy(["a", 3]),  # pyright: ignore
        "distances must be a tensor, or a tree of mappings, sequences and names, got int",
    ),
    (
        lambda: priors.hierarchy({"x": ["a"], "y": []}),
        "distances must be a tree without empty groups, got []",
    ),
    (
        lambda: priors.hierarchy([*TREE, "b"]),
        "distances must name each class once, got a tree with 'b' twice",
    ),
    (
        lambda: priors.hierarchy(TREE, classes=["a", "b", "d"]),
        "classes must name leaves of the tree, got 'd'",
    ),
    (
        lambda: priors.hierarchy(TREE, classes=["a", "b"]),
        "classes must name each leaf of the tree once, got 'c' 0 times",
    ),
    (
        lambda: priors.hierarchy(TREE, classes=["a", "b", "c", "b"]),
        "classes must name each leaf of the tree once, got 'b' 2 times",
    ),
    (lambda: priors.similarity(EYE[:2]), "matrix must have shape (K, K), got (2, 3)"),
    (lambda: priors.similarity(EYE[:0, :0]), "matrix must have shape (K, K), got (0, 0)"),
    (lambda: priors.similarity(EYE.log()), "matrix must be finite, got -inf"),
    (lambda: priors.similarity(EYE, 0), "temperature must be finite and above 0, got 0"),
    (lambda: priors.embedding(EYE[0]), "embeddings must have shape (K, D), got (3,)"),
    (lambda: priors.embedding(EYE[:, :0]), "embeddings must have shape (K, D), got (3, 0)"),
    (lambda: priors.embedding(NAN * EYE), "embeddings must be finite, got nan"),
    (lambda: priors.embedding(EYE[:, :2]), "embeddings must not be 0, got zeros for class 2"),
    (lambda: priors.embedding(EYE, -1), "temperature must be finite and above 0, got -1"),
    (lambda: priors.confusion(EYE[0]), "counts must have shape (K, K), got (3,)"),
    (lambda: priors.confusion(-EYE), "counts must be finite and at least 0, got -1.0"),
    (lambda: priors.confusion(EYE, -1), "pseudo_count must be finite and at least 0, got -1"),
    (
        lambda: priors.confusion(t([1, 0], [0, 0])),
        "counts must not be 0 in a whole row, got class 1; pass a pseudo_count above 0",
    ),
    (lambda: priors.per_sample(None), "probabilities must be a tensor, got NoneType"),  # pyright: ignore
    (
        lambda: priors.per_sample(t([1, 0])),
        "probabilities must be floating point in the shape of the loss's input, such as (N, K), "
        "got torch.int64 of shape (1, 2)",
    ),
    (
        lambda: priors.per_sample(torch.tensor(1.0)),
        "probabilities must be floating point in the shape of the loss's input, such as (N, K), "
        "got torch.float64 of shape ()",
    ),
    (
        lambda: priors.per_sample(EYE, dim=2),
        "dim must be a dimension of probabilities (3, 3), got 2",
    ),
    (
        lambda: priors.per_sample(EYE, MAP[0, :3, :3], dim=1),
        "dim must not be given together with classes, got 1",
    ),
    (lambda: priors.per_sample(EYE, EYE), "classes must hold integer class indices, got torch.float64"),
    (
        lambda: priors.per_sample(EYE, MAP[0]),
        "classes must have the shape of probabilities (3, 3), got (4, 5)",
    ),
    (lambda: priors.teacher(MAP), "logits must be floating point, got torch.int64"),
    (
        lambda: priors.teacher(torch.tensor(1.0)),
        "logits must have at least one class in dimension -1, got shape ()",
    ),
    (
        lambda: priors.teacher(EYE, dim=2),
        "logits must have at least one class in dimension 2, got shape (3, 3)",
    ),
    (
        lambda: priors.teacher(EYE[:, :0]),
        "logits must have at least one class in dimension 1, got shape (3, 0)",
    ),
    (lambda: priors.teacher(EYE, 0), "temperature must be finite and above 0, got 0"),
    (lambda: priors.teacher(EYE, k=0), "k must be an integer of at least 1, got 0"),
    (lambda: priors.teacher(EYE, k=4), "k must be at most K=3 classes, got 4"),
    (lambda: priors.neighbourhood(EYE), "labels must hold integer class indices, got torch.float64"),
    (lambda: priors.neighbourhood(EYE.bool()), "labels must hold integer class indices, got torch.bool"),
    (
        lambda: priors.neighbourhood(MAP[0, 0]),
        "labels must have shape (N, d1), (N, d1, d2) or (N, d1, d2, d3), got (5,)",
    ),
    (
        lambda: priors.neighbourhood(MAP[:, :0]),
        "labels must have shape (N, d1), (N, d1, d2) or (N, d1, d2, d3), got (2, 0, 5)",
    ),
    (lambda: priors.teacher(EYE, k=1.5), "k must be an integer of at least 1, got 1.5"),  # pyright: ignore
    (lambda: priors.neighbourhood(MAP, 1), "size must be an integer of at least 3, got 1"),
    (lambda: priors.neighbourhood(MAP, 4), "size must be odd, got 4"),
    (lambda: priors.neighbourhood(MAP, 3, 0), "sigma must be finite and above 0, got 0"),
    (lambda: priors.neighbourhood(MAP - 1), "labels must be at least 0 or ignore_index=-100, got -1"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[f"{i}: {text}" for i, (_, text) in enumerate(BAD)])
def test_bad_input(make: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_values_are_looked_at_on_a_cpu_only():
    """Those that are made for each batch ask nothing of an accelerator."""
    meta = torch.zeros(2, 4, 5, device="meta")
    assert priors.per_sample(meta).probabilities.shape == (2, 4, 5)
    assert priors.per_sample(meta, meta.long()).probabilities.shape == (2, 4, 5)
    assert priors.teacher(meta).probabilities.shape == (2, 4, 5)
    assert priors.teacher(meta, k=3).probabilities.shape == (2, 5, 3)
    assert priors.neighbourhood(meta.long()).probabilities.shape == (2, 4, 5, 8)
