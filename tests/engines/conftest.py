"""What tests of the engines share."""

from collections.abc import Iterator

import pytest

from labelsmooth.engines import empty_cache


@pytest.fixture
def nothing_is_kept() -> Iterator[None]:
    """No memory is kept of an earlier test, nor for a later one."""
    empty_cache()
    yield
    empty_cache()
