"""What has no standard concept is found by its code: genomes' scores, wearables' days, images' features."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.features.people import People
from node.features.study_rows import feature_rows
from node.genomes.recording import record
from node.genomes.scores import Scores
from node.ingest.pipeline import Pipeline
from node.ingest.registry import READERS
from node.omop.store import OmopStore
from protocols.cohort import Cohort
from protocols.feature_set import FeatureSet
from protocols.study_fields import MalformedStudy
from tests.node.made_facts import CLOCK, ENTRIES, person
from tests.node.signals.made_signals import Ward, export, hearts

COHORT = Cohort.parse({"index": {"kind": "condition", "concepts": [77]}})
YEAR = [-365, 0]


def value(name: str, code: str | list[str], ends: list[float], **more: Any) -> dict[str, Any]:
    form = {"name": name, "kind": "value", "table": "measurement", "source_value": code, "range": ends}
    return form | {"modality": name, "window": [-36525, 0], "unitless": True} | more


def of(*features: dict[str, Any]) -> FeatureSet:
    names = [{"name": feature["modality"]} for feature in features]
    return FeatureSet.from_json(
        {
            "feature_set": {"name": "by-code", "version": 1},
            "modalities": names,
            "features": list(features),
        }
    )


SET = of(
    value("score", "PGS000001", [-2, 2]),
    value("resting", "heart_rate.mean.day", [40, 120], pick="mean", window=YEAR),
    value("lesion", ["stat_mean", "stat_p90"], [0, 100]),
)


def columns(store: OmopStore) -> tuple[np.ndarray, np.ndarray]:
    x, mask, _ = feature_rows(SET.features, SET, People.read(COHORT, store), store)
    return x, mask


def test_what_a_node_takes_in_and_computes_is_found_by_a_feature_set(tmp_path: Path) -> None:
    """A watch's file and a score through the node's own ways in; the day after the index date is not seen."""
    ward, folder = Ward(tmp_path / "node"), tmp_path / "files"
    folder.mkdir()
    (folder / "signals.toml").write_text('[patients]\n"*" = "P-0042"\n')
    (folder / "people.facts").write_text(json.dumps([person("P-0042")]))
    days = [("2024-03-01", 60), ("2024-03-02", 80), ("2024-03-03", 110)]
    rates = [one for day, rate in days for one in hearts(day, [("10:00:00", rate), ("11:00:00", rate)])]
    (folder / "export.xml").write_bytes(export(*rates))
    (tmp_path / "home").mkdir()
    readers = (*ENTRIES, *(entry for entry in READERS if entry.name == "apple-health"))
    with OmopStore.open(tmp_path / "home" / "omop.duckdb") as store:
        Pipeline(store, ward.vault, CLOCK, readers=readers).ingest([folder])
        ((who, second_day),) = (
            store.cursor()
            .execute(
                "SELECT person_id, min(measurement_date) + INTERVAL 1 DAY FROM measurement"
                " WHERE measurement_source_value = 'heart_rate.mean.day' GROUP BY 1"
            )
            .fetchall()
        )
        put_index(store, who, second_day)
        scores = Scores("PGS000001", np.array([who]), np.array([0.5]), {"matched": 1}, 0)
        assert record(store, scores, genomes="g", scoring_sha256="a" * 64, now=CLOCK.now())["stored"] == 1
        x, mask = columns(store)
    assert x.tolist() == [[pytest.approx(0.25), pytest.approx(-0.25), 0.0]]  # 0.5 of ±2; 70 of 40 to 120
    assert mask.tolist() == [[True, True, False]]


def put_index(store: OmopStore, who: int, day: date) -> None:
    with store.writing() as cursor:
        cursor.execute(
            "INSERT INTO condition_occurrence (condition_occurrence_id, person_id, condition_concept_id,"
            " condition_start_date, condition_type_concept_id) VALUES (1, ?, 77, ?, 0)",
            [who, day],
        )


def test_several_codes_are_one_feature_and_another_code_is_not_it(tmp_path: Path) -> None:
    with OmopStore.open(tmp_path / "omop.duckdb") as store:
        with store.writing() as cursor:
            cursor.execute(
                "INSERT INTO person (person_id, year_of_birth, gender_concept_id, race_concept_id,"
                " ethnicity_concept_id) SELECT i, 1960, 0, 0, 0 FROM range(1, 4) r(i)"
            )
            for record_id, (who, code, found) in enumerate(
                [(1, "stat_mean", 25.0), (2, "stat_p90", 75.0), (3, "stat_cov", 99.0), (3, None, 99.0)]
            ):
                cursor.execute(
                    "INSERT INTO measurement (measurement_id, person_id, measurement_concept_id,"
                    " measurement_date, measurement_type_concept_id, measurement_source_value,"
                    " value_as_number) VALUES (?, ?, 0, '2020-01-01', 0, ?, ?)",
                    [record_id, who, code, found],
                )
        for who in (1, 2, 3):
            with store.writing() as cursor:
                cursor.execute(
                    "INSERT INTO condition_occurrence (condition_occurrence_id, person_id,"
                    " condition_concept_id, condition_start_date, condition_type_concept_id)"
                    " VALUES (?, ?, 77, '2020-01-02', 0)",
                    [who, who],
                )
        x, mask = columns(store)
    assert x[:, 2].tolist() == [-0.5, 0.5, 0.0]
    assert mask[:, 2].tolist() == [True, True, False]


def test_a_code_is_part_of_the_file_and_of_the_hash() -> None:
    again = FeatureSet.from_json(SET.to_json())
    assert again == SET
    assert again.hash() == SET.hash()
    assert of(value("score", "PGS000002", [-2, 2])).hash() != of(value("score", "PGS000001", [-2, 2])).hash()


@pytest.mark.parametrize(
    "wrong",
    [
        {"source_value": "Anna Schmidt, born 1960"},
        {"source_value": []},
        {"source_value": [7]},
        {"concept_id": 3004249},
        {"kind": "count", "table": "visit_occurrence", "most": 3},
        {"kind": "count", "table": "note_nlp", "most": 3},
    ],
)
def test_a_code_stands_alone_in_a_table_of_events(wrong: dict[str, Any]) -> None:
    form = value("score", "PGS000001", [-2, 2]) | wrong
    if "kind" in wrong:
        del form["range"], form["unitless"]
    with pytest.raises(MalformedStudy) as refused:
        of(form)
    assert refused.value.path == "features[0].source_value"
