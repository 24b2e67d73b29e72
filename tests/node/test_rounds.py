"""A round at hospitals: what is refused, what is charged, and that all of them end with the same model."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from node.audit import verify
from node.features.splitting import in_training
from node.features.study_rows import feature_table
from node.policy import Policy
from node.training.approvals import UNPROPOSED
from node.training.gradient import sum_of_clipped_grads
from privacy import descent, study_noise, walks
from privacy.accountant import epsilon
from privacy.budget import Account
from privacy.lanes import words_for
from protocols.ids import SessionId
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study
from tests.node.hub import POLICY, Hospital, Hospitals
from tests.node.patients import DAY, HEART_FAILURE, SBP, Patient, fill
from tests.protocols.study_forms import study_form

STUDY = Study.from_json(study_form())
START = walks.initial(STUDY)
ACCOUNT = Account("tests", UNPROPOSED)
CAPS = Policy.parse(POLICY).caps(ACCOUNT, now=datetime(2026, 11, 21, tzinfo=UTC))
# these hospitals have no report on their data
UNCHECKED = b"[quality]\nmin_pass_rate = 0.5\nmin_mapping_coverage = 0.5\nmax_age_days = 30\n\n"


def patients(count: int, *, seed: int) -> list[Patient]:
    rng = np.random.default_rng(seed)
    return [
        Patient(
            n + 1,
            born=int(rng.integers(1930, 1990)),
            measurements=[(SBP, float(rng.integers(100, 180)), DAY)],
            conditions=[(HEART_FAILURE, DAY)] if rng.random() < 0.4 else [],
        )
        for n in range(count)
    ]


def fill_all(network: Hospitals, sizes: tuple[int, ...] = (40, 25, 1, 0)) -> None:
    for place, (hospital, size) in enumerate(zip(network.all, sizes, strict=True)):
        fill(hospital.store, patients(size, seed=place))


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Hospitals]:
    with Hospitals(tmp_path, 4) as opened:
        fill_all(opened)
        opened.approve(STUDY)
        yield opened


def codes(replies: list[RoundReply | BaseException]) -> set[RefusalCode]:
    assert all(isinstance(reply, Refused) for reply in replies), replies
    return {reply.code for reply in replies if isinstance(reply, Refused)}


def audit_lines(home: Path) -> list[dict]:
    return [json.loads(line) for line in (home / "audit.jsonl").read_text().splitlines()]


def test_all_sites_end_with_one_model_whatever_their_size(network: Hospitals) -> None:
    first = network.round(STUDY, START, round=1)
    assert len({reply.parameters_digest for reply in first}) == 1
    assert {reply.steps for reply in first} == {3}


def test_the_model_is_the_descent_on_the_noisy_totals(network: Hospitals) -> None:
    replies = network.round(STUDY, START, round=1)
    plan = study_noise.noise_plan(STUDY, participants=4, tolerance=1)
    walk = walks.begin(STUDY, START)
    for step in range(3):
        sent = [vector for _, vector in network.hub.vectors[4 * step : 4 * step + 4]]
        walk.apply(plan.decode(np.sum(sent, axis=0, dtype=np.uint64)))
    assert descent.digest(walk.carried) == replies[0].parameters_digest


def test_each_vector_is_the_clipped_sum_plus_this_sites_share_of_the_noise(network: Hospitals) -> None:
    """With the gradient taken off, what remains has the share's variance: not less, not more."""
    wide = Study.from_json(
        study_form(study__model="mlp", study__hidden=[64], training__steps_per_round=1, training__rounds=400)
    )
    at = walks.initial(wide)
    network.approve(wide)
    plan = study_noise.noise_plan(wide, participants=4, tolerance=1)
    shares: list[list[np.ndarray]] = []
    for _ in range(4):
        network.hub.vectors.clear()
        assert all(isinstance(reply, RoundReply) for reply in network.round(wide, at, round=1))
        sent = dict(network.hub.vectors)
        shares.append(
            [plan.decode(sent[h.node]) - exact_sum(wide, h, at[: wide.parameters]) for h in network.all]
        )
    streams = np.array(shares).reshape(16, -1)  # four rounds of four sites, 513 draws each
    expected = float(plan.share_sigma / plan.scale)
    assert streams.std() == pytest.approx(expected, rel=0.06)  # 8208 draws: 7.6 standard errors
    assert streams.std() != pytest.approx(expected * np.sqrt(3 / 4), rel=0.06)  # σ²/n tolerates nobody
    correlations = np.corrcoef(streams)[np.triu_indices(16, 1)]
    assert np.abs(correlations).max() < 0.33  # 7.4 standard errors; one stream used twice would give 1


def exact_sum(study: Study, hospital: Hospital, at: np.ndarray) -> np.ndarray:
    rows = feature_table(study, hospital.store)
    chosen = in_training(rows.person_ids, key=hospital.node.raw, fraction=0.8)
    return sum_of_clipped_grads(study, at, rows.rows(chosen))


