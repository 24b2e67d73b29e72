"""What a person can do through the gateway, over real TLS, and whom the hospitals charge for it."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from coordinator.gateway import documents
from coordinator.gateway.tokens import account_of
from protocols import question as questions
from protocols.refusal import RefusalCode
from tests.consortium import LoopThread
from tests.coordinator.gateway.hospitals import EACH, SITES, charges
from tests.coordinator.gateway.site import BODY, COHORT, Site, founded, post, problem, until

CIRCE = {
    "ConceptSets": [],
    "PrimaryCriteria": {
        "CriteriaList": [{"ConditionOccurrence": {}}],
        "ObservationWindow": {"PriorDays": 0, "PostDays": 0},
        "PrimaryCriteriaLimit": {"Type": "First"},
    },
}


def valid(name: str, value: object) -> None:
    """Hold a body against what the OpenAPI document says of it."""
    Draft202012Validator(documents.SCHEMAS[name]).validate(value)


def test_a_question_is_answered_with_its_error_its_price_and_its_unit_of_privacy(site: Site) -> None:
    response = site.ask()
    assert response.status_code == 200, response.text
    body = response.json()
    valid("Question", body)
    answer = body["answer"]
    assert abs(answer["estimate"] - SITES * EACH) < 6.5 * answer["standard_deviation"]
    assert answer["half_width_95"] > answer["standard_deviation"]
    assert answer["charged"] == {"epsilon": 0.5, "delta": 1e-6}
    assert "one patient" in answer["unit_of_privacy"]
    assert response.headers["location"] == f"/v1/questions/{body['question_id']}"
    assert site.get(response.headers["location"]).json() == body


def test_the_hospitals_charge_the_person_and_not_the_gateway(site: Site) -> None:
    account = f"gateway/{account_of(site.issuer.issuer, 'lovelace')}"
    assert site.hospitals.charged[account] == 0
    assert site.ask(token=site.token("lovelace")).status_code == 200
    assert site.hospitals.charged[account] == 1
    assert len(account_of(site.issuer.issuer, "lovelace")) == 52
    assert account_of(site.issuer.issuer, "ada") != account_of(site.issuer.issuer + "/", "ada")


def test_the_gateway_signs_in_its_own_name_for_the_pseudonym(site: Site) -> None:
    site.ask(token=site.token("ada"))
    assert site.gateway is not None
    person = site.gateway.asker._profile
    key = {person.name: person.identity_key().public_key()}
    question, signer = questions.opened(site.hospitals.envelopes[-1], key_of=key)
    assert signer == "gateway"
    assert question.on_behalf_of == account_of(site.issuer.issuer, "ada")
    assert question.project == "stroke"


@pytest.mark.parametrize(
    "more",
    [
        {"cohort": CIRCE},
        {"mechanism": "laplace"},
        {"statistic": {"kind": "breakdown", "by": "sex", "total": True}},
        {"statistic": {"kind": "contingency", "other": COHORT}},
        {"max_sites_per_patient": 1, "attempts": 1, "delta": 1e-5},
    ],
)
def test_every_part_of_a_question_can_be_said(site: Site, more: dict[str, object]) -> None:
    response = site.ask(BODY | more)
    assert response.status_code == 200, response.text
    valid("Question", response.json())


def test_a_preview_costs_nothing_and_says_what_the_answer_would_be_like(site: Site) -> None:
    before = charges(site.hospitals)
    with site.client() as client:
        preview = post(client, "/v1/previews", BODY).json()
    valid("Preview", preview)
    answer = site.ask().json()["answer"]
    assert preview["expected_error"]["standard_deviation"] == pytest.approx(answer["standard_deviation"])
    assert preview["expected_error"]["half_width_95"] == pytest.approx(answer["half_width_95"])
    assert preview["cost"]["epsilon"] == 0.5
    assert preview["project"]["epsilon_after"] == preview["project"]["epsilon"] + 0.5
    assert charges(site.hospitals) == before + 1  # the question, not the preview


def test_who_is_there_and_what_a_project_has_cost_can_be_seen(site: Site) -> None:
    found = site.get("/v1/consortium").json()
    valid("Consortium", found)
    assert (found["connected"], found["projects"]) == (SITES, ["stroke"])
    mary = site.token("mary")
    site.ask(token=mary)
    budget = site.get("/v1/budget?project=stroke", token=mary).json()
    valid("Budget", budget)
    assert budget["yours"] == {"answers": 1, "epsilon": 0.5, "delta": 1e-6}
    assert budget["releases"] == charges(site.hospitals)


def test_a_question_that_takes_long_is_looked_up_later(site: Site) -> None:
    site.hold()
    try:
        begun = site.ask(prefer="wait=0")
        assert begun.status_code == 202
        assert begun.json()["status"] == "open"
        valid("Question", begun.json())
        seen = site.get(begun.headers["location"])
        assert int(seen.headers["retry-after"]) > 0
    finally:
        site.release()
    ended = site.get(begun.headers["location"], prefer="wait=10").json()
    assert ended["status"] == "answered"
    valid("Question", ended)


def test_a_refusal_of_the_hospitals_is_a_problem_with_its_code(site: Site) -> None:
    site.hospitals.refusal = RefusalCode.BUDGET_EXHAUSTED
    try:
        refused = site.ask()
    finally:
        site.hospitals.refusal = None
    assert problem(refused) == "budget-exhausted"
    assert refused.status_code == 403
    seen = site.get(refused.headers["location"]).json()
    valid("Question", seen)
    assert (seen["status"], seen["refusal"]["code"]) == ("refused", "budget-exhausted")


def test_twenty_people_ask_at_once(site: Site) -> None:
    before = charges(site.hospitals)
    tokens = [site.token(f"person-{number}") for number in range(20)]
    with ThreadPoolExecutor(len(tokens)) as pool:
        found = list(pool.map(lambda token: site.ask(token=token), tokens))
    assert [response.status_code for response in found] == [200] * 20
    assert len({response.json()["question_id"] for response in found}) == 20
    assert charges(site.hospitals) == before + 20


def test_nobody_sees_another_persons_question(site: Site) -> None:
    where = site.ask(token=site.token("ada")).headers["location"]
    assert problem(site.get(where, token=site.token("eve"))) == "not-found"
    assert problem(site.get(where, token=site.token("ada", groups=()))) == "not-found"  # left the project
    assert problem(site.get("/v1/questions/q-" + "0" * 32)) == "not-found"
    assert problem(site.get("/v1/questions/nonsense")) == "not-found"


def test_a_coordinator_that_goes_away_loses_no_question(tmp_path: Path, loop_thread: LoopThread) -> None:
    with founded(tmp_path, loop=loop_thread, wait_s=1) as site:
        loop_thread.run(site.hospitals.stop())
        begun = site.ask()
        assert begun.status_code == 202
        assert problem(site.get("/v1/consortium")) == "coordinator-unreachable"
        loop_thread.run(site.hospitals.start())
        where = begun.headers["location"]
        until(lambda: site.get(where).json()["status"] == "answered", timeout_s=30)
        assert charges(site.hospitals) == 1


def test_a_coordinator_that_goes_away_in_a_question_is_asked_again(
    tmp_path: Path, loop_thread: LoopThread
) -> None:
    with founded(tmp_path, loop=loop_thread, wait_s=1) as site:
        site.hold()
        begun = site.ask(prefer="wait=0")
        until(lambda: site.hospitals.envelopes)
        loop_thread.run(site.hospitals.stop())
        assert site.get(begun.headers["location"]).json()["status"] == "open"
        loop_thread.run(site.hospitals.start())
        site.release()
        until(lambda: site.get(begun.headers["location"]).json()["status"] == "answered", timeout_s=30)
        assert charges(site.hospitals) == 1
        assert len(set(site.hospitals.envelopes)) == 1


def test_what_the_gateway_writes_is_for_its_owner_and_holds_no_token(site: Site) -> None:
    token = site.token("charles")
    site.ask(token=token)
    for path in (site.folder / "gateway").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, path
    kept = b"".join(p.read_bytes() for p in (site.folder / "gateway").rglob("gateway.sqlite*"))
    assert token.encode() not in kept
    assert b"charles" not in kept  # the book knows pseudonyms only
    assert json.dumps(BODY["project"]).strip('"').encode() in kept
