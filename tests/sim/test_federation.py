"""The in-process run is the real thing without the wire: its noise is what the plan says, and it learns."""

import numpy as np
import pytest

from fedtwin.yardsticks import metrics
from node.features.table import FeatureTable
from node.training import models
from node.training.gradient import sum_of_clipped_grads
from privacy import descent, study_noise
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import MaskedSums, Noise, federate
from tests.privacy.seeded_bits import SeededBits
from tests.protocols.study_forms import study_form

SITES = 4
STUDY = Study.from_json(study_form(training__rounds=2, training__steps_per_round=5, training__momentum=0.0))
WIDE = Study.from_json(study_form(study__model="mlp", study__hidden=[200]))


def table(seed: int, patients: int, width: int = 6) -> FeatureTable:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (patients, width)).astype(np.float32)
    y = (rng.random(patients) < 1 / (1 + np.exp(-3.0 * (x[:, 0] - x[:, 1])))).astype(np.float32)
    return FeatureTable(np.arange(patients) + 1000 * seed, x, np.ones(x.shape, bool), y)


TABLES = [table(seed, patients) for seed, patients in ((1, 150), (2, 100), (3, 40), (4, 0))]


def noise_of_a_total(contributing: int, *, tolerance: int = 1) -> float:
    """Standard deviation of what the total holds besides the gradients, if only some sites add a share."""
    plan = study_noise.noise_plan(WIDE, participants=SITES, tolerance=tolerance)
    bits, at = SeededBits(1), descent.initial(WIDE)
    grads = [sum_of_clipped_grads(WIDE, at, rows) for rows in TABLES]
    with_share = [plan.contribution(g, bits=bits) for g in grads[:contributing]]
    without = [plan.to_send(plan.encode(g)) for g in grads[contributing:]]
    total = plan.decode(MaskedSums(WIDE, SITES, round_=1, bits=bits).add([*with_share, *without], step=0))
    return float(np.std(total - np.sum(grads, axis=0)))


def promised() -> float:
    return study_noise.noise_multiplier(WIDE) * WIDE.privacy.sensitivity


def test_masks_cancel_and_leave_the_sum() -> None:
    plan = study_noise.noise_plan(WIDE, participants=SITES, tolerance=1)
    vectors = [np.random.default_rng(n).normal(0, 5, WIDE.parameters) for n in range(SITES)]
    sums = MaskedSums(WIDE, SITES, round_=1, bits=SecureBits())
    total = plan.decode(sums.add([plan.to_send(plan.encode(v)) for v in vectors], step=0))
    unit = 2.0 ** (plan.cut_bits - plan.scale_bits)
    assert np.allclose(total, np.sum(vectors, axis=0), rtol=0.0, atol=(SITES + 1) * unit / 2)
    assert unit < 1e-3 * promised()


def test_the_total_has_the_noise_of_one_curator_even_without_the_tolerated_dropout() -> None:
    """1601 coordinates: a standard deviation is known to 1.8 %."""
    assert noise_of_a_total(SITES - 1) == pytest.approx(promised(), rel=0.08)
    assert noise_of_a_total(SITES) == pytest.approx(promised() * np.sqrt(4 / 3), rel=0.08)


def test_one_share_too_few_is_seen() -> None:
    """The check above rejects the wrong noise: two shares of four fall outside its bounds."""
    assert noise_of_a_total(SITES - 2) < 0.92 * promised()
    assert noise_of_a_total(SITES - 1, tolerance=0) < 0.92 * promised()


def test_noise_per_site_is_as_much_larger_as_it_costs() -> None:
    bits = SecureBits()
    shares = federate(STUDY, TABLES, noise=Noise.SHARES, bits=bits)
    each = federate(STUDY, TABLES, noise=Noise.PER_SITE, bits=bits)
    assert each.noise_sd / shares.noise_sd == pytest.approx(np.sqrt(SITES / (4 / 3)), rel=1e-3)
    assert 0.99 < shares.epsilon <= 1.0
    assert each.epsilon == shares.epsilon


def test_a_federated_run_learns_what_one_site_with_all_patients_would() -> None:
    everyone = FeatureTable(
        np.arange(290), *(np.concatenate([getattr(t, k) for t in TABLES]) for k in ("x", "mask", "y"))
    )
    apart = federate(STUDY, TABLES, noise=Noise.NONE, bits=SecureBits())
    together = federate(STUDY, [everyone], noise=Noise.NONE, bits=SecureBits())
    assert np.allclose(apart.params, together.params, atol=1e-9)
    assert apart.epsilon == np.inf


@pytest.mark.parametrize(
    "changes", [{}, {"study__model": "mlp", "study__hidden": [4]}], ids=["logistic", "mlp"]
)
def test_a_private_model_predicts_patients_it_has_not_seen(changes: dict) -> None:
    study = Study.from_json(study_form(training__steps_per_round=8, privacy__epsilon=4.0, **changes))
    run = federate(study, TABLES, noise=Noise.SHARES, bits=SeededBits(1))
    unseen = table(9, 2000)
    _, auc = metrics(models.logits(study, run.params, unseen.x), unseen.y)
    assert auc > 0.7


def test_two_runs_of_one_plan_share_no_noise() -> None:
    first, second = (federate(STUDY, TABLES, noise=Noise.SHARES, bits=SecureBits()) for _ in range(2))
    assert not np.isclose(first.params, second.params).any()


def test_fewer_sites_than_the_plan_asks_for_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 3 sites"):
        federate(STUDY, TABLES[:2], noise=Noise.SHARES, bits=SecureBits())
