"""Timelines, provenance, exports, snapshots and data quality by the command; each look is audited."""

import json
from pathlib import Path

import pytest

from fedtwin.node_staff import account, person_mark
from node import audit
from node.audit import AuditLog
from node.audit_events import AuditEvent
from node.home import NodeHome
from node.omop.store import OmopStore
from node.policy import starter
from privacy import private_files
from protocols.clock import SystemClock
from tests.fedtwin.conftest import Fedtwin
from tests.node.timelines import ADA, SECOND, glucose, ids, load, small


@pytest.fixture
def holding(hospital: Path) -> Path:
    """A hospital whose store holds Ada and Bob."""
    path = NodeHome(hospital).store
    private_files.make_folder(path.parent)
    small(path).close()
    return hospital


def trail(home: Path) -> list[audit.AuditLine]:
    return list(audit.lines(NodeHome(home).audit))


def test_a_timeline_is_printed_and_who_looked_is_recorded_without_content(
    fedtwin: Fedtwin, holding: Path
) -> None:
    found = fedtwin("node", "timeline", ADA, "--home", holding, "--json").json
    assert found["count"] == len(found["events"]) == 6
    assert found["events"][0]["kind"] == "visit-start"
    (line,) = trail(holding)
    assert line.event == "timeline-read"
    assert line.fields == {"staff": account(), "person": person_mark(NodeHome(holding), ADA)}
    table = fedtwin("node", "timeline", ADA, "--home", holding)
    assert "visit-end" in table.out
    assert audit.verify(NodeHome(holding).audit) == 2


def test_as_of_a_day_nothing_later_is_printed_and_what_is_hidden_is_said(
    fedtwin: Fedtwin, holding: Path
) -> None:
    options = ("node", "timeline", ADA, "--as-of", "2020-01-03", "--home", holding, "--json")
    hidden = fedtwin(*options)
    assert hidden.json["events"] == []
    assert hidden.json["hidden_unrecorded"] == 3
    assert "--unrecorded event" in hidden.err
    shown = fedtwin(*options, "--unrecorded", "event", "--deltas").json
    assert [event["time"] for event in shown["events"]][-1] == "2020-01-02T08:30:00Z"
    assert shown["hidden_unrecorded"] == 0
    assert [delta["value_number"] for delta in shown["deltas"]] == [90.0]
    midnight = fedtwin(*(word if word != "2020-01-03" else "2020-01-04" for word in options)).json
    assert midnight["hidden_unrecorded"] == 4  # the whole day, and not the next one's first moment


def test_windows_and_kinds_narrow_it(fedtwin: Fedtwin, holding: Path) -> None:
    base = ("node", "timeline", ADA, "--home", holding, "--json")
    found = fedtwin(*base, "--window", "2020-01-04..2020-01-05", "--kind", "measurement").json
    assert [event["value_number"] for event in found["events"]] == [120.0]
    for wrong in (("--window", "soon"), ("--kind", "dream"), ("--as-of", "x"), ("--unrecorded", "x")):
        assert fedtwin(*base, *wrong).code == 2
    assert fedtwin("node", "timeline", 99, "--home", holding, "--json").code == 2


