"""The policy file: read strictly, and nothing is allowed that it does not allow."""

import re
import stat
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from node.policy import (
    COHORT_FORMS,
    MECHANISMS,
    PERIODS,
    PRESETS,
    QUESTION_KINDS,
    Policy,
    period_start,
    starter,
    write_starter,
)
from node.policy_form import KEYS, NEW_IN_2, MalformedPolicy
from privacy.budget import Account, Caps
from protocols.refusal import RefusalCode, Refused

PEERS = [f"{n:064x}" for n in range(4)]
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
ACCOUNT = Account("heart", "ada")
QUESTION = {
    "kind": "count",
    "cohort": "fedtwin",
    "mechanism": "gaussian",
    "on_behalf": False,
    "attempts": 2,
    "project": "heart",
    "tables": {"person", "condition_occurrence"},
    "epsilon": 0.5,
    "delta": 1e-6,
    "max_sites_per_patient": 2,
}
STUDY = {
    "project": "heart",
    "tables": {"person", "measurement"},
    "epsilon": 1.0,
    "delta": 1e-6,
    "max_sites_per_patient": 2,
    "minimum_sites": 3,
    "tolerance": 1,
    "approved": True,
}


@pytest.fixture
def cautious() -> Policy:
    return Policy.parse(starter("cautious"))


def edited(old: str, new: str, *, preset: str = "cautious") -> bytes:
    text = starter(preset).decode()
    assert old in text
    return text.replace(old, new, 1).encode()


def refused(check: Callable[[], None]) -> RefusalCode:
    with pytest.raises(Refused) as found:
        check()
    return found.value.code


# ---- the file ----


