"""Averaging: whoever gets fresh noise for the same question often enough gets the count.

The attacker asks for one count, in which a patient of two hospitals may be, and knows everybody else. Asked
again, in the same or other words, a question gives the same release: its average is one answer. Questions
that differ are different releases; each is charged, their costs add up, and the budget ends them.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from privacy import release
from privacy.accountant import Event, fold
from privacy.budget import Account, Caps
from privacy.ledger import BudgetExhausted, Ledger
from protocols.circe import CirceCohort
from protocols.clock import FixedClock
from protocols.cohort import Cohort
from protocols.question import Mechanism, Question
from tests.circe_forms import concept_set, definition, rule
from tests.threats import peers
from tests.threats.games import NOW, Advantage, bounds, evidence, question, released, report

SITES, TRUTH = 4, 25  # patients at each hospital, without the one that is looked for
OUT = np.array([TRUTH * SITES])
IN = OUT + 2  # the patient is known to two hospitals


def vectors(*, target: bool) -> list[np.ndarray]:
    """Return each hospital's exact count."""
    return [np.array([TRUTH + (target and site < 2)]) for site in range(SITES)]


def attack(asked: Question, *, releases: int, repeats: int, games: int, seed: int) -> Advantage:
    """Hear `releases` answers with noise of their own, each of them `repeats` times; judge by all of it."""
    says = []
    for target in (True, False):
        totals = released(asked, vectors(target=target), games=games * releases, seed=seed + target)
        heard = evidence(asked, totals, when_in=IN, when_out=OUT).reshape(games, releases)
        says.append(repeats * heard.sum(axis=1) > 0)
    return Advantage.of(*says)


@pytest.mark.parametrize("mechanism", Mechanism)
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_averaging_repeats_tells_no_more_than_one_answer(mechanism: Mechanism, epsilon: float) -> None:
    """A repeat gives the stored release. With fresh noise for each, the patient would be found."""
    asked = question(epsilon=epsilon, mechanism=mechanism)
    reached = attack(asked, releases=1, repeats=1_000, games=50_000, seed=10)
    fresh = attack(asked, releases=1_000, repeats=1, games=1_000, seed=12)
    exact, allowed = bounds(asked)
    report(
        f"averaging 1,000 repeats, {mechanism}, ε {epsilon:g}",
        reached,
        bound=exact,
        promised=allowed,
        without=fresh.value,
    )
    assert reached.high > 0.6 * exact, "the attack is near the best there is"
    assert fresh.low > 0.8


def test_averaging_rewritten_queries_finds_the_patient_where_each_draws_new_noise() -> None:
    """SHRINE's noise, in as many queries: what the stored release is for."""
    rng = np.random.default_rng(7)
    for rewrites, least in ((30, 0.55), (1_000, 0.99)):
        means = [peers.shrine(int(count[0]), (4_000, rewrites), rng=rng).mean(axis=1) for count in (IN, OUT)]
        threshold = (np.median(means[0]) + np.median(means[1])) / 2.0
        found = Advantage.of(means[0] > threshold, means[1] > threshold)
        print(f"{f'averaging {rewrites} rewrites, SHRINE':<62} {found.value:6.3f}")
        assert found.low > least - 0.1


def written(value: object, rng: np.random.Generator) -> str:
    """Return a JSON value with the keys of its objects, and the entries of its lists, in another order."""

    def shuffled(part: object) -> object:
        if isinstance(part, dict):
            keys = list(part)
            return {keys[place]: shuffled(part[keys[place]]) for place in rng.permutation(len(keys))}
        if isinstance(part, list):
            return [shuffled(part[place]) for place in rng.permutation(len(part))]
        return part

    return json.dumps(shuffled(value), indent=int(rng.integers(0, 4)))


