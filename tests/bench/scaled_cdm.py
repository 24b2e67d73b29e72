"""The shared synthetic CDM many times over: persons and events copied under new ids, one vocabulary."""

from pathlib import Path

import duckdb

SHARED = Path(__file__).parents[3] / "shared" / "data"
SOURCE = SHARED / "omop_synthetic_5k" / "cdm.duckdb"
ID_STEP = 1_000_000_000  # above every id of the source
EVENTS_PER_COPY = (
    576_000  # visits, conditions, drugs, procedures, measurements, observations, devices; no eras
)
_OF_A_COPY = ("person_id", "visit_occurrence_id", "visit_detail_id", "observation_period_id")


def copies_for(events: int) -> int:
    """Return how many copies hold at least `events` clinical events."""
    return -(-events // EVENTS_PER_COPY)


def make_scaled(path: Path, *, copies: int) -> Path:
    """Write `copies` of the source into a new DuckDB file (schema main), events ordered by concept.

    Raises: FileNotFoundError where the shared data are not there.
    """
    if not SOURCE.exists():
        raise FileNotFoundError("the shared synthetic CDM is not here: see shared/data/SOURCES.md")
    with duckdb.connect(str(path)) as made:
        made.execute(f"ATTACH '{SOURCE}' AS source (READ_ONLY)")
        found = made.execute(
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_catalog = 'source' AND table_schema = 'cdm'"
        ).fetchall()
        for table in sorted(str(row[0]) for row in found):
            names = [
                str(row[1]) for row in made.execute(f"PRAGMA table_info('source.cdm.{table}')").fetchall()
            ]
            if "person_id" not in names:  # vocabulary
                made.execute(f"CREATE TABLE {table} AS FROM source.cdm.{table}")
                continue
            own = {*_OF_A_COPY, f"{table}_id"}
            columns = ", ".join(
                f"{name} + copy * {ID_STEP} AS {name}" if name in own else name for name in names
            )
            concept = next((name for name in names if name == f"{table.split('_')[0]}_concept_id"), names[0])
            made.execute(
                f"CREATE TABLE {table} AS SELECT {columns} FROM source.cdm.{table},"
                f" range(CAST({copies} AS BIGINT)) AS copies(copy) ORDER BY {concept}, {names[0]}"
            )
        made.execute("DETACH source")
    return path
