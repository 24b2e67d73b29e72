"""A hospital's feed over days, message by message, as it stands in the store in the end."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from deid.vault import PseudonymKey, Vault
from node.ingest.errors import MalformedMapping
from node.ingest.fact_rules import FactRules, read_rules
from node.ingest.pipeline import Pipeline, SourceReport
from node.ingest.readers.hl7v2 import Hl7v2Reader
from node.omop import starter
from node.omop.store import OmopStore
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from tests.node.ingest.hl7v2_made import PID, PV1, message

SHORT_PID = "PID|1||M1^^^GHH^MR||Doe||19610615|F"
OBR = "OBR|1|P1|F1^LAB|24323-8^Panel^LN|||20200501070000|||||||||||||||20200501090000||CH|F"
SODIUM = "OBX|1|NM|2951-2^Na^LN|1|{value}|mmol/L|||||{status}"


class Feed:
    """A store that takes one message a load."""

    def __init__(self, folder: Path, store: OmopStore, vault: Vault) -> None:
        self._folder = folder
        self._store = store
        self._vault = vault
        self.rules = FactRules()
        self._loads = 0

    def take(self, kind: str, *segments: str, day: int, offset: str = "+0200") -> SourceReport:
        """Load a message that was sent on a day of May."""
        self._loads += 1
        path = self._folder / f"messages{self._loads}.hl7"
        path.write_bytes(message(kind, *segments, sent=f"202005{day:02d}120000{offset}"))
        pipeline = Pipeline(self._store, self._vault, SystemClock(), rules=self.rules)
        (source,) = pipeline.ingest([path]).sources
        assert source.records_in == source.stored + source.quarantined == 1
        return source

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what the store says."""
        return self._store.connection.con.execute(query).fetchall()


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    vault = Vault.open(tmp_path / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SecureBits())
    with closing(vault), OmopStore.open(tmp_path / "omop.duckdb") as store:
        starter.ensure(store, now=SystemClock().now())
        yield Feed(tmp_path, store, vault)


def test_a_result_is_corrected_and_then_taken_back(feed: Feed) -> None:
    values = "SELECT value_as_number FROM measurement"
    feed.take("ORU^R01", SHORT_PID, PV1, OBR, SODIUM.format(value=140, status="F"), day=2)
    assert feed.rows(values) == [(140.0,)]
    feed.take("ORU^R01", SHORT_PID, PV1, OBR, SODIUM.format(value=141, status="C"), day=3)
    assert feed.rows(values) == [(141.0,)]
    feed.take("ORU^R01", SHORT_PID, PV1, OBR, SODIUM.format(value="", status="D"), day=4)
    assert feed.rows(values) == []


def test_an_older_message_that_comes_late_changes_nothing(feed: Feed) -> None:
    feed.take("ORU^R01", SHORT_PID, OBR, SODIUM.format(value=141, status="C"), day=3)
    feed.take("ORU^R01", SHORT_PID, OBR, SODIUM.format(value=140, status="F"), day=2)
    assert feed.rows("SELECT value_as_number FROM measurement") == [(141.0,)]


def test_a_short_pid_of_a_result_does_not_erase_what_the_registration_said(feed: Feed) -> None:
    feed.take("ADT^A28", PID, day=1)
    feed.take("ORU^R01", SHORT_PID, OBR, SODIUM.format(value=140, status="F"), day=2)
    assert feed.rows("SELECT gender_concept_id, race_source_value FROM person") == [(8532, "2106-3")]


def test_a_visit_is_admitted_discharged_opened_again_and_cancelled(feed: Feed) -> None:
    visits = "SELECT visit_concept_id, visit_end_date - visit_start_date FROM visit_occurrence"
    feed.take("ADT^A01", PID, PV1, day=1)
    assert feed.rows(visits) == [(9201, 0)]
    feed.take("ADT^A03", PID, PV1 + "20200505090000+0200", day=5)
    assert feed.rows(visits) == [(9201, 4)]
    feed.take("ADT^A13", PID, PV1, day=6)
    assert feed.rows(visits) == [(9201, 0)]
    feed.take("ADT^A11", PID, PV1, day=7)
    assert feed.rows(visits) == []


