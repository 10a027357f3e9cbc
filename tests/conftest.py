"""What all tests share: one thread, and a linear head in small chunks."""

from collections.abc import Iterator

import pytest
import torch

from labelsmooth._engines import linear


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tensors this small lose to a second thread, on a busy machine threefold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two rows."""
    monkeypatch.setattr(linear, "BUDGET", 0)
    monkeypatch.setattr(linear, "LEAST", 2)
