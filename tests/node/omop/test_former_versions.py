"""What was corrected or taken back is what was known before: as of then, and in sets of data of then."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.omop.store import OmopStore
from node.timeline import reading, timeline
from node.timeline_copy import copy_events
from node.timeline_snapshot import compare, rows, take
from node.timeline_sql import Copied, Scope, filled
from tests.node.made_facts import CLOCK, LAB, Hospital, event, hospital, person

FIRST, SECOND, THIRD = "2021-01-01T00:00", "2021-06-01T00:00", "2022-01-01T00:00"


def lab(value: float, version: str, **more: Any) -> list[dict[str, Any]]:
    return [event("measurement", "P", LAB, value_number=value, key="k", version=version, **more)]


def moved(site: Hospital, text: str) -> datetime:
    """The moment as the store has it: moved by the patient's days."""
    found = site.vault.pseudonyms(["P"], namespace="mrn")
    return datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=int(found.shift_days[0]))


def known(site: Hospital, text: str) -> list[float]:
    scope = Scope(site.person_id("P"), as_of=moved(site, text))
    found: list[float] = timeline(site.store, scope)["value_number"].to_pylist()
    return found


@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
@pytest.mark.parametrize("copied", [False, True])
def test_as_of_a_moment_between_two_versions_the_former_is_shown(
    tmp_path: Path, order: str, copied: bool
) -> None:
    site = hospital(tmp_path)
    files = {"a": [[person("P")], lab(1.0, FIRST)], "b": [lab(2.0, SECOND)], "c": [lab(3.0, THIRD)]}
    for name in order:
        site.take(site.write(name, *files[name]))
    if copied:
        assert copy_events(site.store) == 3
    assert known(site, "2020-12-31") == []
    assert known(site, "2021-05-31T23:59") == [1.0]
    assert known(site, SECOND) == [2.0]
    assert known(site, THIRD) == [3.0]
    whole = timeline(site.store, Scope(site.person_id("P")))
    assert whole["value_number"].to_pylist() == [3.0]
    site.store.close()
    site.vault.close()


def test_what_was_taken_back_was_known_until_then(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    site.take(site.write("a", [person("P")], lab(1.0, FIRST)))
    site.take(site.write("b", lab(1.0, SECOND, status="entered-in-error")))
    assert known(site, "2021-05-31") == [1.0]
    assert known(site, SECOND) == []
    assert timeline(site.store, Scope(site.person_id("P"))).num_rows == 0
    site.store.close()
    site.vault.close()


def test_what_is_deleted_without_a_date_leaves_nothing(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    site.take(site.write("a", [person("P")], lab(1.0, FIRST), lab(2.0, SECOND)))
    site.take(site.write("b", [{"action": "retract", "kind": "measurement", "key": "k"}]))
    assert known(site, "2021-05-31") == known(site, THIRD) == []
    for table in ("measurement", "fedtwin_former_measurement", "fedtwin_former_provenance"):
        assert site.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    site.store.close()
    site.vault.close()


def test_former_versions_of_who_withdraws_leave_too(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    site.take(site.write("a", [person("P")], lab(1.0, FIRST), lab(2.0, SECOND)))
    assert site.rows("SELECT count(*) FROM fedtwin_former_measurement") == [(1,)]
    site.take(site.write("b", [{"action": "withdraw", "kind": "person", "patient": "P"}]))
    assert site.rows("SELECT count(*) FROM fedtwin_former_measurement") == [(0,)]
    assert site.rows("SELECT count(*) FROM fedtwin_former_provenance") == [(0,)]
    site.store.close()
    site.vault.close()


def test_a_snapshot_is_made_again_after_its_records_were_corrected(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    site.take(site.write("a", [person("P")], lab(1.0, FIRST)))
    take(site.store, tmp_path / "s", "one", now=CLOCK.now(), keep=False)
    before = timeline(site.store, Scope())
    site.take(site.write("b", lab(2.0, SECOND)))
    assert compare(site.store, tmp_path / "s", "one").same
    (again,) = rows(site.store, tmp_path / "s", "one")
    assert again["value_number"].to_pylist() == [1.0] == before["value_number"].to_pylist()
    site.store.close()
    site.vault.close()


def test_a_store_of_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    site.take(site.write("a", [person("P")], lab(1.0, FIRST)))
    with site.store.writing() as writer:  # as it was made before versions were kept
        for column in ("thing_id", "whole_id", "holds"):
            writer.execute(f"ALTER TABLE fedtwin_group DROP COLUMN {column}")
        writer.execute("DROP TABLE fedtwin_former_provenance")
        writer.execute("DROP TABLE fedtwin_former_measurement")
    site.store.close()
    site.store = OmopStore.open(tmp_path / "omop.duckdb")
    site.take(site.write("b", lab(2.0, SECOND)))
    assert site.rows("SELECT value_as_number FROM measurement") == [(2.0,)]
    assert known(site, "2021-05-31") == [1.0]
    site.store.close()
    site.vault.close()


def test_the_copy_follows_a_load_of_few_patients_and_gives_what_the_tables_give(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    who = [f"P{n}" for n in range(30)]
    site.take(
        site.write(
            "a",
            *([person(p), event("measurement", p, LAB, value_number=1.0, key=p, version=FIRST)] for p in who),
        )
    )
    assert copy_events(site.store) == 30
    site.take(
        site.write(
            "b",
            [event("measurement", "P3", LAB, value_number=2.0, key="P3", version=SECOND)],
            [event("measurement", "P4", LAB, "2020-02-01", value_number=3.0)],
        )
    )
    with reading(site.store) as cursor:
        assert filled(site.store, cursor) is Copied.NO
    scopes = [Scope(site.person_id(p)) for p in ("P3", "P4", "P5")]
    scopes += [Scope(), Scope(upto_load=1), Scope(site.person_id("P3"), as_of=moved(site, SECOND))]
    from_the_tables = [timeline(site.store, scope) for scope in scopes]
    assert copy_events(site.store) == 4  # of P3 both versions, of P4 both events
    with reading(site.store) as cursor:
        assert filled(site.store, cursor) is Copied.BY_PERSON
    assert [timeline(site.store, scope) for scope in scopes] == from_the_tables
    site.take(site.write("c", [{"action": "withdraw", "kind": "person", "patient": "P5"}]))
    assert (site.person_id("P5"),) not in site.rows("SELECT person_id FROM fedtwin_timeline")
    site.store.close()
    site.vault.close()
