"""Cover that sources tell in parts is one period where the parts touch, whoever told them in what order."""

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from node.omop.derived import content_digests
from node.omop.side_tables import cdm_tables
from node.omop.store import OmopStore
from node.provenance import trace
from tests.node.made_facts import Hospital, hospital, person

MEDICARE = {"payer": "Medicare", "plan": "Part A"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Hospital]:
    made = hospital(tmp_path, words=False)
    yield made
    made.store.close()
    made.vault.close()


def cover(start: str, end: str | None, *, patient: str = "P", **more: Any) -> dict[str, Any]:
    said = {"kind": "coverage", "patient": patient, "start": start, "end": end, "details": MEDICARE}
    return said | {"key": f"c{start}"} | more


def year(number: int, **more: Any) -> dict[str, Any]:
    return cover(f"{number}-01-01", f"{number}-12-31", **more)


def periods(site: Hospital, patient: str = "P") -> list[tuple[str, str, str | None]]:
    """Days as the source had them."""
    shift = int(site.vault.pseudonyms([patient], namespace="mrn").shift_days[0])
    return site.rows(
        f"SELECT CAST(CAST(payer_plan_period_start_date - {shift} AS DATE) AS VARCHAR),"
        f" CAST(CAST(payer_plan_period_end_date - {shift} AS DATE) AS VARCHAR), plan_source_value"
        f" FROM payer_plan_period WHERE person_id = {site.person_id(patient)} ORDER BY ALL"
    )  # type: ignore[return-value]


def test_years_that_follow_each_other_are_one_period_with_all_their_origins(site: Hospital) -> None:
    site.write("a", [person("P")], [year(2008)])
    site.write("b", [year(2009)])
    site.write("c", [year(2010)])
    site.take()
    assert periods(site) == [("2008-01-01", "2010-12-31", "Part A")]
    (period,) = site.rows("SELECT payer_plan_period_id FROM payer_plan_period")[0]
    origins = trace(site.store, "payer_plan_period", period).origins
    assert sorted((origin["load_id"], origin["record"]) for origin in origins) == [(1, 2), (2, 1), (3, 1)]


def test_a_day_without_cover_another_plan_and_another_person_keep_periods_apart(site: Hospital) -> None:
    other = {"payer": "Medicare", "plan": "Part D"}
    site.write(
        "a",
        [person("P")],
        [person("Q")],
        [cover("2008-01-01", "2008-12-30")],
        [year(2009)],
        [year(2010, details=other, key="d")],
        [cover("2010-01-01", "2010-12-31", patient="Q", key="q")],
    )
    site.take()
    assert periods(site) == [
        ("2008-01-01", "2008-12-30", "Part A"),
        ("2009-01-01", "2009-12-31", "Part A"),
        ("2010-01-01", "2010-12-31", "Part D"),
    ]
    assert periods(site, "Q") == [("2010-01-01", "2010-12-31", "Part A")]


def test_a_bill_within_a_year_adds_nothing_and_one_that_goes_on_longer_does(site: Hospital) -> None:
    site.write(
        "a",
        [person("P")],
        [year(2008)],
        [cover("2008-05-01", "2008-05-02")],
        [cover("2008-12-20", "2009-01-10")],
        [cover("2009-01-11", None, key="day")],
    )
    site.take()
    assert periods(site) == [("2008-01-01", "2009-01-11", "Part A")]


def test_files_in_any_order_and_again_give_the_same_store(site: Hospital, tmp_path: Path) -> None:
    files = [
        site.write("a", [person("P")], [cover("2008-01-01", "2009-06-30")]),
        site.write("b", [year(2009)]),
        site.write("c", [year(2010)], [year(2012)]),
    ]
    hashes = set()
    for place, order in enumerate(permutations(files)):
        other = hospital(tmp_path / str(place), words=False)
        for path in order:
            other.take(path)
        hashes.add(other.store.content_hash())
        assert not other.take(*files).fresh
        hashes.add(other.store.content_hash())
        assert periods(other) == [
            ("2008-01-01", "2010-12-31", "Part A"),
            ("2012-01-01", "2012-12-31", "Part A"),
        ]
        other.store.close()
        other.vault.close()
    assert len(hashes) == 1


