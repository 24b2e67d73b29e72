"""Where a node's questions are answered from, and which vocabulary its own store holds: by the command."""

import shutil
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from node.home import NodeHome
from node.omop.store import OmopStore
from node.stores import Stores
from privacy import private_files
from protocols.refusal import RefusalCode, Refused
from tests.bench.stores import make_store
from tests.fedtwin.conftest import Fedtwin
from tests.node.athena import VERSION, download
from tests.node.engines import copied, generated, make_generated, server

__all__ = ["generated", "server"]


def checks(found: dict) -> dict[str, tuple[str, str]]:
    return {check["check"]: (check["health"], check["seen"]) for check in found["checks"]}


def test_a_node_answers_from_the_warehouse_that_it_is_shown(
    fedtwin: Fedtwin, hospital: Path, tmp_path: Path
) -> None:
    warehouse = make_generated(tmp_path / "elsewhere.duckdb")
    said = fedtwin("node", "store", "set", warehouse, "--memory", "2GB", "--home", hospital, "--json")
    assert said.json == {
        "store": str(warehouse),
        "schema": None,
        "patients": 300,
        "vocabulary": True,
        "missing_tables": [],
    }
    config = NodeHome(hospital).config()
    assert (config.store, config.memory) == (str(warehouse), "2GB")
    shown = fedtwin("node", "store", "show", "--home", hospital, "--json")
    assert shown.json == {**said.json, "data_version": 0}
    doctor = fedtwin("node", "doctor", "--home", hospital, "--json")
    assert checks(doctor.json)["store"][0] == "OK"
    assert "300 patients" in checks(doctor.json)["store"][1]
    assert fedtwin("node", "status", "--home", hospital, "--json").json["patients"] == 300
    fedtwin("node", "store", "own", "--home", hospital)
    assert NodeHome(hospital).config().store == ""


def test_a_postgresql_warehouse_is_set_without_a_password(
    fedtwin: Fedtwin, hospital: Path, generated: Path, server: str
) -> None:
    copied(generated, "main", server, "hospital_cdm")
    said = fedtwin("node", "store", "set", server, "--schema", "hospital_cdm", "--home", hospital, "--json")
    assert (said.json["patients"], said.json["vocabulary"]) == (300, True)
    for url in ("postgresql://me:sesame@host/db", "postgresql://me@host/db?password=sesame"):
        refused = fedtwin("node", "store", "set", url, "--home", hospital)
        assert refused.code == 2
        assert "pgpass" in refused.err
        assert "sesame" not in refused.err + refused.out
    assert NodeHome(hospital).config().store == server


def test_a_warehouse_that_cannot_answer_is_not_set(
    fedtwin: Fedtwin, hospital: Path, tmp_path: Path, server: str
) -> None:
    before = NodeHome(hospital).config()
    for wrong in (
        tmp_path / "nothing.duckdb",
        "postgresql://nobody@/nothing?host=/nowhere",
        "mysql://host/db",
    ):
        assert fedtwin("node", "store", "set", wrong, "--home", hospital).code in (1, 2)
    with psycopg.connect(server) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS no_cdm")
    said = fedtwin("node", "store", "set", server, "--schema", "no_cdm", "--home", hospital)
    assert said.code == 2
    assert "person" in said.err
    assert NodeHome(hospital).config() == before


def test_a_change_that_the_database_does_not_show_is_announced(
    fedtwin: Fedtwin, hospital: Path, tmp_path: Path
) -> None:
    make_generated(tmp_path / "a.duckdb")
    fedtwin("node", "store", "set", tmp_path / "a.duckdb", "--home", hospital)
    epochs = []
    for _ in range(2):
        stores = Stores(NodeHome(hospital))
        epochs.append(stores.warehouse().epoch())
        stores.close()
        fedtwin("node", "store", "changed", "--home", hospital)
    assert epochs[0] != epochs[1]
    assert NodeHome(hospital).config().data_version == 2


