"""Averaging, differencing and caches against a whole consortium: gateway to ledger, over real connections.

The patient is the only one of 91 years in the cohort, and may be at the first hospital. What is free, what is
charged and what is refused must not depend on whether the patient is there.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from coordinator.profile import Profile
from node.omop.store import OmopStore
from privacy import release
from privacy.accountant import fold
from privacy.ledger import Ledger
from privacy.reading import Answer
from protocols.peer import Role
from protocols.question import Mechanism, Question
from protocols.refusal import RefusalCode, Refused
from tests.network.consortium import CLOCK, ask
from tests.network.standing import CIRCE, LATE, SITES, Standing, question, standing
from tests.node.patients import DAY, Patient, fill
from tests.threats import games, peers
from tests.threats.games import Advantage, bounds, released, report

OUTSIDER = Patient(90_002)  # not in the cohort
TARGET = Patient(90_001, born=DAY.year - 91, conditions=[(1, DAY)])
INDEX = {"kind": "condition", "concepts": [1, 2]}
OLDEST = {"kind": "age", "min_years": 91, "max_years": 91}
WHOLE: dict[str, Any] = {"index": INDEX}
NESTED: dict[str, Any] = {"index": INDEX, "exclude": [OLDEST]}
SAME_PEOPLE: dict[str, Any] = {"index": INDEX, "include": [{"kind": "age", "min_years": 0}]}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with standing(tmp_path_factory.mktemp("attacks")) as found:
        yield found


def shuffled(value: Any, rng: np.random.Generator) -> Any:
    """Return the same JSON with the keys of its objects in another order."""
    if isinstance(value, dict):
        keys = list(value)
        return {keys[place]: shuffled(value[keys[place]], rng) for place in rng.permutation(len(keys))}
    return [shuffled(entry, rng) for entry in value] if isinstance(value, list) else value


def renamed(form: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Return a Circe definition with other names."""
    changed = json.loads(json.dumps(form))
    for entry in changed["ConceptSets"]:
        entry["name"] = f"name {rng.integers(10_000)}"
        for item in entry["expression"]["items"]:
            item["concept"]["CONCEPT_NAME"] = f"called {rng.integers(10_000)}"
    return changed


@pytest.mark.parametrize("pure", [False, True])
@pytest.mark.parametrize("form", ["own", "circe"])
def test_the_average_over_rephrased_questions_is_one_answer_at_one_charge(
    network: Standing, form: str, pure: bool
) -> None:
    rng, before = np.random.default_rng(1), network.spent()
    answers = []
    for _ in range(15):
        cohort = shuffled(LATE if form == "own" else renamed(CIRCE, rng), rng)
        answers.append(network.ask(question({"kind": "count"}, cohort=cohort, pure=pure, epsilon=0.31)))
    charged = np.array(network.spent()) - before
    title = f"averaging 15 phrasings over the network, {form}, {'laplace' if pure else 'gaussian'}"
    print(f"{title:<62} {len({a.estimates for a in answers})} release, {charged.tolist()} charged")
    assert len({answer.estimates for answer in answers}) == 1
    assert [answer.cached for answer in answers] == [False] + [True] * 14
    assert charged.tolist() == [1] * SITES
    assert {answer.question_id for answer in answers} == {answer.question.question_id for answer in answers}


def ended(network: Standing, who: Profile, asked: list[Question]) -> list[Answer]:
    """Ask in order until the budget is exhausted; return the answers."""

    async def one(each: Question) -> Answer:
        envelope = each.signed(signer=who.name, key=who.identity_key())
        async with network.consortium.channel(who) as channel:
            return await ask(channel, each, network.consortium, envelope=envelope)

    answers: list[Answer] = []

    def all_of_them() -> None:
        for each in asked:
            answers.append(network.do(one(each)))

    with pytest.raises(Refused) as refused:
        all_of_them()
    assert refused.value.code is RefusalCode.BUDGET_EXHAUSTED
    return answers


