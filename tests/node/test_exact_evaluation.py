"""An exact result on one hospital's people: each figure against what it must be, by hand or statsmodels."""

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from sklearn import metrics
from statsmodels.duration.survfunc import SurvfuncRight

from node.features.table import FeatureTable
from node.training import exact_evaluation
from node.training.exact_evaluation import Fitted, calibration, curve, performance, predictions
from privacy.exact_result import result
from privacy.exact_state import State, Verdict
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise, federate
from tests.protocols.exact_forms import exact_study
from tests.sim.test_exact_models import amounts, counts, days, hospitals, yes_no

Vector = NDArray[np.float64]
GRID = {"grid_days": [30, 100, 200, 300]}


def fitted(model: str, tables: list[FeatureTable], **changes: object) -> tuple[Study, Vector, Fitted]:
    columns = None if model == "kaplan-meier" else tables[0].x.shape[1]
    study = exact_study(model, columns=columns, **changes)
    params = federate(study, tables, noise=Noise.SHARES, bits=SecureBits()).params
    return study, params, Fitted.of(study, params)


def test_a_logistic_fit_is_judged_as_another_library_judges_it() -> None:
    tables = hospitals(3, yes_no)
    study, params, found = fitted("logistic", tables)
    here = tables[0]
    p, y = predictions(found, here), here.y.astype(np.float64)
    design = np.column_stack([here.x.astype(np.float64), np.ones(len(here))])
    by_hand = 1.0 / (1.0 + np.exp(-design @ State.of(study, params).coefficients))
    assert p == pytest.approx(by_hand, abs=1e-12)
    said = performance(found, here)
    assert said["auc"] == pytest.approx(metrics.roc_auc_score(y, by_hand))
    assert said["brier"] == pytest.approx(metrics.brier_score_loss(y, by_hand))
    assert said["deviance"] == pytest.approx(2 * len(y) * metrics.log_loss(y, by_hand))
    null = sm.GLM(y, np.ones((len(y), 1)), family=sm.families.Binomial()).fit()
    assert said["null_deviance"] == pytest.approx(null.deviance)
    assert said["deviance_explained"] == pytest.approx(1 - said["deviance"] / null.deviance)
    bins = calibration(found, here)
    assert sum(row["patients"] * row["observed"] for row in bins) == pytest.approx(y.sum())
    everyone = FeatureTable(
        np.arange(sum(map(len, tables))),
        *(np.concatenate([getattr(table, name) for table in tables]) for name in ("x", "mask", "y")),
    )
    # with an intercept, a fit's predictions add up to what came, over all of its people
    assert predictions(found, everyone).sum() == pytest.approx(everyone.y.sum(), abs=1e-6)


