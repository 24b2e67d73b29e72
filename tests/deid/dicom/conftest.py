"""What the tests of DICOM share: a vault, and an object that holds every attribute of the table."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deid.dicom.identities import Identities
from deid.vault import PseudonymKey, Vault
from tests.privacy.seeded_bits import SeededBits


@pytest.fixture
def identities(tmp_path: Path) -> Iterator[Identities]:
    """Pseudonyms from a vault of this test's own."""
    vault = Vault.open(tmp_path / "vault", key=PseudonymKey(bytes(range(32))), bits=SeededBits(7))
    yield Identities(vault)
    vault.close()