def test_an_update_without_the_admissions_time_leaves_the_visit_as_it_is(feed: Feed) -> None:
    visits = "SELECT visit_concept_id FROM visit_occurrence"
    feed.take("ADT^A01", PID, PV1, day=1)
    feed.take("ADT^A08", PID, PV1.replace("20200501080000", ""), day=2)
    assert feed.rows(visits) == [(9201,)]


def test_a_visit_of_the_wrong_patient_moves_to_the_right_one(feed: Feed) -> None:
    feed.take("ADT^A01", PID.replace("M1", "M9"), PV1, day=1)
    feed.take("ADT^A28", PID, day=1)
    feed.take("ADT^A45", PID, "MRG|M9^^^GHH^MR||||V1^^^GHH^VN", PV1, day=2)
    ((visitor,),) = feed.rows("SELECT person_id FROM visit_occurrence")
    assert feed.rows("SELECT count(*) FROM person") == [(2,)]
    feed.take("ORU^R01", SHORT_PID, PV1, OBR, SODIUM.format(value=140, status="F"), day=3)
    assert feed.rows("SELECT person_id FROM measurement") == [(visitor,)]


def test_merged_patients_are_one_person_with_the_records_of_both(feed: Feed) -> None:
    feed.take("ORU^R01", SHORT_PID, OBR, SODIUM.format(value=140, status="F"), day=2)
    feed.take("ADT^A28", SHORT_PID.replace("M1", "M2"), day=3)
    assert feed.rows("SELECT count(*) FROM person") == [(2,)]
    feed.take("ADT^A40", SHORT_PID.replace("M1", "M2"), "MRG|M1^^^GHH^MR", day=4)
    assert feed.rows("SELECT count(*) FROM person") == [(1,)]
    assert feed.rows("SELECT value_as_number FROM measurement JOIN person USING (person_id)") == [(140.0,)]


def test_dates_keep_their_distance_and_no_number_of_the_hospital_is_stored(feed: Feed) -> None:
    feed.take("ADT^A01", PID, PV1, "DG1|1||I21.9^MI^I10C||20200511", day=12)
    ((begun, diagnosed),) = feed.rows(
        "SELECT visit_start_date, condition_start_date FROM visit_occurrence JOIN condition_occurrence"
        " USING (person_id)"
    )
    assert diagnosed - begun == timedelta(days=10)
    ((number, source),) = feed.rows("SELECT person_id, person_source_value FROM person")
    assert "M1" not in str(source)
    assert number > 0


@pytest.mark.parametrize(
    ("zone", "offset", "minutes"),
    [
        ("", "", None),
        ("Europe/Berlin", "", 120),
        ("America/New_York", "", -240),
        ("Europe/Berlin", "+0000", 0),
    ],
)
def test_a_time_without_an_offset_is_by_the_hospitals_clock(feed: Feed, zone, offset, minutes) -> None:
    feed.rules = FactRules(zone=zone)
    feed.take("ORU^R01", SHORT_PID, OBR, SODIUM.format(value=140, status="F"), day=2, offset=offset)
    assert feed.rows(
        "SELECT utc_offset_min, hour(measurement_datetime), minute(measurement_datetime)"
        " FROM measurement JOIN fedtwin_provenance ON record_id = measurement_id"
        " WHERE table_name = 'measurement'"
    ) == [(minutes, 7, 0)]


def test_a_load_by_another_clock_is_another_load(feed: Feed, tmp_path: Path) -> None:
    assert Hl7v2Reader().in_zone("Europe/Berlin").version != Hl7v2Reader().version
    path = tmp_path / "ingest.toml"
    path.write_text('[time]\nzone = "Europe/Berlin"\n')
    assert read_rules(path).zone == "Europe/Berlin"
    for wrong in (
        'zone = "Mars/Olympus"',
        'zone = "../../etc/passwd"',
        'zone = ""',
        "zone = 1",
        'zone = "UTC"\nx = 1',
        "",
    ):
        path.write_text(f"[time]\n{wrong}\n")
        with pytest.raises(MalformedMapping):
            read_rules(path)
