"""`fedtwin node ingest` of files that cannot be read, and with a copy of what it gave to PostgreSQL."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from fedtwin.screen import Exit
from node.home import NodeHome
from privacy import private_files
from tests.fedtwin.conftest import Fedtwin
from tests.node.engines import server
from tests.node.test_ingest import LABS, LABS_HEADER, PATIENTS, PEOPLE, RESULTS

__all__ = ["server"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    (made / "patients.toml").write_text(PATIENTS)
    (made / "labs.toml").write_text(LABS)
    (made / "patients.csv").write_text(PEOPLE)
    (made / "labs1.csv").write_text(RESULTS)
    return made


def test_files_that_cannot_be_read_are_named_the_others_loaded_and_the_exit_code_says_so(
    fedtwin: Fedtwin, hospital: Path, folder: Path
) -> None:
    (folder / "labs2.csv").write_text(RESULTS.replace("value", "amount"))
    (folder / "labs3.csv").write_bytes(RESULTS.replace("unit", "unité").encode("latin-1"))
    (folder / "labs4.csv.gz").write_bytes(gzip.compress(RESULTS.encode())[:-9])
    (folder / "labs5.csv").write_text(f"{LABS_HEADER}\nA-1,2020-03-01 08:30,SBP,150,mm[Hg],V9\n")
    told = fedtwin("node", "ingest", folder, "--home", hospital, "--json")
    assert told.code == Exit.FAULT
    found = {source["source"]: source for source in told.json["sources"]}
    assert found["labs2.csv"]["unreadable"] == "the mapping's column 'value' is not in the header"
    assert found["labs3.csv"]["unreadable"] == "the header is not utf-8 text"
    assert found["labs4.csv.gz"]["unreadable"] == "damaged: cannot be unpacked"
    for source in found.values():
        assert source["records_in"] == source["stored"] + source["quarantined"]
        assert not source["unreadable"] or source["records_in"] == 0
    assert [found[name]["stored"] for name in ("patients.csv", "labs1.csv", "labs5.csv")] == [2, 3, 1]
    assert len(told.json["unreadable"]) == 3
    words = fedtwin("node", "ingest", folder, "--home", hospital)
    assert words.code == Exit.FAULT
    assert "labs2.csv: the mapping's column 'value'" in words.err + words.out
    for name in ("labs2.csv", "labs3.csv", "labs4.csv.gz"):
        (folder / name).unlink()
    assert fedtwin("node", "ingest", folder, "--home", hospital, "--json").code == Exit.OK


def test_what_came_in_is_copied_to_postgresql_and_the_same_again_is_left_alone(
    fedtwin: Fedtwin, hospital: Path, folder: Path, server: str
) -> None:
    command = ("node", "ingest", folder, "--copy-to", server, "--copy-schema", "intwins", "--home", hospital)
    first = fedtwin(*command, "--json").json["copy"]
    assert (first["schema"], first["unchanged"]) == ("intwins", False)
    assert (first["rows"]["person"], first["rows"]["measurement"]) == (2, 3)
    again = fedtwin(*command, "--json").json["copy"]
    assert (again["unchanged"], again["digest"]) == (True, first["digest"])
    (folder / "labs5.csv").write_text(f"{LABS_HEADER}\nA-1,2020-03-01 08:30,SBP,150,mm[Hg],V9\n")
    more = fedtwin(*command, "--json").json["copy"]
    assert (more["unchanged"], more["rows"]["measurement"]) == (False, 4)
    assert "was there already" in fedtwin(*command).err


def test_a_copy_to_what_is_no_postgresql_is_refused_before_anything_is_taken_in(
    fedtwin: Fedtwin, hospital: Path, folder: Path
) -> None:
    for url in ("elsewhere.duckdb", "postgresql://me:sesame@host/db"):
        refused = fedtwin("node", "ingest", folder, "--copy-to", url, "--home", hospital)
        assert refused.code == Exit.USAGE
        assert "sesame" not in refused.err + refused.out
    assert not NodeHome(hospital).store.exists()


def test_a_node_whose_questions_read_postgresql_is_told_that_they_do_not_see_it(
    fedtwin: Fedtwin, hospital: Path, folder: Path
) -> None:
    home = NodeHome(hospital)
    config = replace(home.config(), store="postgresql://fedtwin@host/omop")
    private_files.write(home.config_file, config.to_toml().encode())
    said = fedtwin("node", "ingest", folder, "--home", hospital)
    assert "--copy-to" in said.err