def test_a_value_says_where_it_comes_from_and_who_has_read_it(fedtwin: Fedtwin, holding: Path) -> None:
    home = NodeHome(holding)
    with OmopStore.open(home.store) as store:
        late = load(store, "late.csv", now=SECOND, measurement=[glucose(ADA, "2020-01-03", 80.0)])
        record = ids(store, "measurement")[-1]
    log = AuditLog(home.audit, clock=SystemClock())
    log.record(AuditEvent.QUESTION_ACCEPTED, project="heart", reads="measurement,person")
    log.record(AuditEvent.QUESTION_ACCEPTED, project="lungs", reads="person")
    log.record(AuditEvent.ROUND_STARTED, project="old")  # a version that did not say what it reads
    log.close()
    fedtwin("node", "timeline", ADA, "--home", holding, "--json")
    fedtwin("node", "timeline", 22, "--home", holding, "--json")  # somebody else
    found = fedtwin("node", "provenance", "measurement", record, "--home", holding, "--json").json
    (origin,) = found["origins"]
    assert (origin["file"], origin["record"], origin["load_id"]) == ("late.csv", 1, late)
    assert origin["loaded_at"] == "2026-06-01T00:00:00Z"
    assert origin["mapping_sha256"] == "m" * 64
    assert [(line["what"], line.get("project"), line["certain"]) for line in found["read_by"]] == [
        ("question-accepted", "heart", True),
        ("round-started", "old", False),
        ("timeline-read", None, True),
    ]
    again = fedtwin("node", "provenance", "measurement", record, "--home", holding, "--json").json
    assert again["read_by"][-1]["what"] == "provenance-read"
    assert "late.csv" in fedtwin("node", "provenance", "measurement", record, "--home", holding).out
    assert fedtwin("node", "provenance", "death", ADA, "--home", holding, "--json").json["origins"]
    for wrong in (("measurement", 999_999), ("concept", 1), ("fedtwin_load", 1), ("x; DROP", 1)):
        assert fedtwin("node", "provenance", *wrong, "--home", holding).code == 2


def test_an_export_and_a_snapshot_are_written_audited_and_checked(
    fedtwin: Fedtwin, holding: Path, tmp_path: Path
) -> None:
    written = fedtwin("node", "meds", tmp_path / "meds", "--home", holding, "--json").json
    assert written["subjects"] == 2
    assert fedtwin("node", "meds", tmp_path / "meds", "--home", holding).code == 2
    taken = fedtwin("node", "snapshot", "take", "trained-on", "--home", holding, "--json").json
    assert taken["rows"] == 7
    verified = fedtwin("node", "snapshot", "verify", "trained-on", "--home", holding, "--json")
    assert (verified.code, verified.json["same"]) == (0, True)
    with OmopStore.open(NodeHome(holding).store) as store, store.writing() as writer:
        writer.execute("UPDATE measurement SET value_as_number = 1")
    changed = fedtwin("node", "snapshot", "verify", "trained-on", "--home", holding, "--json")
    assert (changed.code, changed.json["changed"], changed.json["usable"]) == (1, 2, False)
    (listed,) = fedtwin("node", "snapshot", "list", "--home", holding, "--json").json["snapshots"]
    assert listed["sha256"] == taken["sha256"]
    assert [line.fields["kind"] for line in trail(holding) if line.event == "events-exported"] == [
        "meds",
        "meds",
        "snapshot",
    ]


def test_the_quality_of_the_data_is_reported_kept_and_held_against_the_policy(
    fedtwin: Fedtwin, holding: Path, tmp_path: Path
) -> None:
    home, html = NodeHome(holding), tmp_path / "quality.html"
    section = "\n[quality]\nmin_pass_rate = {}\nmin_mapping_coverage = 0.5\nmax_age_days = 30\n"

    def checked(policy: str) -> dict:
        home.policy.write_text(policy)
        said = fedtwin("node", "quality", "--html", html, "--home", holding, "--json")
        assert said.code == 0
        return dict(said.json["policy"])

    asks_nothing = checked(starter("cautious").decode())
    assert (asks_nothing["joins_studies"], asks_nothing["demands"]) == (True, None)
    assert checked(starter("cautious").decode() + section.format(0.5))["joins_studies"]
    refused = checked(starter("cautious").decode() + section.format(1.0))
    assert (refused["joins_studies"], refused["code"]) == (False, "data-quality")
    assert json.loads(home.quality.read_bytes())["persons"] == 2
    assert html.read_text().startswith("<!doctype html>")
    assert [line.event for line in trail(holding)] == ["quality-checked"] * 3
    assert "pass rate" in fedtwin("node", "quality", "--home", holding).out
