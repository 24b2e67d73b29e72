"""Features that were computed once, in Parquet, to be found again by what they were computed from.

    features/<set hash>.<store epoch>.parquet    0600: person_id, index_day, x (a list), seen (a list)

A file is named by the hash of its feature set and by the data epoch: features of other data are never found,
and when features of a newer epoch are kept, those of older ones go. `as_of` is a point-in-time join: of each
person it takes the latest row whose index date is not after the day asked for. It never leaves the node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from node.features.people import People
from node.features.study_rows import feature_rows
from node.omop.store import OmopStore
from privacy import private_files
from protocols.cohort import Cohort
from protocols.feature_set import FeatureSet
from protocols.study_features import modalities

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class StoredRows:
    """Rows of persons, in the order they were asked for; `found` False: there is none that is old enough."""

    found: NDArray[np.bool_]
    index_day: Ints
    x: NDArray[np.float32]
    mask: NDArray[np.bool_]


class FeatureStore:
    """The folder of kept features."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def fill(self, features: FeatureSet, cohort: Cohort, store: OmopStore) -> int:
        """Compute the features of everyone in `cohort` at their index dates, and keep them.

        Rows of other index dates that are kept already stay; a row of the same person and date is replaced.
        Returns how many rows are there now. Raises: NoSuchTable.
        """
        people = People.read(cohort, store)
        x, mask, _ = feature_rows(features.features, features, people, store)
        rows = _table(people.ids, people.index_day, x, mask)
        file = self._file(features, store)
        if file.exists():
            with duckdb.connect() as engine:
                engine.register("fresh", rows)
                rows = engine.execute(
                    "SELECT * FROM read_parquet($1) AS kept"
                    " ANTI JOIN fresh USING (person_id, index_day) UNION ALL FROM fresh",
                    [str(file)],
                ).to_arrow_table()
        self._write(file, rows)
        for other in self._folder.glob(f"{features.hash().hex()}.*.parquet"):
            if other != file:
                other.unlink()
        return int(rows.num_rows)

    def as_of(
        self,
        features: FeatureSet,
        store: OmopStore,
        person_ids: Ints,
        on_day: Ints,
        *,
        max_age_days: int | None = None,
    ) -> StoredRows:
        """Return each person's features as known on a day (counted from 1970-01-01).

        Args: max_age_days, rows of older index dates are not taken.
        Raises: FileNotFoundError if nothing is kept of this set and this state of the store.
        """
        file = self._kept(features, store)
        asked = pa.table(
            {"place": np.arange(len(person_ids)), "person_id": person_ids, "on_day": on_day.astype(np.int64)}
        )
        with duckdb.connect() as engine:
            engine.register("asked", asked)
            joined = engine.execute(
                "SELECT place, index_day, x, seen FROM asked ASOF LEFT JOIN read_parquet($1) AS kept"
                " ON asked.person_id = kept.person_id AND asked.on_day >= kept.index_day ORDER BY place",
                [str(file)],
            ).to_arrow_table()
        width = sum(features.shapes().values())
        days = joined["index_day"].fill_null(np.iinfo(np.int64).min).to_numpy().astype(np.int64)
        found = np.asarray(joined["index_day"].is_valid().to_numpy(zero_copy_only=False), dtype=bool)
        if max_age_days is not None:
            found &= on_day - np.where(found, days, on_day) <= max_age_days
        x = np.zeros((len(person_ids), width), dtype=np.float32)
        mask = np.zeros(x.shape, dtype=bool)
        x[found] = _matrix(joined["x"], found, width)
        mask[found] = _matrix(joined["seen"], found, width)
        return StoredRows(found, np.where(found, days, 0), x, mask)

    def present(self, features: FeatureSet, store: OmopStore) -> dict[str, int]:
        """Return of how many kept rows each modality is there. Raises: FileNotFoundError, as `as_of` does."""
        rows = pq.read_table(self._kept(features, store), columns=["seen"])
        width = sum(features.shapes().values())
        seen = _matrix(rows["seen"], np.ones(rows.num_rows, dtype=bool), width).astype(bool)
        groups = modalities(features.features)
        found = {group.name: int(seen[:, list(group.observed_by)].any(axis=1).sum()) for group in groups}
        return {name: found[name] for name in features.shapes()}

    def forget(self, person_ids: Sequence[int]) -> int:
        """Remove all rows of persons (they withdrew); return from how many files."""
        files = 0
        for file in sorted(self._folder.glob("*.parquet")):
            rows = pq.read_table(file)
            keep = ~np.isin(rows["person_id"].to_numpy(), list(person_ids))
            if not keep.all():
                self._write(file, rows.filter(pa.array(keep)))
                files += 1
        return files

    def _file(self, features: FeatureSet, store: OmopStore) -> Path:
        return self._folder / f"{features.hash().hex()}.{store.epoch()}.parquet"

    def _kept(self, features: FeatureSet, store: OmopStore) -> Path:
        file = self._file(features, store)
        if not file.exists():
            raise FileNotFoundError("no features of this set are kept for the store as it stands")
        return file

    def _write(self, file: Path, rows: pa.Table) -> None:
        private_files.make_folder(self._folder)
        part = file.with_suffix(".part")
        os.close(os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600))
        pq.write_table(rows.sort_by([("person_id", "ascending"), ("index_day", "ascending")]), part)
        os.replace(part, file)
        private_files.sync_folder(self._folder)


def _table(ids: Ints, days: Ints, x: NDArray[np.float32], mask: NDArray[np.bool_]) -> pa.Table:
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * np.int32(x.shape[1])
    return pa.table(
        {
            "person_id": ids,
            "index_day": days,
            "x": pa.ListArray.from_arrays(offsets, pa.array(x.ravel())),
            "seen": pa.ListArray.from_arrays(offsets, pa.array(mask.ravel())),
        }
    )


def _matrix(column: pa.ChunkedArray, found: NDArray[np.bool_], width: int) -> NDArray[np.float32]:
    chosen = column.filter(pa.array(found)).combine_chunks()
    flat = chosen.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(int(found.sum()), width)
