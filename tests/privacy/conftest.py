"""Fixtures of the tests of privacy/."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from privacy.ledger import Ledger
from tests.privacy.one_ledger import CLOCK


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path, clock=CLOCK) as opened:
        yield opened
