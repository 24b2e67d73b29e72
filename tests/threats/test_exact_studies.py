"""Sums without noise leave a hospital for plans that its policy names, once, and for nothing else.

What such a sum tells is not protected by any (ε, δ): so who decides, how often, and over whom, has to hold.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from node.audit import verify
from node.features.study_rows import feature_table
from node.policy import Policy, starter
from node.policy_form import MalformedPolicy
from node.sums import OpenSession
from node.training import exact_rounds
from privacy import descent, study_noise
from privacy.errors import SecureSumError
from privacy.exact_result import result
from privacy.exact_state import Verdict, exact_sums
from privacy.newton import Newton
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from tests.node.hub import POLICY, Hospitals
from tests.node.patients import DAY, HEART_FAILURE, SBP, Patient, fill
from tests.protocols.exact_forms import exact_form
from tests.protocols.study_forms import study_form

SIZES = (60, 40, 30)
FIBRILLATION = 313217


def form(**changes: object) -> dict:
    found = exact_form("logistic")
    age, _, pressure, fibrillation, _ = found["features"]
    found["features"] = [age, pressure | {"missing_flag": False}, fibrillation]
    return found | {"exact": {"model": "logistic"} | changes}


STUDY = Study.from_json(form())
START = descent.initial(STUDY)


def named(*studies: str, minimum_people: int = 20) -> bytes:
    lines = ", ".join(f'"{study}"' for study in studies)
    return POLICY + f"\n[exact]\nstudies = [{lines}]\nminimum_people = {minimum_people}\n".encode()


def patients(count: int, *, seed: int) -> list[Patient]:
    rng = np.random.default_rng(seed)
    return [
        Patient(
            n + 1,
            born=int(rng.integers(1930, 1990)),
            measurements=[(SBP, float(rng.integers(95, 185)), DAY)],
            conditions=[(concept, DAY) for concept in (HEART_FAILURE, FIBRILLATION) if rng.random() < 0.4],
        )
        for n in range(count)
    ]


@contextmanager
def hospitals(
    folder: Path, policy: bytes, *, study: Study = STUDY, with_data: bool = False
) -> Iterator[Hospitals]:
    """Open three hospitals; without data where they have to refuse before they read any."""
    folder.mkdir(exist_ok=True)
    with Hospitals(folder, len(SIZES), policy=policy, deadline_s=2.0) as network:
        for place, (hospital, size) in enumerate(zip(network.all, SIZES, strict=True)):
            if with_data:
                fill(hospital.store, patients(size, seed=place))
        network.approve(study)
        yield network


def codes(replies: list[RoundReply | BaseException]) -> set[RefusalCode]:
    assert all(isinstance(reply, Refused) for reply in replies), replies
    return {reply.code for reply in replies if isinstance(reply, Refused)}


def nothing_left(network: Hospitals) -> bool:
    quiet = not any(entry.kind != "opened" for h in network.all for entry in h.ledger.entries())
    return quiet and not network.hub.vectors


NAMED = named(STUDY.plan_hash().hex())


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """Hospitals that name and approve the study, and are asked for what they refuse before reading."""
    with hospitals(tmp_path_factory.mktemp("asked"), NAMED) as network:
        yield network


def test_a_study_that_every_policy_names_gives_the_pooled_result_and_is_counted(tmp_path: Path) -> None:
    with hospitals(tmp_path, NAMED, with_data=True) as network:
        replies = network.round(STUDY, START, round=1)
        assert all(isinstance(reply, RoundReply) for reply in replies), replies
        assert len({reply.parameters_digest for reply in replies}) == 1
        plan = exact_sums(STUDY, participants=3, tolerance=1)
        walk = Newton(STUDY, START)
        for step in range(replies[0].steps):
            sent = [vector for _, vector in network.hub.vectors[3 * step : 3 * step + 3]]
            walk.apply(plan.decode(np.sum(sent, axis=0, dtype=np.uint64)))
        assert descent.digest(walk.params) == replies[0].parameters_digest
        found = result(STUDY, walk.params)
        tables = [feature_table(STUDY, hospital.store) for hospital in network.all]
        x, y = (np.concatenate([getattr(t, name) for t in tables]).astype(float) for name in "xy")
        fit = sm.GLM(y, np.column_stack([x, np.ones(len(x))]), family=sm.families.Binomial()).fit(tol=1e-14)
        assert found.verdict is Verdict.CONVERGED
        assert np.abs(np.array([one.estimate for one in found.coefficients]) - fit.params).max() < 1e-8
        for hospital in network.all:
            assert hospital.ledger.exact_releases() == {STUDY.plan_hash().hex(): replies[0].steps}
            assert hospital.ledger.spent(delta=1e-5).epsilon == 0.0
        home, steps = network.all[0].home, replies[0].steps
    lines = [json.loads(line) for line in (home / "audit.jsonl").read_text().splitlines()]
    released = [line["fields"] for line in lines if line["event"] == "exact-released"]
    assert [fields["step"] for fields in released] == list(range(steps))
    assert {fields["plan_hash"] for fields in released} == {STUDY.plan_hash().hex()}
    assert "budget-committed" not in {line["event"] for line in lines}
    verify(home / "audit.jsonl")


@pytest.mark.parametrize("policy", [POLICY, named("0" * 64)])
def test_a_study_that_no_policy_names_is_refused_though_it_is_approved(tmp_path: Path, policy: bytes) -> None:
    with hospitals(tmp_path, policy) as network:
        assert codes(network.round(STUDY, START, round=1)) == {RefusalCode.EXACT_NOT_NAMED}
        assert nothing_left(network)


def test_no_policy_that_comes_with_the_program_names_any() -> None:
    assert [Policy.parse(starter(preset)).exact for preset in ("cautious", "demo")] == [None, None]


def test_a_study_that_is_named_and_not_approved_is_refused(tmp_path: Path) -> None:
    with hospitals(tmp_path, NAMED, study=Study.from_json(study_form())) as network:
        for hospital in network.all:
            hospital.approvals.propose(STUDY, proposed_by="lead")
        assert codes(network.round(STUDY, START, round=1)) == {RefusalCode.NOT_APPROVED}
        assert nothing_left(network)


@pytest.mark.parametrize(
    "change",
    [
        {"study": {"name": "made-uq", "project": "tests"}},
        {"exact": {"model": "logistic", "iterations": 26}},
        {"exact": {"model": "logistic", "ridge": 1e-9}},
        {"training": {"mode": "exact", "train_fraction": 0.5}},
        {"sites": {"minimum": 3, "tolerance": 1, "step_deadline_s": 59.0}},
    ],
)
def test_a_study_of_which_a_byte_is_changed_is_another_study(asked: Hospitals, change: dict) -> None:
    other = Study.from_json(form() | change)
    asked.approve(other)
    assert codes(asked.round(other, descent.initial(other), round=1)) == {RefusalCode.EXACT_NOT_NAMED}
    assert nothing_left(asked)


def test_an_approved_plan_that_was_edited_on_the_disk_is_no_plan(tmp_path: Path) -> None:
    with hospitals(tmp_path, NAMED) as network:
        for hospital in network.all:
            file = hospital.home / "studies" / "approved.json"
            file.write_bytes(file.read_bytes().replace(b'"iterations":25', b'"iterations":26'))
        assert codes(network.round(STUDY, START, round=1)) == {RefusalCode.NOT_APPROVED}
        assert nothing_left(network)


def test_a_study_is_given_once_whatever_session_it_is_asked_in_again(tmp_path: Path) -> None:
    """Two totals of almost the same people tell the difference."""
    with hospitals(tmp_path, NAMED, with_data=True) as network:
        session = network.hub.open(STUDY, round=1)
        assert all(isinstance(r, RoundReply) for r in network.round(STUDY, START, round=1, session=session))
        before = [dict(hospital.ledger.exact_releases()) for hospital in network.all]
        sent = len(network.hub.vectors)
        assert codes(network.round(STUDY, START, round=1, session=session)) == {RefusalCode.REPLAYED}
        assert codes(network.round(STUDY, START, round=1)) == {RefusalCode.REPLAYED}
        lost = network.all[0]
        lost.store.close()
        lost.ledger.close()
        lost.trainer._audit.close()
        network.all[0] = network.start(lost.node, lost.home, NAMED)
        assert codes(network.round(STUDY, START, round=1)) == {RefusalCode.REPLAYED}
        assert [dict(hospital.ledger.exact_releases()) for hospital in network.all] == before
        assert len(network.hub.vectors) == sent


def test_a_sum_that_was_sent_and_came_to_nothing_is_not_sent_again(tmp_path: Path) -> None:
    """Nobody at a hospital can know that its sum was not opened."""
    with hospitals(tmp_path, NAMED, with_data=True) as network:
        session = network.hub.open(STUDY, round=1)
        network.hub.gone.add(network.all[0].node)
        replies = network.round(STUDY, START, round=1, session=session)
        assert not any(isinstance(reply, RoundReply) for reply in replies)
        assert {h.ledger.exact_releases()[STUDY.plan_hash().hex()] for h in network.all} == {1}
        network.hub.gone.clear()
        assert codes(network.round(STUDY, START, round=1)) == {RefusalCode.REPLAYED}


def test_no_total_is_opened_that_a_hospital_is_missing_from(tmp_path: Path) -> None:
    """The others' inputs are in; without the last one they stay masked."""
    with hospitals(tmp_path, NAMED, with_data=True) as network:
        session = network.hub.open(STUDY, round=1)
        network.hub.gone.add(network.all[0].node)
        network.round(STUDY, START, round=1, session=session)
        assert len(network.hub.vectors) == 2
        assert not network.hub.session(session).totals[0].done()
        state = network.hub.session(session)
        there = tuple(hospital.node for hospital in network.all[1:])
        for node in there:
            with pytest.raises(SecureSumError):  # whoever is told that one fell out
                state.parties[node].reveal(step=0, survivors=there)


