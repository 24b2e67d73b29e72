"""Exact walks on totals that are written here: where they go, when they end, and what they refuse."""

import math

import numpy as np
import pytest

from privacy import newton
from privacy.descent import NotFinite, digest, initial
from privacy.exact_result import result
from privacy.exact_state import State, Total, Verdict, total_length
from privacy.newton import Newton, OtherPeople
from protocols.study import Study
from tests.protocols.exact_forms import exact_study

NOTHING = np.zeros(0)


def hill(at: float, *, people: float = 50.0, far: float = 1.3) -> np.ndarray:
    """A log-likelihood of one coefficient on which Newton's method without halving runs away from zero."""
    score, information = -math.tanh(at - far), 1.0 / math.cosh(at - far) ** 2
    value = -math.log(math.cosh(at - far))
    return Total(
        np.array([score]), np.array([information]), value, people, 10.0, 3.0, NOTHING, NOTHING
    ).vector()


def walked(study: Study, totals) -> Newton:  # type: ignore[no-untyped-def]
    walk = newton.begin(study, initial(study))
    assert isinstance(walk, Newton)
    while not walk.finished:
        walk.apply(totals(walk))
    return walk


def test_a_step_that_makes_it_worse_is_halved_until_it_does_not() -> None:
    study = exact_study("cox", columns=1)
    plain = 0.0
    while abs(plain) < 100.0:  # it would never end if Newton's method alone went uphill
        plain += -math.tanh(plain - 1.3) * math.cosh(plain - 1.3) ** 2
    walk = walked(study, lambda walk: hill(float(walk.coefficients[0])))
    found = State.of(study, walk.params)
    assert found.verdict is Verdict.CONVERGED
    assert found.coefficients[0] == pytest.approx(1.3, abs=1e-12)


def test_the_same_totals_give_the_same_state_bit_for_bit() -> None:
    study = exact_study("cox", columns=1)
    walks = [walked(study, lambda walk: hill(float(walk.coefficients[0]))) for _ in range(2)]
    assert digest(walks[0].params) == digest(walks[1].params)


def test_a_walk_ends_with_the_sums_that_are_planned() -> None:
    study = exact_study("cox", columns=1, iterations=2)
    walk = walked(study, lambda walk: hill(float(walk.coefficients[0])))
    assert walk.steps_done == 2
    assert State.of(study, walk.params).verdict is Verdict.NOT_CONVERGED
    assert result(study, walk.params).coefficients == ()
    with pytest.raises(ValueError, match="no further"):
        walk.apply(hill(0.0))


@pytest.mark.parametrize("change", [{"people": 49.0}, {"events": 9.0}, {"sites": 2.0}])
def test_a_sum_over_other_people_than_the_first_ends_it(change: dict[str, float]) -> None:
    """Two sums over almost the same hospitals would tell the difference: that of one."""
    study = exact_study("cox", columns=1)
    walk = Newton(study, initial(study))
    walk.apply(hill(0.0))
    at = float(walk.coefficients[0])
    found = Total.of(study, hill(at))
    fields = {"people": found.people, "events": found.events, "sites": found.sites} | change
    before = digest(walk.params)
    other = Total(
        found.score, found.information, found.log_likelihood, **fields, grid_events=NOTHING, grid_risk=NOTHING
    )
    with pytest.raises(OtherPeople):
        walk.apply(other.vector())
    assert digest(walk.params) == before
    assert walk.steps_done == 1


def test_a_total_of_another_shape_or_without_numbers_is_refused() -> None:
    study = exact_study("logistic", columns=2)
    walk = newton.begin(study, initial(study))
    good = np.ones(total_length(study))
    for wrong in (good[:-1], np.full(len(good), np.nan), np.full(len(good), np.inf)):
        with pytest.raises(NotFinite):
            walk.apply(wrong)
    with pytest.raises(NotFinite):
        newton.begin(study, np.full(study.parameters, np.nan))


def test_nothing_is_reported_of_a_walk_that_has_not_ended() -> None:
    study = exact_study("cox", columns=1)
    walk = Newton(study, initial(study))
    walk.apply(hill(0.0))
    found = result(study, walk.params)
    assert found.verdict is Verdict.UNFINISHED
    assert found.coefficients == ()
    assert found.log_likelihood is None


def test_every_verdict_has_words() -> None:
    assert len({verdict.words for verdict in Verdict}) == len(Verdict)
