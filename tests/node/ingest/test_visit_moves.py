"""A visit of the wrong patient moves to the right one with all that was told in it, in whatever order."""

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from node.ingest.registry import READERS
from node.omop.derived import content_digests
from node.timeline import timeline
from node.timeline_sql import Scope
from tests.node.ingest.hl7v2_made import PID, PV1, message
from tests.node.made_facts import Hospital, hospital

WRONG = PID.replace("M1", "M9")
OBR = "OBR|1|P1|F1^LAB|24323-8^Panel^LN|||20200501070000|||||||||||||||20200501090000||CH|F"
SODIUM = "OBX|1|NM|2951-2^Na^LN|1|{}|mmol/L|||||{}"
MOVE = "MRG|M9^^^GHH^MR||||V1^^^GHH^VN"
OTHER_NUMBER = PV1.replace("V1^^^GHH", "V2^^^GHH")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = ready(tmp_path)
    yield made
    made.store.close()
    made.vault.close()


def ready(where: Path) -> Hospital:
    made = hospital(where, words=False)
    made.options["readers"] = tuple(entry for entry in READERS if entry.name == "hl7v2")
    made.vault.pseudonyms(["M1", "M9", "M3"], namespace="GHH")
    return made


def told(site: Hospital, name: str, kind: str, *segments: str, day: int) -> Path:
    path = site.folder / f"{name}.hl7"
    path.write_bytes(message(kind, *segments, sent=f"202005{day:02d}120000+0200"))
    return path


def result(site: Hospital, name: str, value: int, *, day: int, pid: str = WRONG, visit: str = PV1,
           status: str = "F") -> Path:  # fmt: skip
    return told(site, name, "ORU^R01", pid, visit, OBR, SODIUM.format(value, status), day=day)


def whose(site: Hospital) -> list[tuple[Any, ...]]:
    """Whose results there are, and whether they are in the visit that there is."""
    return site.rows(
        "SELECT person_id, value_as_number, visit_occurrence_id IN"
        " (SELECT visit_occurrence_id FROM visit_occurrence v WHERE v.person_id = m.person_id)"
        " FROM measurement m ORDER BY 2"
    )


def test_results_and_diagnoses_move_with_their_dates_and_are_in_the_visit(site: Hospital) -> None:
    site.take(told(site, "a", "ADT^A01", WRONG, PV1, "DG1|1||I21.9^MI^I10C||20200511", day=1))
    site.take(result(site, "b", 140, day=2))
    site.take(told(site, "c", "ADT^A45", PID, MOVE, OTHER_NUMBER, day=3))
    right = site.person_id("M1", "GHH")
    assert whose(site) == [(right, 140.0, True)]
    shift = int(site.vault.pseudonyms(["M1"], namespace="GHH").shift_days[0])
    for table, date in (("measurement", "2020-05-01"), ("condition_occurrence", "2020-05-11")):
        column = "measurement_date" if table == "measurement" else "condition_start_date"
        assert site.rows(f"SELECT person_id, {column} - DATE '{date}' FROM {table}") == [(right, shift)]
    left = timeline(site.store, Scope(site.person_id("M9", "GHH")))
    assert left.num_rows == 0
    assert site.rows("SELECT person_id FROM condition_era UNION ALL SELECT person_id FROM observation_period"
                     " WHERE person_id <> 0") == [(right,)]  # fmt: skip


def test_a_result_that_comes_after_the_move_under_the_old_number_goes_the_same_way(site: Hospital) -> None:
    site.take(told(site, "a", "ADT^A01", WRONG, PV1, day=1))
    site.take(told(site, "b", "ADT^A45", PID, MOVE, PV1, day=3))
    site.take(result(site, "c", 140, day=4))
    assert whose(site) == [(site.person_id("M1", "GHH"), 140.0, True)]


def test_a_correction_under_the_right_patient_takes_the_place_of_what_moved(site: Hospital) -> None:
    site.take(told(site, "a", "ADT^A01", WRONG, PV1, day=1))
    site.take(result(site, "b", 140, day=2))
    site.take(told(site, "c", "ADT^A45", PID, MOVE, PV1, day=3))
    site.take(result(site, "d", 141, day=4, pid=PID, status="C"))
    right = site.person_id("M1", "GHH")
    assert whose(site) == [(right, 141.0, True)]
    site.take(result(site, "e", 0, day=5, pid=PID, status="D"))
    assert whose(site) == []


