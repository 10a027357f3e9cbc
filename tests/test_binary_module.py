"""The module of binary cross entropy: the function with options that it holds."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from expecttest import assert_expected_inline
from torch import nn
from torch.testing import assert_close

from labelsmooth import BCEWithLogitsLoss
from labelsmooth.functional import binary_cross_entropy_with_logits
from labelsmooth.schedules import delayed, linear
from tests.test_binary import HARD, INPUT, C, N


def full_loss(scale: float = 1.0) -> BCEWithLogitsLoss:
    return BCEWithLogitsLoss(
        torch.tensor([1.0, 2.0, 3.0]) * scale,
        pos_weight=torch.tensor([3.0, 2.0, 1.0]) * scale,
        label_smoothing=torch.tensor([0.1, 0.2, 0.3]) * scale,
        prior=torch.tensor([0.5, 0.2, 0.3]) * scale,
    )


def test_the_module_is_the_function() -> None:
    criterion = full_loss()
    expected = binary_cross_entropy_with_logits(
        INPUT,
        HARD,
        torch.tensor([1.0, 2.0, 3.0]),
        pos_weight=torch.tensor([3.0, 2.0, 1.0]),
        label_smoothing=torch.tensor([0.1, 0.2, 0.3]),
        prior=torch.tensor([0.5, 0.2, 0.3]),
    )
    assert_close(criterion(INPUT, HARD), expected, rtol=0, atol=0)
    assert_close(criterion.eval()(INPUT, HARD), expected, rtol=0, atol=0)
    assert_close(criterion(INPUT, HARD, denominator=5), expected * N * C / 5)
    twice = BCEWithLogitsLoss(label_smoothing=0.1, off_target="others", reduction="sum")
    expected = binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=0.2, reduction="sum")
    assert_close(twice(INPUT, HARD), expected)
    theirs = nn.BCEWithLogitsLoss(torch.tensor([1.0, 2.0, 3.0]), pos_weight=torch.tensor(2.0))
    ours = BCEWithLogitsLoss(torch.tensor([1.0, 2.0, 3.0]), pos_weight=torch.tensor(2.0))
    assert_close(ours(INPUT, HARD), theirs(INPUT, HARD))


def test_train_only_smooths_in_training_only() -> None:
    criterion = BCEWithLogitsLoss(label_smoothing=0.2, train_only=True)
    smooth = binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=0.2)
    assert_close(criterion(INPUT, HARD), smooth)
    assert_close(criterion.eval()(INPUT, HARD), F.binary_cross_entropy_with_logits(INPUT, HARD))
    assert_close(criterion.train()(INPUT, HARD), smooth)


def test_the_end_of_an_epoch_moves_a_schedule() -> None:
    criterion = BCEWithLogitsLoss(label_smoothing=linear(0.0, 0.5, 2))
    for eps in (0.0, 0.25, 0.5, 0.5):
        expected = binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=eps)
        assert_close(criterion(INPUT, HARD), expected)
        criterion.end_epoch()
    BCEWithLogitsLoss(label_smoothing=0.1).end_epoch()


def test_a_schedule_may_move_between_forward_and_backward() -> None:
    criterion = BCEWithLogitsLoss(label_smoothing=linear(0.0, 1.0, 4))
    criterion.end_epoch()
    z, target = INPUT.float().requires_grad_(), HARD.float().requires_grad_()
    loss = criterion(z, target)
    criterion.end_epoch()
    ours = torch.autograd.grad(loss, (z, target))
    still = binary_cross_entropy_with_logits(z, target, label_smoothing=0.25)
    assert_close(ours, torch.autograd.grad(still, (z, target)))


def test_tensors_are_in_the_state_and_nothing_is_a_parameter() -> None:
    criterion, other = full_loss(), full_loss(0.5)
    assert sorted(criterion.state_dict()) == ["label_smoothing", "pos_weight", "prior", "weight"]
    assert list(criterion.parameters()) == []
    assert list(BCEWithLogitsLoss(label_smoothing=0.1, prior=0.2).state_dict()) == []
    assert other(INPUT, HARD) != criterion(INPUT, HARD)
    other.load_state_dict(criterion.state_dict())
    assert_close(other(INPUT, HARD), criterion(INPUT, HARD), rtol=0, atol=0)
    scheduled = BCEWithLogitsLoss(label_smoothing=linear(0.0, 0.4, 4))
    assert list(scheduled.state_dict()) == ["label_smoothing.time"]
    scheduled.load_state_dict({"label_smoothing.time": torch.tensor(2)})
    expected = binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=0.2)
    assert_close(scheduled(INPUT.float(), HARD), expected.float())
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(BCEWithLogitsLoss(torch.ones(2)).state_dict(), strict=False)


def test_a_parameter_stays_one() -> None:
    eps = nn.Parameter(torch.tensor(0.1))
    criterion = BCEWithLogitsLoss(label_smoothing=eps)
    assert list(criterion.parameters()) == [eps]
    criterion(INPUT, HARD).backward()
    assert eps.grad is not None
    assert eps.grad != 0


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_independent(clone: Callable[[nn.Module], nn.Module]) -> None:
    for criterion in (full_loss(), BCEWithLogitsLoss(label_smoothing=linear(0.2, 0.0, 4))):
        expected = criterion(INPUT, HARD)
        twin = clone(criterion)
        assert_close(twin(INPUT, HARD), expected, rtol=0, atol=0)
        for buffer in twin.buffers():
            buffer.zero_()
        assert_close(criterion(INPUT, HARD), expected, rtol=0, atol=0)


def test_tensors_move_with_the_module() -> None:
    loss = full_loss()
    kept = {buffer.dtype for buffer in loss.buffers()}
    criterion = loss.to(torch.bfloat16)  # which rounds nothing
    assert {buffer.dtype for buffer in criterion.buffers()} == kept
    assert torch.bfloat16 not in kept
    assert criterion(INPUT.bfloat16(), HARD).dtype == torch.float32
    meta = full_loss().to("meta")
    assert meta(INPUT.to("meta"), HARD.to("meta")).device.type == "meta"


def test_repr() -> None:
    assert_expected_inline(
        repr(BCEWithLogitsLoss(label_smoothing=0.1, prior=0.2)),
        """BCEWithLogitsLoss(label_smoothing=0.1, prior=0.2, reduction='mean', off_target='all', \
train_only=False)""",
    )
    assert_expected_inline(
        repr(full_loss()),
        """BCEWithLogitsLoss(label_smoothing=(3,), weight=(3,), pos_weight=(3,), prior=(3,), \
reduction='mean', off_target='all', train_only=False)""",
    )
    assert_expected_inline(
        repr(BCEWithLogitsLoss(label_smoothing=delayed(0.1, 3))),
        """\
BCEWithLogitsLoss(
  reduction='mean', off_target='all', train_only=False
  (label_smoothing): Schedule(delayed(eps=0.1, steps=3), now 0)
)""",
    )
