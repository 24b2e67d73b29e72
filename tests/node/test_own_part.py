"""A hospital's own part stays there, is paid for by the plan, and suits its patients."""

from pathlib import Path

import numpy as np
import pytest

from node.features.table import FeatureTable
from node.training import models
from node.training.own_part import OwnPart, OwnParts, fitted, noise_plan
from privacy import descent, study_noise
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise, federate
from tests.protocols.study_forms import study_form

STUDY = Study.from_json(study_form(study__local="intercept", privacy__epsilon=8.0))
WIDTH = len(STUDY.columns)


def site(seed: int, shift: float, patients: int = 300) -> FeatureTable:
    """Patients whose outcome follows one column, and a level that only this hospital has."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (patients, WIDTH)).astype(np.float32)
    y = rng.random(patients) < 1 / (1 + np.exp(-(2.0 * x[:, 0] + shift)))
    return FeatureTable(np.arange(patients), x, np.ones(x.shape, bool), y.astype(np.float32))


def test_an_own_part_is_no_part_of_what_the_sites_share() -> None:
    plain = Study.from_json(study_form())
    assert STUDY.parameters == plain.parameters
    assert STUDY.local_parameters == 1
    assert plain.local_parameters == 0
    assert STUDY.plan_hash() != plain.plan_hash()


def test_the_noise_of_an_own_sum_is_that_of_the_whole_total() -> None:
    plan = noise_plan(STUDY)
    expected = study_noise.noise_multiplier(STUDY) * STUDY.privacy.clip_norm
    drawn = []
    for _ in range(400):
        part = OwnPart(STUDY, bits=SecureBits())
        part.step(np.zeros(1))
        drawn.append(part.values[0])
    step = STUDY.training.learning_rate / (STUDY.training.expected_patients / STUDY.sites.minimum)
    assert np.std(drawn) == pytest.approx(step * expected, rel=0.2)  # half of it would be far out
    assert plan.standard_deviation(contributors=1) == pytest.approx(expected, rel=0.01)


def test_own_parts_find_their_hospitals_levels_while_the_shared_model_is_trained() -> None:
    study = Study.from_json(
        study_form(
            study__local="intercept",
            privacy__epsilon=8.0,
            training__steps_per_round=15,
            training__expected_patients=900,
            training__learning_rate=2.0,
        )
    )
    tables = [site(1, -1.5), site(2, 0.0), site(3, 1.5)]
    run = federate(study, tables, noise=Noise.SHARES, bits=SecureBits())
    low, middle, high = (float(own[0]) for own in run.own)
    assert low < middle - 0.5 < high - 1.0
    final = [fitted(study, run.params, table) for table in tables]
    for own, table in zip(final, tables, strict=True):
        p = 1 / (1 + np.exp(-models.outputs(study, run.params, table, own=own)[:, 0]))
        assert p.mean() == pytest.approx(table.y.mean(), abs=0.01)


def test_a_site_with_one_outcome_gets_a_finite_part() -> None:
    table = site(4, 0.0, patients=30)
    sick = FeatureTable(table.person_ids, table.x, table.mask, np.ones(30, np.float32))
    own = fitted(STUDY, descent.initial(STUDY), sick)
    assert 1.0 < own[0] < 10.0


def test_parts_are_kept_for_their_plan_and_only_readable_by_the_node(tmp_path: Path) -> None:
    parts = OwnParts(tmp_path / "own_parts")
    other = Study.from_json(study_form(study__local="intercept", privacy__epsilon=1.0))
    assert parts.load(STUDY) is None
    parts.keep(STUDY, np.array([0.25]))
    parts.keep(STUDY, np.array([0.5]), final=True)
    assert parts.load(STUDY) == np.array([0.25])
    assert parts.load(STUDY, final=True) == np.array([0.5])
    assert parts.load(other) is None
    assert all(file.stat().st_mode & 0o077 == 0 for file in parts.folder.iterdir())
