"""A sign in a source's id never makes it a part of something; the same bytes of two wearers are two files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from node.ingest.facts import unmarked
from node.ingest.registry import READERS
from tests.node.ingest.fhir_resources import observation, quantity, read_lines
from tests.node.ingest.hl7v2_made import PID, message
from tests.node.ingest.test_claims_csv import RIF, carrier_line, write
from tests.node.made_facts import ENTRIES, Hospital, hospital, person
from tests.node.signals.made_signals import export, hearts

OBR = "OBR|1|P1|{}^LAB|24323-8^Panel^LN|||20200501070000|||||||||||||||20200501090000||CH|F"
RESULT = "OBX|1|NM|{}^Na^LN|1|{}|mmol/L|||||F"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = hospital(tmp_path, words=False)
    made.options["readers"] = (*ENTRIES, *READERS)
    yield made
    made.store.close()
    made.vault.close()


def test_orders_whose_numbers_hold_the_sign_are_orders_of_their_own(site: Hospital) -> None:
    """A history: all orders A#... were parts of one A, and the last took the place of the others."""
    for day, order in enumerate(("A#1", "A#2", "A"), 1):
        path = site.folder / f"m{day}.hl7"
        segments = (PID, OBR.format(order), RESULT.format("2951-2", 140 + day))
        path.write_bytes(message("ORU^R01", *segments, sent=f"202005{day:02d}120000+0200"))
        site.take(path)
    assert site.rows("SELECT value_as_number FROM measurement ORDER BY 1") == [(141.0,), (142.0,), (143.0,)]


def test_claims_whose_numbers_hold_the_sign_are_claims_of_their_own(site: Hospital) -> None:
    path = write(
        site.folder / "carrier.csv", RIF, carrier_line(1, CLM_ID="7#1"), carrier_line(1, CLM_ID="7#2")
    )
    (report,) = site.take(path).sources
    assert (report.records_in, report.stored) == (2, 2)
    assert len(site.rows("SELECT DISTINCT base_key_id FROM fedtwin_group")) == 2


def test_a_resource_whose_id_holds_the_sign_is_the_whole_of_its_components(tmp_path: Path) -> None:
    part = {"code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]}}
    found = observation(id="a#1", component=[part | {"valueQuantity": quantity(120, "mm[Hg]")}])
    found.pop("valueQuantity", None)
    keys = {row["key"] for row in read_lines(tmp_path, found).rows if row["kind"] == "measurement"}
    assert keys == {"Observation/a%231#component[0]"}


def test_ids_with_the_sign_keep_whole_and_part_apart() -> None:
    assert len({unmarked(name) for name in ("A#1", "A%231", "A%25231", "A")}) == 4
    assert all("#" not in unmarked(name) for name in ("A#1", "##", "a%#"))


def test_the_same_bytes_of_two_wearers_are_two_files(site: Hospital) -> None:
    """A history: the second wearer's file counted as unchanged."""
    data = export(*hearts("2024-03-01", [("10:00:00", 60), ("10:20:00", 80)]))
    for name in ("anna", "ben"):
        (site.folder / name).mkdir()
        (site.folder / name / "export.xml").write_bytes(data)
    (site.folder / "signals.toml").write_text('[patients]\n"anna/*" = "A"\n"ben/*" = "B"\n')
    site.write("people", [person("A")], [person("B")])
    assert len(site.take().fresh) == 3
    counted = site.rows(
        "SELECT person_id, value_as_number FROM measurement WHERE measurement_source_value ="
        " 'heart_rate.count.day' OR measurement_source_value LIKE '%heart_rate.count.day'"
    )
    assert {row[0] for row in counted} == {site.person_id("A"), site.person_id("B")}
    assert not site.take().fresh
    assert len(site.rows("SELECT DISTINCT source_sha256 FROM fedtwin_load")) == 3


def test_a_file_that_nobody_owned_is_taken_in_once_somebody_does(site: Hospital) -> None:
    (site.folder / "export.xml").write_bytes(export(*hearts("2024-03-01", [("10:00:00", 60)])))
    site.write("people", [person("A")])
    assert sum(source.quarantined for source in site.take().sources) == 1
    (site.folder / "signals.toml").write_text('[patients]\n"export.xml" = "A"\n')
    site.take()
    assert {row[0] for row in site.rows("SELECT person_id FROM measurement")} == {site.person_id("A")}
