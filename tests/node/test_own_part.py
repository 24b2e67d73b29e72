"""A hospital's own part stays there, is paid for by the plan, and suits its patients."""

from pathlib import Path

import numpy as np
import pytest

from node.features.table import FeatureTable
from node.training import local_sgd, models
from node.training.contributions import contribution
from node.training.gradient import Sums, clipped_sums
from node.training.local_sgd import Site
from node.training.own_fit import fitted
from node.training.own_part import OwnPart, OwnParts, noise_plan
from privacy import descent, study_noise, walks
from privacy.adaptive_descent import AdaptiveDescent
from privacy.rng import SecureBits
from privacy.server_step import ServerStep
from protocols.study import Study
from sim.federation import Noise, federate
from tests.node.hub import Hospitals
from tests.node.test_rounds import fill_all
from tests.privacy.seeded_bits import SeededBits
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
    for seed in range(400):
        part = OwnPart(STUDY, bits=SeededBits(seed))
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
    run = federate(study, tables, noise=Noise.SHARES, bits=SeededBits(1))
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


# ---- with a clip norm that adapts, and with local training ----

LOCAL = {"local_steps": 4, "sampling_rate": 1.0, "update_clip": 50.0}


def adapting(**changes: object) -> Study:
    clipping = {"quantile": 0.5, "learning_rate": 0.3}
    return Study.from_json(study_form(study__local="intercept", clipping=clipping, **changes))


def local(section: dict | None = None, **changes: object) -> Study:
    form = study_form(study__local="intercept", training__mode="local", **changes)
    return Study.from_json(form | {"local": LOCAL | (section or {})})


@pytest.mark.parametrize("clip_norm", [0.05, 0.4, 3.0])
def test_an_adapting_norm_bounds_gradients_count_and_own_part_side_by_side(clip_norm: float) -> None:
    study = adapting(privacy__clip_norm=0.7)
    walk = AdaptiveDescent(study, descent.initial(study))
    walk.clip_norm = clip_norm
    rows, draws = site(5, 0.5, patients=30), Site(SecureBits())
    whole = contribution(study, walk, rows, site=draws, own=np.array([0.3]))
    moved = []
    for left_out in range(30):
        fewer = contribution(
            study, walk, rows.rows(np.arange(30) != left_out), site=draws, own=np.array([0.3])
        )
        moved.append(np.hypot(*(np.linalg.norm(a - b) for a, b in both(whole, fewer))))
    assert max(moved) <= 0.7
    assert abs(whole.own[0] - fewer.own[0]) > 0.0


def both(one: Sums, other: Sums) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return (one.shared, other.shared), (one.own, other.own)


def test_an_adapting_norm_moves_an_own_part_by_the_gradients_it_clips() -> None:
    study, rows = adapting(), site(6, 1.0, patients=50)
    plain = Study.from_json(study_form(study__local="intercept", privacy__clip_norm=0.2))
    walk = AdaptiveDescent(study, descent.initial(study))
    walk.clip_norm = 0.2
    parts = [OwnPart(one, bits=SecureBits()) for one in (study, plain)]
    parts[0].follow(contribution(study, walk, rows, site=Site(SecureBits())), noisy=False)
    parts[1].follow(clipped_sums(plain, walk.params, rows, own=np.zeros(1)), noisy=False)
    assert parts[0].values == pytest.approx(parts[1].values, rel=1e-9)
    noise = [OwnPart(study, bits=SeededBits(seed)) for seed in range(300)]
    still = contribution(study, walk, rows.rows(np.zeros(50, bool)), site=Site(SecureBits()))
    for part in noise:
        part.follow(still)
    step = study.training.learning_rate / (study.training.expected_patients / study.sites.minimum)
    expected = step * study_noise.noise_multiplier(study) * walk.clip_norm / np.sqrt(1.0 - 0.02)
    assert np.std([part.values[0] for part in noise]) == pytest.approx(expected, rel=0.2)


