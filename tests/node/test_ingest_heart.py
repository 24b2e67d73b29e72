"""The heart mapping on real input, and on generated rows of the same shape."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from deid.vault import PseudonymKey, Vault
from node.ingest.pipeline import Pipeline
from node.omop.store import OmopStore
from node.queries.cohort import count
from protocols.clock import FixedClock
from protocols.cohort import Cohort
from tests.privacy.seeded_bits import SeededBits

CLOCK = FixedClock(datetime(2026, 6, 1, tzinfo=UTC))
COLUMNS = {
    # column of the file -> table and concept that hold it
    3: ("measurement", 3004249),
    4: ("measurement", 3027114),
    7: ("measurement", 2000100001),
    9: ("measurement", 2000100002),
    2: ("observation", 2000100003),
    5: ("observation", 2000100004),
    6: ("observation", 2000100005),
    8: ("observation", 2000100006),
    10: ("observation", 2000100007),
    11: ("observation", 2000100008),
    12: ("observation", 2000100009),
    13: ("observation", 2000100010),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with OmopStore.open(tmp_path / "omop.duckdb") as opened:
        yield opened


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SeededBits(4))


def values_in(file: Path) -> np.ndarray:
    rows = [line.split(",") for line in file.read_text().split()]
    return np.array([[np.nan if text in ("?", "-9") else float(text) for text in row] for row in rows])


def values_of(store: OmopStore, file: str, rows: int) -> np.ndarray:
    """Read the table back out of the CDM, in the order of the file, by provenance."""
    found = np.full((rows, 14), np.nan)
    cursor = store.connection.con
    for column, (table, concept) in COLUMNS.items():
        for row, value in cursor.execute(
            f"SELECT source_row, value_as_number FROM {table}"
            f" JOIN fedtwin_provenance ON table_name = '{table}' AND record_id = {table}_id"
            f" JOIN fedtwin_load USING (load_id) WHERE source_name = ? AND {table}_concept_id = ?",
            [file, concept],
        ).fetchall():
            found[row - 1, column] = value
    for row, sex, age in cursor.execute(
        "SELECT source_row, gender_concept_id, year(observation_period_start_date) - year_of_birth"
        " FROM person"
        " JOIN observation_period USING (person_id)"
        " JOIN fedtwin_provenance ON table_name = 'person' AND record_id = person.person_id"
        " JOIN fedtwin_load USING (load_id) WHERE source_name = ?",
        [file],
    ).fetchall():
        found[row - 1, 0] = age
        found[row - 1, 1] = {8507: 1, 8532: 0}[sex]
    return found


def made_file(folder: Path) -> Path:
    rng = np.random.default_rng(6)
    file = folder / "processed.made.data"
    lines = []
    for _ in range(200):
        row = [rng.integers(30, 80), rng.integers(0, 2), rng.integers(1, 5), rng.integers(90, 200)]
        row += [rng.integers(0, 400), rng.integers(0, 2), rng.integers(0, 3), rng.integers(70, 200)]
        row += [
            rng.integers(0, 2),
            round(float(rng.uniform(-2, 6)), 1),
            rng.integers(1, 4),
            rng.integers(0, 4),
        ]
        row += [rng.choice([3, 6, 7]), rng.integers(0, 5)]
        gaps = rng.random(14) < 0.2
        style = "{:.1f}" if rng.random() < 0.5 else "{:g}"
        texts = [rng.choice(["?", "-9"]) if gap and place > 1 else style.format(float(value))
                 for place, (value, gap) in enumerate(zip(row, gaps, strict=True))]  # fmt: skip
        lines.append(",".join(texts))
    file.write_text("\n".join(lines) + "\n")
    return file


def test_every_number_of_a_generated_file_comes_back(tmp_path: Path, store: OmopStore, vault: Vault) -> None:
    file = made_file(tmp_path)
    report = Pipeline(store, vault, CLOCK).ingest([file])
    assert [(source.quarantined, source.values_quarantined) for source in report.sources] == [(0, 0)]
    expected = values_in(file)
    np.testing.assert_array_equal(values_of(store, file.name, len(expected)), expected)


def test_every_number_of_the_four_hospitals_comes_back(
    shared_data: Path, store: OmopStore, vault: Vault
) -> None:
    report = Pipeline(store, vault, CLOCK).ingest([shared_data / "heart"])
    assert sum(source.records_in for source in report.sources) == 920
    assert all(source.stored == source.records_in for source in report.sources)
    assert not any(source.values_quarantined for source in report.sources)
    sick = 0
    for file in sorted((shared_data / "heart").glob("*.data")):
        expected = values_in(file)
        sick += int((expected[:, 13] > 0).sum())
        np.testing.assert_array_equal(values_of(store, file.name, len(expected)), expected)
    assert count(Cohort.parse({"index": {"kind": "condition", "concepts": [317576]}}), store) == sick == 509
