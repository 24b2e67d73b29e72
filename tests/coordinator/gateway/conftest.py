"""Fixtures of these tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.consortium import LoopThread, loop_thread
from tests.coordinator.gateway.site import Site, founded

__all__ = ["loop_thread"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, loop_thread: LoopThread) -> Iterator[Site]:
    """One gateway for the tests of a module, with hardly any limit on rates."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    with founded(folder, loop=loop_thread) as found:
        yield found
