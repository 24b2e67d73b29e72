"""The persons a study is about, with what the person table says of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from ibis import _
from ibis.expr.types import Table
from numpy.typing import NDArray

from node.omop.store import OmopStore
from node.queries.cohort import indexed_persons
from protocols.cohort import Cohort


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """The cohort: persons in ascending order. `index_day` counts from 1970-01-01."""

    relation: Table
    ids: NDArray[np.int64]
    sex: NDArray[np.int64]
    age_years: NDArray[np.float64]
    index_day: NDArray[np.int64]

    @classmethod
    def read(cls, cohort: Cohort, store: OmopStore) -> People:
        """Return the persons of `cohort`. Raises: NoSuchTable."""
        indexed = indexed_persons(cohort, store)
        person = store.table("person").select("person_id", "year_of_birth", "gender_concept_id")
        found = indexed.inner_join(person, "person_id").mutate(age=_.index_date.year() - _.year_of_birth)
        rows = found.order_by("person_id").to_pyarrow()
        return cls(
            indexed,
            int64(rows["person_id"]),
            int64(rows["gender_concept_id"]),
            float64(rows["age"]),
            days(rows["index_date"]),
        )

    def at(self, person_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of persons who are all in the cohort."""
        return np.searchsorted(self.ids, person_ids)


def int64(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return whole numbers, 0 for null."""
    return np.asarray(column.fill_null(0).cast(pa.int64()).to_numpy(), dtype=np.int64)


def float64(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return numbers, NaN for null."""
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy(), dtype=np.float64)


def days(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the days of dates or times since 1970-01-01."""
    return np.asarray(column.cast(pa.date32()).cast(pa.int32()).to_numpy(), dtype=np.int64)
