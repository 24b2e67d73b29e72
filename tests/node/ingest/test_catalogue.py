"""The catalogue says of each source how much came, how fresh and how complete it is."""

from pathlib import Path

import pytest

from node.ingest.catalogue import About, catalogue, read_about
from node.ingest.errors import MalformedMapping
from tests.node.made_facts import HEART, LAB, event, hospital, person


def test_a_source_with_its_counts_and_completeness(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    site.write(
        "a",
        [person("P")],
        [event("measurement", "P", LAB, value_number=1.0, unit="mg/dL")],
        [event("measurement", "P", LAB, precision="year")],
        [event("condition", "P", HEART)],
        [event("condition", "P", "nobody's")],
        {"away": "not-clinical"},
    )
    site.take()
    (one,) = catalogue(site.store, {"made": About("the laboratory", "nightly")})
    assert (one.source, one.format, one.owner, one.refresh) == ("made", "made", "the laboratory", "nightly")
    assert (one.files, one.records_in, one.stored, one.quarantined) == (1, 6, 5, 1)
    assert one.records == {"condition_occurrence": 2, "measurement": 2, "person": 1}
    assert (one.dated, one.mapped, one.valued, one.with_unit) == (0.75, 0.75, 0.5, 0.5)
    assert catalogue(site.store, {})[0].owner is None
    site.store.close()
    site.vault.close()


def test_what_the_hospital_says_of_its_sources(tmp_path: Path) -> None:
    path = tmp_path / "sources.toml"
    assert read_about(path) == {}
    path.write_text('[sources.fhir]\nowner = "IT"\n')
    assert read_about(path) == {"fhir": About("IT", None)}
    for wrong in ('[sources.fhir]\nshoe = "x"\n', "[other]\n", "="):
        path.write_text(wrong)
        with pytest.raises(MalformedMapping):
            read_about(path)
