"""Exact studies as plans: what they may say, and that nothing of them passes for a private one."""

import math

import pytest

from protocols.study import Study
from protocols.study_exact import TASKS
from protocols.study_fields import MalformedStudy
from tests.protocols.exact_forms import OUTCOMES, exact_form, exact_study
from tests.protocols.study_forms import study_form


@pytest.mark.parametrize("model", TASKS)
def test_a_plan_survives_its_own_form_and_keeps_its_hash(model: str) -> None:
    study = exact_study(model)
    again = Study.from_json(study.to_json())
    assert again == study
    assert again.plan_hash() == study.plan_hash()
    assert study.model == model


@pytest.mark.parametrize("model", TASKS)
def test_no_epsilon_is_large_enough_for_it(model: str) -> None:
    study = exact_study(model)
    assert study.privacy.epsilon == math.inf
    assert not 0 < study.privacy.epsilon <= 1e300
    assert "privacy" not in study.to_json()


def test_what_is_asked_is_part_of_the_hash() -> None:
    hashes = {exact_study("cox").plan_hash(), exact_study("cox", ties="breslow").plan_hash()}
    hashes |= {exact_study("cox", grid_days=[30]).plan_hash(), exact_study("cox", iterations=9).plan_hash()}
    assert len(hashes) == 4


def test_a_grid_may_be_written_by_its_step() -> None:
    assert exact_study("kaplan-meier", every_days=70).exact.grid_days == (70, 140, 210, 280, 300)


def test_a_run_has_no_more_sums_than_planned() -> None:
    assert exact_study("logistic", iterations=7).training.steps == 7
    assert exact_study("cox", iterations=7, every_days=30).training.steps == 8
    assert exact_study("kaplan-meier").training.steps == 1


LOOKS = {"every": 1, "fraction": 0.1, "share": 0.1, "loss_bound": 2.0, "patience": 0}


def changed(form: dict, section: str, **keys: object) -> dict:
    return form | {section: form.get(section, {}) | keys}


@pytest.mark.parametrize(
    ("form", "path"),
    [
        (exact_form("logistic") | {"privacy": study_form()["privacy"]}, "privacy"),
        (changed(exact_form("logistic"), "study", model="logistic"), "study.model"),
        (changed(exact_form("logistic"), "study", local="intercept"), "study.local"),
        (exact_form("logistic") | {"validation": LOOKS}, "validation"),
        (changed(exact_form("logistic"), "training", rounds=2), "training.rounds"),
        (changed(exact_form("logistic"), "training", mode="shared-noise"), "training.mode"),
        (changed(exact_form("logistic"), "exact", grid_days=[1]), "exact.grid_days"),
        (changed(exact_form("logistic"), "exact", ties="efron"), "exact.ties"),
        (changed(exact_form("cox"), "exact", ties="exact"), "exact.ties"),
        (changed(exact_form("cox"), "exact", iterations=0), "exact.iterations"),
        (changed(exact_form("cox"), "exact", iterations=101), "exact.iterations"),
        (changed(exact_form("cox"), "exact", tolerance=0.0), "exact.tolerance"),
        (changed(exact_form("cox"), "exact", ridge=-1.0), "exact.ridge"),
        (changed(exact_form("cox"), "exact", grid_days=[30, 10]), "exact.grid_days"),
        (changed(exact_form("cox"), "exact", grid_days=[30, 301]), "exact.grid_days"),
        (exact_form("kaplan-meier") | {"features": study_form()["features"]}, "features"),
        (exact_form("logistic") | {"outcome": OUTCOMES["cox"]}, "outcome.kind"),
        (exact_form("kaplan-meier") | {"outcome": OUTCOMES["logistic"]}, "outcome.kind"),
        (exact_form("logistic", columns=200), "features"),
        (study_form(outcome=OUTCOMES["cox"]), "outcome.kind"),
        (study_form(outcome=OUTCOMES["poisson"]), "outcome.kind"),
        (study_form(training__mode="exact"), "exact"),
        (study_form(exact={"model": "logistic"}), "study.model"),
    ],
)
def test_what_does_not_go_together_is_refused(form: dict, path: str) -> None:
    with pytest.raises(MalformedStudy) as refused:
        Study.from_json(form)
    assert refused.value.path == path


def test_a_private_plan_keeps_its_hash() -> None:
    """Exact studies came later: nothing of them stands in the form of others."""
    assert set(Study.from_json(study_form()).to_json()) == {
        "study",
        "cohort",
        "outcome",
        "features",
        "privacy",
        "training",
        "sites",
    }
