"""What claims say reaches the CDM: a diagnosis whichever of the claim's it is, its money, its visit."""

from pathlib import Path

from node.ingest.registry import READERS
from tests.node.ingest.made_837 import billing, interchange, professional, subscriber, transaction
from tests.node.made_facts import hospital


def test_each_diagnosis_of_a_claim_is_a_record_that_says_which_it_is(tmp_path: Path) -> None:
    site = hospital(tmp_path, words=False)
    made = interchange([transaction(*billing(), *subscriber("M1"), *professional("C1"))])
    (site.folder / "claims.x12").write_text(made)
    (report,) = site.take(readers=READERS).sources
    assert (report.records_in, report.stored, report.values_quarantined) == (1, 1, 0)
    assert report.records["condition_occurrence"] == 2
    assert site.rows(
        "SELECT condition_status_source_value, condition_status_concept_id FROM condition_occurrence"
        " ORDER BY 1"
    ) == [("principal", 32902), ("secondary", 32908)]
    site.store.close()
    site.vault.close()
