"""Costs and links are derived for the persons whose records have changed, and stay as they are for others."""

from pathlib import Path
from typing import Any

from tests.node.made_facts import DRUG, HEART, Hospital, event, hospital, person

VERSIONS = ("2021-01-01T00:00", "2022-01-01T00:00")


def billed(patient: str, **more: Any) -> list[list[dict[str, Any]]]:
    """A condition that cost something, and a drug that was given for it."""
    cause = event("condition", patient, HEART, key="c", charged=2.0, version=VERSIONS[0]) | more
    link = {"kind": "link", "patient": patient, "key": "d", "place": "link", "other_key": "c"}
    return [[person(patient)], [cause], [event("drug", patient, DRUG, key="d"), link]]


def state(site: Hospital) -> list[tuple[Any, ...]]:
    return site.rows(
        "SELECT person_id, total_charge, fact_id_1 = drug_exposure_id FROM condition_occurrence"
        " LEFT JOIN cost ON cost_event_id = condition_occurrence_id AND cost_domain_id = 'Condition'"
        " LEFT JOIN fact_relationship ON fact_id_2 = condition_occurrence_id"
        " LEFT JOIN drug_exposure USING (person_id) ORDER BY total_charge"
    )


def test_what_is_another_person_s_stays_and_what_has_left_goes(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    site.take(site.write("a", *billed("P")))
    before = state(site)
    assert before == [(site.person_id("P"), 2.0, True)]
    site.take(site.write("b", *billed("Q", charged=3.0)))
    assert state(site) == [*before, (site.person_id("Q"), 3.0, True)]
    corrected = event("condition", "P", HEART, key="c", charged=1.0, version=VERSIONS[1])
    site.take(site.write("c", [corrected]))
    assert state(site) == [(site.person_id("P"), 1.0, True), (site.person_id("Q"), 3.0, True)]
    site.take(site.write("d", [{"action": "retract", "kind": "condition", "patient": "Q", "key": "c"}]))
    assert state(site) == [(site.person_id("P"), 1.0, True)]
    assert site.rows("SELECT count(*) FROM cost") == site.rows("SELECT count(*) FROM fact_relationship")
    assert site.rows("SELECT count(*) FROM cost") == [(1,)]
    site.store.close()
    site.vault.close()
