"""The order in which files are taken in: those that others would wait for come first."""

from pathlib import Path

from tests.node.made_facts import LAB, event, hospital, person


def test_patients_and_encounters_are_read_before_what_is_said_of_them(tmp_path: Path) -> None:
    site = hospital(tmp_path, words=False)
    site.write("Observation.000", [event("measurement", "P", LAB, encounter="e")])
    site.write("Encounter.000", [event("visit", "P", "IMP", encounter="e", key="e")])
    site.write("Patient.000", [person("P")])
    site.write("Condition", [event("condition", "P", "x")])
    report = site.take()
    names = [source.source.split(".")[0] for source in report.sources]
    assert names == ["Patient", "Encounter", "Condition", "Observation"]
    assert site.rows("SELECT count(*) FROM fedtwin_unvisited") == [(0,)]
    site.store.close()
    site.vault.close()