def test_a_linear_fit_is_told_in_the_outcomes_own_unit() -> None:
    tables = hospitals(3, amounts)
    study, params, found = fitted("linear", tables)
    eta = tables[0].x.astype(np.float64) @ State.of(study, params).coefficients[:-1]
    by_hand = 140.0 + 50.0 * (eta + State.of(study, params).coefficients[-1])  # of a range of 90 to 190
    y = 140.0 + 50.0 * tables[0].y.astype(np.float64)
    assert predictions(found, tables[0]) == pytest.approx(by_hand)
    said = performance(found, tables[0])
    assert said["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, by_hand))
    assert said["r2"] == pytest.approx(metrics.r2_score(y, by_hand))
    assert sum(row["patients"] * row["observed"] for row in calibration(found, tables[0])) == pytest.approx(
        y.sum()
    )


def test_a_poisson_fit_has_the_deviance_of_another_library() -> None:
    tables = hospitals(3, counts)
    _, _, found = fitted("poisson", tables)
    mean, y = predictions(found, tables[0]), tables[0].y.astype(np.float64)
    family = sm.families.Poisson()
    said = performance(found, tables[0])
    assert said["deviance"] == pytest.approx(family.deviance(y, mean))
    assert said["null_deviance"] == pytest.approx(family.deviance(y, np.full(len(y), y.mean())))
    assert said["mean_observed"] == pytest.approx(y.mean())
    assert said["mean_absolute_error"] == pytest.approx(np.abs(mean - y).mean())
    nobody_came = replace(tables[0], y=np.zeros_like(tables[0].y))
    assert performance(found, nobody_came)["deviance_explained"] is None


def concordance_by_hand(risk: Vector, last: Vector, came: Vector) -> float:
    right = pairs = 0.0
    for i in range(len(risk)):
        for j in range(len(risk)):
            if came[i] and (last[i] < last[j] or (last[i] == last[j] and not came[j])):
                pairs += 1
                right += 1.0 if risk[i] > risk[j] else 0.5 * float(risk[i] == risk[j])
    return right / pairs


def test_a_cox_fit_ranks_people_as_by_hand_and_expects_as_many_events_as_came() -> None:
    tables = hospitals(3, days, quiet=False)
    study, params, found = fitted("cox", tables, **GRID)
    said = [performance(found, table) for table in tables]
    eta = tables[0].x.astype(np.float64) @ State.of(study, params).coefficients
    last, came = tables[0].y.astype(np.float64).T
    assert said[0]["concordance"] == pytest.approx(concordance_by_hand(eta, last, came))
    assert said[0]["concordance"] > 0.6  # their hazards do go with their columns
    assert said[0]["log_likelihood"] > said[0]["log_likelihood_at_zero"]
    at_fit = sum(one["log_likelihood"] for one in said)
    assert at_fit == pytest.approx(State.of(study, params).log_likelihood)  # strata add up
    expected = sum(one["expected_events"] for one in said)
    assert expected == pytest.approx(sum(table.y[:, 1].sum() for table in tables))
    assert said[0]["expected_events"] != pytest.approx(tables[0].y[:, 1].sum())
    low, high = said[0]["observed_to_expected_ci95"]
    assert low < said[0]["observed_to_expected"] < high
    bins = calibration(found, tables[0])
    assert len(bins) == 10
    free = predictions(found, tables[0])
    assert bins[0]["predicted"] == pytest.approx(np.sort(1.0 - free[:, -1])[: bins[0]["patients"]].mean())
    assert (np.diff(free, axis=1) <= 0).all()


def test_a_cox_fit_without_a_grid_ranks_and_has_no_probabilities() -> None:
    tables = hospitals(3, days)
    _, _, found = fitted("cox", tables)
    assert calibration(found, tables[0]) == []
    assert set(performance(found, tables[0])) == {
        *("patients", "with_outcome", "concordance", "log_likelihood", "log_likelihood_at_zero")
    }
    with pytest.raises(ValueError, match="baseline"):
        predictions(found, tables[0])


def test_a_curve_is_held_against_that_of_this_hospital() -> None:
    tables = hospitals(3, days, columns=0)
    study, params, found = fitted("kaplan-meier", tables, every_days=1)
    here = tables[0]
    points = curve(found, params, here)
    theirs = SurvfuncRight(here.y[:, 0], here.y[:, 1])
    mine = {point["day"]: point for point in points}
    for day, survival, error in zip(theirs.surv_times, theirs.surv_prob, theirs.surv_prob_se, strict=True):
        assert mine[int(day)]["here"][0] == pytest.approx(survival)
        low, high = mine[int(day)]["here"][1:]
        assert (low is None) or low < survival < high
        assert error >= 0
    fleet = result(study, params).curve
    assert [point["all_hospitals"][0] for point in points] == [point.survival for point in fleet]
    said = performance(found, here)
    apart = np.array([point["here"][0] - point["all_hospitals"][0] for point in points])
    assert said["largest_difference"] == apart[np.abs(apart).argmax()]
    assert said["largest_difference_day"] == points[int(np.abs(apart).argmax())]["day"]
    assert said["free_at_end"] == points[-1]["here"][0]
    assert said["median_day"] == theirs.quantile(0.5)
    every = [performance(found, table) for table in tables]
    assert sum(one["expected_events"] for one in every) == pytest.approx(
        sum(table.y[:, 1].sum() for table in tables)
    )
    assert every[1]["observed_to_expected"] == 0.0  # where nothing ever happens
    assert every[1]["observed_to_expected_ci95"] is None


def test_nobody_gives_no_figures_and_no_answer_no_fit() -> None:
    tables = hospitals(3, yes_no)
    study, params, found = fitted("logistic", tables)
    nobody = tables[0].rows(np.zeros(len(tables[0]), dtype=bool))
    assert performance(found, nobody) == {"patients": 0}
    assert calibration(found, nobody) == []
    assert list(exact_evaluation.by_group(found, tables[0], [("none", np.zeros(len(tables[0]), bool))])) == []
    state = replace(State.of(study, params), verdict=Verdict.SEPARATED)
    with pytest.raises(ValueError, match="converged"):
        Fitted.of(study, state.params(study))