def test_without_a_file_everything_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(Refused) as found:
        Policy.load(tmp_path / "policy.toml")
    assert found.value.code is RefusalCode.NO_POLICY
    assert "fedtwin node policy init" in str(found.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_starter_file_is_a_valid_policy_for_its_owner_only(tmp_path: Path, preset: str) -> None:
    path = tmp_path / "policy.toml"
    write_starter(path, preset=preset)
    assert Policy.load(path) == Policy.parse(starter(preset))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_starter_never_replaces_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        write_starter(path)
    assert path.read_text() == "mine"


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset"):
        write_starter(tmp_path / "policy.toml", preset="generous")


@pytest.mark.parametrize("preset", PRESETS)
def test_each_key_of_a_starter_has_a_comment_above_it(preset: str) -> None:
    lines = starter(preset).decode().splitlines()
    for section in (*KEYS[""], *(key for name in KEYS if name for key in KEYS[name])):
        at = [n for n, line in enumerate(lines) if re.match(rf"\[?(budget\.)?{section}\b", line)]
        assert at, section
        if section not in (*KEYS[""], "reset"):
            where = at[0] + 1 if lines[at[0]].startswith("[") else at[0] - 1
            assert lines[where].startswith("#"), section


def test_the_demo_policy_says_that_it_is_not_for_patients() -> None:
    assert "Not for patients" in starter("demo").decode()


@pytest.mark.parametrize("section", [name for name in KEYS if name])
def test_an_unknown_key_is_an_error_that_names_it(section: str) -> None:
    with pytest.raises(MalformedPolicy) as found:
        Policy.parse(edited(f"[{section}]\n", f"[{section}]\nsurprise = 1\n"))
    assert found.value.key == f"{section}.surprise"


def test_an_unknown_section_is_an_error_that_names_it() -> None:
    with pytest.raises(MalformedPolicy) as found:
        Policy.parse(starter() + b"\n[extra]\n")
    assert found.value.key == "extra"


@pytest.mark.parametrize("section", [name for name in KEYS if name])
def test_a_missing_key_is_an_error_that_names_it(section: str) -> None:
    sections = {"projects", "datasets", "researchers", "reset"} if section == "budget" else set()
    for key in sorted(KEYS[section] - sections):
        text = starter().decode()
        pattern = rf"(?ms)(\[{section}\].*?)^{key} = (\[\n.*?^\]|[^\n]*)\n"
        without, changed = re.subn(pattern, r"\1", text, count=1)
        assert changed == 1, (section, key)
        with pytest.raises(MalformedPolicy) as found:
            Policy.parse(without.encode())
        assert found.value.key == f"{section}.{key}"


@pytest.mark.parametrize("section", ["projects", "datasets", "researchers", "reset"])
def test_a_missing_budget_section_is_an_error_that_names_it(section: str) -> None:
    without, changed = re.subn(rf"(?ms)^\[budget\.{section}\].*?(?=^\[)", "", starter().decode())
    assert changed == 1
    with pytest.raises(MalformedPolicy) as found:
        Policy.parse(without.encode())
    assert found.value.key == f"budget.{section}"


def test_a_file_of_version_1_is_refused_with_what_to_add_and_with_the_command() -> None:
    """Whatever else is in it: nothing of an old file is taken to allow what it never spoke of."""
    for old in (b"version = 1\n", starter().replace(b"version = 2", b"version = 1")):
        with pytest.raises(MalformedPolicy) as found:
            Policy.parse(old)
        assert found.value.key == "version"
        assert all(key in str(found.value) for key in NEW_IN_2)
        assert "fedtwin node policy init" in str(found.value)
    parsed = tomllib.loads(starter().decode())
    for key in NEW_IN_2:
        section, _, name = key.strip("[]").rpartition(".")
        assert name in parsed[section], "what the message names is what the file needs"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("version = 2", "version = 3", "version"),
        ("version = 2", "version = true", "version"),
        ("version = 2", 'version = "2"', "version"),
        ("minimum = 3", "minimum = 1", "sites.minimum"),
        ("minimum = 3", "minimum = 2", "sites.minimum"),
        ("minimum = 3", 'minimum = "3"', "sites.minimum"),
        ("minimum = 3", "minimum = true", "sites.minimum"),
        ("tolerance = 1", "tolerance = -1", "sites.tolerance"),
        ("max_sites_per_patient = 2", "max_sites_per_patient = 0", "sites.max_sites_per_patient"),
        ("peers = []", 'peers = ["abc"]', "sites.peers[0]"),
        ("peers = []", 'peers = "abc"', "sites.peers"),
        ('  "count",', '  "everything",', "questions.allowed[0]"),
        ('cohorts = ["fedtwin"', 'cohorts = ["sql"', "questions.cohorts[0]"),
        ('mechanisms = ["gaussian"', 'mechanisms = ["none"', "questions.mechanisms[0]"),
        ("on_behalf = false", "on_behalf = 0", "questions.on_behalf"),
        ("answer_grid_ms = 1000", "answer_grid_ms = 60001", "questions.answer_grid_ms"),
        ("answer_grid_ms = 1000", "answer_grid_ms = -1", "questions.answer_grid_ms"),
        ("answer_grid_ms = 1000", "answer_grid_ms = 0.5", "questions.answer_grid_ms"),
        ('projects = "never"', 'projects = "weekly"', "budget.reset.projects"),
        ('researchers = "never"', "researchers = false", "budget.reset.researchers"),
        ("max_epsilon = 0.5", "max_epsilon = inf", "questions.max_epsilon"),
        ("max_epsilon = 0.5", "max_epsilon = nan", "questions.max_epsilon"),
        ("max_epsilon = 0.5", "max_epsilon = -1", "questions.max_epsilon"),
        ("max_delta = 1e-6", "max_delta = 0", "questions.max_delta"),
        ("\ndelta = 1e-6", "\ndelta = 0.5", "budget.delta"),
        ("epsilon_total = 3.0", "epsilon_total = 1000.0", "budget.epsilon_total"),
        ('"*" = 1.0', '"two words" = 1.0', "budget.projects"),
        ('"*" = 1.0', '"*" = "1"', "budget.projects.*"),
        ('"*" = 3.0', "Upper = 3.0", "budget.datasets"),
        ('"*" = 3.0', '"*" = -1', "budget.datasets.*"),
        ("allowed = true", "allowed = 1", "training.allowed"),
        ("require_approval = true", 'require_approval = "no"', "training.require_approval"),
    ],
)
def test_a_value_out_of_its_range_is_an_error_that_names_the_key(old: str, new: str, key: str) -> None:
    with pytest.raises(MalformedPolicy) as found:
        Policy.parse(edited(old, new))
    assert found.value.key == key


@pytest.mark.parametrize("data", [b"", b"\xff", b"version = ", b"x" * 300_000, b"version = 2\nversion = 2\n"])
def test_what_is_no_policy_is_an_error(data: bytes) -> None:
    with pytest.raises(MalformedPolicy) as found:
        Policy.parse(data)
    assert found.value.code is RefusalCode.NO_POLICY


# ---- questions ----


def test_an_allowed_question_passes(cautious: Policy) -> None:
    cautious.check_question(**QUESTION)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "rows"},
        {"tables": {"person", "note"}},
        {"epsilon": 0.51},
        {"epsilon": 0.0},
        {"epsilon": float("nan")},
        {"epsilon": float("inf")},
        {"delta": 2e-6},
        {"delta": 0.0},
        {"max_sites_per_patient": 1},
        {"attempts": 0},
        {"kind": "feasibility"},
        {"cohort": "sql"},
        {"mechanism": "none"},
        {"mechanism": "laplace"},  # with a delta, which pure noise has none of
        {"on_behalf": True},
        {"on_behalf": None},
        {"tables": {"note"}},
    ],
)
def test_a_question_outside_the_policy_is_refused(cautious: Policy, change: dict[str, object]) -> None:
    assert refused(lambda: cautious.check_question(**(QUESTION | change))) is RefusalCode.NOT_ALLOWED


