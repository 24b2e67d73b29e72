"""One noisy sum of sufficient statistics on the UCI heart data, beside the descent with shared noise.

FLamby's rows, split and metric, as in the bench `heart`; ε = 1 and 0.1 at δ = 1e-5. The plans are packaged
ones with the mode changed and every key of [one_shot] at its default. Beside them, simulated hospitals of
growing size, against the coefficients that made their outcomes.
"""

from collections.abc import Iterable

import numpy as np
import torch

from node.features.table import FeatureTable
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise, federate
from tests.bench.figure import Figure
from tests.bench.heart import (
    RESPLITS,
    SEEDS,
    SHARED_HEART,
    SMALL_BUDGET_DRAWS,
    accuracy,
    auc,
    federated,
    mean,
    textbook_score,
)
from tests.bench.heart_data import FLAMBY_SEED, heart_study, hospitals, small_budget_study

SIMULATED_SITES = 4
COLUMNS = 10


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield the rows on the heart data, if it is there, and on simulated hospitals."""
    torch.set_num_threads(1)
    yield from simulated(quick=quick)
    if not SHARED_HEART.is_dir():
        return
    study = heart_study()
    everyone = hospitals(SHARED_HEART, study)
    seeds = 2 if quick else SEEDS
    for descent, draws in ((study, seeds), (small_budget_study(), seeds * SMALL_BUDGET_DRAWS)):
        epsilon, rows = descent.privacy.epsilon, everyone
        if descent is not study:
            rows = hospitals(SHARED_HEART, descent)
        cut = [hospital.cut(seed=FLAMBY_SEED) for hospital in rows]
        one = one_shot(descent, epsilon=epsilon)
        runs = [federated(one, cut, Noise.SHARES) for _ in range(draws)]
        beside = [federated(descent, cut, Noise.SHARES) for _ in range(draws)]
        name = f"one_shot.heart_eps{epsilon:g}"
        shared = mean([accuracy(run, cut) for run in beside])
        yield Figure(name, mean([accuracy(run, cut) for run in runs]), "accuracy", shared, "shared noise")
        shared = mean([auc(run, cut) for run in beside])
        yield Figure(f"{name}.auc", mean([auc(run, cut) for run in runs]), "AUC", shared, "shared noise")
    resplit = [[h.cut(seed=seed) for h in everyone] for seed in range(2 if quick else RESPLITS)]
    one = one_shot(study, epsilon=1.0)
    scores = [accuracy(federated(one, again, Noise.SHARES), again) for again in resplit]
    beside = [accuracy(federated(study, again, Noise.SHARES), again) for again in resplit]
    yield Figure("one_shot.heart_resplit_eps1", mean(scores), "accuracy", mean(beside), "shared noise")
    textbook = mean([accuracy(textbook_score(study), again) for again in resplit])
    yield Figure("one_shot.heart_resplit_eps1.vs_textbook", mean(scores), "accuracy", textbook, "textbook")


def one_shot(study: Study, *, epsilon: float) -> Study:
    """Return the plan in the mode of one sum."""
    form = study.to_json()
    privacy = {key: value for key, value in form["privacy"].items() if key != "clip_norm"}
    form |= {"privacy": privacy | {"epsilon": epsilon}, "training": {"mode": "one-shot"}}
    return Study.from_json(form)


def simulated(*, quick: bool) -> Iterable[Figure]:
    """Yield how far a run's AUC lies from that of the true coefficients, by the number of patients."""
    features = [
        {"name": f"f{i}", "kind": "present", "table": "condition_occurrence", "concept_id": 1000 + i}
        for i in range(COLUMNS)
    ]
    study = one_shot(changed_features(heart_study(), features), epsilon=1.0)
    weights = np.array([1.5, -1.0, 0.8, 0.5, 0.0, 0.0, 0.3, 0.0, -0.6, 0.4, -0.5])
    for patients in (1_000, 5_000) if quick else (1_000, 5_000, 20_000):
        lost = []
        for seed in range(3 if quick else 10):
            rng = np.random.default_rng(seed)
            tables = [_people(patients // SIMULATED_SITES, weights, rng) for _ in range(SIMULATED_SITES)]
            run = federate(study, tables, noise=Noise.SHARES, bits=SecureBits())
            test = _people(5_000, weights, rng)
            lost.append(_auc(weights, test) - _auc(run.params, test))
        yield Figure(f"one_shot.simulated_{patients}_eps1.auc_lost", mean(lost), "AUC")


def changed_features(study: Study, features: list[dict[str, object]]) -> Study:
    """Return the plan with other features."""
    return Study.from_json(study.to_json() | {"features": features})


def _people(count: int, weights: np.ndarray, rng: np.random.Generator) -> FeatureTable:
    x = rng.uniform(-1.0, 1.0, (count, COLUMNS)).astype(np.float32)
    eta = np.column_stack([x, np.ones(count)]) @ weights
    y = (rng.random(count) < 1.0 / (1.0 + np.exp(-eta))).astype(np.float32)
    return FeatureTable(np.arange(count), x, np.ones(x.shape, dtype=bool), y)


def _auc(weights: np.ndarray, table: FeatureTable) -> float:
    from fedtwin.yardsticks import metrics

    return float(metrics(table.x @ weights[:-1] + weights[-1], table.y)[1])
