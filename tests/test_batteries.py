"""What holds of every case of the table, on every engine."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests import oracle
from tests.cases import CASES, DENSE, PRECISE, SERVED, Case, gradients


@pytest.mark.parametrize("case", SERVED, ids=str)
def test_value_and_gradient(case: Case) -> None:
    leaf = case.z.clone().requires_grad_()
    loss, nll = oracle.cross_entropy(leaf, case.target, **case.options)
    (by_z,) = gradients(loss, [leaf])
    for engine in (None, "reference", *([] if case.refused_by_dense else DENSE)):
        leaf = case.z.clone().requires_grad_()
        found, hard = case.loss(leaf, engine=engine, return_nll=True)
        assert_close((found, hard), (loss, nll), equal_nan=True, **PRECISE)
        assert not hard.requires_grad
        assert_close(gradients(found, [leaf]), [by_z], equal_nan=True, **PRECISE)
    if case.head is None:
        return
    leaves = case.head.leaves()
    loss, nll = oracle.cross_entropy(case.head.logits(*leaves), case.target, **case.options)
    expected = gradients(loss, leaves)
    for engine in ("linear", None):
        leaves = case.head.leaves()
        found, hard = case.of_head(*leaves, engine=engine, return_nll=True)
        assert_close((found, hard), (loss, nll), equal_nan=True, **PRECISE)
        assert_close(gradients(found, leaves), expected, equal_nan=True, **PRECISE)