@pytest.mark.parametrize("at", [1e-12, 40.0, -1e3])
def test_sums_at_coefficients_that_somebody_chose_are_refused(asked: Hospitals, at: float) -> None:
    """At huge coefficients a score counts the people on one side of a plane, exactly."""
    chosen = START.copy()
    chosen[0] = at
    assert codes(asked.round(STUDY, chosen, round=1)) == {RefusalCode.MALFORMED}
    assert nothing_left(asked)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (RefusalCode.PROTOCOL_VIOLATION, {"steps": 26}),
        (RefusalCode.PROTOCOL_VIOLATION, {"steps": 1}),
        (RefusalCode.NOT_ALLOWED, {"tolerance": 0}),
    ],
)
def test_no_session_but_one_of_the_planned_sums_will_do(
    asked: Hospitals, code: RefusalCode, change: dict
) -> None:
    session = asked.hub.open(STUDY, round=1, **change)
    assert codes(asked.round(STUDY, START, round=1, session=session)) == {code}
    assert nothing_left(asked)


def test_a_coordinator_that_says_it_is_a_plan_with_noise_gets_nothing(
    tmp_path: Path, asked: Hospitals
) -> None:
    """Neither by the plan itself, nor by a session of another plan, nor by naming that one's hash."""
    noisy = Study.from_json(study_form(study__name=STUDY.name))
    with pytest.raises(MalformedStudy):
        Study.from_json(STUDY.to_json() | {"training": noisy.to_json()["training"]})
    with pytest.raises(MalformedStudy):
        Study.from_json(STUDY.to_json() | {"privacy": noisy.to_json()["privacy"]})
    with hospitals(tmp_path, named(noisy.plan_hash().hex())) as network:
        network.approve(noisy)
        assert codes(network.round(STUDY, START, round=1)) == {RefusalCode.EXACT_NOT_NAMED}
        session = network.hub.open(noisy, round=1)
        assert codes(network.round(STUDY, START, round=1, session=session)) == {RefusalCode.EXACT_NOT_NAMED}
        assert nothing_left(network)
    asked.approve(noisy)
    session = asked.hub.open(noisy, round=1)
    assert codes(asked.round(STUDY, START, round=1, session=session)) == {RefusalCode.PROTOCOL_VIOLATION}
    assert nothing_left(asked)


