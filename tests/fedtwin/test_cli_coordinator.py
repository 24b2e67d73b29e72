"""`fedtwin coordinator` and `fedtwin query`, without a network."""

import json
from pathlib import Path

import pytest

from fedtwin.screen import Exit
from protocols.invitation import Invitation
from tests.fedtwin.conftest import Fedtwin


@pytest.fixture
def consortium(fedtwin: Fedtwin, tmp_path: Path) -> Path:
    home = tmp_path / "consortium"
    ports = ("--enrolment-port", 18440, "--broker-port", 18441, "--fleet-port", 18442)
    said = fedtwin("coordinator", "init", "--host", "127.0.0.1", *ports, "--home", home, "--json")
    assert said.code == Exit.OK, said.err
    assert said.json["broker"] == "127.0.0.1:18441"
    return home


def test_init_does_not_overwrite_a_consortium(fedtwin: Fedtwin, consortium: Path) -> None:
    before = (consortium / "coordinator.toml").read_bytes()
    assert fedtwin("coordinator", "init", "--home", consortium).code == Exit.USAGE
    assert (consortium / "coordinator.toml").read_bytes() == before


def test_an_invitation_is_one_line_on_stdout(fedtwin: Fedtwin, consortium: Path) -> None:
    said = fedtwin("coordinator", "invite", "North", "--days", "1", "--home", consortium)
    assert Invitation.parse(said.out).address == "127.0.0.1:18440"
    assert said.out.count("\n") == 1
    assert "North" in said.err


def test_status_of_a_coordinator_that_does_not_serve(fedtwin: Fedtwin, consortium: Path) -> None:
    said = fedtwin("coordinator", "status", "--home", consortium, "--json")
    assert said.code == Exit.OK
    assert said.json["serving"] is False
    assert said.json["researchers"] == 1  # the lead


def test_a_researcher_is_added_once_and_revoked_once(fedtwin: Fedtwin, consortium: Path) -> None:
    add = ("coordinator", "researcher", "add", "ann", "--project", "demo", "--home", consortium, "--json")
    said = fedtwin(*add)
    assert said.code == Exit.OK
    assert (Path(said.json["profile"]) / "identity.key").stat().st_mode & 0o077 == 0
    assert fedtwin(*add, "--out", consortium.parent / "again").code == Exit.USAGE
    assert fedtwin("coordinator", "revoke", "ann", "--home", consortium).code == Exit.OK
    assert fedtwin("coordinator", "revoke", "ann", "--home", consortium).code == Exit.USAGE


def test_a_folder_without_a_coordinator_is_a_usage_error(fedtwin: Fedtwin, tmp_path: Path) -> None:
    said = fedtwin("coordinator", "nodes", "--home", tmp_path / "nothing", "--json")
    assert said.code == Exit.USAGE
    assert "coordinator init" in said.err
    assert said.json["exit_code"] == Exit.USAGE


def test_a_question_with_nobody_there_is_a_fault_with_words(
    fedtwin: Fedtwin, consortium: Path, tmp_path: Path
) -> None:
    file = tmp_path / "cohort.json"
    file.write_text(json.dumps({"index": {"kind": "condition", "concepts": [201826]}}))
    profile = consortium / "profiles" / "lead"
    said = fedtwin("query", "count", file, "--epsilon", "0.1", "--profile", profile)
    assert said.code == Exit.FAULT
    assert "fedtwin coordinator serve" in said.err


def test_a_cohort_is_checked_without_asking_anybody(fedtwin: Fedtwin, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"index": {"kind": "condition", "concepts": [201826]}}))
    bad.write_text(json.dumps({"index": {"kind": "condition", "concepts": []}}))
    said = fedtwin("query", "validate", good, "--json")
    assert (said.code, said.json["valid"]) == (Exit.OK, True)
    said = fedtwin("query", "validate", bad, "--json")
    assert (said.code, said.json["valid"]) == (Exit.USAGE, False)
    assert said.json["path"].startswith("index")


def test_a_folder_without_a_profile_is_a_usage_error(fedtwin: Fedtwin, tmp_path: Path) -> None:
    file = tmp_path / "cohort.json"
    file.write_text(json.dumps({"index": {"kind": "condition", "concepts": [201826]}}))
    said = fedtwin("query", "count", file, "--epsilon", "0.1", "--profile", tmp_path)
    assert said.code == Exit.USAGE
    assert "no profile.toml" in said.err


def test_train_list_and_show_without_runs(fedtwin: Fedtwin, consortium: Path) -> None:
    assert fedtwin("train", "list", "--home", consortium, "--json").json == {"runs": []}
    assert fedtwin("train", "show", "nothing", "--home", consortium).code == Exit.USAGE


def test_train_run_without_a_coordinator_is_a_fault(
    fedtwin: Fedtwin, consortium: Path, tmp_path: Path
) -> None:
    study = Path(__file__).parents[2] / "sim" / "studies" / "heart_failure.toml"
    assert fedtwin("train", "run", study, "--home", consortium).code == Exit.FAULT
