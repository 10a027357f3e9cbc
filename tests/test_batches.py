"""Labels that are mixed, and priors of each sample, travel with their batch as a tuple of tensors does."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.data import default_collate

import labelsmooth
from labelsmooth import functional, mixed, priors, schedules
from labelsmooth._targets.mixed import Mixed
from labelsmooth.engines import available
from labelsmooth.priors import PerSample

N, K = 6, 5
cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy
generator = torch.Generator().manual_seed(0)
Z, TEACHER = (torch.randn(N, K, generator=generator) for _ in range(2))
A, B = (torch.randint(K, (N,), generator=generator) for _ in range(2))
LAM = torch.rand(N, generator=generator)
BATCHES: dict[str, Any] = {
    "mixed": mixed(A, B, LAM),
    "mixed by a number": mixed(A, B, 0.7),
    "teacher": priors.teacher(TEACHER),
    "few of a teacher": priors.teacher(TEACHER, k=3),
    "neighbourhood": priors.neighbourhood(A.reshape(1, -1)),
}


def loss(z: Tensor, batch: Any) -> Tensor:
    if isinstance(batch, Mixed):
        return cross_entropy(z, batch, label_smoothing=0.1)
    return cross_entropy(z, A, label_smoothing=0.1, prior=batch)


def tensors(batch: Any) -> list[Tensor]:
    return [x for x in batch if isinstance(x, Tensor)]


@pytest.mark.parametrize("name", BATCHES)
def test_moves(name: str) -> None:
    batch = BATCHES[name]
    there = batch.to("meta")
    assert type(there) is type(batch)
    assert {x.device.type for x in tensors(there)} == {"meta"}
    assert len(tensors(there)) == len(tensors(batch))
    back = batch.to(torch.device("cpu"), non_blocking=True)
    assert all(x is y for x, y in zip(tensors(back), tensors(batch), strict=True))


@pytest.mark.parametrize("name", BATCHES)
def test_is_a_tree_of_tensors(name: str) -> None:
    batch = BATCHES[name]
    leaves, _ = tree_flatten(batch)
    assert [x for x in leaves if isinstance(x, Tensor)] == tensors(batch)
    assert all(isinstance(x, Tensor | float | None) for x in leaves)
    doubled = tree_map(lambda x: x.double() if isinstance(x, Tensor) else x, batch)
    assert type(doubled) is type(batch)


@pytest.mark.parametrize("name", ["mixed", "mixed by a number", "few of a teacher"])
def test_collates(name: str) -> None:
    """One by one out of a data set, and together again."""
    batch = BATCHES[name]
    items = [type(batch)(*(x[i] if isinstance(x, Tensor) else x for x in batch)) for i in range(N)]
    again = default_collate(items)
    assert type(again) is type(batch)
    assert_close(loss(Z, again), loss(Z, batch))


@pytest.mark.parametrize("shape", [(3, 3), (3, 3, 3), (3, 4, 5), (3, 5, 3)], ids=str)
def test_a_share_for_each_sample_of_maps(shape: tuple[int, ...]) -> None:
    """Collated, it is (N,), and N may be the width of a map too."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3, K, *shape[1:], generator=generator)
    a, b = torch.randint(K, (2, *shape), generator=generator)
    lam = torch.tensor([0.2, 0.7, 1.0])
    as_broadcast = cross_entropy(z, Mixed(a, b, lam.reshape(-1, *[1] * (len(shape) - 1))))
    assert_close(cross_entropy(z, mixed(a, b, lam)), as_broadcast)
    items = [mixed(a[i], b[i], float(lam[i])) for i in range(3)]
    assert_close(cross_entropy(z, default_collate(items)), as_broadcast)
    if len(shape) == 3:
        by_column = torch.linspace(0, 1, shape[-1]).expand(1, 1, -1)
        expected = cross_entropy(z, mixed(a, b, by_column.expand(shape)))
        assert_close(cross_entropy(z, mixed(a, b, by_column)), expected)


@pytest.mark.parametrize("lam", [torch.tensor([0.5, 1.5]), torch.tensor(-0.1), 2.0])
def test_what_was_put_together_otherwise_is_checked(lam: Any) -> None:
    with pytest.raises(ValueError, match=r"lam must"):
        cross_entropy(Z, Mixed(A, B, lam))
    with pytest.raises(ValueError, match=r"target must have shape"):
        cross_entropy(Z, Mixed(A, B[:-1], 0.5))


@pytest.mark.parametrize("name", ["mixed", "teacher", "few of a teacher"])
def test_maps(name: str) -> None:
    batch = BATCHES[name]

    def of_row(z: Tensor, y: Tensor, *parts: Any) -> Tensor:
        row = type(batch)(*parts)
        return (
            cross_entropy(z, row)
            if isinstance(row, Mixed)
            else cross_entropy(z, y, label_smoothing=0.1, prior=row)
        )

    expected = torch.stack([of_row(Z[i], A[i], *(x[i] for x in tensors(batch))) for i in range(N)])
    assert_close(torch.vmap(of_row)(Z, A, *tensors(batch)), expected)
    if None not in batch[1:2]:  # which vmap takes for an input
        assert_close(torch.vmap(lambda z, y, row: of_row(z, y, *row))(Z, A, batch), expected)


