"""Hospitals with seven modalities: the same ones for a seed, and the best possible ranking known."""

import numpy as np
import pytest

from fedtwin.yardsticks import fit_logistic, metrics
from node.training import inputs, models
from sim import multimodal
from sim.federation import Noise, federate
from tests.privacy.seeded_bits import SeededBits

NAMES = [kind.name for kind in multimodal.KINDS]


def everybody(patients: int, *, seed: int = 1, sites: int = 4) -> multimodal.Patients:
    some = multimodal.hospitals(seed=seed, sites=sites, patients=patients)
    offered = np.concatenate([np.broadcast_to(p.offered, p.present.shape) for p in some])
    values, present, y = (np.concatenate([getattr(p, n) for p in some]) for n in ("values", "present", "y"))
    return multimodal.Patients(values, present, offered, y)


def test_the_same_seed_gives_the_same_patients_and_sites_of_the_asked_size() -> None:
    first, again, other = (multimodal.hospitals(seed=s, sites=5, patients=1_003) for s in (7, 7, 8))
    assert sum(len(p.y) for p in first) == 1_003
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.table().x, two.table().x)
    assert not np.array_equal(first[0].values[:5], other[0].values[:5])


def test_modalities_are_missing_as_in_real_networks_and_nobody_is_without_any() -> None:
    found = everybody(20_000)
    share = dict(zip(NAMES, found.present.mean(axis=0), strict=True))
    assert share["ehr"] > 0.95
    assert share["genomics"] < 0.4
    assert found.present.any(axis=1).all()
    labs = found.present[:, NAMES.index("labs")]
    assert labs[found.y].mean() > labs[~found.y].mean() + 0.02  # being measured says something


def test_predicted_odds_are_the_true_odds() -> None:
    """Among patients to whom the closed form gives a risk, that share has the outcome."""
    found = everybody(30_000)
    risk = 1 / (1 + np.exp(-multimodal.bayes_logits(found)))
    for low in np.arange(0.05, 0.75, 0.1):
        here = (risk >= low) & (risk < low + 0.1)
        assert found.y[here].mean() == pytest.approx(risk[here].mean(), abs=0.03)


def test_no_model_ranks_better_than_the_closed_form_and_each_of_its_terms_counts() -> None:
    found = everybody(15_000)
    table = multimodal.pooled([found.table()])
    best = metrics(multimodal.bayes_logits(found), table.y)[1]
    owner = np.repeat(np.arange(len(NAMES)), [kind.columns for kind in multimodal.KINDS])
    design = np.column_stack([table.x, found.present]).astype(np.float64)
    fitted = fit_logistic(design, table.y.astype(np.float64))
    linear = metrics(design @ fitted[:-1] + fitted[-1], table.y)[1]
    assert best - 0.04 < linear < best - 0.002  # the pair that only speaks together is beyond a linear model
    first, second = multimodal._pair()
    both = found.present[:, owner[first]] & found.present[:, owner[second]]
    together = (found.values[:, first] * found.values[:, second])[both]
    assert np.corrcoef(together, found.y[both])[0, 1] > 0.25
    assert abs(np.corrcoef(found.values[both, first], found.y[both])[0, 1]) < 0.05


def test_dropping_takes_the_share_that_was_asked_and_leaves_one_modality() -> None:
    found = everybody(5_000)
    less = found.dropping(0.6, rng=np.random.default_rng(1))
    assert not (less.present & ~found.present).any()
    assert less.present.any(axis=1).all()
    assert less.present.sum() / found.present.sum() == pytest.approx(0.4, abs=0.03)


def test_absent_modalities_are_blank_in_the_rows_that_a_node_would_have() -> None:
    found = everybody(300)
    table, study = found.table(), multimodal.study()
    assert np.array_equal(inputs.presence(study, table), found.present)
    assert not table.x[~table.mask].any()


def test_a_fusion_model_is_trained_with_noise_shares_on_what_each_patient_has() -> None:
    study = multimodal.study(
        training={"steps_per_round": 12, "learning_rate": 4.0, "expected_patients": 3_000},
        study={"hidden": [8]},
    )
    hospitals = multimodal.hospitals(seed=3, sites=3, patients=3_000)
    run = federate(study, [p.table() for p in hospitals], noise=Noise.SHARES, bits=SeededBits(1))
    unseen = everybody(4_000, seed=4)
    auc = metrics(models.outputs(study, run.params, unseen.table())[:, 0], unseen.y.astype(np.float64))[1]
    assert run.epsilon <= 3.0
    assert 0.68 < auc < metrics(multimodal.bayes_logits(unseen), unseen.y.astype(np.float64))[1]