OWN = {
    "index": {"kind": "condition", "concepts": [313217, 316139]},
    "include": [{"kind": "age", "min_years": 40}, {"kind": "sex", "concepts": [8532]}],
    "exclude": [{"kind": "drug", "concepts": [1118084]}],
}
CIRCE = definition(
    {"ConditionOccurrence": {"CodesetId": 0}},
    sets=[concept_set(0, [313217, 316139]), concept_set(1, [1118084])],
    InclusionRules=[rule({"DrugExposure": {"CodesetId": 1}}, at_least=1)],
)


def renamed(form: dict, rng: np.random.Generator) -> dict:
    """Return a Circe definition under other names and comments."""
    changed = json.loads(json.dumps(form))
    for entry in changed["ConceptSets"]:
        entry["name"] = f"name {rng.integers(1_000)}"
        for item in entry["expression"]["items"]:
            item["concept"]["CONCEPT_NAME"] = f"called {rng.integers(1_000)}"
    changed["InclusionRules"][0] |= {
        "name": f"rule {rng.integers(1_000)}",
        "description": f"because {rng.integers(1_000)}",
    }
    return changed


def test_averaging_by_rephrasing_asks_for_one_release() -> None:
    """300 texts in each form, one meaning; and changes that matter have others."""
    rng = np.random.default_rng(3)

    def meaning(cohort: Cohort | CirceCohort, **changes: object) -> bytes:
        return question(cohort=cohort, **changes).meaning()  # type: ignore[arg-type]

    own = {meaning(Cohort.parse(written(OWN, rng))) for _ in range(300)}
    texts = [json.dumps(renamed(CIRCE, rng), indent=int(rng.integers(0, 4))) for _ in range(300)]
    circe = {meaning(CirceCohort.parse(text)) for text in texts}
    print(f"{'averaging by rephrasing, releases for 300 texts':<62} {len(own)} and {len(circe)} (Circe)")
    assert len(set(texts)) > 290
    assert len(own) == len(circe) == 1

    wider = OWN | {"include": OWN["include"] + [{"kind": "age", "min_years": 0}]}  # the same people
    different = {
        meaning(Cohort.parse(OWN)),
        meaning(Cohort.parse(wider)),
        meaning(Cohort.parse(OWN), epsilon=1.000001),
        meaning(CirceCohort.parse(json.dumps(CIRCE))),
    }
    assert len(different) == 4, "these are answered anew, and charged"


def covered(ledger: Ledger, price: Event, *, number: int, caps: Caps) -> bool:
    """Charge one more question, as a node does; return whether the caps let it."""
    try:
        held = ledger.reserve(
            f"question-{number}", account=Account("threats", "ada"), purpose="count", event=price, caps=caps
        )
    except BudgetExhausted:
        return False
    ledger.commit(held)
    return True


@pytest.mark.parametrize("mechanism", Mechanism)
def test_averaging_questions_that_differ_ends_with_the_budget(tmp_path: Path, mechanism: Mechanism) -> None:
    """The ledger says how many there are; together they tell no more than what it composed, below the cap."""
    asked, cap, delta = question(epsilon=0.5, mechanism=mechanism), 2.0, 1e-5
    price, answered = release.price(asked), 0
    with Ledger(tmp_path / "ledger.sqlite", clock=FixedClock(NOW)) as ledger:
        while covered(ledger, price, number=answered, caps=Caps(delta, cap, cap, cap, cap)):
            answered += 1
        spent = ledger.spent(delta=delta)
    composed = fold([price] * answered)
    assert spent.epsilon == pytest.approx(composed.epsilon(delta=delta), rel=1e-9)
    assert spent.epsilon <= cap < composed.plus(price).epsilon(delta=delta)

    reached = attack(asked, releases=answered, repeats=1, games=20_000, seed=50)
    unlimited = attack(asked, releases=100 * answered, repeats=1, games=1_000, seed=52)
    exact, allowed = bounds(asked, releases=answered, delta=delta)
    report(
        f"averaging {answered} different questions, {mechanism}, cap ε {cap:g}",
        reached,
        bound=exact,
        promised=allowed,
        without=unlimited.value,
    )
    assert reached.high > 0.6 * exact
    assert unlimited.low > allowed, "without the cap they would tell more than any (ε, δ) within it allows"