def test_each_step_is_charged_at_each_site_and_the_whole_run_costs_what_the_plan_says(
    network: Hospitals,
) -> None:
    params = START
    for number in (1, 2):
        replies = network.round(STUDY, params, round=number)
        plan = study_noise.noise_plan(STUDY, participants=4, tolerance=1)
        walk = walks.begin(STUDY, params)
        for step in range(3):
            sent = [v for _, v in network.hub.vectors[-12:][4 * step : 4 * step + 4]]
            walk.apply(plan.decode(np.sum(sent, axis=0, dtype=np.uint64)))
        params = walk.carried
        assert replies[0].parameters_digest == descent.digest(params)
    for hospital in network.all:
        spent = hospital.ledger.spent("tests", delta=1e-5)
        assert spent.events == 6
        assert 0.99 < spent.epsilon <= 1.0
    assert epsilon([study_noise.event(STUDY, steps=6)], delta=1e-5) <= 1.0


def test_a_round_is_charged_to_the_lead_who_proposed_the_plan(network: Hospitals) -> None:
    network.all[0].approvals.propose(STUDY, proposed_by="dr.lead")
    network.round(STUDY, START, round=1)
    first, *others = network.all
    assert first.ledger.accounts() == {Account("tests", "dr.lead", "cdm")}
    assert first.ledger.spent(researcher="dr.lead", delta=1e-5).events == 3
    assert {account for h in others for account in h.ledger.accounts()} == {ACCOUNT}


def test_a_plan_gets_no_more_steps_than_it_has_however_often_it_is_asked(network: Hospitals) -> None:
    for _ in range(2):
        assert not any(isinstance(r, BaseException) for r in network.round(STUDY, START, round=1))
    assert codes(network.round(STUDY, START, round=2)) == {RefusalCode.BUDGET_EXHAUSTED}
    assert {h.ledger.spent(delta=1e-5).events for h in network.all} == {6}


def test_a_session_is_used_once(network: Hospitals) -> None:
    session = network.hub.open(STUDY, round=1)
    network.round(STUDY, START, round=1, session=session)
    assert codes(network.round(STUDY, START, round=1, session=session)) == {RefusalCode.REPLAYED}
    assert {h.ledger.spent(delta=1e-5).events for h in network.all} == {3}


def test_a_refusal_is_in_the_trail_before_the_coordinator_is_told(network: Hospitals) -> None:
    """A node that dies while it withdraws from the session has said why already."""
    hospital = network.all[0]
    other = Study.from_json(study_form(study__name="other"))

    async def dying(session: object, code: object) -> None:
        raise ConnectionError

    hospital.trainer._sums.sums.withdraw = dying
    session = network.hub.open(other, round=1)
    with pytest.raises(ConnectionError):
        hospital.trainer.train(RoundRequest(other.plan_hash(), 1, session, START))
    last = audit_lines(hospital.home)[-1]
    assert (last["event"], last["fields"]["code"]) == ("round-refused", "not-approved")


def test_an_unapproved_plan_is_refused_and_nothing_is_read_or_charged(network: Hospitals) -> None:
    other = Study.from_json(study_form(privacy__epsilon=1.5))
    assert codes(network.round(other, START, round=1)) == {RefusalCode.NOT_APPROVED}
    for hospital in network.all:
        hospital.approvals.propose(other, proposed_by="lead")
    assert codes(network.round(other, START, round=1)) == {RefusalCode.NOT_APPROVED}
    assert not any(entry.kind != "opened" for h in network.all for entry in h.ledger.entries())
    assert not network.hub.vectors


def test_a_plan_that_the_caps_do_not_cover_is_refused_at_its_first_round(tmp_path: Path) -> None:
    """Its first round alone would fit: the whole rest of the plan has to."""
    policy = POLICY.replace(b'"*" = 10.0', b'"*" = 0.9')
    assert epsilon([study_noise.event(STUDY, steps=3)], delta=1e-5) < 0.9
    with Hospitals(tmp_path, 4, policy=policy) as network:
        fill_all(network)
        network.approve(STUDY)
        assert codes(network.round(STUDY, START, round=1)) == {RefusalCode.BUDGET_EXHAUSTED}
        assert {h.ledger.spent(delta=1e-5).events for h in network.all} == {0}
        assert not network.hub.vectors