def test_a_question_may_assume_more_sites_per_patient_but_never_fewer(cautious: Policy) -> None:
    cautious.check_question(**(QUESTION | {"max_sites_per_patient": 5}))
    assert refused(lambda: cautious.check_question(**(QUESTION | {"max_sites_per_patient": 1})))


@pytest.mark.parametrize("kind", [kind for kind in QUESTION_KINDS if kind != "feasibility"])
@pytest.mark.parametrize("cohort", COHORT_FORMS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_cautious_policy_allows_every_sum_over_patients(
    cautious: Policy, kind: str, cohort: str, mechanism: str
) -> None:
    delta = 0.0 if mechanism == "laplace" else 1e-6
    asked = {"kind": kind, "cohort": cohort, "mechanism": mechanism, "delta": delta}
    cautious.check_question(**(QUESTION | asked))


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ('  "count",\n', "", {}),
        ('["fedtwin", "circe"]', '["circe"]', {}),
        ('["gaussian", "laplace"]', '["laplace"]', {}),
        ('["gaussian", "laplace"]', '["gaussian"]', {"mechanism": "laplace", "delta": 0.0}),
        ('["fedtwin", "circe"]', "[]", {"cohort": "circe"}),
    ],
)
def test_what_the_policy_leaves_out_is_refused(old: str, new: str, change: dict[str, object]) -> None:
    Policy.parse(starter()).check_question(**(QUESTION | change))
    policy = Policy.parse(edited(old, new))
    assert refused(lambda: policy.check_question(**(QUESTION | change))) is RefusalCode.NOT_ALLOWED


def test_a_gateway_asks_for_its_users_only_where_the_policy_says_so() -> None:
    policy = Policy.parse(edited("on_behalf = false", "on_behalf = true"))
    policy.check_question(**(QUESTION | {"on_behalf": True}))


def test_the_vocabulary_needs_no_permission_and_a_note_does(cautious: Policy) -> None:
    cautious.check_question(**(QUESTION | {"tables": {"person", "concept", "concept_ancestor"}}))
    assert refused(lambda: cautious.check_question(**(QUESTION | {"tables": {"note"}})))


def test_without_a_default_only_named_projects_may_ask() -> None:
    policy = Policy.parse(edited('"*" = 1.0', "heart = 0.7"))
    policy.check_question(**QUESTION)
    assert policy.caps(ACCOUNT, now=NOW) == Caps(
        delta=1e-6, epsilon_total=3.0, epsilon_dataset=3.0, epsilon_project=0.7, epsilon_researcher=1.0
    )
    assert (
        refused(lambda: policy.check_question(**(QUESTION | {"project": "lung"}))) is RefusalCode.NOT_ALLOWED
    )
    assert refused(lambda: policy.caps(Account("lung", "ada"), now=NOW)) is RefusalCode.NOT_ALLOWED


def test_a_line_of_its_own_comes_before_the_line_for_every_other() -> None:
    text = starter().decode()
    text = text.replace("[budget.datasets]\n", "[budget.datasets]\nregistry = 0.4\n")
    text = text.replace("[budget.researchers]\n", '[budget.researchers]\n"portal/bo@example.org" = 0.2\n')
    policy = Policy.parse(text.encode())
    caps = policy.caps(Account("heart", "portal/bo@example.org", "registry"), now=NOW)
    assert (caps.epsilon_dataset, caps.epsilon_researcher) == (0.4, 0.2)
    caps = policy.caps(Account("heart", "portal/eve", "cdm"), now=NOW)
    assert (caps.epsilon_dataset, caps.epsilon_researcher) == (3.0, 1.0)


@pytest.mark.parametrize("section", ["datasets", "researchers"])
def test_without_a_line_a_dataset_or_a_researcher_has_no_budget(section: str) -> None:
    pattern = rf'(?ms)(^\[budget\.{section}\].*?)^"\*" = [^\n]*\n'
    text, changed = re.subn(pattern, r"\1nobody = 1.0\n", starter().decode())
    assert changed == 1
    policy = Policy.parse(text.encode())
    assert refused(lambda: policy.caps(ACCOUNT, now=NOW)) is RefusalCode.NOT_ALLOWED


def test_a_policy_that_allows_no_kind_answers_nothing() -> None:
    text, changed = re.subn(r"(?ms)^allowed = \[.*?^\]", "allowed = []", starter().decode())
    assert changed == 1
    policy = Policy.parse(text.encode())
    for kind in QUESTION_KINDS:
        assert refused(lambda kind=kind: policy.check_question(**(QUESTION | {"kind": kind})))