@pytest.mark.parametrize("name", BATCHES)
def test_compiles(name: str) -> None:
    if name == "neighbourhood":
        pytest.skip("its rows are a map's")
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(compiled(Z, BATCHES[name]), loss(Z, BATCHES[name]))


def test_accelerate_sends_it() -> None:
    operations = pytest.importorskip("accelerate.utils.operations")
    for batch in BATCHES.values():
        sent = operations.send_to_device({"y": batch}, "meta")["y"]
        assert type(sent) is type(batch)
        assert {x.device.type for x in tensors(sent)} == {"meta"}


def test_lightning_moves_it() -> None:
    apply = pytest.importorskip("lightning_utilities.core.apply_func").apply_to_collection
    for batch in BATCHES.values():
        moved = apply({"y": batch}, Tensor, lambda x: x.to("meta"))["y"]
        assert type(moved) is type(batch)
        assert {x.device.type for x in tensors(moved)} == {"meta"}


IGNORING = torch.where(torch.arange(N) % 3 == 1, -100, A)
WEIGHTS = torch.where(torch.arange(N) % 3 == 1, 0.0, 1.0)
ENGINES = [None, "reference", *(["dense"] if available()["dense"].present else [])]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("by", ["label", "weight", "mixed"])
def test_rows_that_do_not_count_may_hold_anything(by: str, engine: Any, k: int | None, bad: float) -> None:
    """Of a teacher, and where distributions are given: neither loss nor gradient hears of them."""
    broken = TEACHER.clone()
    broken[1::3] = bad
    target, options = {
        "label": (IGNORING, {}),
        "weight": (A, {"sample_weight": WEIGHTS}),
        "mixed": (Mixed(IGNORING, IGNORING, 0.4), {}),
    }[by]
    found = []
    for logits in (broken, TEACHER):
        z = Z.clone().requires_grad_()
        prior = priors.teacher(logits, k=k)
        value = cross_entropy(z, target, label_smoothing=0.3, prior=prior, engine=engine, **options)
        found.append((value, *torch.autograd.grad(value, z)))
    assert_close(found[0], found[1])
    with pytest.raises(
        ValueError, match=r"prior of each sample must be finite and at least 0.* in row \(1,\)"
    ):
        cross_entropy(Z, A, label_smoothing=0.3, prior=priors.teacher(broken, k=k), engine=engine)


@pytest.mark.parametrize("bad", [torch.nan, -1.0, 0.0, 7.0], ids=str)
def test_given_rows_that_do_not_count(bad: float) -> None:
    p = TEACHER.softmax(-1)
    p[1::3] = bad
    classes = torch.arange(K).expand(N, K).clone()
    classes[1::3] = -9
    expected = cross_entropy(Z, IGNORING, label_smoothing=0.3, prior=priors.teacher(TEACHER))
    for prior in (priors.per_sample(p), priors.per_sample(p, classes)):
        assert_close(cross_entropy(Z, IGNORING, label_smoothing=0.3, prior=prior), expected)
        head = linear_cross_entropy(Z, torch.eye(K), IGNORING, label_smoothing=0.3, prior=prior)
        assert_close(head, expected)
    with pytest.raises(ValueError, match=r"prior of each sample must .*sum to 1, in rows that count, got \["):
        cross_entropy(Z, A, prior=priors.per_sample(p))
    with pytest.raises(ValueError, match="prior of each sample must have classes in"):
        cross_entropy(Z, A, prior=priors.per_sample(TEACHER.softmax(-1), classes))


MODULES: dict[str, Any] = {
    **{
        name: lambda name=name: getattr(schedules, name)(0.3, steps=4)
        for name in ("warm_up", "delayed", "drop_late")
    },
    "constant": lambda: schedules.constant(0.3),
    "linear": lambda: schedules.linear(0.3, 0.1, steps=4),
    "cosine": lambda: schedules.cosine(0.3, 0.1, steps=4),
    "loss": lambda: labelsmooth.CrossEntropyLoss(label_smoothing=schedules.linear(0.3, 0.1, 4)),
    "online": lambda: labelsmooth.OnlineLabelSmoothing(K, label_smoothing=schedules.constant(0.3)),
}


@pytest.mark.parametrize("name", MODULES)
def test_reset_after_a_start_without_memory(name: str) -> None:
    fresh = MODULES[name]()
    with torch.device("meta"):
        module = MODULES[name]()
    module.to_empty(device="cpu")
    for x in module.buffers():
        x.fill_(7)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert dict(module.named_buffers()).keys() == dict(fresh.named_buffers()).keys()
    for x, y in zip(module.buffers(), fresh.buffers(), strict=True):
        assert_close(x, y, rtol=0, atol=0)


def test_reset_goes_back_to_the_start() -> None:
    online, fresh = (labelsmooth.OnlineLabelSmoothing(K) for _ in range(2))
    online(Z, A)
    online.end_epoch()
    online(Z, A)
    online.reset_parameters()
    for x, y in zip(online.buffers(), fresh.buffers(), strict=True):
        assert_close(x, y, rtol=0, atol=0)


def test_types_are_tuples() -> None:
    assert issubclass(Mixed, tuple)
    assert issubclass(PerSample, tuple)