def test_a_plan_whose_noise_a_second_accountant_finds_too_small_is_not_trained(
    network: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in our own calibration would be made at every hospital alike."""
    right = study_noise.noise_multiplier
    monkeypatch.setattr(study_noise, "noise_multiplier", lambda study: 0.7 * right(study))
    assert codes(network.round(STUDY, START, round=1)) == {RefusalCode.INTERNAL}
    assert {h.ledger.spent(delta=1e-5).events for h in network.all} == {0}
    assert not network.hub.vectors


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"max_sites_per_patient = 1", b"max_sites_per_patient = 2", RefusalCode.NOT_ALLOWED),
        (b"tolerance = 1", b"tolerance = 2", RefusalCode.NOT_ALLOWED),
        (b"max_epsilon = 4.0", b"max_epsilon = 0.5", RefusalCode.NOT_ALLOWED),
        (b'  "measurement",\n', b"", RefusalCode.NOT_ALLOWED),
        (b"minimum = 3", b"minimum = 4", RefusalCode.TOO_FEW_SITES),
        (b"version = 2", b"version = 3", RefusalCode.NO_POLICY),
        (b"[training]", UNCHECKED + b"[training]", RefusalCode.DATA_QUALITY),
    ],
)
def test_what_the_policy_does_not_allow_is_refused(
    tmp_path: Path, old: bytes, new: bytes, code: RefusalCode
) -> None:
    assert old in POLICY
    policy = POLICY.replace(old, new)
    if b"tolerance = 2" in policy:
        policy = policy.replace(b"minimum = 3", b"minimum = 4")
    with Hospitals(tmp_path, 4, policy=policy) as network:
        network.approve(STUDY)
        assert codes(network.round(STUDY, START, round=1)) == {code}
        assert not network.hub.vectors


@pytest.mark.parametrize(
    ("request_round", "session_round", "steps", "tolerance", "code"),
    [
        (2, 1, None, 1, RefusalCode.PROTOCOL_VIOLATION),
        (1, 1, 4, 1, RefusalCode.PROTOCOL_VIOLATION),
        (1, 1, None, 0, RefusalCode.NOT_ALLOWED),
        (3, 3, None, 1, RefusalCode.MALFORMED),
    ],
)
def test_a_session_that_was_not_opened_for_this_round_is_refused(
    network: Hospitals, request_round: int, session_round: int, steps: int, tolerance: int, code: RefusalCode
) -> None:
    session = network.hub.open(STUDY, round=session_round, steps=steps, tolerance=tolerance)
    assert codes(network.round(STUDY, START, round=request_round, session=session)) == {code}
    assert not network.hub.vectors


def test_an_unknown_session_and_a_model_of_another_shape_are_refused(network: Hospitals) -> None:
    assert codes(network.round(STUDY, START, round=1, session=SessionId.new())) == {RefusalCode.NOT_READY}
    assert codes(network.round(STUDY, np.zeros(5), round=1)) == {RefusalCode.MALFORMED}


def test_absurd_parameters_are_clipped_like_any_other_and_later_steps_stay_available(
    network: Hospitals,
) -> None:
    """Hospitals that were away for a round believe what they are told."""
    replies = network.round(STUDY, np.full(STUDY.carried, 1.7e308), round=2)
    assert all(isinstance(reply, RoundReply) for reply in replies)
    for hospital in network.all:
        assert hospital.ledger.left(CAPS, ACCOUNT).epsilon > 9.0  # what was not sent came back


def test_a_site_that_vanishes_in_a_round_is_a_dropout_and_the_rest_finish(network: Hospitals) -> None:
    lost = network.all[0]
    session = network.hub.open(STUDY, round=1)
    network.hub.gone.add(lost.node)
    replies = network.round(STUDY, START, round=1, session=session)
    assert codes(replies[:1]) == {RefusalCode.NOT_READY}
    assert len({reply.parameters_digest for reply in replies[1:]}) == 1
    assert (
        lost.ledger.spent(delta=1e-5).events == 1
    )  # committed before it would have left: wasted, not reused
    assert {h.ledger.spent(delta=1e-5).events for h in network.all[1:]} == {3}


def test_after_a_restart_in_the_middle_of_a_round_nothing_is_lost_or_used_twice(network: Hospitals) -> None:
    lost = network.all[0]
    session = network.hub.open(STUDY, round=1)
    network.hub.gone.add(lost.node)
    network.round(STUDY, START, round=1, session=session)
    lost.store.close()
    lost.ledger.close()
    lost.trainer._audit.close()
    again = network.start(lost.node, lost.home)
    network.all[0] = again
    network.hub.gone.clear()
    taken = again.ledger.spent(delta=1e-5).events
    assert again.trainer.steps_taken(STUDY.plan_hash()) == taken
    replies = network.round(STUDY, START, round=2)
    assert len({reply.parameters_digest for reply in replies}) == 1
    assert again.ledger.spent(delta=1e-5).events == taken + 3


def test_the_audit_trail_names_the_round_and_each_charge_and_holds_no_value(network: Hospitals) -> None:
    network.round(STUDY, START, round=1)
    lines = audit_lines(network.all[0].home)
    events = [line["event"] for line in lines]
    charges = [line["fields"] for line in lines if line["event"] == "budget-committed"]
    assert len(charges) == 3
    lanes = study_noise.noise_plan(STUDY, participants=4, tolerance=1).lanes
    assert {charge["bytes_sent"] for charge in charges} == {8 * words_for(STUDY.parameters, lanes=lanes)}
    assert events[0] == "budget-reserved"
    assert events[-1] == "round-finished"
    verify(network.all[0].home / "audit.jsonl")


def test_a_fault_is_audited_and_stays_a_fault(network: Hospitals) -> None:
    hospital = network.all[0]
    hospital.trainer._split_key = b"short"
    with pytest.raises(ValueError, match="16 bytes"):
        hospital.trainer.train(RoundRequest(STUDY.plan_hash(), 1, network.hub.open(STUDY, round=1), START))
    assert audit_lines(hospital.home)[-1]["fields"]["code"] == "internal"
    assert hospital.ledger.spent(delta=1e-5).events == 0
