"""One timeline per person: complete, in one order, and as of a moment without anything known later."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from node.omop.store import OmopStore
from node.timeline import (
    BadWindow,
    NoSuchPerson,
    batches,
    deltas,
    hidden_events,
    moment,
    rows,
    timeline,
    window,
)
from node.timeline_copy import copy_events
from node.timeline_sql import SCHEMA, Scope, Unrecorded
from node.timeline_tables import EventKind
from tests.bench.stores import make_store
from tests.node.timelines import ADA, BOB, GLUCOSE, SECOND, at, glucose, ids, load, recorded, small


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OmopStore]:
    with small(tmp_path / "omop.duckdb") as opened:
        yield opened


def utc(text: str) -> datetime:
    return at(text).replace(tzinfo=UTC)


def kinds(store: OmopStore, **scope: object) -> list[str]:
    return timeline(store, Scope(ADA, **scope))["kind"].to_pylist()  # type: ignore[arg-type]


def test_all_tables_of_a_person_are_one_stream_in_order_of_time(store: OmopStore) -> None:
    found = timeline(store, Scope(ADA))
    assert found.schema.equals(SCHEMA)
    assert found["kind"].to_pylist() == [
        "visit-start",
        "condition",
        "measurement",
        "measurement",
        "visit-end",
        "death",
    ]
    assert found["time"].to_pylist()[2] == utc("2020-01-02 08:30:00")
    assert found["precision"].to_pylist()[:3] == ["day", "day", "second"]
    assert found["load_id"].to_pylist() == [1] * 6
    assert set(found["person_id"].to_pylist()) == {ADA}


def test_the_local_clock_is_turned_into_utc_and_its_offset_is_kept(store: OmopStore) -> None:
    first = ids(store, "measurement")[0]
    recorded(store, "measurement", {first: "2020-01-02 07:00:00"}, offset_min=120)
    event = timeline(store, Scope(ADA, kinds=(EventKind.MEASUREMENT,))).to_pylist()[0]
    assert event["time"] == utc("2020-01-02 06:30:00")
    assert event["utc_offset_min"] == 120


def test_nobody_of_the_id_is_an_error_and_not_an_empty_life(store: OmopStore) -> None:
    with pytest.raises(NoSuchPerson):
        timeline(store, Scope(99))


def test_what_was_recorded_later_is_not_known_before(store: OmopStore) -> None:
    """A result that came late: it happened on 4 January and was recorded on the 20th."""
    early, late, _ = ids(store, "measurement")
    recorded(store, "measurement", {early: "2020-01-02 09:00:00", late: "2020-01-20 00:00:00"})
    scope = {"kinds": (EventKind.MEASUREMENT,)}
    assert kinds(store, as_of=utc("2020-01-10"), **scope) == ["measurement"]
    assert kinds(store, as_of=utc("2020-01-02 08:59:59"), **scope) == []
    assert kinds(store, as_of=utc("2020-01-20"), **scope) == ["measurement"] * 2


def test_a_correction_is_not_known_before_it_was_made(store: OmopStore) -> None:
    """The source replaced a value: what it says now was not known then, and is not shown."""
    (value,) = ids(store, "measurement")[:1]
    recorded(store, "measurement", {value: "2020-01-02 09:00:00"})
    with store.writing() as writer:  # as a later version of the same key does
        writer.execute("UPDATE measurement SET value_as_number = 500 WHERE measurement_id = ?", [value])
    recorded(store, "measurement", {value: "2020-05-01 00:00:00"})
    before = timeline(store, Scope(ADA, as_of=utc("2020-04-30")))
    assert 500.0 not in before["value_number"].to_pylist()
    after = timeline(store, Scope(ADA, as_of=utc("2020-05-01")))
    assert 500.0 in after["value_number"].to_pylist()


def test_without_a_time_of_recording_an_event_is_known_since_it_was_loaded(store: OmopStore) -> None:
    load(store, "second", now=SECOND, measurement=[glucose(ADA, "2019-06-01", 80.0)])
    before = Scope(ADA, as_of=SECOND - timedelta(seconds=1))
    assert timeline(store, before).num_rows == 6
    assert hidden_events(store, before) == 1
    assert timeline(store, Scope(ADA, as_of=SECOND)).num_rows == 7
    assert timeline(store, Scope(ADA, as_of=utc("2020-12-01"))).num_rows == 0
    assert hidden_events(store, Scope(ADA, as_of=utc("2020-12-01"))) == 6


def test_a_source_that_never_says_may_count_as_known_when_it_happened(store: OmopStore) -> None:
    found = kinds(store, as_of=utc("2020-01-03"), unrecorded=Unrecorded.EVENT)
    assert found == ["visit-start", "condition", "measurement"]
    assert hidden_events(store, Scope(ADA, as_of=utc("2020-01-03"), unrecorded=Unrecorded.EVENT)) == 0


@pytest.mark.parametrize("mode", list(Unrecorded))
def test_the_end_of_what_still_went_on_is_not_shown(store: OmopStore, mode: Unrecorded) -> None:
    (condition,) = ids(store, "condition_occurrence")
    recorded(store, "condition_occurrence", {condition: "2020-01-02 12:00:00"})
    one = {"kinds": (EventKind.CONDITION,), "unrecorded": mode}
    then = timeline(store, Scope(ADA, as_of=utc("2020-01-15"), **one))  # type: ignore[arg-type]
    assert then["end"].to_pylist() == [None]
    later = timeline(store, Scope(ADA, as_of=utc("2020-03-01"), **one))  # type: ignore[arg-type]
    assert later["end"].to_pylist() == [utc("2020-02-01")]


def test_a_death_is_not_known_before_all_that_was_told_of_it(store: OmopStore) -> None:
    recorded(store, "death", {ADA: "2021-02-01 00:00:00"})
    assert "death" not in kinds(store, as_of=utc("2021-01-15"), unrecorded=Unrecorded.EVENT)
    assert "death" in kinds(store, as_of=utc("2021-02-01"), unrecorded=Unrecorded.EVENT)


def test_nothing_leaks_at_any_moment_of_a_store_with_late_records(tmp_path: Path) -> None:
    """For many moments: what is read as of T is what a store had that got only the records known by T."""
    rng = np.random.default_rng(5)
    made = [
        (f"2020-{1 + n // 28:02d}-{1 + n % 28:02d}", float(n), int(rng.integers(0, 60))) for n in range(100)
    ]
    with OmopStore.open(tmp_path / "late.duckdb", threads=1) as store:
        load(store, "a", persons=(ADA,), measurement=[glucose(ADA, when, value) for when, value, _ in made])
        known = {
            record: (at(when) + timedelta(days=delay)).isoformat(sep=" ")
            for record, (when, _, delay) in zip(ids(store, "measurement"), made, strict=True)
        }
        recorded(store, "measurement", known)
        for _ in range(25):
            moment = at("2020-01-01") + timedelta(days=int(rng.integers(0, 200)))
            expected = [value for when, value, delay in made if at(when) + timedelta(days=delay) <= moment]
            found = timeline(store, Scope(ADA, as_of=moment.replace(tzinfo=UTC)))
            assert found["value_number"].to_pylist() == expected


def test_the_copy_gives_what_the_tables_give(tmp_path: Path) -> None:
    with OmopStore.open(make_store(tmp_path / "s.duckdb", 20, 4_000, seed=3), threads=1) as store:
        persons = [row[0] for row in store.connection.con.execute("SELECT person_id FROM person").fetchall()]
        scopes = [
            scope
            for person in persons[:5]
            for scope in (
                Scope(person),
                Scope(person, as_of=utc("2015-01-01"), unrecorded=Unrecorded.EVENT),
                Scope(person, start=utc("2012-01-01"), end=utc("2013-01-01")),
                Scope(person, kinds=(EventKind.DRUG,)),
            )
        ]
        slow = [timeline(store, scope) for scope in scopes]
        assert copy_events(store) == 4_000
        assert copy_events(store) == 0
        assert [timeline(store, scope) for scope in scopes] == slow
        assert sum(found.num_rows for found in slow) > 1_000


def test_the_copy_is_gone_with_the_next_write_so_that_it_never_holds_what_has_left(store: OmopStore) -> None:
    copy_events(store)
    with store.writing() as writer:
        writer.execute("DELETE FROM measurement WHERE person_id = ?", [ADA])
    assert "measurement" not in kinds(store)
    left = store.connection.con.execute("SELECT count(*) FROM fedtwin_timeline").fetchone()
    assert left == (0,)


def test_everybody_streams_person_by_person_in_bounded_batches(tmp_path: Path) -> None:
    with OmopStore.open(make_store(tmp_path / "s.duckdb", 30, 3_000, seed=4), threads=1) as store:
        found = list(batches(store, Scope(), rows=500))
        assert max(batch.num_rows for batch in found) <= 500
        assert sum(batch.num_rows for batch in found) == 3_000
        order = [(event["person_id"], event["time"]) for batch in found for event in batch.to_pylist()]
        assert order == sorted(order)


def test_a_delta_is_taken_from_the_value_before_even_outside_the_window(store: OmopStore) -> None:
    found = deltas(store, Scope(ADA, start=utc("2020-01-03"))).to_pylist()
    assert [(row["value_number"], row["previous"], row["delta"]) for row in found] == [(120.0, 90.0, 30.0)]
    assert found[0]["since_s"] == (utc("2020-01-04") - utc("2020-01-02 08:30:00")).total_seconds()
    assert deltas(store, Scope(BOB)).to_pylist()[0]["previous"] is None


def test_a_delta_as_of_a_moment_knows_no_later_value(store: OmopStore) -> None:
    assert deltas(store, Scope(ADA, as_of=utc("2020-01-03"), unrecorded=Unrecorded.EVENT)).num_rows == 1


def test_only_what_loads_up_to_one_brought(store: OmopStore) -> None:
    second = load(store, "second", now=SECOND, measurement=[glucose(ADA, "2020-01-03", 80.0)])
    assert timeline(store, Scope(ADA, upto_load=second - 1)).num_rows == 6
    assert timeline(store, Scope(ADA, upto_load=second)).num_rows == 7


def test_events_name_their_concepts_where_the_vocabulary_has_them(store: OmopStore) -> None:
    with store.writing() as writer:
        writer.execute(
            "INSERT INTO concept BY NAME SELECT ? AS concept_id, 'Glucose' AS concept_name,"
            " 'Measurement' AS domain_id, 'LOINC' AS vocabulary_id, 'Lab Test' AS concept_class_id,"
            " '2345-7' AS concept_code, DATE '1970-01-01' AS valid_start_date,"
            " DATE '2099-12-31' AS valid_end_date",
            [GLUCOSE],
        )
    listed = rows(store, timeline(store, Scope(ADA)))
    assert [event["concept"] for event in listed if event["kind"] == "measurement"] == ["Glucose"] * 2
    assert listed[0]["time"] == "2020-01-01T00:00:00Z"
    assert listed[1]["concept"] is None


def test_windows_are_read_as_dates_times_and_days() -> None:
    now = utc("2026-01-01")
    assert window("2020-01-01..", as_of=None, now=now) == (utc("2020-01-01"), None)
    start, end = window("30d", as_of=utc("2020-03-01"), now=now)
    assert start == utc("2020-01-31")
    assert end is not None
    assert end > utc("2020-03-01")
    assert moment("2020-01-01T12:00:00+02:00") == utc("2020-01-01 10:00:00")
    for text in ("", "..", "2020", "2021-01-01..2020-01-01", "0d", "yesterday.."):
        with pytest.raises(BadWindow):
            window(text, as_of=None, now=now)
    with pytest.raises(ValueError, match="time zone"):
        Scope(ADA, as_of=at("2020-01-01"))