def test_a_correction_that_leaves_a_gap_and_a_retraction_take_a_period_apart_again(site: Hospital) -> None:
    site.write("a", [person("P")], [year(2008)], [year(2009, version="2010-01-01")], [year(2010)])
    site.take()
    assert len(periods(site)) == 1
    changed = cover("2009-06-01", "2009-12-31", key="c2009-01-01", version="2011-01-01")
    site.write("b", [changed])
    site.take()
    assert periods(site) == [("2008-01-01", "2008-12-31", "Part A"), ("2009-06-01", "2010-12-31", "Part A")]
    site.write("c", [year(2010) | {"action": "retract"}])
    site.take()
    assert periods(site) == [("2008-01-01", "2008-12-31", "Part A"), ("2009-06-01", "2009-12-31", "Part A")]


def test_two_numbers_of_one_person_have_one_period(site: Hospital, tmp_path: Path) -> None:
    merge = {"kind": "person", "patient": "OLD", "action": "merge", "other_patient": "P"}
    files = [
        site.write("a", [person("P")], [year(2008)]),
        site.write("b", [year(2009, patient="OLD")]),
        site.write("c", [merge]),
    ]
    other = hospital(tmp_path / "other", words=False)
    for one in (site, other):  # the same secrets, whoever comes first
        one.vault.pseudonyms(["P", "OLD"], namespace="mrn")
    for path in files:
        site.take(path)
    assert periods(site) == [("2008-01-01", "2009-12-31", "Part A")]
    for path in reversed(files):
        other.take(path)
    assert periods(other) == periods(site)
    assert content_digests(other.store.connection.con) == content_digests(site.store.connection.con)
    other.store.close()
    other.vault.close()


def test_who_is_not_described_waits_and_who_withdrew_leaves(site: Hospital) -> None:
    site.write("a", [year(2008)], [year(2009)])
    site.take()
    assert periods(site) == []
    site.write("b", [person("P")])
    site.take()
    assert periods(site) == [("2008-01-01", "2009-12-31", "Part A")]
    site.write("c", [{"kind": "person", "patient": "P", "action": "withdraw"}])
    site.take()
    for table in ("payer_plan_period", "fedtwin_held_payer_plan_period", "fedtwin_plan_part"):
        assert site.rows(f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_store_that_kept_the_parts_in_the_cdm_is_brought_up_to_date(site: Hospital) -> None:
    merge = {"kind": "person", "patient": "OLD", "action": "merge", "other_patient": "P"}
    site.write("a", [person("P")], [year(2008)], [year(2009, patient="OLD")], [merge])
    site.write("b", [year(2010, patient="Q")])
    site.take()
    expected = periods(site), content_digests(site.store.connection.con)
    names = ", ".join(cdm_tables()["payer_plan_period"].columns)
    days = site.rows("SELECT days FROM fedtwin_alias")[0][0]
    with site.store.writing() as cursor:  # as that version had it
        cursor.execute("DELETE FROM payer_plan_period; DELETE FROM fedtwin_plan_part")
        cursor.execute(cdm_tables()["payer_plan_period"].ddl("fedtwin_waiting_payer_plan_period"))
        cursor.execute(
            f"INSERT INTO payer_plan_period SELECT {names} FROM fedtwin_held_payer_plan_period"
            f" WHERE person_id <> {site.person_id('Q')}"
        )
        cursor.execute(
            f"UPDATE payer_plan_period SET person_id = {site.person_id('P')},"
            f" payer_plan_period_start_date = payer_plan_period_start_date + {days},"
            f" payer_plan_period_end_date = payer_plan_period_end_date + {days}"
            f" WHERE person_id = {site.person_id('OLD')}"
        )
        cursor.execute(
            f"INSERT INTO fedtwin_waiting_payer_plan_period SELECT {names}"
            f" FROM fedtwin_held_payer_plan_period WHERE person_id = {site.person_id('Q')}"
        )
        cursor.execute("DELETE FROM fedtwin_held_payer_plan_period")
    path = site.store.path
    site.store.close()
    site.store = OmopStore.open(path)
    assert (periods(site), content_digests(site.store.connection.con)) == expected
    site.store.close()
    site.store = OmopStore.open(path)  # once
    assert content_digests(site.store.connection.con) == expected[1]