# ---- periods ----


@pytest.mark.parametrize(
    ("period", "now", "start"),
    [
        ("yearly", datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        ("quarterly", datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)),
        ("quarterly", datetime(2026, 3, 31, 23, 59, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        ("quarterly", datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)),
        ("monthly", datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        (  # already the next month at the hospital, not yet in UTC
            "monthly",
            datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))),
            datetime(2026, 2, 1, tzinfo=UTC),
        ),
    ],
)
def test_periods_are_calendar_periods_in_utc(period: str, now: datetime, start: datetime) -> None:
    assert period_start(period, now) == start


def test_only_projects_and_researchers_have_periods(cautious: Policy) -> None:
    caps = cautious.caps(ACCOUNT, now=NOW)
    assert (caps.project_since, caps.researcher_since) == (None, None)
    for period in PERIODS:
        text = starter().decode().replace('projects = "never"', f'projects = "{period}"')
        found = Policy.parse(text.encode()).caps(ACCOUNT, now=NOW)
        assert (found.project_since, found.researcher_since) == (period_start(period, NOW), None)
        assert (found.epsilon_total, found.epsilon_dataset) == (caps.epsilon_total, caps.epsilon_dataset)


# ---- studies ----


def test_an_allowed_and_approved_study_passes(cautious: Policy) -> None:
    cautious.check_study(**STUDY)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"epsilon": 1.01}, RefusalCode.NOT_ALLOWED),
        ({"delta": 1e-5}, RefusalCode.NOT_ALLOWED),
        ({"tables": {"note"}}, RefusalCode.NOT_ALLOWED),
        ({"max_sites_per_patient": 1}, RefusalCode.NOT_ALLOWED),
        ({"tolerance": 0}, RefusalCode.NOT_ALLOWED),
        ({"minimum_sites": 2}, RefusalCode.TOO_FEW_SITES),
        ({"approved": False}, RefusalCode.NOT_APPROVED),
    ],
)
def test_a_study_outside_the_policy_is_refused(
    cautious: Policy, change: dict[str, object], code: RefusalCode
) -> None:
    assert refused(lambda: cautious.check_study(**(STUDY | change))) is code


def test_approval_does_not_allow_what_the_policy_forbids() -> None:
    policy = Policy.parse(edited("allowed = true", "allowed = false"))
    assert refused(lambda: policy.check_study(**STUDY)) is RefusalCode.NOT_ALLOWED


def test_a_hospital_may_waive_approval_in_writing() -> None:
    policy = Policy.parse(edited("require_approval = true", "require_approval = false"))
    policy.check_study(**(STUDY | {"approved": False}))


# ---- sessions ----


def test_a_sum_among_too_few_hospitals_is_refused(cautious: Policy) -> None:
    cautious.check_participants(PEERS[:3], tolerance=1)
    assert refused(lambda: cautious.check_participants(PEERS[:2], tolerance=1)) is RefusalCode.TOO_FEW_SITES


def test_a_hospital_named_twice_does_not_count_twice(cautious: Policy) -> None:
    twice = [PEERS[0], PEERS[1], PEERS[1]]
    assert refused(lambda: cautious.check_participants(twice, tolerance=1)) is RefusalCode.TOO_FEW_SITES


def test_a_session_whose_noise_tolerates_fewer_dropouts_is_refused(cautious: Policy) -> None:
    assert refused(lambda: cautious.check_participants(PEERS, tolerance=0)) is RefusalCode.NOT_ALLOWED


def test_a_tolerance_that_would_leave_one_share_is_refused(cautious: Policy) -> None:
    assert refused(lambda: cautious.check_participants(PEERS, tolerance=3)) is RefusalCode.TOO_FEW_SITES
    cautious.check_participants(PEERS, tolerance=2)


def test_with_a_list_of_peers_a_stranger_is_refused_though_the_roster_certifies_it() -> None:
    listed = ", ".join(f'"{peer}"' for peer in PEERS[:3])
    policy = Policy.parse(edited("peers = []", f"peers = [{listed}]"))
    policy.check_participants(PEERS[:3], tolerance=1)
    assert refused(lambda: policy.check_participants(PEERS, tolerance=1)) is RefusalCode.NOT_ALLOWED


def test_a_sum_is_opened_only_with_the_noise_it_was_planned_for(cautious: Policy) -> None:
    assert cautious.fewest_survivors(participants=10, tolerance=1) == 9
    assert cautious.fewest_survivors(participants=4, tolerance=1) == 3
    assert cautious.fewest_survivors(participants=3, tolerance=1) == 3, "the minimum holds for survivors too"