def test_no_plan_without_noise_passes_where_epsilon_is_asked_for() -> None:
    policy = Policy.parse(NAMED)
    with pytest.raises(Refused, match="not-allowed"):
        policy.check_study(
            project="tests",
            tables=STUDY.tables,
            epsilon=STUDY.privacy.epsilon,
            delta=STUDY.privacy.delta,
            max_sites_per_patient=10,
            minimum_sites=STUDY.sites.minimum,
            tolerance=STUDY.sites.tolerance,
            approved=True,
        )
    with pytest.raises(ValueError, match="noise"):
        study_noise.event(STUDY, steps=1)


@pytest.mark.parametrize(
    ("people", "minimum"),
    [(19, 20), (0, 3), (11, 3)],
)
def test_a_hospital_with_few_people_stays_out_and_no_total_is_opened(
    tmp_path: Path, people: int, minimum: int
) -> None:
    """Below the policy's minimum, or below three people for each of the four coefficients."""
    policy = named(STUDY.plan_hash().hex(), minimum_people=minimum)
    with hospitals(tmp_path, policy) as network:
        fill(network.all[2].store, patients(people, seed=3))
        request = RoundRequest(STUDY.plan_hash(), 1, network.hub.open(STUDY, round=1), START)
        with pytest.raises(Refused, match="too-few-people"):
            network.all[2].trainer.train(request)
        assert not network.hub.vectors
        assert not network.all[2].ledger.exact_releases()


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"tolerance = 1", b"tolerance = 2", RefusalCode.NOT_ALLOWED),
        (b'  "measurement",\n', b"", RefusalCode.NOT_ALLOWED),
        (b"minimum = 3", b"minimum = 4", RefusalCode.TOO_FEW_SITES),
        (b"version = 2", b"version = 3", RefusalCode.NO_POLICY),
    ],
)
def test_what_else_the_policy_says_holds_for_named_studies_too(
    tmp_path: Path, old: bytes, new: bytes, code: RefusalCode
) -> None:
    assert old in NAMED
    policy = NAMED.replace(old, new)
    if b"tolerance = 2" in policy:
        policy = policy.replace(b"minimum = 3", b"minimum = 4")
    with hospitals(tmp_path, policy) as network:
        assert codes(network.round(STUDY, START, round=1)) == {code}
        assert nothing_left(network)


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('studies = ["0"]\nminimum_people = 20', "exact.studies[0]"),
        ("studies = []\nminimum_people = 2", "exact.minimum_people"),
        ("studies = []", "exact.minimum_people"),
        ("minimum_people = 20", "exact.studies"),
        ("studies = []\nminimum_people = 20\nall = true", "exact.all"),
        ('studies = "*"\nminimum_people = 20', "exact.studies"),
    ],
)
def test_a_section_that_is_not_whole_allows_nothing_at_all(lines: str, key: str) -> None:
    with pytest.raises(MalformedPolicy) as refused:
        Policy.parse(POLICY + f"\n[exact]\n{lines}\n".encode())
    assert refused.value.key == key


