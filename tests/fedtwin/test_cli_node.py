"""`fedtwin node`, at a hospital whose coordinator is away."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedtwin.screen import Exit
from privacy.accountant import GaussianEvent, PureEvent
from privacy.budget import Account, Caps
from privacy.ledger import Ledger
from protocols.clock import FixedClock, SystemClock
from sim.world import write_world
from tests.fedtwin.conftest import Fedtwin

CAPS = Caps(
    delta=1e-5, epsilon_total=20.0, epsilon_dataset=20.0, epsilon_project=10.0, epsilon_researcher=10.0
)
STUDY = Path(__file__).parents[2] / "sim" / "studies" / "heart_failure.toml"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_world(tmp_path / "world", seed=3, sizes=(40,)).hospitals[0].files


def checks(said_json: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {check["check"]: check["health"] for check in said_json["checks"]}


def test_a_wrong_token_changes_nothing(fedtwin: Fedtwin, tmp_path: Path) -> None:
    said = fedtwin("node", "join", "no-token", "--home", tmp_path / "home", "--json")
    assert said.code == Exit.USAGE
    assert "copy the whole line" in said.err
    assert not (tmp_path / "home").exists()


def test_a_wrong_policy_file_is_found_before_joining(fedtwin: Fedtwin, tmp_path: Path) -> None:
    wrong = tmp_path / "policy.toml"
    wrong.write_text("version = 1\nsurprise = true\n")
    said = fedtwin("node", "join", "no-token", "--policy", wrong, "--home", tmp_path / "home")
    assert said.code == Exit.USAGE
    assert "policy.toml" in said.err


def test_commands_without_a_node_say_how_to_make_one(fedtwin: Fedtwin, tmp_path: Path) -> None:
    for verb in (["status"], ["ingest", str(tmp_path)], ["serve"]):
        said = fedtwin("node", *verb, "--home", tmp_path / "nothing")
        assert said.code == Exit.USAGE
        assert "fedtwin node join" in said.err


def test_a_usage_error_is_json_too_where_that_was_asked_for(fedtwin: Fedtwin) -> None:
    said = fedtwin("node", "ingest", "/no/such/file", "--json")
    assert said.json == {"error": "BadParameter", "exit_code": 2}
    assert "/no/such/file" in said.err


def test_nothing_is_approved_or_said_to_be_empty_where_no_node_is(fedtwin: Fedtwin, tmp_path: Path) -> None:
    verbs = ("approve", str(STUDY)), ("withdraw", "00000000"), ("studies",), ("budget",), ("quarantine",)
    for verb in (*verbs, ("audit", "verify"), ("audit", "tail")):
        said = fedtwin("node", *verb, "--home", tmp_path / "mistyped")
        assert said.code == Exit.USAGE, verb
        assert "is no node" in said.err
        assert not (tmp_path / "mistyped").exists()


def test_ingest_loads_and_a_second_time_changes_nothing(
    fedtwin: Fedtwin, hospital: Path, files: Path
) -> None:
    first = fedtwin("node", "ingest", files, "--home", hospital, "--json")
    assert first.code == Exit.OK, first.err
    assert first.json["patients"] == 40
    assert first.json["quarantined"] > 0
    second = fedtwin("node", "ingest", files, "--home", hospital, "--json")
    assert second.json["unchanged"] == len(second.json["files"])
    assert second.json["rows"] == 0
    assert fedtwin("node", "status", "--home", hospital, "--json").json["patients"] == 40
    tail = fedtwin("node", "audit", "tail", "--home", hospital, "--json").json
    assert {line["event"] for line in tail} == {"ingested"}


def test_a_file_that_changed_is_refused_unless_it_replaces(
    fedtwin: Fedtwin, hospital: Path, files: Path
) -> None:
    fedtwin("node", "ingest", files, "--home", hospital)
    diagnoses = files / "diagnoses.csv"
    diagnoses.write_text("\n".join(diagnoses.read_text().splitlines()[:5]) + "\n")
    said = fedtwin("node", "ingest", files, "--home", hospital, "--json")
    assert said.code == Exit.REFUSED
    assert "--replace" in said.err
    assert fedtwin("node", "ingest", files, "--replace", "--home", hospital).code == Exit.OK


def test_quarantine_tells_where_and_why_and_never_what(fedtwin: Fedtwin, hospital: Path, files: Path) -> None:
    assert fedtwin("node", "quarantine", "--home", hospital).code == Exit.USAGE
    fedtwin("node", "ingest", files, "--home", hospital)
    said = fedtwin("node", "quarantine", "--home", hospital, "--json")
    assert {group["reason"] for group in said.json["groups"]} >= {"bad-date", "out-of-range"}
    assert "31-31-1871" not in said.out
    assert "99999" not in said.out


def test_ingest_beside_a_process_that_has_the_store_is_refused_with_words(
    fedtwin: Fedtwin, hospital: Path, files: Path
) -> None:
    fedtwin("node", "ingest", files, "--home", hospital)
    script = (
        "import sys; from pathlib import Path; from node.omop.store import OmopStore\n"
        f"store = OmopStore.open(Path({str(hospital / 'store' / 'omop.duckdb')!r}), read_only=True)\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        said = fedtwin("node", "ingest", files, "--home", hospital, "--json")
        beside = fedtwin("node", "status", "--home", hospital, "--json")
        other.communicate("", timeout=30)
    assert said.code == Exit.REFUSED
    assert "node serve" in said.err
    assert beside.json["patients"] == 40


def test_without_a_policy_the_budget_is_refused_with_the_command_that_makes_one(
    fedtwin: Fedtwin, hospital: Path
) -> None:
    said = fedtwin("node", "budget", "--home", hospital, "--json")
    assert said.code == Exit.REFUSED
    assert said.json["refused"] == "no-policy"
    assert "fedtwin node policy init" in said.err


def test_a_starter_policy_is_written_once_and_shown(fedtwin: Fedtwin, hospital: Path) -> None:
    assert fedtwin("node", "policy", "init", "nonsense", "--home", hospital).code == Exit.USAGE
    assert fedtwin("node", "policy", "init", "--home", hospital).code == Exit.OK
    assert fedtwin("node", "policy", "init", "demo", "--home", hospital).code == Exit.USAGE
    shown = fedtwin("node", "policy", "show", "--home", hospital, "--json").json
    assert shown["sites"]["max_sites_per_patient"] == 2
    assert "[budget]" in fedtwin("node", "policy", "show", "--home", hospital).out


def test_budget_shows_what_the_ledger_holds_while_another_writes(fedtwin: Fedtwin, hospital: Path) -> None:
    fedtwin("node", "policy", "init", "demo", "--home", hospital)
    assert fedtwin("node", "budget", "--home", hospital, "--json").json["left"]["epsilon"] == 20.0
    account = Account("demo", "ada")
    with Ledger(hospital / "ledger.sqlite", clock=SystemClock()) as ledger:
        held = ledger.reserve(
            "question:1", account=account, purpose="count", event=GaussianEvent(4.0), caps=CAPS
        )
        ledger.commit(held)
        ledger.reserve("question:2", account=account, purpose="count", event=PureEvent(0.5), caps=CAPS)
        said = fedtwin("node", "budget", "--home", hospital, "--json")
        table = fedtwin("node", "budget", "--home", hospital)
    assert said.code == table.code == Exit.OK
    assert said.json["projects"]["demo"]["spent"]["events"] == 1
    assert 0.5 < said.json["spent"]["epsilon"] < 1.5
    lines = [said.json, said.json["datasets"]["cdm"], said.json["researchers"]["ada"]]
    assert {line["reservations_open"] for line in lines} == {1}
    assert len({line["spent"]["epsilon"] for line in lines}) == 1
    for line in lines:
        assert line["left"]["epsilon"] < line["cap"] - line["spent"]["epsilon"], "reserved counts as spent"
        assert line["left"]["largest_question"] > line["left"]["epsilon"]
    for words in ("node", "dataset", "cdm", "project", "demo", "researcher", "ada"):
        assert words in table.out


def test_the_budget_of_one_project_and_researcher_is_shown_alone(fedtwin: Fedtwin, hospital: Path) -> None:
    fedtwin("node", "policy", "init", "demo", "--home", hospital)
    with Ledger(hospital / "ledger.sqlite", clock=SystemClock()) as ledger:
        for n, (project, researcher) in enumerate((("heart", "ada"), ("lung", "ada"), ("lung", "bo"))):
            event, account = GaussianEvent(4.0), Account(project, researcher)
            held = ledger.reserve(f"q:{n}", account=account, purpose="count", event=event, caps=CAPS)
            ledger.commit(held)
    asked = ("--project", "heart", "--researcher", "bo")
    said = fedtwin("node", "budget", *asked, "--home", hospital, "--json").json
    assert set(said["projects"]) == {"heart"}
    assert set(said["researchers"]) == {"bo"}
    assert [said["projects"]["heart"]["spent"]["events"], said["spent"]["events"]] == [1, 3]
    unknown = fedtwin("node", "budget", "--project", "new", "--home", hospital, "--json").json
    assert unknown["projects"]["new"]["left"]["epsilon"] == 10.0


def test_a_period_counts_afresh_for_projects_and_never_for_the_node(fedtwin: Fedtwin, hospital: Path) -> None:
    fedtwin("node", "policy", "init", "demo", "--home", hospital)
    policy = hospital / "policy.toml"
    policy.write_text(policy.read_text().replace('projects = "never"', 'projects = "monthly"'))
    long_ago = FixedClock(datetime(2024, 2, 29, tzinfo=UTC))
    with Ledger(hospital / "ledger.sqlite", clock=long_ago) as ledger:
        account = Account("demo", "ada")
        held = ledger.reserve("q:1", account=account, purpose="count", event=GaussianEvent(4.0), caps=CAPS)
        ledger.commit(held)
    said = fedtwin("node", "budget", "--home", hospital, "--json").json
    assert said["projects"]["demo"]["spent"] == {"epsilon": 0.0, "events": 0}
    assert said["projects"]["demo"]["ever"]["events"] == 1
    assert said["projects"]["demo"]["period_start"].endswith("-01")
    for line in (said, said["datasets"]["cdm"], said["researchers"]["ada"]):
        assert (line["spent"]["events"], line["period_start"]) == (1, None)


def test_a_plan_is_approved_listed_and_withdrawn(fedtwin: Fedtwin, hospital: Path) -> None:
    said = fedtwin("node", "approve", STUDY, "--home", hospital, "--json")
    assert said.code == Exit.OK
    digits = said.json["plan_hash"]
    (listed,) = fedtwin("node", "studies", "--home", hospital, "--json").json["studies"]
    assert (listed["plan_hash"], listed["status"]) == (digits, "approved")
    assert fedtwin("node", "approve", "ffffffff", "--home", hospital).code == Exit.USAGE
    assert fedtwin("node", "withdraw", digits[:12], "--home", hospital).code == Exit.OK
    assert fedtwin("node", "studies", "--home", hospital, "--json").json == {"studies": []}
    assert fedtwin("node", "audit", "verify", "--home", hospital, "--json").json == {
        "holds": True,
        "entries": 2,
    }


def test_an_edited_audit_trail_is_found(fedtwin: Fedtwin, hospital: Path) -> None:
    fedtwin("node", "approve", STUDY, "--home", hospital)
    trail = hospital / "audit.jsonl"
    trail.write_bytes(trail.read_bytes().replace(b"study-approved", b"study-proposed"))
    said = fedtwin("node", "audit", "verify", "--home", hospital, "--json")
    assert said.code == Exit.FAULT
    assert said.json["holds"] is False


def test_doctor_finds_what_is_wrong_and_says_what_to_do(fedtwin: Fedtwin, hospital: Path) -> None:
    said = fedtwin("node", "doctor", "--home", hospital, "--json")
    assert said.code == Exit.FAULT
    found = checks(said.json)
    assert found["keys"] == "OK"
    assert found["policy"] == "FAIL"
    assert found["store"] == "WARN"
    assert found["certificate"] == "FAIL"  # this hospital never got one
    to_do = {check["check"]: check["to_do"] for check in said.json["checks"]}
    assert to_do["policy"] == "fedtwin node policy init"
    (hospital / "keys" / "tls.key").chmod(0o644)
    assert checks(fedtwin("node", "doctor", "--home", hospital, "--json").json)["keys"] == "FAIL"


def test_doctor_of_nothing_says_join(fedtwin: Fedtwin, tmp_path: Path) -> None:
    said = fedtwin("node", "doctor", "--home", tmp_path)
    assert said.code == Exit.FAULT
    assert "fedtwin node join" in said.out


def test_status_says_that_a_killed_node_does_not_serve(fedtwin: Fedtwin, hospital: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        child = gone.pid
    (hospital / "status.json").write_text(json.dumps({"running": True, "connected": True, "pid": child}))
    said = fedtwin("node", "status", "--home", hospital, "--json").json
    assert (said["serving"], said["connected"]) == (False, False)