def test_what_moved_leaves_no_version_with_the_wrong_patient(site: Hospital) -> None:
    site.take(told(site, "a", "ADT^A01", WRONG, PV1, day=1))
    site.take(result(site, "b", 140, day=2))
    site.take(result(site, "c", 141, day=3, status="C"))
    site.take(told(site, "d", "ADT^A45", PID, MOVE, PV1, day=4))
    right = site.person_id("M1", "GHH")
    assert site.rows("SELECT person_id, value_as_number FROM fedtwin_former_measurement") == [(right, 140.0)]
    assert whose(site) == [(right, 141.0, True)]


def test_a_visit_that_moves_on_ends_with_the_last_and_with_whoever_that_is(site: Hospital) -> None:
    site.take(told(site, "a", "ADT^A01", WRONG, PV1, day=1))
    site.take(result(site, "b", 140, day=2))
    site.take(told(site, "c", "ADT^A45", PID, MOVE, OTHER_NUMBER, day=3))
    third, on = PID.replace("M1", "M3"), "MRG|M1^^^GHH^MR||||V2^^^GHH^VN"
    site.take(told(site, "d", "ADT^A45", third, on, PV1.replace("V1^", "V3^"), day=4))
    assert whose(site) == [(site.person_id("M3", "GHH"), 140.0, True)]
    site.take(told(site, "e", "ADT^A40", PID, "MRG|M3^^^GHH^MR", day=5))
    assert whose(site) == [(site.person_id("M1", "GHH"), 140.0, True)]


def test_another_number_of_the_same_patients_visit_keeps_its_results(site: Hospital) -> None:
    site.take(told(site, "a", "ADT^A01", PID, PV1, day=1))
    site.take(result(site, "b", 140, day=2, pid=PID))
    site.take(told(site, "c", "ADT^A50", PID, "MRG|M1^^^GHH^MR||||V1^^^GHH^VN", OTHER_NUMBER, day=3))
    assert whose(site) == [(site.person_id("M1", "GHH"), 140.0, True)]


def test_messages_in_any_order_and_again_give_the_same_store(tmp_path: Path) -> None:
    found = []
    for place, order in enumerate([*permutations(range(4))][::5]):
        site = ready(tmp_path / str(place))
        files = [
            told(site, "a", "ADT^A01", WRONG, PV1, "DG1|1||I21.9^MI^I10C||20200511", day=1),
            result(site, "b", 140, day=2),
            told(site, "c", "ADT^A45", PID, MOVE, OTHER_NUMBER, day=3),
            result(site, "d", 141, day=4, status="C"),
        ]
        for number in order:
            site.take(files[number])
        assert whose(site) == [(site.person_id("M1", "GHH"), 141.0, True)]
        found.append(content_digests(site.store.connection.con))
        if not place:
            assert not site.take(*files).fresh
        site.store.close()
        site.vault.close()
    assert all(one == found[0] for one in found)


@pytest.mark.parametrize("who", ["M1", "M9"])
@pytest.mark.parametrize("late", [False, True])
def test_what_moved_leaves_with_either_patient(site: Hospital, who: str, late: bool) -> None:
    """A person's withdrawal comes as FHIR's Consent does: here as the facts of another reader."""
    site.take(told(site, "a", "ADT^A01", WRONG, PV1, day=1))
    files = [result(site, "b", 140, day=2), told(site, "c", "ADT^A45", PID, MOVE, PV1, day=3)]
    from tests.node.made_facts import ENTRIES

    left = {"kind": "person", "patient": who, "patient_namespace": "GHH", "action": "withdraw"}
    gone = site.write("left", [left])
    for path in files if not late else files[1:]:
        site.take(path)
    site.take(gone, readers=ENTRIES)
    if late:
        site.take(files[0])
    for table in ("measurement", "fedtwin_waiting_measurement", "fedtwin_former_measurement"):
        assert site.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    assert site.rows("SELECT count(*) FROM fedtwin_provenance WHERE table_name = 'measurement'") == [(0,)]
    assert site.rows("SELECT count(*) FROM fedtwin_moved") == [(0,)]
