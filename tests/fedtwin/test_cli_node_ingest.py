"""`fedtwin node ingest` and `sources`: what came of each source; and a patient who withdraws is gone."""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtwin.screen import Exit
from node.home import NodeHome
from tests.fedtwin.conftest import Fedtwin
from tests.node.ingest.fhir_resources import RXNORM, concept, observation, resource
from tests.node.ingest.made_837 import billing, interchange, professional, subscriber, transaction
from tests.node.signals.made_signals import export, hearts

VCF = "\n".join(
    (
        "##fileformat=VCFv4.2",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
        "##contig=<ID=chr1>",
        "\t".join(
            ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", "leaves", "stays"]
        ),
        "\t".join(["chr1", "100", "rs1", "A", "G", ".", "PASS", ".", "GT", "0/1", "1/1"]),
        "",
    )
)
BESIDE = {"fedtwin_withdrawn"}  # the one table that remembers who left, so that nothing brings them back


def write(folder: Path, name: str, *resources: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("".join(json.dumps(one) + "\n" for one in resources))
    return path


def about(patient: str) -> list[dict[str, Any]]:
    """Some resources of a patient."""
    whose = {"reference": f"Patient/{patient}"}
    return [
        resource("Patient", gender="female", birthDate="1960-02-03") | {"id": patient},
        resource("Encounter", status="finished", subject=whose, period={"start": "2020-02-03T04:00:00Z"},
                 **{"class": {"code": "AMB"}}) | {"id": f"e-{patient}"},
        resource("Condition", code=concept("44054006"), subject=whose, onsetDateTime="2020-02-03")
        | {"id": f"c-{patient}"},
        resource("MedicationRequest", status="active", intent="order", subject=whose,
                 medicationCodeableConcept=concept("860975", RXNORM), authoredOn="2020-02-03")
        | {"id": f"m-{patient}"},
        observation(id=f"o-{patient}", subject=whose, encounter={"reference": f"Encounter/e-{patient}"}),
    ]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What a hospital has of two patients: records, a watch's export, and a file that is none."""
    folder = tmp_path / "in"
    write(folder, "export.ndjson", *about("leaves"), *about("stays"), {"resourceType": "Location", "id": "l"})
    for rate, patient in ((60, "leaves"), (70, "stays")):
        (folder / f"watch-{patient}.xml").write_bytes(
            export(*hearts("2024-03-01", [("10:00:00", rate), ("10:30:00", 900)]))
        )
    (folder / "signals.toml").write_text(
        '[source]\nnamespace = "fhir"\n[patients]\n"watch-leaves*" = "leaves"\n"watch-stays*" = "stays"\n'
    )
    (folder / "README.md").write_text("not data")
    return folder


def rows(home: Path, statement: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(NodeHome(home).store), read_only=True) as store:
        return store.execute(statement).fetchall()


def traces(home: Path, person: int) -> dict[str, int]:
    """The tables that still know a person."""
    named = rows(
        home, "SELECT table_name FROM duckdb_columns() WHERE column_name = 'person_id' AND NOT internal"
    )
    found = {
        name: rows(home, f"SELECT count(*) FROM {name} WHERE person_id = {person}")[0][0]
        for (name,) in named
        if name not in BESIDE
    }
    return {name: count for name, count in found.items() if count}


def test_ingest_says_of_each_source_what_came_in_and_why_not(
    fedtwin: Fedtwin, hospital: Path, files: Path
) -> None:
    (files / "claims.x12").write_text(
        interchange([transaction(*billing(), *subscriber("M1"), *professional("C1")), "junk~"])
    )
    said = fedtwin("node", "ingest", files, "--home", hospital, "--json")
    assert said.code == Exit.OK
    sources = {one["source"]: one for one in said.json["sources"]}
    assert sources.keys() == {"export.ndjson", "watch-leaves.xml", "watch-stays.xml", "claims.x12"}
    for one in sources.values():
        assert one["records_in"] == one["stored"] + one["quarantined"]
        assert one["quarantined"] == sum(one["reasons"].values())
        assert one["seconds"] >= 0
    assert {
        name: (one["format"], one["records_in"], one["stored"], one["reasons"])
        for name, one in sources.items()
        if name != "claims.x12"
    } == {
        "export.ndjson": ("fhir", 11, 10, {"not-clinical": 1}),
        "watch-leaves.xml": ("apple-health", 2, 1, {"implausible-value": 1}),
        "watch-stays.xml": ("apple-health", 2, 1, {"implausible-value": 1}),
    }
    assert sources["export.ndjson"]["records"]["visit_occurrence"] == 2
    assert said.json["without_mapping"] == ["README.md"]
    again = fedtwin("node", "ingest", files, "--home", hospital, "--json")
    assert again.json["unchanged"] == 4
    assert {one["source"]: one["records_in"] for one in again.json["sources"]} == {
        name: one["records_in"] for name, one in sources.items()
    }


def test_a_patient_who_withdraws_consent_is_gone_and_stays_gone(
    fedtwin: Fedtwin, hospital: Path, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.vcf").write_text(VCF)
    assert fedtwin("node", "ingest", files, "--home", hospital, "--json").json["patients"] == 2
    genes = fedtwin(
        "node", "load-genomes", tmp_path / "a.vcf", "--namespace", "fhir", "--build", "GRCh38",
        "--home", hospital, "--json",
    )  # fmt: skip
    assert genes.json["persons"] == 2
    people = {person for (person,) in rows(hospital, "SELECT person_id FROM person")}

    consent = write(
        tmp_path / "consents",
        "Consent.ndjson",
        resource(
            "Consent",
            status="inactive",
            scope=concept("research", "http://terminology.hl7.org/CodeSystem/consentscope"),
            patient={"reference": "Patient/leaves"},
            dateTime="2024-05-05T10:00:00Z",
        ),
    )
    said = fedtwin("node", "ingest", consent, "--home", hospital, "--json")
    assert (said.json["sources"][0]["stored"], said.json["patients"]) == (1, 1)
    (left,) = people - {person for (person,) in rows(hospital, "SELECT person_id FROM person")}
    (stays,) = people - {left}

    assert traces(hospital, left) == {}
    assert traces(hospital, stays)["fedtwin_provenance"] >= 5
    assert fedtwin("node", "timeline", left, "--home", hospital, "--json").code == Exit.USAGE
    assert fedtwin("node", "timeline", stays, "--home", hospital, "--json").json["events"]
    names = [str(path.relative_to(hospital)) for path in hospital.rglob("*")]
    assert not [name for name in names if f"{left:016x}" in name]
    assert [name for name in names if f"{stays:016x}" in name]
    scored = fedtwin("node", "load-genomes", tmp_path / "a.vcf", "--namespace", "fhir", "--build", "GRCh38",
                     "--home", hospital, "--json")  # fmt: skip
    assert scored.json["persons"] == 1

    more = write(tmp_path / "more", "later.ndjson", *about("leaves"))
    told = fedtwin("node", "ingest", more, "--home", hospital, "--json").json["sources"][0]
    assert (told["stored"], told["quarantined"], told["reasons"]) == (0, 5, {"withdrawn": 5})
    assert traces(hospital, left) == {}
    events = [line["event"] for line in fedtwin("node", "audit", "tail", "--home", hospital, "--json").json]
    assert events.count("ingested") >= 5


def test_sources_says_what_the_data_came_by(fedtwin: Fedtwin, hospital: Path, files: Path) -> None:
    (hospital / "sources.toml").write_text(
        '[sources.fhir]\nowner = "Clinical informatics"\nrefresh = "nightly"\n[sources.hl7v2]\nowner = "IT"\n'
    )
    began = datetime.now(UTC)
    fedtwin("node", "ingest", files, "--home", hospital)
    said = fedtwin("node", "sources", "--home", hospital, "--json").json
    assert said["not_loaded"] == ["hl7v2"]
    by_name = {one["source"]: one for one in said["sources"]}
    assert by_name.keys() == {"fhir", "apple-health"}
    fhir, watch = by_name["fhir"], by_name["apple-health"]
    assert (fhir["format"], fhir["owner"], fhir["refresh"]) == ("fhir", "Clinical informatics", "nightly")
    assert (watch["owner"], watch["refresh"], watch["files"]) == (None, None, 2)
    assert (fhir["files"], fhir["records_in"], fhir["stored"], fhir["quarantined"]) == (1, 11, 10, 1)
    assert (watch["records_in"], watch["stored"], watch["quarantined"]) == (4, 2, 2)
    assert fhir["records"] == {
        "condition_occurrence": 2, "drug_exposure": 2, "measurement": 2, "person": 2, "visit_occurrence": 2,
    }  # fmt: skip
    assert began <= datetime.fromisoformat(fhir["last_load"]) <= datetime.now(UTC)
    assert fhir["first_load"] <= fhir["last_load"]
    assert (fhir["dated"], fhir["valued"], fhir["with_unit"]) == (1.0, 1.0, 1.0)
    assert 0 <= fhir["mapped"] <= 1
    words = fedtwin("node", "sources", "--home", hospital).out
    for word in ("Clinical informatics", "nightly", "11 in, 10 stored, 1 turned away", "dated 100%"):
        assert word in words


def test_ingest_says_how_genotypes_come_in(
    fedtwin: Fedtwin, hospital: Path, files: Path, tmp_path: Path
) -> None:
    (tmp_path / "genes").mkdir()
    (tmp_path / "genes" / "a.vcf").write_text(VCF)
    alone = fedtwin("node", "ingest", tmp_path / "genes", "--home", hospital)
    assert alone.code == Exit.USAGE
    assert "load-genomes" in alone.err
    (files / "a.vcf").write_text(VCF)
    among = fedtwin("node", "ingest", files, "--home", hospital)
    assert among.code == Exit.OK
    assert "load-genomes" in among.err
    assert "README.md: fits no mapping and no reader" in among.err


LABS_OF_A_DATABASE = """
[source]
name = "labs"
version = 1
sql = { table = "lab", key = ["id"] }
[patient]
column = "mrn"
[person]
year_of_birth = "born"
[date]
column = "day"
[[events]]
table = "measurement"
column = "value"
concept_id = 3004249
"""


def test_rows_of_a_database_and_a_parquet_file_come_in_by_a_mapping(
    fedtwin: Fedtwin, hospital: Path, tmp_path: Path
) -> None:
    table = {
        "id": [1, 2, 3],
        "mrn": ["a", "b", None],
        "born": [1950, 1960, 1970],
        "day": ["2020-01-01"] * 3,
        "value": [120.0, 130.0, 140.0],
    }
    database = tmp_path / "lab.sqlite"
    with sqlite3.connect(database) as lab:
        lab.execute("CREATE TABLE lab (id INTEGER, mrn TEXT, born INTEGER, day TEXT, value REAL)")
        lab.executemany("INSERT INTO lab VALUES (?, ?, ?, ?, ?)", zip(*table.values(), strict=True))
    lab.close()
    mapping = tmp_path / "labs.toml"
    mapping.write_text(LABS_OF_A_DATABASE)
    command = ("node", "ingest", "--sql", f"sqlite:///{database}", "--mapping", mapping, "--home", hospital)
    (one,) = fedtwin(*command, "--json").json["sources"]
    assert (one["source"], one["format"]) == ("sqlite:lab.sqlite labs", "sql")
    assert (one["records_in"], one["stored"], one["reasons"]) == (3, 2, {"missing-patient": 1})
    assert fedtwin(*command, "--json").json["unchanged"] == 1
    parquet = tmp_path / "labs.parquet"
    pq.write_table(pa.table(table), parquet)
    (one,) = fedtwin("node", "ingest", parquet, "--mapping", mapping, "--home", hospital, "--json").json[
        "sources"
    ]
    assert (one["format"], one["records_in"], one["stored"]) == ("parquet", 3, 2)
    parquet.write_bytes(parquet.read_bytes()[:-20])
    said = fedtwin("node", "ingest", parquet, "--mapping", mapping, "--home", hospital)
    assert said.code == Exit.FAULT
    assert "damaged" in said.err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((), "--sql URL"),
        (("--sql", "sqlite:///lab.sqlite"), "--mapping"),
        (("--sql", "postgresql://u:secret@db/lab", "--mapping", "labs.toml"), "no password"),
        (("--sql", "sqlite:///lab.sqlite", "--mapping", "files.toml"), "which rows"),
    ],
)
def test_a_database_needs_a_mapping_of_its_rows_and_no_password(
    fedtwin: Fedtwin, hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...], word: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labs.toml").write_text(LABS_OF_A_DATABASE)
    rows = 'sql = { table = "lab", key = ["id"] }'
    (tmp_path / "files.toml").write_text(LABS_OF_A_DATABASE.replace(rows, 'files = ["labs*"]'))
    said = fedtwin("node", "ingest", *options, "--home", hospital)
    assert said.code == Exit.USAGE
    assert word in said.err
    assert "secret" not in said.err
