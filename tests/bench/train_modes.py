"""The modes of training at the same ε on simulated hospitals: what trusting no sum costs, what samples bring.

The plans are those of sim/studies: heart_failure, heart_failure_sampled and heart_failure_local, run by the
code of a node and a coordinator with the masked sums in this process. Patients are new for each seed; the AUC
is over those that were not trained on. Learning rates were chosen on seeds 0 to 3, which are not among these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from importlib import resources
from statistics import mean

import numpy as np
import torch

from fedtwin.yardsticks import metrics
from node.features.table import FeatureTable
from node.training import models
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise, federate
from sim.hospitals import RANGES, populations
from tests.bench.figure import Figure

EPSILONS = (0.3, 1.0, 3.0, 8.0)
MODES = ("heart_failure_sampled", "heart_failure_local")
# a plan's columns, in the names of sim.hospitals
COLUMNS = (
    "age_years", "male", "sbp_mmhg", "cholesterol_mg_dl", "hba1c_percent", "creatinine_mg_dl", "bmi_kg_m2",
    "smoker", "hypertension", "atrial_fibrillation",
)  # fmt: skip


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield each mode's AUC beside that of shared noise at the same ε, and that beside no privacy."""
    torch.set_num_threads(1)
    seeds = range(10, 12 if quick else 20)
    plain = plan("heart_failure")
    free = mean(auc(plain, seed, noise=Noise.NONE) for seed in seeds)
    for epsilon in EPSILONS[1:2] if quick else EPSILONS:
        shared = mean(auc(at(plain, epsilon), seed) for seed in seeds)
        yield Figure(
            f"train.modes.shared_noise.eps{epsilon:g}", shared, "AUC", free, "same plan, not private"
        )
        for mode in MODES:
            found = mean(auc(at(plan(mode), epsilon), seed) for seed in seeds)
            name = mode.removeprefix("heart_failure_")
            yield Figure(
                f"train.modes.{name}.eps{epsilon:g}", found, "AUC", shared, "shared noise, all patients"
            )


def plan(name: str) -> Study:
    """Return an example study."""
    return Study.parse(resources.files("sim").joinpath("studies", f"{name}.toml").read_bytes())


def at(study: Study, epsilon: float) -> Study:
    """Return the study at another ε."""
    return dataclasses.replace(study, privacy=dataclasses.replace(study.privacy, epsilon=epsilon))


def auc(study: Study, seed: int, *, noise: Noise = Noise.SHARES) -> float:
    """Return the AUC, over unseen patients of four hospitals, of the model that the plan trains."""
    rng = np.random.default_rng(seed)
    train, unseen = [], []
    for people in populations(seed=seed):
        scaled = dict(zip(RANGES, people.scaled().T, strict=True))
        x = np.column_stack([_as_planned(name, scaled[name]) for name in COLUMNS]).astype(np.float32)
        y = people.outcome.astype(np.float32)
        chosen = rng.random(len(x)) < study.training.train_fraction
        train.append(_table(x[chosen], y[chosen]))
        unseen.append(_table(x[~chosen], y[~chosen]))
    run = federate(study, train, noise=noise, bits=SecureBits())
    logits = np.concatenate([models.logits(study, run.params, some.x) for some in unseen])
    return float(metrics(logits, np.concatenate([some.y for some in unseen]))[1])


def _as_planned(name: str, scaled: np.ndarray) -> np.ndarray:
    """Return a column as a plan has it: ranges reach from -1 to 1, yes or no is 1 or 0."""
    return scaled if set(np.unique(scaled)) <= {0.0, 1.0} else 2.0 * scaled - 1.0


def _table(x: np.ndarray, y: np.ndarray) -> FeatureTable:
    return FeatureTable(np.arange(len(x)) + 1, x, np.ones(x.shape, dtype=bool), y)
