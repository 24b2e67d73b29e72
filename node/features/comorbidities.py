"""Which groups of a comorbidity index a person's conditions belong to, by the ICD-10 codes they came with."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from ibis import _
from numpy.typing import NDArray

from node.features.people import People, int64
from node.features.records import matching
from node.omop.store import OmopStore
from protocols import comorbidity
from protocols.study_features import Feature

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def comorbidity_columns(
    feature: Feature, people: People, store: OmopStore, *, known: bool
) -> tuple[list[Floats], Bools]:
    """Return one column for each group, then the weighted sum over `most`, between -1 and 1; and of whom.

    Whose conditions carry no ICD-10 code at all has not been found healthy: of them it is missing.
    """
    assert feature.records is not None  # the study's parser gives this kind its records
    conditions = matching(feature.records, people, store, known=known)
    told = store.table("condition_occurrence").select(
        "condition_occurrence_id", "condition_source_value", "condition_source_concept_id"
    )
    rows = conditions.inner_join(told, conditions.record_id == told.condition_occurrence_id)
    rows = rows.select("person_id", "condition_source_value", "condition_source_concept_id").distinct()
    found = rows.to_pyarrow()
    names = found["condition_source_value"].combine_chunks().dictionary_encode()
    sources = found["condition_source_concept_id"].combine_chunks().cast(pa.int64()).fill_null(0)
    codes = _codes_of(set(sources.to_pylist()) - {0}, store)
    by_name = [comorbidity.groups_of(feature.index, _bare(name)) for name in names.dictionary.to_pylist()]
    place = people.at(int64(found["person_id"]))
    coded = np.array(
        [name is not None and comorbidity.is_code(_bare(name)) for name in names.dictionary.to_pylist()]
    )
    has = np.zeros((len(people.ids), len(comorbidity.groups(feature.index))), dtype=bool)
    recorded, told = np.zeros((2, len(people.ids)), dtype=bool)
    for person, name, source in zip(place, names.indices.to_pylist(), sources.to_pylist(), strict=True):
        written = comorbidity.groups_of(feature.index, codes[source]) if source in codes else ()
        recorded[person] = True
        told[person] |= source in codes or (name is not None and bool(coded[name]))
        for group in written or (by_name[name] if name is not None else ()):
            has[person, group] = True
    weights, milder = comorbidity.weights(feature.index)
    counted = has.copy()
    for group, severe in enumerate(milder):
        if severe is not None:
            counted[:, group] &= ~has[:, severe]
    score = np.clip(counted @ np.array(weights, dtype=np.float64) / feature.most, -1.0, 1.0)
    return [*has.T.astype(np.float64), score], told | ~recorded


def _codes_of(concepts: set[int], store: OmopStore) -> dict[int, str]:
    """Return the ICD-10 codes of source concepts that the store's vocabulary knows."""
    if not concepts or not store.has("concept"):
        return {}
    concept = store.table("concept")
    icd = concept.filter(_.concept_id.isin(sorted(concepts)) & _.vocabulary_id.startswith("ICD10"))
    rows = icd.select("concept_id", "concept_code").to_pyarrow()
    return dict(zip(rows["concept_id"].to_pylist(), rows["concept_code"].to_pylist(), strict=True))


def _bare(source_value: str) -> str:
    """Return the code of a source value that may name its system first: "ICD10CM:E11.9"."""
    return source_value.rpartition(":")[2].rpartition("|")[2]