def test_doctor_says_what_the_store_lacks(fedtwin: Fedtwin, hospital: Path, tmp_path: Path) -> None:
    path = NodeHome(hospital).store
    path.parent.mkdir(mode=0o700)
    make_store(path, persons=20, events=200, seed=1)
    health, seen = checks(fedtwin("node", "doctor", "--home", hospital, "--json").json)["store"]
    assert health == "WARN"
    assert "no vocabulary" in seen
    elsewhere = tmp_path / "elsewhere.duckdb"
    shutil.copyfile(path, elsewhere)
    fedtwin("node", "store", "set", elsewhere, "--home", hospital)
    elsewhere.unlink()
    health, seen = checks(fedtwin("node", "doctor", "--home", hospital, "--json").json)["store"]
    assert health == "FAIL"
    assert "no such file" in seen


def test_a_vocabulary_is_loaded_once_and_shown(fedtwin: Fedtwin, hospital: Path, tmp_path: Path) -> None:
    folder = download(tmp_path / "athena")
    nothing = fedtwin("node", "vocabulary", "show", "--home", hospital)
    assert nothing.code == 2
    said = fedtwin("node", "vocabulary", "load", folder, "--home", hospital, "--json")
    assert said.json == {
        "version": VERSION,
        "unchanged": False,
        "rows": {"concept": 4, "concept_ancestor": 4, "concept_relationship": 1, "vocabulary": 1},
        "quarantined": {"concept": 0, "concept_ancestor": 0, "concept_relationship": 0, "vocabulary": 0},
    }
    again = fedtwin("node", "vocabulary", "load", folder, "--home", hospital, "--json")
    assert again.json == {**said.json, "unchanged": True}
    shown = fedtwin("node", "vocabulary", "show", "--home", hospital, "--json").json
    assert (shown["version"], shown["concepts"]) == (VERSION, 4)
    wrong = fedtwin("node", "vocabulary", "load", tmp_path, "--home", hospital, "--json")
    assert wrong.code == 2
    assert wrong.json["error"] == "MalformedVocabulary"
    with OmopStore.open(NodeHome(hospital).store, read_only=True) as store:
        assert store.counts()["concept"] == 4


def test_a_serving_node_says_why_it_has_no_data(hospital: Path, tmp_path: Path) -> None:
    home = NodeHome(hospital)
    with pytest.raises(Refused) as nothing:
        Stores(home).warehouse()
    assert nothing.value.code is RefusalCode.NO_DATA
    config = replace(home.config(), store="postgresql://nobody@/nothing?host=/nowhere")
    private_files.write(home.config_file, config.to_toml().encode())
    with pytest.raises(Refused) as away:
        Stores(home).warehouse()
    assert away.value.code is RefusalCode.NOT_READY
    with pytest.raises(Refused) as own:
        Stores(home).store()
    assert own.value.code is RefusalCode.NO_DATA


def test_a_nodes_own_store_is_copied_to_postgresql(
    fedtwin: Fedtwin, hospital: Path, tmp_path: Path, server: str
) -> None:
    where = NodeHome(hospital).store
    where.parent.mkdir(parents=True, exist_ok=True)
    make_generated(tmp_path / "omop.duckdb")
    with OmopStore.open(tmp_path / "omop.duckdb"):
        pass  # makes the tables that generated stores lack
    shutil.copyfile(tmp_path / "omop.duckdb", where)
    command = ("node", "store", "copy", server, "--schema", "twins", "--home", hospital, "--json")
    first, again = fedtwin(*command), fedtwin(*command)
    assert (first.json["unchanged"], again.json["unchanged"]) == (False, True)
    assert first.json["rows"]["person"] == 300
    assert first.json["digest"] == again.json["digest"]
    said = fedtwin("node", "store", "set", server, "--schema", "twins", "--home", hospital, "--json")
    assert (said.json["patients"], said.json["missing_tables"]) == (300, [])
    for url in ("postgresql://me:sesame@host/db", "elsewhere.duckdb"):
        refused = fedtwin("node", "store", "copy", url, "--home", hospital)
        assert refused.code == 2
        assert "sesame" not in refused.err + refused.out
