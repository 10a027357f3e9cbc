"""Losses whose strength is on a schedule."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, LabelSmoothingLoss, LinearCrossEntropyLoss, schedules
from labelsmooth.schedules import Schedule

K = 4
GENERATOR = torch.Generator().manual_seed(0)
Z, TARGET = torch.randn(11, K, generator=GENERATOR), torch.randint(K, (11,), generator=GENERATOR)

SCHEDULES = {
    "linear": lambda: schedules.linear(0.2, 0.0, 4),
    "cosine": lambda: schedules.cosine(0.0, 0.3, 3),
    "warm_up": lambda: schedules.warm_up(0.1, 2),
    "drop_late": lambda: schedules.drop_late(0.1, 2),
    "constant": lambda: schedules.constant(0.1),
}
H = torch.randn(11, 3, generator=GENERATOR)


def make(kind: str, schedule: Schedule) -> Any:
    match kind:
        case "CrossEntropyLoss":
            return CrossEntropyLoss(label_smoothing=schedule)
        case "LabelSmoothingLoss":
            return LabelSmoothingLoss(schedule)
        case _:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return LinearCrossEntropyLoss(3, K, label_smoothing=schedule)


def expected(kind: str, loss: Any, eps: float) -> Tensor:
    z, target = Z, TARGET
    match kind:
        case "CrossEntropyLoss":
            return nn.functional.cross_entropy(z, target, label_smoothing=eps)
        case "LabelSmoothingLoss":
            p = (1 - eps) * nn.functional.one_hot(target, K) + eps / K
            return nn.KLDivLoss(reduction="batchmean")(z.log_softmax(-1), p)
        case _:
            return nn.functional.cross_entropy(loss.linear(H), target, label_smoothing=eps)


KINDS = ["CrossEntropyLoss", "LabelSmoothingLoss", "LinearCrossEntropyLoss"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_losses_follow_a_schedule(name: str, kind: str) -> None:
    loss, alone = make(kind, SCHEDULES[name]()), SCHEDULES[name]()
    given = H if kind == "LinearCrossEntropyLoss" else Z
    for _ in range(6):
        found = loss(given, TARGET)
        assert_close(found, expected(kind, loss, alone.eps.item()))
        loss.end_epoch()
        alone.step()


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_a_schedule_goes_through_the_loss(kind: str, tmp_path: Path) -> None:
    loss, other = (make(kind, schedules.linear(0.2, 0.0, 4)) for _ in range(2))
    loss.end_epoch()
    loss.end_epoch()
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    given = H if kind == "LinearCrossEntropyLoss" else Z
    for _ in range(3):
        assert other(given, TARGET).equal(loss(given, TARGET))
        other.end_epoch()
        loss.end_epoch()
    assert_close(other(given, TARGET), expected(kind, other, 0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_have_schedules_of_their_own(kind: str) -> None:
    loss = make(kind, schedules.linear(0.2, 0.0, 4))
    other = copy.deepcopy(loss)
    other.end_epoch()
    given = H if kind == "LinearCrossEntropyLoss" else Z
    assert_close(loss(given, TARGET), expected(kind, loss, 0.2))
    assert_close(other(given, TARGET), expected(kind, other, 0.15))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_epochs_compile_nothing_again(kind: str) -> None:
    torch.compiler.reset()
    counter = CompileCounter()
    loss = make(kind, schedules.linear(0.2, 0.0, 3))
    compiled: Any = torch.compile(loss, backend=counter, fullgraph=True)
    given = H if kind == "LinearCrossEntropyLoss" else Z
    for eps in (0.2, 0.2 * 2 / 3, 0.2 / 3, 0.0, 0.0):
        assert_close(compiled(given, TARGET), expected(kind, loss, eps))
        loss.end_epoch()
    assert counter.frame_count == 1


def test_schedule_is_off_in_evaluation() -> None:
    loss = CrossEntropyLoss(label_smoothing=schedules.constant(0.5), train_only=True).eval()
    z, target = Z, TARGET
    assert_close(loss(z, target), nn.functional.cross_entropy(z, target))