@pytest.mark.parametrize("pure", [False, True])
def test_questions_that_differ_are_charged_as_they_compose_until_the_budget_ends(
    network: Standing, pure: bool
) -> None:
    """The attacker varies what does not matter to the cohort; the average is worth what the ledger says."""
    project, cap, delta = f"capped-{'pure' if pure else 'gaussian'}", 1.0, 1e-5
    home = network.consortium.home
    with contextlib.closing(home.open_state()) as state:
        who = home.issue_profile(
            state,
            network.consortium.folder / project,
            name=project,
            role=Role.RESEARCHER,
            projects=(project,),
            clock=CLOCK,
        )
    for site in range(SITES):
        path = network.consortium.node(site).policy
        path.write_text(
            path.read_text().replace("[budget.projects]", f'[budget.projects]\n"{project}" = {cap}')
        )
    network.knows(project)
    cohorts = [
        WHOLE | {"include": [{"kind": "age", "min_years": years}]} for years in range(15)
    ]  # all adults
    asked = [
        question({"kind": "count"}, cohort=cohort, pure=pure, epsilon=0.4, project=project)
        for cohort in cohorts
    ]
    answers = ended(network, who, asked)

    prices = [release.price(each) for each in asked[: len(answers) + 1]]
    composed, beyond = fold(prices[:-1]), fold(prices)
    for site in range(SITES):
        with Ledger(network.consortium.node(site).ledger, clock=CLOCK, read_only=True) as ledger:
            spent = ledger.spent(project, delta=delta)
        assert spent.events == len(answers)
        assert spent.epsilon == pytest.approx(composed.epsilon(delta=delta), rel=1e-9)
        assert spent.epsilon <= cap < beyond.epsilon(delta=delta)
    assert len({answer.answered_at for answer in answers}) == len(answers), "releases of their own"
    assert not any(answer.cached for answer in answers)
    exact, allowed = bounds(asked[0], releases=len(answers), delta=delta)
    print(
        f"{f'{len(answers)} questions over the network until refused, pure {pure}':<62}"
        f" ε {spent.epsilon:.3f} of {cap:g} charged, bound {exact:.3f}  (ε, δ) {allowed:.3f}"
    )


def load(network: Standing, patient: Patient) -> None:
    """Let the first hospital load one more patient."""
    network.stop(0)
    with contextlib.closing(OmopStore.open(network.consortium.node(0).store)) as store:
        fill(store, [patient], name=f"load of {patient.person_id}")
    network.start(0)
    network.connected(SITES)


def test_free_or_charged_does_not_depend_on_the_patient(network: Standing) -> None:
    """A cache keyed by the count tells nested cohorts apart if the patient is there. Ours sees no count."""
    seen, rng = [], np.random.default_rng(3)
    texts = (WHOLE, shuffled(WHOLE, rng), NESTED, shuffled(NESTED, rng), SAME_PEOPLE, NESTED, WHOLE)
    for patient in (OUTSIDER, TARGET):
        load(network, patient)
        before, rows = network.spent(), []
        for cohort in texts:
            answer = network.ask(question({"kind": "count"}, cohort=cohort, pure=True, epsilon=1.0))
            rows.append((answer.cached, answer.contributors, answer.participants, answer.releases))
        seen.append((rows, (np.array(network.spent()) - before).tolist()))
    flags = "".join("hit " if row[0] else "miss " for row in seen[0][0])
    print(f"{'what is free, without and with the patient':<62} {flags}/ the same")
    assert seen[0] == seen[1]
    assert [row[0] for row in seen[0][0]] == [False, True, False, True, False, True, True]
    assert seen[0][1] == [3] * SITES


@pytest.mark.parametrize("mechanism", Mechanism)
def test_equal_answers_to_nested_cohorts_do_not_give_the_patient_away(mechanism: Mechanism) -> None:
    """The attack on Focus's cache: say "in" where the two answers differ."""
    pair = [games.question(epsilon=0.28, mechanism=mechanism, max_sites_per_patient=1) for _ in range(2)]
    says = []
    for target in (1, 0):
        counts = [[np.array([25 + found]), *[np.array([25])] * 3] for found in (target, 0)]
        answers = [
            released(asked, count, games=100_000, seed=200 + 10 * place + target)
            for place, (asked, count) in enumerate(zip(pair, counts, strict=True))
        ]
        says.append((answers[0] != answers[1])[:, 0])
    rng = np.random.default_rng(2)
    differ = [
        (found[:, 0] != found[:, 1]) for found in (peers.focus([c, 25], 20_000, rng=rng) for c in (26, 25))
    ]
    exact, allowed = bounds(pair[0], releases=2)
    report(
        f"do nested answers differ, {mechanism}, 2 × ε 0.28 (beside Focus)",
        Advantage.of(*says),
        bound=exact,
        promised=allowed,
        without=Advantage.of(*differ).value,
    )
    assert Advantage.of(*differ).low > allowed