def test_local_steps_move_model_and_own_part_together() -> None:
    study, rows = local(training__l2=0.1), site(7, 1.0, patients=60)
    walk, start = ServerStep(study, descent.initial(study)), np.array([0.4])
    found = local_sgd.contribution(study, walk, rows, site=Site(SecureBits(), noisy=False), own=start)
    x, own, velocity, own_velocity = walk.params, start, 0.0, 0.0
    training = study.training
    for _ in range(4):
        sums = clipped_sums(study, x, rows, own=own)
        expected = training.expected_patients / study.sites.minimum
        velocity = training.momentum * velocity + sums.shared / expected + 0.1 * x
        own_velocity = training.momentum * own_velocity + sums.own / expected  # the ridge is the model's
        x = x - training.learning_rate * velocity
        own = own - training.learning_rate * own_velocity
    assert np.allclose(found.own, own, atol=1e-12)
    assert not np.allclose(found.own, start)
    assert np.allclose(found.shared[:-1] * 50.0, x - walk.params, atol=1e-9)
    assert found.shared.shape == (study.parameters + 1,), "nothing of the own part leaves"


def test_the_noise_of_a_local_step_is_on_the_own_part_too() -> None:
    study = local({"local_steps": 300})
    seen: list[float] = []

    def watch(here: np.ndarray, sample: FeatureTable, noisy: np.ndarray) -> None:
        sums = clipped_sums(study, here[:-1], sample, own=here[-1:])
        seen.append(float(noisy[-1] - sums.own[0]))

    walk = ServerStep(study, descent.initial(study))
    local_sgd.contribution(study, walk, site(8, 0.0, patients=5), site=Site(SeededBits(1), watch=watch))
    sigma = study_noise.noise_multiplier(study) * study.privacy.clip_norm
    assert np.std(seen) == pytest.approx(sigma, rel=0.2)


@pytest.mark.parametrize("mode", ["local", "adapting"])
def test_own_parts_find_their_hospitals_levels_in_the_other_modes(mode: str) -> None:
    changes = {
        "privacy__epsilon": 20.0,
        "training__rounds": 2,
        "training__steps_per_round": 8,
        "training__expected_patients": 900,
        "training__learning_rate": 2.0,
        "training__momentum": 0.0,
    }
    study = local(**changes) if mode == "local" else adapting(**changes)
    tables = [site(1, -1.5), site(2, 0.0), site(3, 1.5)]
    run = federate(study, tables, noise=Noise.SHARES, bits=SeededBits(1))
    low, middle, high = (float(own[0]) for own in run.own)
    assert low < middle - 0.3 < high - 0.6
    assert 19.9 < run.epsilon <= 20.0


@pytest.mark.parametrize("mode", ["local", "adapting"])
def test_hospitals_keep_their_own_parts_and_are_charged_as_without_them(tmp_path: Path, mode: str) -> None:
    study = local() if mode == "local" else adapting()
    without = Study.from_json(study.to_json() | {"study": STUDY_WITHOUT})
    with Hospitals(tmp_path, 3) as network:
        fill_all(network, (40, 25, 10))
        network.approve(study)
        carried = walks.initial(study)
        for number in (1, 2):
            replies = network.round(study, carried, round=number)
            assert len({reply.parameters_digest for reply in replies}) == 1, replies
        lengths = {len(vector) for _, vector in network.hub.vectors}
        assert lengths == {walks.vector_length(study)} == {walks.vector_length(without)}
        parts = [OwnParts(hospital.home / "own_parts").load(study) for hospital in network.all]
        assert len({float(part[0]) for part in parts if part is not None}) == 3
        for hospital in network.all:
            [event] = {e.event.times(1) for e in hospital.ledger.entries() if e.event is not None}
            assert event == study_noise.event(without, steps=1).times(1)
            assert 0.99 < hospital.ledger.spent(delta=1e-5).epsilon <= 1.0


STUDY_WITHOUT = {"name": "made-up", "project": "tests", "model": "logistic"}