class SmallWords:
    """What a consortium that encrypts its sums can add: words smaller than those of exact values."""

    largest_input = 2**40

    def fits(self, values: int) -> bool:
        return True


def test_where_sums_are_encrypted_a_study_that_does_not_fit_is_refused_before_anything_is_read(
    asked: Hospitals,
) -> None:
    request = RoundRequest(STUDY.plan_hash(), 1, asked.hub.open(STUDY, round=1), START)
    found = asked.hub.session(request.session_id).opened
    small = OpenSession(found.parameters, found.tolerance, SmallWords())  # type: ignore[arg-type]
    with pytest.raises(Refused, match="does-not-fit"):
        exact_rounds._checked_session(STUDY, request, small)
    assert exact_rounds._checked_session(STUDY, request, found).participants == len(SIZES)


def test_a_walk_that_would_ask_for_more_is_stopped_by_the_ledger(tmp_path: Path) -> None:
    """Also a node whose walk went wrong gives each sum once, and in order."""
    with hospitals(tmp_path, NAMED, with_data=True) as network:
        network.round(STUDY, START, round=1)
        rounds = network.all[0].trainer._exact
        request = RoundRequest(STUDY.plan_hash(), 1, network.hub.open(STUDY, round=1), START)
        plan = exact_sums(STUDY, participants=3, tolerance=1)
        zeros = plan.encode(np.zeros(plan.dimension))
        for step in range(STUDY.training.steps):
            with pytest.raises(Exception, match=r"given|another request"):
                rounds._send(STUDY, request, step, zeros, model=bytes(32))
