"""Mapping by the command: starter vocabulary, suggestions in a file, a decision, what is in force."""

from pathlib import Path

from node.home import NodeHome
from node.omop.starter import VERSION
from node.omop.store import OmopStore
from tests.fedtwin.conftest import Fedtwin

RECORD = (
    "INSERT INTO condition_occurrence (condition_occurrence_id, person_id, condition_concept_id,"
    " condition_start_date, condition_type_concept_id, condition_source_value)"
    " VALUES (?, ?, 0, DATE '2020-01-01', 32817, ?)"
)


def test_a_label_is_suggested_decided_and_in_force(fedtwin: Fedtwin, hospital: Path, tmp_path: Path) -> None:
    said = fedtwin("node", "vocabulary", "starter", "--home", hospital, "--json")
    assert (said.json["version"], said.json["unchanged"]) == (VERSION, False)
    assert fedtwin("node", "vocabulary", "starter", "--home", hospital, "--json").json["unchanged"]
    with OmopStore.open(NodeHome(hospital).store) as store, store.writing() as writer:
        for number in range(3):
            writer.execute(RECORD, [number, number, "heart attack"])
    file = tmp_path / "review.csv"
    ask = ("node", "map", "suggest", "--no-model", "--output", file, "--home", hospital, "--json")
    said = fedtwin(*ask)
    assert said.json["suggestions"][0]["candidates"][0]["concept_id"] == 312327
    assert said.json["suggestions"][0]["records"] == "<11"
    assert fedtwin(*ask).code == 2  # somebody may have decided in it
    head, first, *rest = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([head, f"yes{first}", *rest]) + "\n", encoding="utf-8")
    reviewed = fedtwin("node", "map", "review", file, "--home", hospital, "--json")
    assert reviewed.json["mappings"][0]["concept_id"] == 312327
    assert fedtwin("node", "map", "list", "--home", hospital, "--json").json == {
        "version": None,
        "mappings": [],
    }
    accepted = fedtwin("node", "map", "accept", file, "--home", hospital, "--json")
    assert (accepted.json["new"], accepted.json["version"]) == (1, reviewed.json["version"])
    listed = fedtwin("node", "map", "list", "--home", hospital, "--json").json
    assert listed["version"] == accepted.json["version"]
    assert [(one["source_code"], one["concept_id"]) for one in listed["mappings"]] == [
        ("heart attack", 312327)
    ]


def test_a_wrong_review_file_is_refused_whole(fedtwin: Fedtwin, hospital: Path, tmp_path: Path) -> None:
    fedtwin("node", "vocabulary", "starter", "--home", hospital)
    file = tmp_path / "review.csv"
    for line in ("perhaps,any,code,312327", "yes,any,code,999999"):
        file.write_text(f"decision,source_vocabulary_id,source_code,concept_id\n{line}\n", encoding="utf-8")
        assert fedtwin("node", "map", "accept", file, "--home", hospital).code == 2
    assert fedtwin("node", "map", "list", "--home", hospital, "--json").json["mappings"] == []


def test_notes_are_read_into_note_nlp(fedtwin: Fedtwin, hospital: Path) -> None:
    fedtwin("node", "vocabulary", "starter", "--home", hospital)
    with OmopStore.open(NodeHome(hospital).store) as store, store.writing() as writer:
        writer.execute(
            "INSERT INTO note (note_id, person_id, note_date, note_type_concept_id, note_class_concept_id,"
            " note_text, encoding_concept_id, language_concept_id)"
            " VALUES (1, 1, DATE '2020-01-01', 32831, 0, 'No asthma. Has gout.', 0, 0)"
        )
    assert fedtwin("node", "notes", "--home", hospital, "--json").json == {"notes": 1, "mentions": 2}
