"""Scores on their way into the CDM: one measurement per person, with provenance like any other record."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import date, datetime

import numpy as np
import pyarrow as pa

from node.genomes.scores import Scores
from node.omop import fact_persons
from node.omop.loading import Again, Source
from node.omop.store import OmopStore

ALGORITHM = 32880  # OMOP type concept "Standard algorithm"
MAPPING = "polygenic score"
VERSION = "1"


def withdrawn(store: OmopStore) -> set[int]:
    """Return the persons whose genomes may not be kept."""
    return set(fact_persons.withdrawn(store.cursor()).tolist())


def record(
    store: OmopStore, scores: Scores, *, genomes: str, scoring_sha256: str, now: datetime
) -> dict[str, int]:
    """Write scores as measurements without a standard concept, the PGS id as source value.

    A genome has no day: the score stands at the beginning of a person's observation. Persons without one, or
    who withdrew, get none. The same score of the same genomes is written once; other weights under its id
    take its place.

    Returns: how many samples were "stored", "unknown", "withdrawn", and "twice" of one patient, if any.
    """
    periods = dict(
        store.cursor()
        .execute("SELECT person_id, min(observation_period_start_date) FROM observation_period GROUP BY 1")
        .fetchall()
    )
    gone = withdrawn(store)
    with closing(store.cursor()) as cursor:
        names = fact_persons.canonical(cursor)  # a genome keeps the name under which it came
    rows: dict[int, tuple[int, date, float]] = {}
    outcome: Counter[str] = Counter(stored=0, unknown=0, withdrawn=0)
    for person, value in zip(scores.persons.tolist(), scores.values.tolist(), strict=True):
        person = names.get(person, (person, 0))[0]
        why = "withdrawn" if person in gone else "stored" if person in periods else "unknown"
        if why == "stored" and person in rows:  # two samples of one patient, as it turned out
            why = "twice"
        outcome[why] += 1
        if why == "stored":
            rows[person] = (person, periods[person], value)
    source = Source(f"{scores.pgs_id} {genomes}", f"{scoring_sha256}+{genomes}", MAPPING, VERSION)
    if store.loaded(source_sha256=source.sha256, mapping_sha256=VERSION) is not None:
        return dict(outcome)
    with store.load(source, now=now, again=Again.REPLACE) as load:
        count = len(rows)
        columns = {
            "person_id": pa.array([row[0] for row in rows.values()], pa.int64()),
            "measurement_date": pa.array([row[1] for row in rows.values()], pa.date32()),
            "measurement_concept_id": pa.array(np.zeros(count, dtype=np.int64)),
            "measurement_source_concept_id": pa.array(np.zeros(count, dtype=np.int64)),
            "measurement_type_concept_id": pa.array(np.full(count, ALGORITHM, dtype=np.int64)),
            "value_as_number": pa.array([row[2] for row in rows.values()], pa.float64()),
            "measurement_source_value": pa.array([scores.pgs_id] * count, pa.string()),
        }
        load.add_events("measurement", pa.table(columns), np.arange(1, count + 1))
        load.rows = count
    return dict(outcome)
