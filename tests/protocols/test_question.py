"""A question says everything a hospital charges for, has one encoding, and is refused if anything is off."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocols import canonical
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.envelope import BadEnvelope, Purpose, sign
from protocols.question import MalformedQuestion, Mechanism, Question, UnknownSigner, opened
from protocols.statistic import Feasibility

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
COHORT = Cohort.parse({"index": {"kind": "condition", "concepts": [317576]}})
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def question(**changes) -> Question:
    fields = {
        "project": "demo",
        "epsilon": 1.0,
        "delta": 1e-6,
        "max_sites_per_patient": 2,
        "now": NOW,
    }
    return Question.ask(changes.pop("cohort", COHORT), **(fields | changes))


def test_a_question_survives_its_encoding() -> None:
    asked = question()
    assert Question.parse(asked.to_bytes()) == asked


def test_a_signed_question_opens_with_its_signer() -> None:
    asked = question()
    found, signer = opened(asked.signed(signer="ada", key=KEY), key_of={"ada": KEY.public_key()})
    assert (found, signer) == (asked, "ada")


@pytest.mark.parametrize("field", ["epsilon", "project", "attempts", "max_sites_per_patient", "expires_at"])
def test_an_edited_question_does_not_open(field: str) -> None:
    data = question().signed(signer="ada", key=KEY)
    fields = json.loads(data)
    payload = json.loads(base64.b64decode(fields["payload"]))
    payload[field] = {"epsilon": 2.0, "project": "other", "attempts": 1, "max_sites_per_patient": 1}.get(
        field, "2026-11-21T09:16:00+00:00"
    )
    fields["payload"] = base64.b64encode(canonical.encode(payload)).decode()
    with pytest.raises(BadEnvelope):
        opened(canonical.encode(fields), key_of={"ada": KEY.public_key()})


def test_a_signer_outside_the_roster_is_unknown() -> None:
    with pytest.raises(UnknownSigner):
        opened(question().signed(signer="eve", key=KEY), key_of={"ada": KEY.public_key()})


def test_a_signature_for_another_purpose_does_not_open() -> None:
    data = sign(question().to_bytes(), purpose=Purpose.STUDY, signer="ada", key=KEY).to_bytes()
    with pytest.raises(BadEnvelope):
        opened(data, key_of={"ada": KEY.public_key()})


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 0.0},
        {"epsilon": float("nan")},
        {"epsilon": float("inf")},
        {"epsilon": 65.0},
        {"delta": 0.0},
        {"delta": 0.5},
        {"max_sites_per_patient": 0},
        {"attempts": 0},
        {"attempts": 3},
        {"project": "UPPER"},
        {"project": ""},
        {"lifetime": timedelta(0)},
        {"lifetime": timedelta(days=2)},
    ],
)
def test_a_question_out_of_bounds_cannot_be_built(changes: dict) -> None:
    with pytest.raises(MalformedQuestion):
        question(**changes)


@pytest.mark.parametrize(
    "edit",
    [
        lambda f: f | {"note": "x"},
        lambda f: {k: v for k, v in f.items() if k != "delta"},
        lambda f: f | {"epsilon": "1"},
        lambda f: f | {"epsilon": True},
        lambda f: f | {"attempts": True},
        lambda f: f | {"epsilon": 1},  # another encoding of the same number
        lambda f: f | {"version": 1},
        lambda f: f | {"statistic": {"kind": "sum"}},
        lambda f: f | {"statistic": {"kind": "count", "by": "sex"}},
        lambda f: f | {"mechanism": "none"},
        lambda f: f | {"mechanism": "laplace"},  # with a delta above 0
        lambda f: f | {"on_behalf_of": "two words"},
        lambda f: f | {"cohort": {}},
        lambda f: f | {"asked_at": "2026-11-21T09:00:00"},
        lambda f: f | {"asked_at": "2026-11-21T10:00:00+01:00"},
        lambda f: f | {"question_id": "n-" + 32 * "0"},
    ],
)
def test_another_form_of_a_question_is_refused(edit) -> None:
    fields = json.loads(question().to_bytes())
    with pytest.raises(MalformedQuestion):
        Question.parse(canonical.encode(edit(fields)))


def test_white_space_makes_another_encoding_and_is_refused() -> None:
    with pytest.raises(MalformedQuestion):
        Question.parse(json.dumps(json.loads(question().to_bytes())).encode())


def test_a_question_expires_and_does_not_start_before_it_was_asked() -> None:
    asked = question(lifetime=timedelta(minutes=10))
    assert not asked.expired(NOW)
    assert not asked.expired(NOW - timedelta(minutes=4))
    assert asked.expired(NOW - timedelta(minutes=6))
    assert asked.expired(NOW + timedelta(minutes=10))


def test_the_context_binds_question_attempt_and_tolerance() -> None:
    asked = question()
    contexts = {
        asked.context(attempt=1, tolerance=1),
        asked.context(attempt=2, tolerance=1),
        asked.context(attempt=1, tolerance=0),
        question().context(attempt=1, tolerance=1),
    }
    assert len(contexts) == 4
    assert {len(context) for context in contexts} == {32}


CIRCE = {
    "ConceptSets": [{"id": 0, "name": "a", "expression": {"items": [{"concept": {"CONCEPT_ID": 317576}}]}}],
    "PrimaryCriteria": {
        "CriteriaList": [{"ConditionOccurrence": {"CodesetId": 0}}],
        "ObservationWindow": {"PriorDays": 0, "PostDays": 0},
        "PrimaryCriteriaLimit": {"Type": "First"},
    },
    "QualifiedLimit": {"Type": "First"},
    "ExpressionLimit": {"Type": "First"},
    "InclusionRules": [],
    "CollapseSettings": {"CollapseType": "ERA", "EraPad": 0},
}


def test_a_question_may_carry_a_circe_definition() -> None:
    asked = question(cohort=CirceCohort.parse(json.dumps(CIRCE)))
    assert Question.parse(asked.to_bytes()) == asked


def test_names_and_the_order_of_keys_do_not_change_what_a_question_means() -> None:
    renamed = json.loads(json.dumps(CIRCE))
    renamed["ConceptSets"][0]["name"] = "something else"
    backwards = json.dumps(dict(reversed(renamed.items())))
    first, second = (question(cohort=CirceCohort.parse(text)) for text in (json.dumps(CIRCE), backwards))
    assert first.meaning() == second.meaning()
    assert first.question_id != second.question_id


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 0.5},
        {"delta": 1e-7},
        {"project": "other"},
        {"max_sites_per_patient": 1},
        {"mechanism": Mechanism.LAPLACE, "delta": 0.0},
        {"statistic": Feasibility(10)},
        {"cohort": Cohort.parse({"index": {"kind": "condition", "concepts": [1]}})},
    ],
)
def test_what_changes_the_release_changes_what_a_question_means(changes: dict) -> None:
    assert question(**changes).meaning() != question().meaning()


def test_id_times_attempts_and_beneficiary_do_not_change_what_a_question_means() -> None:
    other = question(attempts=1, on_behalf_of="grace", now=NOW + timedelta(days=3))
    assert other.meaning() == question().meaning()
