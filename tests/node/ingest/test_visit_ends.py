"""A discharge that says not when the visit began ends it; nothing says a beginning that nobody told."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
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

NO_START = PV1.replace("20200501080000", "")
ENDED = NO_START + "20200504090000+0200"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = ready(tmp_path)
    yield made
    made.store.close()
    made.vault.close()


def ready(where: Path) -> Hospital:
    made = hospital(where, words=False)
    made.options["readers"] = tuple(entry for entry in READERS if entry.name == "hl7v2")
    made.vault.pseudonyms(["M1", "M2"], namespace="GHH")  # the same secrets whoever comes first
    return made


def told(site: Hospital, name: str, event: str, *segments: str, day: int) -> Path:
    path = site.folder / f"{name}.hl7"
    path.write_bytes(message(f"ADT^{event}", *segments, sent=f"202005{day:02d}120000+0200"))
    return path


def visits(site: Hospital) -> list[tuple[Any, ...]]:
    """Days of beginning and end, as the source had them."""
    shift = int(site.vault.pseudonyms(["M1"], namespace="GHH").shift_days[0])
    return site.rows(
        f"SELECT CAST(CAST(visit_start_date - {shift} AS DATE) AS VARCHAR),"
        f" CAST(CAST(visit_end_date - {shift} AS DATE) AS VARCHAR), visit_concept_id FROM visit_occurrence"
    )


def test_the_end_of_a_discharge_is_not_lost(site: Hospital) -> None:
    site.take(told(site, "a", "A01", PID, PV1, day=1))
    site.take(told(site, "b", "A03", "EVN||20200504070000+0000", PID, NO_START, day=4))
    assert visits(site) == [("2020-05-01", "2020-05-04", 9201)]
    site.take(told(site, "c", "A13", PID, NO_START, day=5))  # it was not discharged
    assert visits(site) == [("2020-05-01", "2020-05-01", 9201)]
    site.take(told(site, "d", "A08", PID, NO_START + "20200506090000+0200", day=6))
    assert visits(site) == [("2020-05-01", "2020-05-06", 9201)]
    site.take(told(site, "e", "A11", PID, PV1, day=7))
    assert visits(site) == []


def test_a_discharge_alone_makes_no_visit_until_it_is_known_when_it_began(site: Hospital) -> None:
    report = site.take(told(site, "a", "A03", PID, ENDED, day=4))
    assert report.sources[0].stored == 1
    assert visits(site) == []
    assert timeline(site.store, Scope()).num_rows == 0
    site.take(told(site, "b", "A01", PID, PV1, day=1))
    assert visits(site) == [("2020-05-01", "2020-05-04", 9201)]


def test_a_corrected_beginning_is_that_of_the_discharged_visit(site: Hospital) -> None:
    site.take(told(site, "a", "A01", PID, PV1, day=1))
    site.take(told(site, "b", "A03", PID, ENDED, day=4))
    site.take(told(site, "c", "A08", PID, PV1.replace("20200501", "20200430"), day=2))  # it came late
    assert visits(site) == [("2020-04-30", "2020-05-04", 9201)]
    site.take(told(site, "d", "A08", PID, PV1 + "20200505090000+0200", day=9))
    assert visits(site) == [("2020-05-01", "2020-05-05", 9201)]


def test_an_end_before_the_beginning_moves_neither_to_where_it_was_not(site: Hospital) -> None:
    site.take(told(site, "a", "A01", PID, PV1, day=1))
    site.take(told(site, "b", "A03", PID, NO_START + "20200401090000+0200", day=4))
    assert visits(site) == [("2020-04-01", "2020-04-01", 9201)]


def test_what_was_known_before_the_discharge_is_a_visit_that_went_on(site: Hospital) -> None:
    site.take(told(site, "a", "A01", PID, PV1, day=1))
    site.take(told(site, "b", "A03", PID, ENDED, day=6))  # two days late
    person = site.person_id("M1", "GHH")
    shift = timedelta(days=int(site.vault.pseudonyms(["M1"], namespace="GHH").shift_days[0]))
    ends = {}
    for day in (3, 5, 7):
        moment = datetime(2020, 5, day, tzinfo=UTC) + shift
        events = timeline(site.store, Scope(person, as_of=moment)).to_pylist()
        ends[day] = [event["end"] for event in events if event["kind"] == "visit-start"]
        assert [event["time"] - shift for event in events if event["kind"] == "visit-start"] == [
            datetime(2020, 5, 1, 6, tzinfo=UTC)
        ]
    went_on = datetime(2020, 5, 1, tzinfo=UTC) + shift  # what a visit without an end has in the CDM
    assert (ends[3], ends[5]) == ([went_on], [went_on])
    assert ends[7] == [datetime(2020, 5, 4, 7, tzinfo=UTC) + shift]


def test_messages_in_any_order_give_the_same_store(tmp_path: Path) -> None:
    found = []
    for place, order in enumerate([*permutations(range(4))][::5]):
        site = ready(tmp_path / str(place))
        files = [
            told(site, "a", "A01", PID, PV1, day=1),
            told(site, "b", "A03", PID, ENDED, day=4),
            told(site, "c", "A08", PID, PV1.replace("20200501", "20200430"), day=2),
            told(site, "d", "A40", PID.replace("M1", "M2"), "MRG|M1^^^GHH^MR", day=5),
        ]
        for number in order:
            site.take(files[number])
        found.append(content_digests(site.store.connection.con))
        site.store.close()
        site.vault.close()
    assert all(one == found[0] for one in found)


def test_a_discharge_under_the_number_that_is_kept_ends_the_visit_of_the_other(site: Hospital) -> None:
    site.take(told(site, "a", "A01", PID, PV1, day=1))
    site.take(told(site, "b", "A40", PID.replace("M1", "M2"), "MRG|M1^^^GHH^MR", day=2))
    site.take(told(site, "c", "A03", PID.replace("M1", "M2"), ENDED, day=4))
    assert site.rows("SELECT visit_end_date - visit_start_date, person_id FROM visit_occurrence") == [
        (3, site.person_id("M2", "GHH"))
    ]
