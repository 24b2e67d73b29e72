"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest

# Before numpy and torch are loaded, and for the processes that tests start: workers share the cores, and on
# models this small a second thread of one process mostly waits busily for the first.
for _pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_pool, "1")

TESTS = Path(__file__).parent
SHARED_DATA = TESTS.parents[1] / "shared" / "data"
# Files that take about half a minute and more, longest first; what starts whole networks lies apart.
LONG = tuple(
    TESTS / name
    for name in (
        "fedtwin/test_readme.py",
        "node/ingest/test_ingest_order.py",
        "network/test_training_crashes.py",
        "threats/test_crash_histories.py",
        "fedtwin/test_demo.py",
        "node/ingest/test_load_memory.py",
        "node/ingest/test_ingest_killed.py",
        "sim/test_network.py",
        "fedtwin/test_results_coverage.py",
        "network/test_flower_faults.py",
        "network/test_crashes.py",
        "network/test_flower_training.py",
    )
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let long files come first: of workers that share the files, one that began such a file at the end would
    keep the others waiting."""
    place = {path: number for number, path in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path, len(LONG)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of openly licensed test data beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data (openly licensed test data, not part of the project)")
    return SHARED_DATA
