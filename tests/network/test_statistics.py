"""Each statistic goes from a researcher to the hospitals and back, under either noise, near what is true."""

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from node import answering
from privacy import release
from privacy.ledger import Ledger
from protocols.refusal import RefusalCode, Refused
from tests.circe_forms import concept_set
from tests.network.consortium import CLOCK
from tests.network.standing import CIRCE, DRUG, SITES, Standing, question, standing, truth

STATISTICS: dict[str, dict[str, Any]] = {
    "count": {"kind": "count"},
    "by sex": {"kind": "breakdown", "by": "sex"},
    "by age": {"kind": "breakdown", "by": "age_band", "edges": [40, 60], "total": True},
    "by year": {"kind": "breakdown", "by": "year", "first_year": 2019, "last_year": 2021},
    "by site": {"kind": "breakdown", "by": "site_count_band", "edges": [250, 400]},
    "histogram": {"kind": "histogram", "concept": 21, "edges": [0.0, 2.0, 4.0, 6.0]},
    "mean": {"kind": "mean", "concept": 20, "lower": 0.0, "upper": 8.0},
    "contingency": {"kind": "contingency", "other": DRUG},
    "incidence": {"kind": "incidence", "outcome": DRUG, "first_year": 2019, "last_year": 2021},
    "survival": {"kind": "survival", "outcome": DRUG, "horizon_days": 360, "interval_days": 120},
    "attrition": {"kind": "attrition"},
    "feasibility": {"kind": "feasibility", "at_least": 250},
}

# Beyond so many standard deviations noise of either kind comes once in 10^10 cells, or less often.
GAUSSIAN, PURE = 6.5, 17


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with standing(tmp_path_factory.mktemp("statistics")) as found:
        yield found


@pytest.mark.parametrize("pure", [False, True], ids=["gaussian", "laplace"])
@pytest.mark.parametrize("name", STATISTICS)
def test_each_statistic_is_near_the_truth_in_every_cell(network: Standing, name: str, pure: bool) -> None:
    asked = question(STATISTICS[name], pure=pure)
    before = network.spent()
    answer = network.ask(asked)
    exact = truth(asked)
    assert exact.any()
    assert answer.labels == asked.labels
    off = np.abs(np.array(answer.estimates) - exact)
    assert off.max() <= (PURE if pure else GAUSSIAN) * answer.standard_deviation
    assert (answer.contributors, answer.cached) == (SITES, False)
    assert network.spent() == [n + 1 for n in before]
    planned = release.plan(asked, participants=SITES, tolerance=1)
    assert answer.standard_deviation == pytest.approx(planned.standard_deviation(contributors=SITES))


def test_a_circe_definition_is_answered_as_our_own_form_of_it(network: Standing) -> None:
    for statistic in ({"kind": "count"}, STATISTICS["by sex"], STATISTICS["survival"]):
        asked = question(statistic, cohort=CIRCE)
        answer = network.ask(asked)
        assert np.abs(np.array(answer.estimates) - truth(asked)).max() <= GAUSSIAN * answer.standard_deviation


@pytest.mark.slow
def test_a_definition_of_megabytes_is_answered_and_a_flood_is_not(network: Standing) -> None:
    def with_concepts(count: int) -> dict[str, Any]:
        sets = [concept_set(n + 1, list(range(2**30, 2**30 + count))) for n in range(2)]
        for entry in sets:
            for item in entry["expression"]["items"]:
                item["concept"] = {"CONCEPT_ID": item["concept"]["CONCEPT_ID"]}
        return {**CIRCE, "ConceptSets": [*CIRCE["ConceptSets"], *sets]}

    asked = question({"kind": "count"}, cohort=with_concepts(24_500), epsilon=1.01)
    envelope = network.consortium.signed(asked)
    assert len(envelope) > 4 * 2**20  # gRPC's own limit for a message
    answer = network.ask(asked)
    assert abs(answer.estimate - truth(asked)[0]) <= GAUSSIAN * answer.standard_deviation
    with pytest.raises(Refused) as refused:
        network.do(network.consortium.ask(asked, envelope=envelope + b" " * (8 * 2**20)))
    assert refused.value.code is RefusalCode.MALFORMED


