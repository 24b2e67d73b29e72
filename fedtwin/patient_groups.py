"""Groups of patients by which a model's figures are told: by sex, and by age at the index date."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node.features.people import People
from node.features.table import FeatureTable
from node.omop.store import OmopStore
from protocols.statistic import FEMALE, MALE
from protocols.study import Study

AGE_BANDS = ((0, 40), (40, 65), (65, 80), (80, 200))  # years at the index date; the last is open
SEXES = (("male", MALE), ("female", FEMALE))

Groups = list[tuple[str, NDArray[np.bool_]]]


def groups_of(study: Study, rows: FeatureTable, store: OmopStore) -> dict[str, Groups]:
    """Return, by what they are told apart, names of groups and which rows are in each.

    Every row is in one group of each kind. Raises: NoSuchTable.
    """
    people = People.read(study.cohort, store)
    at = people.at(rows.person_ids)
    return {"sex": _sexes(people.sex[at]), "age": _ages(people.age_years[at])}


def _sexes(sex: NDArray[np.int64]) -> Groups:
    named = [(name, sex == concept) for name, concept in SEXES]
    return [*named, ("other or unknown", ~np.isin(sex, [concept for _, concept in SEXES]))]


def _ages(years: NDArray[np.float64]) -> Groups:
    named = [
        (f"{low} to {high - 1}" if high < 200 else f"{low} and more", (years >= low) & (years < high))
        for low, high in AGE_BANDS
    ]
    return [*named, ("unknown", ~np.isfinite(years))]
