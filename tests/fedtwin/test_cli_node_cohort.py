"""`fedtwin node cohort`: one number for the hospital's own staff, or a clear reason."""

import json
from pathlib import Path

import duckdb
import pytest

from fedtwin.screen import Exit
from tests.bench.stores import concepts_of, make_store
from tests.circe_forms import NEW_CONCEPT, concept_set, definition
from tests.fedtwin.conftest import Fedtwin

CONDITIONS = concepts_of("condition_occurrence", 3)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = make_store(tmp_path / "omop.duckdb", persons=60, events=1_500, seed=2)
    with duckdb.connect(str(path)) as made:
        for concept in CONDITIONS:
            made.execute(NEW_CONCEPT, [concept])
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """One question in both forms."""
    circe, ours = tmp_path / "circe.json", tmp_path / "ours.json"
    occurrence = {"ConditionOccurrence": {"CodesetId": 7}}
    circe.write_text(json.dumps(definition(occurrence, sets=[concept_set(7, CONDITIONS)])))
    ours.write_text(json.dumps({"index": {"kind": "condition", "concepts": CONDITIONS}}))
    return {"circe": circe, "ours": ours}


@pytest.mark.parametrize("form", ["circe", "ours"])
@pytest.mark.parametrize("scheme", ["", "duckdb://"])
def test_it_prints_the_exact_number(
    fedtwin: Fedtwin, store: Path, files: dict[str, Path], form: str, scheme: str
) -> None:
    with duckdb.connect(str(store), read_only=True) as opened:
        row = opened.execute(
            "SELECT count(DISTINCT person_id) FROM condition_occurrence"
            " WHERE condition_concept_id IN (?, ?, ?)",
            CONDITIONS,
        ).fetchone()
    said = fedtwin("node", "cohort", files[form], "--store", f"{scheme}{store}", "--json")
    assert said.code == Exit.OK, said.err
    assert row is not None
    assert said.json == {"persons": row[0]}
    assert fedtwin("node", "cohort", files[form], "--store", store).out == f"persons: {row[0]}\n"


def test_what_is_wrong_is_said_with_its_exit_code(
    fedtwin: Fedtwin, store: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(
        files["circe"].read_text().replace('"CensorWindow": {}', '"CensorWindow": {"EndDate": "x"}')
    )
    said = fedtwin("node", "cohort", wrong, "--store", store, "--json")
    assert (said.code, said.json["error"]) == (Exit.USAGE, "MalformedCohort")
    assert "CensorWindow.EndDate" in said.err
    for arguments in (
        (tmp_path / "no.json", "--store", store),
        (files["ours"], "--store", store, "--schema", "elsewhere"),
        (files["ours"], "--store", "mysql://host/db"),
        (files["ours"], "--store", store, "--memory-limit", "all of it"),
    ):
        assert fedtwin("node", "cohort", *arguments, "--json").code == Exit.USAGE
    assert fedtwin("node", "cohort", files["ours"], "--store", wrong, "--json").code == Exit.FAULT


def test_it_explains_itself(fedtwin: Fedtwin) -> None:
    said = fedtwin("node", "cohort", "--help")
    assert said.code == Exit.OK
    assert "--json" in said.out