def test_what_a_hospital_does_not_allow_is_refused_by_it(network: Standing) -> None:
    """A kind, a form or a mechanism that is not on the policy's list; the others answer."""
    path = network.consortium.node(3).policy
    allowed = path.read_text()
    histogram = question(STATISTICS["histogram"], epsilon=0.9)
    circe = question({"kind": "count"}, cohort=CIRCE, epsilon=0.9)
    pure = question(STATISTICS["by sex"], pure=True, epsilon=0.9)
    try:
        path.write_text(
            allowed.replace('  "histogram",\n', "")
            .replace('cohorts = ["fedtwin", "circe"]', 'cohorts = ["fedtwin"]')
            .replace('mechanisms = ["gaussian", "laplace"]', 'mechanisms = ["gaussian"]')
        )
        before = network.spent()
        for asked in (histogram, circe, pure):
            answer = network.ask(asked)
            assert answer.contributors == 3
            exact = truth(asked, 0, 1, 2)
            off = np.abs(np.array(answer.estimates) - exact).max()
            assert off <= (PURE if asked is pure else GAUSSIAN) * answer.standard_deviation
        assert [after - n for after, n in zip(network.spent(), before, strict=True)] == [3, 3, 3, 0]
    finally:
        path.write_text(allowed)


def test_whom_a_gateway_asks_for_has_an_account_of_their_own(network: Standing) -> None:
    asked = question(STATISTICS["count"], epsilon=0.8, on_behalf_of="uid:7@idp")
    assert network.ask(asked).contributors == SITES
    lines = network.consortium.node(0).ledger
    with Ledger(lines, clock=CLOCK, read_only=True) as ledger:
        accounts = {account.researcher for account in ledger.accounts()}
    assert accounts == {"ada", "ada/uid:7@idp"}


def test_the_audit_trail_says_what_was_asked_and_how_large_the_answer_was(network: Standing) -> None:
    asked = question(STATISTICS["survival"], pure=True, epsilon=0.7)
    network.ask(asked)
    trail = network.consortium.node(1).audit

    def fields_of(event: str) -> dict[str, Any]:
        lines = [json.loads(line) for line in trail.read_text().splitlines()]
        named = [line["fields"] for line in lines if line["event"] == event]
        return next((it for it in named if it["question_id"] == str(asked.question_id)), {})

    network.until(lambda: bool(fields_of("input-sent")))
    accepted = fields_of("question-accepted")
    assert (accepted["statistic"], accepted["mechanism"], accepted["cells"]) == ("survival", "laplace", 7)
    assert fields_of("input-sent")["bytes_sent"] == 7 * 8
    assert fields_of("budget-committed")["epsilon"] == 0.7


def test_a_price_that_no_noise_reaches_is_refused_before_anybody_is_asked(network: Standing) -> None:
    before = network.spent()
    with pytest.raises(Refused) as refused:
        network.ask(question({"kind": "count"}, delta=1e-300))
    assert refused.value.code is RefusalCode.MALFORMED
    assert network.spent() == before


def test_hospitals_that_run_out_of_time_answer_with_noise_around_nothing_and_say_it_at_home_only(
    network: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal would tell whether one patient's records made the difference."""
    asked = question(STATISTICS["by sex"], epsilon=1.7)
    before = network.spent()
    assert (truth(asked) > 50).any()
    monkeypatch.setattr(answering, "SQL_DEADLINE_S", 0.0)
    answer = network.ask(asked)
    assert np.abs(answer.estimates).max() <= GAUSSIAN * answer.standard_deviation < 50
    assert (answer.contributors, network.spent()) == (SITES, [n + 1 for n in before])
    empty: list[str] = []
    ends = time.monotonic() + 10.0  # the trail is written behind the answer
    while not empty and time.monotonic() < ends:
        time.sleep(0.05)
        lines = network.consortium.node(1).audit.read_text().splitlines()
        empty = [line for line in lines if "answered-empty" in line and str(asked.question_id) in line]
    assert len(empty) == 1
    assert '"code":"deadline"' in empty[0].replace(" ", "")
