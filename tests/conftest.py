"""What all tests share: one thread, and which of them are slow."""

from collections import defaultdict
from collections.abc import Iterator

import pytest
import torch

EVERY, AT_LEAST = 20, 2  # of the cases of one test, for a run without the slow ones


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tensors this small lose to a second thread, on a busy machine threefold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but every 20th case of a table as slow; at least two of each remain."""
    tables: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tables[item.nodeid.partition("[")[0]].append(item)
    for cases in tables.values():
        step = max(1, min(EVERY, len(cases) // AT_LEAST))
        for i, case in enumerate(cases):
            if i % step:
                case.add_marker("slow")
