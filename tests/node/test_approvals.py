"""A hospital trains the plans it approved, and no others."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.training.approvals import (
    MAX_PENDING,
    UNPROPOSED,
    Approvals,
    DamagedApprovals,
    NoSuchPlan,
    TooManyPending,
)
from protocols.clock import FixedClock
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study
from tests.protocols.study_forms import study_form

CLOCK = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
STUDY = Study.from_json(study_form())
OTHER = Study.from_json(study_form(privacy__epsilon=2.0))


def test_nothing_is_approved_at_first_and_a_proposal_alone_changes_that_not(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    assert not approvals.propose(STUDY, proposed_by="lead")
    assert [(p.study, p.proposed_by) for p in approvals.pending()] == [(STUDY, "lead")]
    with pytest.raises(Refused) as refused:
        approvals.study(STUDY.plan_hash())
    assert refused.value.code is RefusalCode.NOT_APPROVED


def test_approval_is_for_this_very_plan_and_survives_a_restart(tmp_path: Path) -> None:
    Approvals(tmp_path).propose(STUDY, proposed_by="lead")
    assert Approvals(tmp_path).approve_hash(STUDY.plan_hash().hex()[:10], clock=CLOCK) == STUDY
    again = Approvals(tmp_path)
    assert again.study(STUDY.plan_hash()) == STUDY
    assert again.propose(STUDY, proposed_by="lead")
    assert not again.pending()
    assert not again.is_approved(OTHER.plan_hash())


def test_training_is_expected_once_a_plan_waits_and_after_one_was_approved(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    assert not approvals.expect_training()
    approvals.propose(STUDY, proposed_by="lead")
    assert approvals.expect_training()
    approvals.approve(STUDY, clock=CLOCK)
    assert not approvals.pending()
    assert Approvals(tmp_path).expect_training()


def test_a_plan_is_charged_to_whoever_proposed_it_first_also_after_its_approval(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    approvals.propose(STUDY, proposed_by="lead")
    approvals.approve(STUDY, clock=CLOCK)
    approvals.propose(STUDY, proposed_by="somebody-else")
    assert Approvals(tmp_path).proposer(STUDY.plan_hash()) == "lead"
    approvals.approve(OTHER, clock=CLOCK)
    assert approvals.proposer(OTHER.plan_hash()) == UNPROPOSED
    approvals.propose(OTHER, proposed_by="lead")
    assert approvals.proposer(OTHER.plan_hash()) == "lead"


def test_a_withdrawn_plan_is_refused_from_then_on(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    approvals.approve(STUDY, clock=CLOCK)
    approvals.approve(OTHER, clock=CLOCK)
    assert approvals.withdraw(STUDY.plan_hash().hex()) == STUDY
    assert approvals.approved() == (OTHER,)
    with pytest.raises(Refused):
        approvals.study(STUDY.plan_hash())


def test_only_the_owner_reads_the_decisions(tmp_path: Path) -> None:
    Approvals(tmp_path).approve(STUDY, clock=CLOCK)
    assert stat.S_IMODE((tmp_path / "studies" / "approved.json").stat().st_mode) == 0o600


def test_a_plan_edited_behind_its_hash_is_not_an_approved_plan(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    approvals.approve(STUDY, clock=CLOCK)
    file = tmp_path / "studies" / "approved.json"
    form = json.loads(file.read_bytes())
    form["plans"][STUDY.plan_hash().hex()]["plan"]["privacy"]["epsilon"] = 50.0
    file.write_text(json.dumps(form))
    with pytest.raises(DamagedApprovals):
        approvals.study(STUDY.plan_hash())


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "fedtwin-approvals-v2", "plans": {}}'])
def test_a_file_of_another_form_approves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "approved.json").write_text(text)
    with pytest.raises(DamagedApprovals):
        Approvals(tmp_path).is_approved(STUDY.plan_hash())


def test_a_hash_must_name_one_plan(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    approvals.propose(STUDY, proposed_by="lead")
    for digits in ("", STUDY.plan_hash().hex()[:7], "00000000"):
        with pytest.raises(NoSuchPlan):
            approvals.approve_hash(digits, clock=CLOCK)


def test_a_flood_of_proposals_is_not_kept(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    for place in range(MAX_PENDING):
        approvals.propose(Study.from_json(study_form(study__name=f"n{place}")), proposed_by="lead")
    with pytest.raises(TooManyPending):
        approvals.propose(STUDY, proposed_by="lead")
    assert len(approvals.pending()) == MAX_PENDING
