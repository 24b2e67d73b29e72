"""The UCI heart data through the node's own path, cut along FLamby's rows and split.

FLamby (du Terrail et al. 2022) keeps the rows that are complete in ten inputs and the outcome, and splits
each hospital 66 : 34 by scikit-learn's train_test_split with seed 43, stratified by the outcome where both
outcomes occur more than twice. Which row of which file a person came from is in the store's provenance table,
so its split can be laid over our features.
"""

import csv
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from deid.vault import PseudonymKey, Vault
from node.features.study_rows import feature_table
from node.features.table import FeatureTable
from node.ingest.pipeline import Pipeline
from node.omop.store import OmopStore
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from protocols.study import Study

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
INPUTS_AND_OUTCOME = (*range(10), 13)  # FLamby drops slope, ca and thal before it asks for complete rows
FLAMBY_SEED = 43
TRAIN_FRACTION = 0.66


@dataclass(frozen=True)
class Site:
    """One hospital's rows of the benchmark."""

    name: str
    train: FeatureTable
    test: FeatureTable


def heart_study() -> Study:
    """Return the packaged plan, of ε = 1."""
    return _packaged("heart.toml")


def small_budget_study() -> Study:
    """Return the packaged plan of ε = 0.1."""
    return _packaged("heart_small_budget.toml")


def _packaged(name: str) -> Study:
    return Study.parse(resources.files("sim").joinpath("studies", name).read_bytes())


@dataclass(frozen=True)
class Hospital:
    """All of a hospital's rows, and which line of its file each came from."""

    name: str
    file: Path
    table: FeatureTable
    source_rows: NDArray[np.int64]

    def cut(self, *, seed: int) -> Site:
        """Return the rows in the training and in the test part of split `seed`."""
        train, test = (np.isin(self.source_rows, list(part)) for part in split(self.file, seed=seed))
        return Site(self.name, self.table.rows(train), self.table.rows(test))


def hospitals(data: Path, study: Study) -> tuple[Hospital, ...]:
    """Ingest the four files of `data`, each into a node's store of its own."""
    found = []
    for name in HOSPITALS:
        file = data / f"processed.{name}.data"
        with tempfile.TemporaryDirectory() as folder, _store(file, Path(folder)) as store:
            table = feature_table(study, store)
            found.append(Hospital(name, file, table, _source_rows(store, table.person_ids)))
    return tuple(found)


def sites(data: Path, study: Study, *, seed: int = FLAMBY_SEED) -> tuple[Site, ...]:
    """Ingest the four files of `data`, and cut them by split `seed`."""
    return tuple(hospital.cut(seed=seed) for hospital in hospitals(data, study))


def split(file: Path, *, seed: int) -> tuple[frozenset[int], frozenset[int]]:
    """Return the row numbers (1 is the first line) of the training and of the test part."""
    with file.open(newline="") as lines:
        rows = [
            (number, float(row[13]) > 0)
            for number, row in enumerate(csv.reader(lines), start=1)
            if all(row[column] != "?" for column in INPUTS_AND_OUTCOME)
        ]
    numbers, labels = zip(*rows, strict=True)
    train, test = train_test_split(
        np.array(numbers),
        test_size=1.0 - TRAIN_FRACTION,
        train_size=TRAIN_FRACTION,
        random_state=seed,
        shuffle=True,
        stratify=labels if min(labels.count(label) for label in (False, True)) > 2 else None,
    )
    return frozenset(train.tolist()), frozenset(test.tolist())


class _store:
    """A node's store holding one hospital's file, under a key nobody keeps."""

    def __init__(self, file: Path, folder: Path) -> None:
        bits = SecureBits()
        self._vault = Vault.open(folder / "vault.sqlite", key=PseudonymKey(bits.bytes(32)), bits=bits)
        self._store = OmopStore.open(folder / "omop.duckdb")
        Pipeline(self._store, self._vault, SystemClock()).ingest([file])

    def __enter__(self) -> OmopStore:
        return self._store

    def __exit__(self, *_: object) -> None:
        self._store.close()
        self._vault.close()


def _source_rows(store: OmopStore, person_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    traced = store.table("fedtwin_provenance")
    persons = traced.filter(traced.table_name == "person").order_by("record_id").to_pyarrow()
    ids = persons["record_id"].to_numpy()
    rows: NDArray[np.int64] = persons["source_row"].to_numpy()
    return rows[np.searchsorted(ids, person_ids)]
